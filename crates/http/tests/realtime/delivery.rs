//! What reaches whom.

use std::time::Duration;

use quarterdeck_domain::event::EventType;
use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{TestDb, TestServer, on_both_databases};
use serde_json::json;

use super::{message, publish, subscribe, task, tasks};

on_both_databases! {
    async fn everybody_gets_the_same_bytes_in_the_order_of_the_channel(db: TestDb) {
        let server = TestServer::on(db).await;
        let listening = server.listen().await;
        let mut ceo = server.ceo().await;
        let mut observer = server.person("observer", HumanRole::Observer).await;
        let mut sockets = [listening.plain(&mut ceo).await, listening.plain(&mut observer).await];
        for socket in &mut sockets {
            socket.ask(&subscribe(&["tasks"])).await;
        }
        for i in 0..30 {
            task(&server, &i.to_string()).await;
        }
        let mut texts = Vec::new();
        for socket in &mut sockets {
            let mut all = Vec::new();
            for _ in 0..30 {
                all.push(socket.next_text().await);
            }
            texts.push(all);
        }
        assert_eq!(texts[0], texts[1]);
        let events: Vec<_> = texts[0].iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        let expected: Vec<_> = (0..30).map(|i| i.to_string()).collect();
        assert_eq!(tasks(&events), expected);
        assert!(events[0].get("position").is_none(), "a plain client sees no positions");
    }

    async fn each_change_is_told_once_after_its_commit_and_a_refused_one_never(db: TestDb) {
        let server = TestServer::on(db).await;
        let listening = server.listen().await;
        let mut ceo = server.ceo().await;
        let (mut socket, _) = listening.capable(&mut ceo).await;
        let own = format!("user:{}", ceo.get("/api/v1/auth/me").await.data()["id"].as_str().unwrap());
        socket.ask(&subscribe(&["system", &own])).await;

        let path = "/api/v1/settings/api/min_password_length";
        ceo.put(path, &json!({"value": "14"})).await.expect(200);
        let event = socket.next().await;
        assert_eq!(event["event_type"], "setting.changed");
        assert_eq!(event["payload"], json!({"namespace": "api", "key": "min_password_length"}));

        ceo.put(path, &json!({"value": "1"})).await.expect(422);
        let body = json!({"username": "erin", "password": "a long password", "role": "manager"});
        let id = ceo.post("/api/v1/users", &body).await.expect(201).data()["id"].clone();
        ceo.post("/api/v1/users", &body).await.expect(409);
        let event = socket.next().await;
        assert_eq!((&event["event_type"], &event["payload"]), (&json!("user.created"), &json!({"user_id": id})));
        assert!(!event.to_string().contains("erin"));

        let id = id.as_str().unwrap();
        ceo.patch(&format!("/api/v1/users/{id}"), &json!({"role": "observer"})).await.expect(200);
        assert_eq!(socket.next().await["event_type"], "user.updated");
        ceo.delete(&format!("/api/v1/users/{id}")).await.expect(204);
        assert_eq!(socket.next().await["event_type"], "user.deleted");

        server.sign_in("ceo").await;
        let event = socket.next().await;
        assert_eq!((&event["event_type"], &event["channel"]), (&json!("session.started"), &json!(own)));
        assert!(socket.drain().await.is_empty());
    }
}

#[tokio::test]
async fn restricted_channels_and_other_users_stay_unheard() {
    let server = TestServer::start().await;
    let listening = server.listen().await;
    let mut observer = server.person("observer", HumanRole::Observer).await;
    let mut ceo = server.ceo().await;
    let other = observer.get("/api/v1/auth/me").await.data()["id"].as_str().unwrap().to_owned();
    let (mut low, _) = listening.capable(&mut observer).await;
    let (mut high, _) = listening.capable(&mut ceo).await;
    assert_eq!(low.ask(&subscribe(&["budget", "tasks"])).await["channels"], json!(["tasks"]));
    high.ask(&subscribe(&["budget", "tasks", &format!("user:{other}")])).await;
    for channel in ["budget", "tasks", "#webhooks"] {
        message(&server, channel, channel).await;
    }
    message(&server, &format!("user:{other}"), "private").await;
    let content = |event: &serde_json::Value| event["payload"]["content"].as_str().unwrap().to_owned();
    let mut heard = [content(&low.next().await), content(&low.next().await)];
    heard.sort();
    assert_eq!(heard, ["private", "tasks"], "one's own channel is there from the start");
    let mut heard = [content(&high.next().await), content(&high.next().await)];
    heard.sort();
    assert_eq!(heard, ["budget", "tasks"]);
    assert!(low.drain().await.is_empty() && high.drain().await.is_empty());
}

#[tokio::test]
async fn what_was_told_before_a_subscription_is_not_replayed_to_a_plain_client() {
    let server = TestServer::start().await;
    let listening = server.listen().await;
    let mut socket = listening.plain(&mut server.ceo().await).await;
    for round in 0..20 {
        task(&server, "before").await;
        socket.ask(&subscribe(&["tasks"])).await;
        task(&server, "after").await;
        assert_eq!(tasks(&[socket.next().await]), ["after"], "round {round}");
        socket.ask(&json!({"action": "unsubscribe", "channels": ["tasks"]})).await;
    }
}

