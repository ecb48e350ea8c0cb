//! What agents do together and people look at: conflicts, messages, meetings, autonomy.

mod autonomy;
mod escalations;
mod escalations_waiting;
mod meetings;
mod meetings_conducted;
mod messages;

use std::time::Duration;

use chrono::DateTime;
use quarterdeck_domain::audit::Actor;
use quarterdeck_domain::conflict::{Conflict, ConflictType, Position, SeniorityLevel};
use quarterdeck_domain::text::NotBlank;
use quarterdeck_http::limits::Overrides;
use quarterdeck_testkit::{TestDb, TestServer};
use quarterdeck_work::escalations::Waiting;
use serde_json::{Value, json};

/// Longer than anything takes, and shorter than a waiter would look for itself.
const SOON: Duration = Duration::from_secs(10);

fn words<const MAX: usize>(text: &str) -> NotBlank<MAX> {
    NotBlank::new(text).expect("a text")
}

fn position(agent: &str, department: &str) -> Position {
    Position {
        agent_id: words(agent),
        agent_department: words(department),
        agent_level: SeniorityLevel::Senior,
        position: words(&format!("{agent} is right")),
        reasoning: words("experience"),
        timestamp: DateTime::from_timestamp(1_799_999_000, 0).expect("a time"),
    }
}

/// A conflict of ada, bob and eve.
fn conflict(server: &TestServer) -> Conflict {
    let positions =
        vec![position("ada", "engineering"), position("bob", "product"), position("eve", "product")];
    let task = Some(words("task-1"));
    Conflict::new(ConflictType::Priority, task, words("what comes first"), positions, server.now())
        .expect("a sound conflict")
}

fn resolver() -> Actor {
    Actor::system("escalations.resolver")
}

/// Somebody asks people and waits.
async fn escalate(server: &TestServer) -> Waiting {
    server.app.escalations.escalate(conflict(server), &resolver()).await.expect("it is stored")
}

/// An escalation nobody waits for any more; its id.
async fn left(server: &TestServer) -> String {
    escalate(server).await.id().to_owned()
}

fn winner(agent: &str) -> Value {
    json!({"decision": {"type": "winner", "winning_agent_id": agent, "reasoning": "as the plan says"}})
}

fn at(id: &str, action: &str) -> String {
    format!("/api/v1/conflicts/escalations/{id}/{action}")
}

/// Another copy of the program where the database can have one.
async fn elsewhere(server: &TestServer) -> Option<TestServer> {
    if server.db.is_shared() { Some(server.second(|_| {}).await) } else { None }
}

/// A server on which limits of operations count.
async fn limited() -> TestServer {
    TestServer::with(TestDb::sqlite(), |options| {
        options.overrides = Overrides::new(true, &json!({}), true, &json!({}));
    })
    .await
}
