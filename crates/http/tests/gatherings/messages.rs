//! What agents say, read by people.

use chrono::TimeDelta;
use quarterdeck_bus::message::{ChannelType, Message, MessageType, Metadata, Parts, Priority};
use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{TestDb, TestServer};
use serde_json::{Value, json};

use super::words;

async fn say(server: &TestServer, channel: &str, text: &str) -> Message {
    let message = Message {
        id: uuid::Uuid::now_v7(),
        timestamp: server.now(),
        sender: words("ada"),
        to: words(channel),
        r#type: MessageType::Question,
        priority: Priority::High,
        channel: words(channel),
        parts: Parts::text(text),
        metadata: Metadata { task_id: Some(words("task-1")), ..Metadata::default() },
    };
    server.app.messages.publish(message.clone(), None).await.expect("a channel");
    message
}

#[tokio::test]
async fn a_channel_is_read_the_newest_first_page_by_page() {
    let server = TestServer::start().await;
    let mut reader = server.person("reader", HumanRole::Observer).await;
    let mut said = Vec::new();
    for number in 0..5 {
        said.push(say(&server, "#engineering", &format!("number {number}")).await);
    }
    say(&server, "#design", "elsewhere").await;
    let list = reader.get("/api/v1/messages?channel=%23engineering").await.expect(200).json();
    let texts: Vec<_> =
        list["data"].as_array().unwrap().iter().map(|message| message["text"].clone()).collect();
    assert_eq!(texts, ["number 4", "number 3", "number 2", "number 1", "number 0"]);
    assert_eq!(list["pagination"], json!({"total": 5, "offset": 0, "limit": 50}));
    assert_eq!(list["data"][0], serde_json::to_value(&said[4]).unwrap(), "as it was said");
    let page =
        reader.get("/api/v1/messages?channel=%23engineering&offset=1&limit=2").await.expect(200).json();
    assert_eq!((&page["data"][0]["text"], page["data"].as_array().unwrap().len()), (&json!("number 3"), 2));
    let beyond = reader.get("/api/v1/messages?channel=%23engineering&offset=9").await.expect(200).json();
    assert_eq!((&beyond["data"], &beyond["pagination"]["offset"]), (&json!([]), &json!(5)));
}

#[tokio::test]
async fn without_a_channel_and_for_an_unknown_one_the_page_is_empty() {
    let server = TestServer::start().await;
    let mut reader = server.person("reader", HumanRole::Observer).await;
    say(&server, "#engineering", "hello").await;
    for query in ["", "?channel=%23nowhere", "?channel=%23ENGINEERING", "?offset=3&limit=1"] {
        let list = reader.get(&format!("/api/v1/messages{query}")).await.expect(200).json();
        assert_eq!((&list["data"], &list["pagination"]["total"]), (&json!([]), &json!(0)), "{query}");
    }
    let longest = "x".repeat(128);
    reader.get(&format!("/api/v1/messages?channel={longest}")).await.expect(200);
    for query in [&format!("channel={longest}x"), "channel=", "channel=+", "limit=0", "limit=201"] {
        reader.get(&format!("/api/v1/messages?{query}")).await.refused(400, 2001);
    }
}

#[tokio::test]
async fn channels_are_listed_with_who_listens() {
    let server = TestServer::start().await;
    let mut reader = server.person("reader", HumanRole::Observer).await;
    server.app.messages.create_channel("to-all", ChannelType::Broadcast).await.unwrap();
    server.app.messages.subscribe("#engineering", "bob").await.unwrap();
    server.app.messages.subscribe("#engineering", "ada").await.unwrap();
    let channels = reader.get("/api/v1/messages/channels").await.expect(200);
    assert_eq!(channels.json().get("pagination"), None);
    let all = channels.data();
    let named = |name: &str| all.as_array().unwrap().iter().find(|channel| channel["name"] == name).cloned();
    assert_eq!(
        named("#engineering"),
        Some(json!({"name": "#engineering", "type": "topic", "subscribers": ["ada", "bob"]}))
    );
    assert_eq!(named("to-all").unwrap()["type"], "broadcast");
    for default in [
        "#all-hands",
        "#product",
        "#design",
        "#incidents",
        "#code-review",
        "#settings",
        "#watercooler",
        "tasks",
    ] {
        assert!(named(default).is_some(), "{default}");
    }
    let names: Vec<_> =
        all.as_array().unwrap().iter().map(|channel| channel["name"].as_str().unwrap()).collect();
    assert!(names.is_sorted());
}

#[tokio::test]
async fn messages_are_read_only_and_for_those_who_read() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    ceo.post("/api/v1/messages", &json!({"channel": "#engineering"})).await.expect(405);
    ceo.post("/api/v1/messages/channels", &json!({"name": "x"})).await.expect(405);
    for path in ["/api/v1/messages?channel=%23engineering", "/api/v1/messages/channels"] {
        server.anonymous().get(path).await.refused(401, 1000);
        server.system_cli().get(path).await.refused(403, 1001);
        for role in [HumanRole::Observer, HumanRole::BoardMember, HumanRole::PairProgrammer] {
            server.person(role.as_str(), role).await.get(path).await.expect(200);
        }
    }
}

#[tokio::test]
async fn what_may_not_be_followed_may_not_be_read() {
    let server = TestServer::start().await;
    let total = async |role: HumanRole, channel: &str| {
        let mut person = server.person(role.as_str(), role).await;
        let list = person.get(&format!("/api/v1/messages?channel={channel}")).await.expect(200).json();
        list["pagination"]["total"].as_u64().unwrap()
    };
    for channel in ["budget", "#webhooks", "#ratelimit", "tasks", "#dissent"] {
        say(&server, channel, "a figure").await;
    }
    for (channel, seen) in
        [("budget", 0), ("%23webhooks", 0), ("%23ratelimit", 0), ("tasks", 1), ("%23dissent", 1)]
    {
        assert_eq!(total(HumanRole::Observer, channel).await, seen, "{channel}");
        assert_eq!(total(HumanRole::Manager, channel).await, 1, "{channel}");
    }
}

#[tokio::test]
async fn a_channel_keeps_as_much_as_the_operator_says_and_a_stopped_bus_is_unavailable() {
    let server = TestServer::with(TestDb::sqlite(), |options| {
        options.messages.retention.max_messages_per_channel = 3;
    })
    .await;
    let mut ceo = server.ceo().await;
    for number in 0..5 {
        say(&server, "#engineering", &number.to_string()).await;
        server.clock.advance(TimeDelta::seconds(1).to_std().unwrap());
    }
    let list = ceo.get("/api/v1/messages?channel=%23engineering").await.expect(200).json();
    let texts: Vec<&Value> =
        list["data"].as_array().unwrap().iter().map(|message| &message["text"]).collect();
    assert_eq!(
        (texts, &list["pagination"]["total"]),
        (vec![&json!("4"), &json!("3"), &json!("2")], &json!(3))
    );
    server.app.messages.stop().await.unwrap();
    ceo.get("/api/v1/messages?channel=%23engineering").await.refused(503, 8001);
    ceo.get("/api/v1/messages/channels").await.refused(503, 8001);
}
