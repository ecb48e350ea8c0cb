//! Caps of calls under way.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::body::Body;
use axum::extract::Path;
use axum::http::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt;
use quarterdeck_domain::ErrorCode;
use quarterdeck_domain::role::{Guard, HumanRole};
use quarterdeck_http::edge::{Data, Failure};
use quarterdeck_http::endpoint::{Endpoint, get};
use quarterdeck_http::limits::Overrides;
use quarterdeck_testkit::{Caller, TestDb, TestServer};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::out_of_the_box;

const TWO: NonZeroU32 = NonZeroU32::new(2).unwrap();

/// An endpoint with room for two calls; handlers wait until they are let go.
struct Room {
    doors: Arc<Semaphore>,
    inside: Arc<AtomicU32>,
}

impl Room {
    fn endpoint(guard: Guard) -> (Self, Endpoint) {
        let room = Self { doors: Arc::new(Semaphore::new(0)), inside: Arc::default() };
        let (doors, inside) = (Arc::clone(&room.doors), Arc::clone(&room.inside));
        let handler = move |Path(how): Path<String>| async move {
            inside.fetch_add(1, Ordering::SeqCst);
            // Closed doors let everybody through.
            let _ = doors.acquire().await.map(tokio::sync::SemaphorePermit::forget);
            answer(&how)
        };
        let endpoint = get("/test/{how}", "test.capped", guard).in_flight(TWO).limit(1_000, 60);
        (room, endpoint.gives::<u8>(200).to(handler))
    }

    async fn wait_inside(&self, n: u32) {
        while self.inside.load(Ordering::SeqCst) < n {
            tokio::task::yield_now().await;
        }
    }

    fn open(&self) {
        self.doors.close();
    }
}

fn answer(how: &str) -> Response {
    match how {
        "fail" => Failure::from(ErrorCode::PersistenceError).into_response(),
        "panic" => panic!("as asked"),
        "stream" => {
            let frames = stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from_static(b"first"))]);
            Body::from_stream(futures_util::StreamExt::chain(frames, stream::pending())).into_response()
        }
        _ => Data(1).into_response(),
    }
}

async fn server(guard: Guard) -> (TestServer, Room) {
    let (room, endpoint) = Room::endpoint(guard);
    let server = TestServer::with(TestDb::sqlite(), |options| {
        out_of_the_box(options);
        options.tiers.anonymous = 10_000;
        options.endpoints.push(endpoint);
    })
    .await;
    (server, room)
}

fn path(how: &str) -> String {
    format!("/api/v1/test/{how}")
}

fn under_way(server: &TestServer) -> u64 {
    server.app.limits.limiter().stats().in_flight
}

fn charged(server: &TestServer) -> u64 {
    let stats = server.app.limits.limiter().stats();
    stats.scopes.iter().find(|scope| scope.name == "test.capped").unwrap().windows.iter().sum()
}

