//! What a stream carries, and what it costs.

use quarterdeck_domain::role::HumanRole;
use quarterdeck_http::limits::Overrides;
use quarterdeck_testkit::{TestDb, TestServer};
use serde_json::json;

use super::{Stream, ask, say};

#[tokio::test]
async fn a_stream_is_plain_and_stored_nowhere() {
    let server = TestServer::start().await;
    let ceo = server.ceo().await;
    let response = ask(&ceo, "session_id=run-1", None).await;
    let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(response.status(), 200);
    assert_eq!(header("content-type").as_deref(), Some("text/event-stream"));
    assert_eq!(header("x-accel-buffering").as_deref(), Some("no"));
    assert_eq!(header("cache-control").as_deref(), Some("no-store"));
    assert_eq!(header("content-encoding"), None);
    let mut stream = Stream(response.into_body());
    let said = say(&server, "run-1", "one\ntwo");
    let frame = stream.next().await.unwrap();
    assert_eq!(frame.id.as_deref(), Some(&*said));
    assert_eq!(frame.event, "text_message_content");
    assert_eq!(
        frame.data,
        json!({
            "id": said, "type": "text_message_content", "timestamp": "2027-01-15T08:00:00Z",
            "session_id": "run-1", "correlation_id": null, "agent_id": null, "payload": {"text": "one\ntwo"},
        })
    );
}

#[tokio::test]
async fn every_reader_may_follow_and_nobody_else() {
    let server = TestServer::start().await;
    for role in [HumanRole::Observer, HumanRole::BoardMember, HumanRole::PairProgrammer, HumanRole::Manager] {
        Stream::open(&server.person(role.as_str(), role).await, "s").await;
    }
    let stream = "/api/v1/events/stream?session_id=s";
    server.anonymous().get(stream).await.refused(401, 1000);
    server.system_cli().get(stream).await.refused(403, 1001);
    assert_eq!((server.app.streams.watchers(), server.app.rights.count()), (0, 0));
}

#[tokio::test]
async fn ids_with_anything_but_plain_characters_never_reach_the_hub() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let (longest, longer) = ("x".repeat(128), "x".repeat(129));
    for hostile in [
        "",
        "a%2Fb",
        "a/b",
        "a.b",
        "%2e%2e",
        "a%00",
        "a%0A",
        "a%0D%0Adata:x",
        "a%7F",
        "a%20b",
        "%C3%A4",
        "%FF",
        &longer,
    ] {
        let query = format!("session_id={hostile}");
        ceo.get(&format!("/api/v1/events/stream?{query}")).await.refused(400, 2001);
        ceo.get(&format!("/api/v1/interrupts?{query}")).await.refused(400, 2001);
    }
    ceo.get("/api/v1/events/stream").await.refused(400, 2001);
    let over = "e".repeat(65);
    assert_eq!(ask(&ceo, "session_id=s", Some(&over)).await.status(), 400);
    assert_eq!((server.app.streams.sessions(), server.app.rights.count()), (0, 0));
    ceo.get(&format!("/api/v1/interrupts?session_id={longest}")).await.expect(200);
    let stream = Stream::open(&ceo, &longest).await;
    assert_eq!(server.app.streams.sessions(), 1);
    drop(stream);
    assert_eq!(server.app.streams.sessions(), 0);
}

#[tokio::test]
async fn events_of_one_session_never_reach_another() {
    let server = TestServer::start().await;
    let ceo = server.ceo().await;
    let (mut a, mut b) = (Stream::open(&ceo, "a").await, Stream::open(&ceo, "A").await);
    for text in ["1", "2", "3"] {
        say(&server, "a", text);
        say(&server, "A", &format!("other {text}"));
    }
    say(&server, "nobody", "x");
    assert_eq!(a.texts(3).await, ["1", "2", "3"]);
    assert_eq!(b.texts(3).await, ["other 1", "other 2", "other 3"]);
}

#[tokio::test]
async fn who_does_not_read_loses_the_newest_and_holds_up_nobody() {
    let server = TestServer::with(TestDb::sqlite(), |options| options.stream_queue = 16).await;
    let ceo = server.ceo().await;
    let (mut slow, mut quick) = (Stream::open(&ceo, "s").await, Stream::open(&ceo, "s").await);
    for number in 0..100 {
        let text = number.to_string();
        say(&server, "s", &text);
        assert_eq!(quick.texts(1).await, [text]);
    }
    let expected: Vec<_> = (0..16).map(|number| number.to_string()).collect();
    assert_eq!(slow.texts(16).await, expected);
    say(&server, "s", "later");
    assert_eq!(slow.texts(1).await, ["later"]);
}

