//! The audit trail over HTTP: what gets into it, who may read it, and the proof that it is whole.

mod chain;
mod query;
mod record;

use quarterdeck_domain::audit::{Actor, Entry};
use quarterdeck_testkit::{Caller, TestServer};
use serde_json::Value;

const AUDIT: &str = "/api/v1/security/audit";

/// Puts an entry into the trail.
async fn put(server: &TestServer, entry: Entry) {
    let write = server.app.store.write(move |tx| {
        Box::pin(async move {
            tx.audit(entry);
            Ok(())
        })
    });
    write.await.expect("it is stored");
}

fn entry(server: &TestServer, action: &str) -> Entry {
    Entry::new(&Actor::system("test.write"), action, server.now(), "Something was done")
}

/// The newest entries that meet a query, newest first.
async fn entries(caller: &mut Caller, query: &str) -> Vec<Value> {
    let answer = caller.get(&format!("{AUDIT}?limit=200&{query}")).await.expect(200);
    answer.data().as_array().expect("a list").clone()
}

async fn actions(caller: &mut Caller, query: &str) -> Vec<String> {
    let entries = entries(caller, query).await;
    entries.iter().map(|entry| entry["action_type"].as_str().expect("text").to_owned()).collect()
}
