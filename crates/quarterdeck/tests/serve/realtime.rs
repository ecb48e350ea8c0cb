//! Sockets and events across the process border.

use quarterdeck_testkit::{NatsServer, Socket, TestDb};
use serde_json::{Value, json};

use crate::caller::{Caller, PASSWORD};
use crate::process::{Home, Server, patiently};

/// A client that recovers, on this server.
async fn connect(server: &Server, caller: &mut Caller) -> Socket {
    let ticket = caller.post("/auth/ws-ticket", json!({})).await.expect(200).data()["ticket"].clone();
    let offered = format!("quarterdeck.v1, quarterdeck.ticket.{}", ticket.as_str().unwrap());
    let url = format!("ws://{}/api/v1/ws", server.address);
    let mut socket = Socket::open(&url, &[("sec-websocket-protocol", &offered)]).await.unwrap();
    assert_eq!(socket.next().await["action"], "auth_ok");
    socket
}

async fn subscribe(socket: &mut Socket, recover: Value) -> Value {
    let command = json!({"action": "subscribe", "channels": ["system"], "recover": {"system": recover}});
    socket.ask(&command).await
}

async fn change(caller: &mut Caller, length: u32) {
    let body = json!({"value": length.to_string()});
    caller.put("/settings/api/min_password_length", body).await.expect(200);
}

/// Two servers that share everything.
async fn copies(nats: Option<&NatsServer>) -> Option<[Server; 2]> {
    let db = TestDb::postgres().await?;
    let home = || {
        let home = Home::on(&db);
        match nats {
            Some(nats) => home.with("QUARTERDECK_NATS_URL", &nats.url()),
            None => home,
        }
    };
    let [one, two] = [home(), home()].map(|home| (home.spawn(), home));
    one.0.ready().await;
    two.0.ready().await;
    Some([one.0, two.0])
}

/// What one copy tells reaches the clients of the other, who recover there what they missed here, also
/// when the copy they were on has died.
async fn news_is_shared(one: Server, two: Server) {
    let mut here = Caller::owner(&one).await;
    let mut there = here.at(&two);
    let mut socket = connect(&two, &mut there).await;
    let ack = subscribe(&mut socket, Value::Null).await;
    change(&mut here, 20).await;
    let event = socket.next_event("setting.changed").await;
    assert_eq!(event["position"]["epoch"], ack["positions"]["system"]["epoch"]);
    // A ticket of one copy opens a socket of the other.
    let mut other = connect(&one, &mut there).await;
    subscribe(&mut other, Value::Null).await;
    drop(other);

    let position = event["position"].clone();
    drop(socket);
    two.kill().await;
    change(&mut here, 21).await;
    let mut socket = connect(&one, &mut here).await;
    let ack = subscribe(&mut socket, position).await;
    assert_eq!(ack["recovery"]["system"]["recovered"], true, "{ack}");
    let event = socket.next_event("setting.changed").await;
    assert_eq!(event["replayed"], true);

    // Rights end at once.
    here.post("/auth/logout", json!({})).await.expect(204);
    let (closed, _) = socket.closed().await;
    assert_eq!((closed.code, &*closed.reason), (4003, "Session revoked (session_revoked)"));
}

#[tokio::test]
async fn copies_on_one_postgres_tell_the_same_news() {
    if let Some([one, two]) = copies(None).await {
        news_is_shared(one, two).await;
    }
}

#[tokio::test]
async fn copies_with_one_nats_tell_the_same_news() {
    let Some(nats) = NatsServer::start() else { return };
    if let Some([one, two]) = copies(Some(&nats)).await {
        news_is_shared(one, two).await;
    }
}

#[tokio::test]
async fn a_killed_server_with_its_own_database_says_that_history_began_anew() {
    let home = Home::new();
    let server = home.serve().await;
    let mut owner = Caller::owner(&server).await;
    let mut socket = connect(&server, &mut owner).await;
    let before = subscribe(&mut socket, Value::Null).await["positions"]["system"].clone();
    server.kill().await;
    let server = home.serve().await;
    let mut socket = connect(&server, &mut owner).await;
    let ack = subscribe(&mut socket, before).await;
    assert_eq!(ack["recovery"]["system"], json!({"recovered": false, "reason": "epoch_changed"}));
    change(&mut owner, 20).await;
    assert_eq!(socket.next_event("setting.changed").await["payload"]["key"], "min_password_length");
}