#[tokio::test]
async fn who_comes_back_gets_what_was_missed_and_then_what_is_new() {
    let server = TestServer::start().await;
    let ceo = server.ceo().await;
    let mut stream = Stream::open(&ceo, "s").await;
    let ids: Vec<_> = ["1", "2", "3"].iter().map(|text| say(&server, "s", text)).collect();
    assert_eq!(stream.texts(2).await, ["1", "2"]);
    drop(stream);
    say(&server, "s", "4");
    let mut known = Stream::after(&ceo, "s", Some(&ids[1])).await;
    let mut unknown = Stream::after(&ceo, "s", Some(&"e".repeat(64))).await;
    let (mut fresh, mut empty) = (Stream::open(&ceo, "s").await, Stream::after(&ceo, "s", Some("")).await);
    let mut other = Stream::after(&ceo, "t", Some(&ids[1])).await;
    say(&server, "s", "5");
    say(&server, "t", "other");
    assert_eq!(known.texts(3).await, ["3", "4", "5"]);
    assert_eq!(unknown.texts(5).await, ["1", "2", "3", "4", "5"]);
    assert_eq!(fresh.texts(1).await, ["5"]);
    assert_eq!(empty.texts(1).await, ["5"]);
    assert_eq!(other.texts(1).await, ["other"]);
}

#[tokio::test]
async fn silence_is_broken_by_signs_of_life() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let setting = "/api/v1/settings/api/sse_keepalive_seconds";
    let patient = Stream::open(&ceo, "s").await;
    ceo.put(setting, &json!({"value": "1"})).await.expect(200);
    let mut stream = Stream::open(&ceo, "s").await;
    for _ in 0..2 {
        let frame = stream.next().await.unwrap();
        assert_eq!((frame.id, frame.event.as_str(), frame.data), (None, "keepalive", json!({})));
    }
    say(&server, "s", "1");
    assert_eq!(stream.texts(1).await, ["1"]);
    let mut patient = patient;
    assert_eq!(patient.texts(1).await, ["1"], "the setting was read when the stream was opened");
}

#[tokio::test]
async fn ten_thousand_streams_opened_and_cut_leave_nothing() {
    let server = TestServer::start().await;
    let ceo = server.ceo().await;
    for round in 0..100 {
        let mut open = Vec::new();
        for number in 0..100 {
            let stream = Stream::open(&ceo, &format!("s-{}", number % 10)).await;
            open.push(stream);
        }
        assert_eq!((server.app.streams.watchers(), server.app.streams.sessions()), (100, 10));
        say(&server, "s-3", "x");
        if round % 2 == 0 {
            open[3].texts(1).await;
        }
    }
    assert_eq!((server.app.streams.watchers(), server.app.streams.sessions()), (0, 0));
    assert_eq!(server.app.rights.count(), 0);
}

#[tokio::test]
async fn a_user_may_have_so_many_streams_at_once() {
    let caps = json!({"events.stream": 2});
    let server = TestServer::with(TestDb::sqlite(), |options| {
        options.overrides = Overrides::new(true, &json!({"events.stream": [4, 60]}), true, &caps);
    })
    .await;
    let ceo = server.ceo().await;
    let _first = Stream::open(&ceo, "s").await;
    let second = Stream::open(&ceo, "s").await;
    let mut caller = ceo.clone();
    caller.get("/api/v1/events/stream?session_id=s").await.refused(429, 5002);
    drop(second);
    drop(Stream::open(&ceo, "s").await);
    drop(Stream::open(&ceo, "s").await);
    caller.get("/api/v1/events/stream?session_id=s").await.refused(429, 5001);
}

#[tokio::test]
async fn streams_end_when_the_server_stops() {
    let server = TestServer::start().await;
    let ceo = server.ceo().await;
    let mut stream = Stream::open(&ceo, "s").await;
    say(&server, "s", "last");
    server.app.streams.stop();
    assert_eq!(stream.texts(1).await, ["last"]);
    assert_eq!(stream.next().await, None);
    assert_eq!(Stream::open(&ceo, "s").await.next().await, None);
}
