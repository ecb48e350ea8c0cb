//! Events in real time, through a real socket and a client that is not our own code.

mod delivery;
mod handshake;
mod protocol;
mod recovery;
mod replicas;
mod rights;

use quarterdeck_domain::channel::Channel;
use quarterdeck_domain::event::{Event, EventType};
use quarterdeck_testkit::TestServer;
use serde_json::{Value, json};

/// Tells everyone, as a change would.
async fn publish(server: &TestServer, event_type: EventType, payload: Value) {
    let event = Event::new(event_type, server.now(), payload).expect("a sound event");
    server.app.bus.publish(event).await.expect("it is told");
}

/// A task with this id was created.
async fn task(server: &TestServer, id: &str) {
    publish(server, EventType::TaskCreated, json!({"task_id": id})).await;
}

/// A message on any channel; its sender is the first letter of what it says.
async fn message(server: &TestServer, channel: &str, content: &str) {
    let payload = json!({"message_id": "m", "sender": content.get(..1), "to": "t", "content": content});
    let channel = Channel::parse(channel).expect("a channel");
    let event = Event::on(channel, EventType::MessageSent, server.now(), payload).expect("a sound event");
    server.app.bus.publish(event).await.expect("it is told");
}

fn subscribe(channels: &[&str]) -> Value {
    json!({"action": "subscribe", "channels": channels})
}

/// Ids of the tasks that events speak of.
fn tasks(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["payload"]["task_id"].as_str()).collect()
}
