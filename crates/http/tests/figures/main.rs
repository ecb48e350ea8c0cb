//! Money, figures, what has happened lately, and reviews.

mod activities;
mod analytics;
mod budget;
mod reviews;
mod teamwork;

use quarterdeck_domain::cost_record::CostRecord;
use quarterdeck_domain::money::{Currency, Money};
use quarterdeck_domain::text::NotBlank;
use quarterdeck_testkit::{Caller, TestServer};
use serde_json::{Value, json};

fn words<const MAX: usize>(text: &str) -> NotBlank<MAX> {
    NotBlank::new(text).expect("a text")
}

/// What a call of a model by this agent for this task costs now.
fn cost(server: &TestServer, agent: &str, task: &str, amount: f64) -> CostRecord {
    CostRecord {
        agent_id: words(agent),
        task_id: words(task),
        project_id: None,
        provider: words("acme"),
        model: words("secret-model-9"),
        input_tokens: 1200,
        output_tokens: 300,
        cost: Money::from_f64(amount).expect("an amount"),
        currency: Currency::Usd,
        timestamp: server.now(),
        call_category: None,
        accuracy_effort_ratio: None,
        latency_ms: None,
        cache_hit: None,
        retry_count: None,
        retry_reason: None,
        finish_reason: None,
        success: None,
    }
}

async fn spend(server: &TestServer, agent: &str, task: &str, amount: f64) {
    server.app.budget.record(cost(server, agent, task, amount)).await.expect("it is recorded");
}

/// Stores a setting.
async fn set(caller: &mut Caller, setting: &str, value: &str) {
    caller.put(&format!("/api/v1/settings/{setting}"), &json!({ "value": value })).await.expect(200);
}

async fn data(caller: &mut Caller, path: &str) -> Value {
    caller.get(&format!("/api/v1{path}")).await.expect(200).data()
}

/// A new task of this caller, moved along these statuses and done by this agent.
async fn task(caller: &mut Caller, agent: &str, way: &[&str]) -> String {
    let body = json!({
        "title": "a task", "description": "what it is", "type": "development", "project": "p", "created_by": "ceo",
    });
    let made = caller.post("/api/v1/tasks", &body).await.expect(201).data();
    let id = made["id"].as_str().expect("an id").to_owned();
    for step in way {
        go(caller, &id, step, (*step == "assigned").then_some(agent)).await;
    }
    id
}

/// Moves a task.
async fn go(caller: &mut Caller, task: &str, status: &str, agent: Option<&str>) {
    let body = json!({"target_status": status, "assigned_to": agent});
    caller.post(&format!("/api/v1/tasks/{task}/transition"), &body).await.expect(201);
}
