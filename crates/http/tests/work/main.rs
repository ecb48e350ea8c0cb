//! Tasks, and what people decide about them.

mod approvals;
mod review;
mod tasks;
mod tasks_refused;

use quarterdeck_testkit::{Answer, Caller};
use serde_json::{Value, json};

/// A body that makes a task.
fn new(title: &str) -> Value {
    json!({"title": title, "description": "what it is", "type": "development", "project": "p", "created_by": "ceo"})
}

/// A new task of this caller.
async fn task(caller: &mut Caller) -> Value {
    caller.post("/api/v1/tasks", &new("a task")).await.expect(201).data()
}

fn path(task: &Value) -> String {
    format!("/api/v1/tasks/{}", id(task))
}

fn id(thing: &Value) -> String {
    thing["id"].as_str().expect("an id").to_owned()
}

/// Asks to move a task, and to give it to `agent`.
async fn go(caller: &mut Caller, task: &Value, target: &str, agent: Option<&str>) -> Answer {
    let body = json!({"target_status": target, "assigned_to": agent});
    caller.post(&format!("{}/transition", path(task)), &body).await
}

/// A new task, moved along the shortest way to this status.
async fn task_in(caller: &mut Caller, status: &str) -> Value {
    let mut task = task(caller).await;
    let way: &[&str] = match status {
        "created" => &[],
        "rejected" => &["rejected"],
        "assigned" => &["assigned"],
        "in_progress" => &["assigned", "in_progress"],
        "in_review" => &["assigned", "in_progress", "in_review"],
        "completed" => &["assigned", "in_progress", "in_review", "completed"],
        other => &["assigned", other],
    };
    for step in way {
        let agent = (*step == "assigned").then_some("agent-1");
        task = go(caller, &task, step, agent).await.expect(201).data();
    }
    task
}

/// A body that asks for a decision.
fn asking(action: &str) -> Value {
    json!({"action_type": action, "title": "may we?", "description": "because", "risk_level": "medium"})
}

/// Asks for a decision.
async fn ask(caller: &mut Caller, action: &str) -> Value {
    caller.post("/api/v1/approvals", &asking(action)).await.expect(201).data()
}

/// Decides.
async fn decide(caller: &mut Caller, approval: &str, approve: bool) -> Answer {
    let (verb, body) = if approve { ("approve", json!({})) } else { ("reject", json!({"reason": "no"})) };
    caller.post(&format!("/api/v1/approvals/{approval}/{verb}"), &body).await
}