#[tokio::test]
async fn a_client_that_stops_reading_costs_64_frames_and_delays_nobody() {
    let server = TestServer::start().await;
    let listening = server.listen().await;
    let mut ceo = server.ceo().await;
    let mut lazy = listening.plain(&mut ceo).await;
    let mut eager = listening.plain(&mut ceo).await;
    for socket in [&mut lazy, &mut eager] {
        socket.ask(&subscribe(&["tasks"])).await;
    }
    let filler = "x".repeat(30_000);
    let most = 600;
    for i in 0..most {
        publish(&server, EventType::TaskCreated, json!({"task_id": i.to_string(), "title": filler})).await;
        assert_eq!(tasks(&[eager.next().await]), [i.to_string()]);
    }
    let metrics = server.anonymous().get("/api/v1/metrics").await.text();
    let dropped = metrics
        .lines()
        .find(|l| l.starts_with("quarterdeck_ws_events_dropped_total{reason=\"backpressure\"}"));
    let dropped: usize = dropped.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(dropped > 0, "the lazy one's buffers hold less than {most} events");
    // What it gets are the oldest, without a hole, and then what comes from now on.
    let rest = most - dropped;
    for i in 0..rest {
        assert_eq!(tasks(&[lazy.next().await]), [i.to_string()]);
    }
    task(&server, "now").await;
    assert_eq!(tasks(&[lazy.next().await]), ["now"]);
}

#[tokio::test]
async fn a_plain_clients_bytes_are_the_same_with_history_on_and_off() {
    let mut streams = Vec::new();
    for size in [0, 512] {
        let server = TestServer::with(TestDb::sqlite(), |o| o.bus.history.size = size).await;
        let listening = server.listen().await;
        let mut socket = listening.plain(&mut server.ceo().await).await;
        let mut stream = Vec::new();
        let mut ask = async |socket: &mut quarterdeck_testkit::Socket, command: &serde_json::Value| {
            socket.send(command.to_string()).await;
            stream.push(socket.next_text().await);
        };
        ask(
            &mut socket,
            &json!({"action": "subscribe", "channels": ["tasks", "x"], "batch": true, "id": "1",
            "recover": {"tasks": {"epoch": "e", "seq": 1}}}),
        )
        .await;
        ask(&mut socket, &json!({"action": "ping", "id": "1"})).await;
        ask(&mut socket, &json!({"action": "x", "id": "1"})).await;
        for i in 0..100 {
            task(&server, &i.to_string()).await;
            let mut event = socket.next().await;
            event["event_id"].take();
            stream.push(event.to_string());
        }
        streams.push(stream);
    }
    assert_eq!(streams[0], streams[1]);
}

#[tokio::test]
async fn bursts_come_in_one_frame_where_the_client_wants_that() {
    let server = TestServer::start().await;
    let listening = server.listen().await;
    let (mut socket, _) = listening.capable(&mut server.ceo().await).await;
    socket.ask(&json!({"action": "subscribe", "channels": ["tasks"], "batch": true})).await;
    let filler = "x".repeat(5000);
    let mut seen = Vec::new();
    let mut batches = 0;
    while batches == 0 {
        let events: Vec<_> = (0..40)
            .map(|i| json!({"task_id": i.to_string(), "title": filler}))
            .map(|payload| {
                quarterdeck_domain::event::Event::new(EventType::TaskCreated, server.now(), payload)
            })
            .collect();
        // One commit, so that they come together.
        server
            .app
            .store
            .write(move |tx| {
                Box::pin(async move {
                    events.into_iter().for_each(|event| tx.publish(event));
                    Ok(())
                })
            })
            .await
            .unwrap();
        while seen.len() < 40 {
            let text = socket.next_text().await;
            assert!(text.len() <= 32_768, "{}", text.len());
            let frame: serde_json::Value = serde_json::from_str(&text).unwrap();
            match frame["action"].as_str() {
                Some("batch") => {
                    batches += 1;
                    seen.extend(frame["events"].as_array().unwrap().clone());
                }
                _ => seen.push(frame),
            }
        }
        let expected: Vec<_> = (0..40).map(|i| i.to_string()).collect();
        assert_eq!(tasks(&seen), expected);
        seen.clear();
    }
}

#[tokio::test]
async fn pings_are_sent_and_silence_ends_in_1011() {
    let server = TestServer::with(TestDb::sqlite(), |o| {
        o.sockets.ping_interval = Some(Duration::from_millis(20));
        o.sockets.ping_timeout = Some(Duration::from_millis(150));
    })
    .await;
    let listening = server.listen().await;
    let mut ceo = server.ceo().await;
    let mut alive = listening.plain(&mut ceo).await;
    let silent = listening.plain(&mut ceo).await;
    let gone = async {
        while server.app.sockets.count() > 1 {
            // Reading is what answers pings.
            alive.ask(&json!({"action": "ping"})).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the silent one is cut");
    drop(silent);
    assert_eq!(alive.ask(&json!({"action": "ping"})).await["action"], "pong");
}

#[tokio::test]
async fn the_server_says_goodbye_when_it_stops() {
    let server = TestServer::start().await;
    let listening = server.listen().await;
    let mut ceo = server.ceo().await;
    let (mut plain, mut capable) = (listening.plain(&mut ceo).await, listening.capable(&mut ceo).await.0);
    let (_, first, second) = tokio::join!(listening.stop(), plain.closed(), capable.closed());
    assert_eq!((first.0.code, second.0.code), (1012, 1012));
    assert_eq!(server.app.sockets.count(), 0);
}