#[tokio::test]
async fn the_end_of_the_server_is_told_and_the_ticket_is_in_no_log() {
    let home = Home::new().with("QUARTERDECK_LOG_LEVEL", "DEBUG");
    let server = home.serve().await;
    let mut owner = Caller::owner(&server).await;
    let ticket = owner.post("/auth/ws-ticket", json!({})).await.expect(200).data()["ticket"].clone();
    let ticket = ticket.as_str().unwrap().to_owned();
    let url = format!("ws://{}/api/v1/ws?ticket={ticket}", server.address);
    let mut socket = Socket::open(&url, &[]).await.unwrap();
    let ack = socket.ask(&json!({"action": "subscribe", "channels": ["system"]})).await;
    assert_eq!(ack["channels"], json!(["system"]));
    let mut second = Socket::open(&url, &[]).await.unwrap();
    assert_eq!(second.closed().await.0.code, 4001, "used");
    let metrics = owner.get("/metrics").await.text();
    let stopping = tokio::spawn(server.stop());
    let (closed, before) = socket.closed().await;
    assert_eq!(closed.code, 1012);
    assert!(before.iter().any(|frame| frame.contains("system.shutdown")), "{before:?}");
    let run = patiently("the stop", stopping).await.unwrap();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    for text in [&run.stdout, &run.stderr, &metrics] {
        assert!(!text.contains(&ticket), "the ticket is shown");
    }
}

#[tokio::test]
async fn events_tail_prints_what_happens_and_ends_with_the_session() {
    let home = Home::new();
    let server = home.serve().await;
    let mut owner = Caller::owner(&server).await;
    let token = owner.cookie("session").to_owned();
    let tail = home.with("QUARTERDECK_TOKEN", &token);
    let arguments = ["events", "tail", "--json", "--channel", "system"];
    let following = tail.run(&arguments, "");
    let telling = async {
        // Until somebody follows, nobody hears.
        let mut probe = Caller::signed_in(&server).await;
        crate::process::until("the tail follows", async || {
            let shown = probe.get("/ws/presence").await.expect(200).data();
            shown.as_array().is_some_and(|all| !all.is_empty())
        })
        .await;
        // Following begins with the subscription, shortly after the connection.
        for length in 20..24 {
            change(&mut owner, length).await;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        owner.post("/auth/logout", json!({})).await.expect(204);
    };
    let (run, ()) = tokio::join!(following, telling);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let last: Value = serde_json::from_str(run.stdout.lines().last().expect("an event")).unwrap();
    assert_eq!(last["event_type"], "setting.changed");
    assert!(run.stderr.contains("Session revoked"), "{}", run.stderr);
}

#[tokio::test]
async fn events_tail_says_what_it_needs() {
    let home = Home::new();
    let run = home.run(&["events", "tail"], "").await;
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("--user") && run.stderr.contains("QUARTERDECK_TOKEN"), "{}", run.stderr);
    let server = home.serve().await;
    Caller::owner(&server).await;
    let run = home.run(&["events", "tail", "--user", "ada", "--password-stdin"], "wrong").await;
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("check the login name"), "{}", run.stderr);
    let arguments = ["events", "tail", "--user", "ada", "--password-stdin", "--channel", "nonsense"];
    let run = home.run(&arguments, PASSWORD).await;
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("channel 'nonsense' cannot be followed (unknown)"), "{}", run.stderr);
}

#[tokio::test]
async fn a_broker_that_is_not_there_keeps_the_server_from_starting_and_says_how_to_mend_it() {
    let home = Home::new().with("QUARTERDECK_NATS_URL", "nats://127.0.0.1:1");
    let run = home.run(&["serve"], "").await;
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("QUARTERDECK_NATS_URL"), "{}", run.stderr);
    let run = home.run(&["doctor"], "").await;
    assert!(run.stdout.contains("nats_url") || run.stderr.contains("nats_url"), "{}", run.stdout);
    let home = Home::new().with("QUARTERDECK_NATS_URL", "http://nonsense");
    let run = home.run(&["serve"], "").await;
    assert!(run.stderr.contains("nats_url must begin with"), "{}", run.stderr);
}