fn calling(caller: &Caller, how: &str) -> tokio::task::JoinHandle<quarterdeck_testkit::Answer> {
    let (mut caller, path) = (caller.clone(), path(how));
    tokio::spawn(async move { caller.get(&path).await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_five_racers_two_run_and_three_are_refused_without_using_the_window() {
    let (server, room) = server(Guard::Public).await;
    let caller = server.anonymous().from("192.0.2.1");
    let mut racers = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let mut caller = caller.clone();
        racers.spawn(async move { caller.get(&path("plain")).await });
    }
    let mut bodies = Vec::new();
    for _ in 0..3 {
        let refusal = racers.join_next().await.unwrap().unwrap().refused(429, 5002);
        assert_eq!(refusal.header("retry-after"), "1");
        let mut body = refusal.json();
        assert_eq!(body["error_detail"]["retry_after"], 1);
        body["error_detail"]["instance"].take();
        bodies.push(body);
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    room.wait_inside(2).await;
    assert_eq!((under_way(&server), charged(&server)), (2, 2));
    // Somebody else has places of his own.
    let other = calling(&server.anonymous().from("192.0.2.2"), "plain");
    room.wait_inside(3).await;
    room.open();
    other.await.unwrap().expect(200);
    for answer in racers.join_all().await {
        answer.expect(200);
    }
    assert_eq!(under_way(&server), 0);
}

#[tokio::test]
async fn users_behind_one_address_have_places_of_their_own() {
    let (server, room) = server(Guard::Read).await;
    let ceo = server.ceo().await;
    let other = server.person("other", HumanRole::Manager).await;
    let running = [&ceo, &ceo, &other, &other].map(|caller| calling(caller, "plain"));
    room.wait_inside(4).await;
    ceo.clone().get(&path("plain")).await.refused(429, 5002);
    other.clone().get(&path("plain")).await.refused(429, 5002);
    room.open();
    for call in running {
        call.await.unwrap().expect(200);
    }
}

#[tokio::test]
async fn a_thousand_calls_that_fail_panic_or_are_left_give_every_place_back() {
    let (server, room) = server(Guard::Public).await;
    let caller = server.anonymous().from("192.0.2.1");
    let mut inside = 0;
    for _ in 0..250 {
        // Left while the handler runs.
        let left = calling(&caller, "plain");
        inside += 1;
        room.wait_inside(inside).await;
        left.abort();
        assert!(left.await.is_err_and(|e| e.is_cancelled()));
        assert_eq!(under_way(&server), 0);
    }
    room.open();
    for _ in 0..250 {
        for (how, status) in [("plain", 200), ("fail", 500), ("panic", 500)] {
            // The window holds a thousand.
            server.advance(crate::MINUTE / 500);
            caller.clone().get(&path(how)).await.expect(status);
            assert_eq!(under_way(&server), 0, "{how}");
        }
    }
}

#[tokio::test]
async fn a_stream_keeps_its_place_until_the_client_leaves() {
    let (server, room) = server(Guard::Public).await;
    room.open();
    let caller = server.anonymous().from("192.0.2.1");
    let begin = || async {
        let request = Request::get(path("stream")).body(Body::empty()).unwrap();
        let mut response = caller.begin(request).await;
        assert_eq!(response.status(), 200);
        let first = response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "first");
        response
    };
    let streams = [begin().await, begin().await];
    caller.clone().get(&path("plain")).await.refused(429, 5002);
    assert_eq!(under_way(&server), 2);
    drop(streams);
    assert_eq!(under_way(&server), 0);
    caller.clone().get(&path("plain")).await.expect(200);
}

#[tokio::test]
async fn a_refused_role_or_window_takes_no_place() {
    let (server, room) = server(Guard::Ceo).await;
    room.open();
    let mut ceo = server.ceo().await;
    let mut observer = server.person("observer", HumanRole::Observer).await;
    observer.get(&path("plain")).await.expect(403);
    server.app.limits.set_overrides(Overrides::new(true, &json!({"test.capped": [1, 60]}), true, &json!({})));
    ceo.get(&path("plain")).await.expect(200);
    ceo.get(&path("plain")).await.refused(429, 5001);
    assert_eq!(under_way(&server), 0);
    let stats = server.app.limits.limiter().stats();
    let scope = stats.scopes.iter().find(|scope| scope.name == "test.capped").unwrap();
    // The two of the CEO were let in; the observer was never asked for.
    assert_eq!((scope.in_flight, room.inside.load(Ordering::SeqCst)), ([2, 0, 0], 1));
}

#[tokio::test]
async fn the_operator_changes_caps_and_switches_them_off() {
    let (server, room) = server(Guard::Public).await;
    let caller = server.anonymous().from("192.0.2.1");
    let none = json!({});
    let set = |on, caps| server.app.limits.set_overrides(Overrides::new(true, &none, on, &caps));
    set(true, json!({"test.capped": 1}));
    let mut running = vec![calling(&caller, "plain")];
    room.wait_inside(1).await;
    caller.clone().get(&path("plain")).await.refused(429, 5002);
    for (on, caps) in [(true, json!({"test.capped": 0})), (false, json!({"test.capped": 1}))] {
        set(on, caps);
        running.push(calling(&caller, "plain"));
        room.wait_inside(running.len() as u32).await;
    }
    room.open();
    for call in running {
        call.await.unwrap().expect(200);
    }
}
