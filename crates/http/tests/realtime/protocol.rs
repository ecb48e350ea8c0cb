//! Commands and their replies.

use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{Socket, TestServer};
use serde_json::{Value, json};

use super::{message, subscribe, task, tasks};

async fn connected(role: HumanRole) -> (TestServer, quarterdeck_testkit::Listening, Socket) {
    let server = TestServer::start().await;
    let listening = server.listen().await;
    let mut person = match role {
        HumanRole::Ceo => server.ceo().await,
        _ => server.person("somebody", role).await,
    };
    let socket = listening.plain(&mut person).await;
    (server, listening, socket)
}

#[tokio::test]
async fn every_frame_gets_one_reply_in_order_and_no_fault_closes_or_changes_anything() {
    let (_server, _listening, mut socket) = connected(HumanRole::Ceo).await;
    assert_eq!(socket.ask(&subscribe(&["tasks"])).await["channels"], json!(["tasks"]));
    let faults = [
        ("x".repeat(4097), "Message too large"),
        (String::new(), "Invalid JSON"),
        ("[".repeat(2000), "Invalid JSON"),
        (r#"{"action":"subscribe","channels":["\ud83d"]}"#.to_owned(), "Invalid JSON"),
        ("[1]".to_owned(), "Expected JSON object"),
        (r#"{"action":"subscribe","channels":"agents"}"#.to_owned(), "channels must be a list of strings"),
        (
            r#"{"action":"subscribe","channels":["agents"],"filters":{"a":null}}"#.to_owned(),
            "filters must be an object",
        ),
        (
            r#"{"action":"subscribe","channels":["agents"],"filters":{"a":"b"#.to_owned()
                + &"x".repeat(257)
                + "\"}}",
            "Filter bounds exceeded",
        ),
        (r#"{"action":"nonsense"}"#.to_owned(), "Unknown action"),
    ];
    // All at once: the replies tell the order.
    for (text, _) in &faults {
        socket.send(text.clone()).await;
    }
    for (_, error) in &faults {
        assert_eq!(socket.next().await, json!({"error": error}));
    }
    socket.send_binary(br#"{"action":"ping"}"#.to_vec()).await;
    assert_eq!(socket.next().await, json!({"action": "pong"}), "bytes that are a command are one");
    socket.send_binary(vec![0xff, 0xfe]).await;
    assert_eq!(socket.next().await, json!({"error": "Invalid JSON"}));
    assert_eq!(socket.ask(&subscribe(&[])).await["channels"], json!(["tasks"]), "nothing was added");
}

#[tokio::test]
async fn the_ack_lists_what_is_active_sorted_and_nothing_of_what_was_refused() {
    let (_server, _listening, mut socket) = connected(HumanRole::Observer).await;
    let asked = ["tasks", "budget", "user:somebody-else", "Tasks", "nonsense", "#dissent", "tasks", "agents"];
    let ack = socket.ask(&subscribe(&asked)).await;
    assert_eq!(ack, json!({"action": "subscribed", "channels": ["#dissent", "agents", "tasks"]}));
    let left =
        socket.ask(&json!({"action": "unsubscribe", "channels": ["agents", "nonsense", "budget"]})).await;
    assert_eq!(left, json!({"action": "unsubscribed", "channels": ["#dissent", "tasks"]}));
    let left = socket.ask(&json!({"action": "unsubscribe"})).await;
    assert_eq!(left["channels"], json!(["#dissent", "tasks"]), "naming none changes nothing");
}

#[tokio::test]
async fn noise_gets_one_reply_a_frame_and_changes_nothing() {
    let server =
        TestServer::with(quarterdeck_testkit::TestDb::sqlite(), |o| o.sockets.command_rate = 0).await;
    let listening = server.listen().await;
    let (mut socket, _) = listening.capable(&mut server.ceo().await).await;
    socket.ask(&subscribe(&["tasks"])).await;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut roll = move |sides: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % sides as u64) as usize
    };
    // Pieces of commands, so that much of the noise is nearly one.
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\u",
        "d800",
        "\"action\":",
        "\"subscribe\"",
        "\"channels\":",
        "null",
        "1e999",
        "-0",
        "\"filters\":{",
        "\"recover\":{\"tasks\":{\"epoch\":\"x\",\"seq\":-1}}",
        "\u{202e}",
        "\0",
        "é",
    ];
    for round in 0..1500 {
        if roll(3) == 0 {
            let bytes = (0..roll(5000)).map(|_| roll(256) as u8).collect();
            socket.send_binary(bytes).await;
        } else {
            let text: String = (0..roll(60)).map(|_| pieces[roll(pieces.len())]).collect();
            socket.send(text).await;
        }
        let reply = socket.next().await;
        assert!(reply["error"].is_string() && reply["code"].is_string(), "round {round}: {reply}");
    }
    assert_eq!(socket.ask(&subscribe(&[])).await["channels"], json!(["tasks"]));
}

#[tokio::test]
async fn filters_are_replaced_cleared_or_left_alone() {
    let (server, _listening, mut socket) = connected(HumanRole::Ceo).await;
    let with = |filters: Value| json!({"action": "subscribe", "channels": ["tasks"], "filters": filters});
    socket.ask(&subscribe(&["agents"])).await;
    let tell = async |socket: &mut Socket| {
        for id in ["a", "b"] {
            task(&server, id).await;
        }
        message(&server, "tasks", "no task").await;
        // One task hands everything over, so what comes behind the last one is the end.
        message(&server, "agents", "end").await;
        let mut seen = Vec::new();
        loop {
            let event = socket.next().await;
            if event["channel"] == "agents" {
                return tasks(&seen).join(",");
            }
            seen.push(event);
        }
    };
    socket.ask(&with(json!({"task_id": "a"}))).await;
    assert_eq!(tell(&mut socket).await, "a");
    socket.ask(&subscribe(&["tasks"])).await;
    assert_eq!(tell(&mut socket).await, "a", "absent filters stay");
    socket.ask(&with(Value::Null)).await;
    assert_eq!(tell(&mut socket).await, "a", "null is as absent");
    assert!(socket.ask(&with(json!({"task_id": null}))).await["error"].is_string());
    assert_eq!(tell(&mut socket).await, "a", "null never widens");
    socket.ask(&with(json!({"status": "x"}))).await;
    assert_eq!(tell(&mut socket).await, "", "replaced as a whole, and a missing member is no match");
    socket.ask(&with(json!({}))).await;
    assert_eq!(tell(&mut socket).await, "a,b");
    socket.ask(&with(json!({"task_id": "b"}))).await;
    socket.ask(&json!({"action": "unsubscribe", "channels": ["tasks"]})).await;
    socket.ask(&subscribe(&["tasks"])).await;
    assert_eq!(tell(&mut socket).await, "a,b", "a new subscription begins without filters");
}

#[tokio::test]
async fn a_capable_client_gets_ids_codes_positions_and_denials() {
    let server = TestServer::start().await;
    let listening = server.listen().await;
    let mut person = server.person("somebody", HumanRole::Observer).await;
    let id = person.get("/api/v1/auth/me").await.data()["id"].as_str().unwrap().to_owned();
    let (mut socket, _) = listening.capable(&mut person).await;
    let own = format!("user:{id}");
    let ack = socket
        .ask(&json!({"action": "subscribe", "id": "7", "channels": ["tasks", "budget", "x", "user:x", own]}))
        .await;
    assert_eq!((&ack["id"], &ack["channels"]), (&json!("7"), &json!(["tasks", own])));
    assert_eq!(
        ack["denied"],
        json!([
            {"channel": "budget", "reason": "forbidden"},
            {"channel": "x", "reason": "unknown"},
            {"channel": "user:x", "reason": "unknown"},
        ])
    );
    assert_eq!(ack["positions"]["tasks"]["seq"], 0);
    let refused = socket.ask(&json!({"action": "x", "id": "8"})).await;
    assert_eq!(refused, json!({"error": "Unknown action", "code": "unknown_action", "id": "8"}));

    task(&server, "a").await;
    let event = socket.next_event("task.created").await;
    assert_eq!(event["position"]["epoch"], ack["positions"]["tasks"]["epoch"]);
    assert_eq!(event["position"]["seq"], 1);
    let pong = socket.ask(&json!({"action": "ping"})).await;
    assert_eq!(pong["positions"]["tasks"], event["position"]);
}

#[tokio::test]
async fn a_flood_of_commands_is_slowed_down_and_still_answered() {
    let server =
        TestServer::with(quarterdeck_testkit::TestDb::sqlite(), |o| o.sockets.command_rate = 20).await;
    let listening = server.listen().await;
    let mut socket = listening.plain(&mut server.ceo().await).await;
    let began = std::time::Instant::now();
    for _ in 0..120 {
        socket.send(r#"{"action":"ping"}"#).await;
    }
    for _ in 0..120 {
        assert_eq!(socket.next().await, json!({"action": "pong"}));
    }
    // A burst of 100 is free, and then there are 20 a second.
    assert!(began.elapsed().as_millis() >= 900, "{:?}", began.elapsed());
}
