//! Two copies of the program on one Redis, and Redis away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quarterdeck_domain::clock::SystemClock;
use quarterdeck_limits::{Limiter, RedisOptions};
use quarterdeck_testkit::{PASSWORD, RedisServer, TestDb, TestServer};
use serde_json::json;

use crate::{LOGIN, ME, OPEN, out_of_the_box, race};

/// A server that counts in this Redis, patient so that a busy machine does not look like an outage. The
/// window is long, as the time of Redis is not held.
async fn on(redis: &RedisServer) -> TestServer {
    let options = RedisOptions { timeout: Duration::from_secs(20), ..RedisOptions::default() };
    let limiter = Limiter::redis(&redis.url(), options, SystemClock::shared()).await.unwrap();
    TestServer::with(TestDb::sqlite(), |options| {
        out_of_the_box(options);
        options.tiers.floor = 1_000_000;
        options.tiers.authenticated = 1_000_000;
        options.tiers.window = Duration::from_secs(3_600);
        options.limiter = Some(limiter);
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_on_one_redis_admit_together_exactly_the_limit() {
    let Some(redis) = RedisServer::start() else { return };
    let servers = [on(&redis).await, on(&redis).await];
    let callers = servers.each_ref().map(|server| server.anonymous().from("192.0.2.1"));
    assert_eq!(race(&callers, 60, OPEN).await, 20);
    for mut caller in callers {
        caller.get(OPEN).await.refused(429, 5000);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_redis_fails_no_ordinary_request_refuses_logins_and_is_used_again() {
    let Some(mut redis) = RedisServer::start() else { return };
    let server = on(&redis).await;
    let mut up = server.app.limits.limiter().store_up().unwrap();
    let ceo = server.ceo().await;
    let body = json!({"username": "ceo", "password": PASSWORD});
    let login = async |address: &str| server.anonymous().from(address).post(LOGIN, &body).await;

    let (done, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load: Vec<_> = (0..8)
        .map(|_| {
            let (mut ceo, done, answered) = (ceo.clone(), Arc::clone(&done), Arc::clone(&answered));
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    ceo.get(ME).await.expect(200);
                    answered.fetch_add(1, Ordering::Relaxed);
                    // As a socket would; nothing else here ever waits.
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let more = async |n: u64| {
        let goal = answered.load(Ordering::Relaxed) + n;
        while answered.load(Ordering::Relaxed) < goal {
            tokio::task::yield_now().await;
        }
    };
    more(50).await;
    redis.kill();
    up.wait_for(|up| !up).await.unwrap();
    more(50).await;
    let refusal = login("192.0.2.1").await.refused(503, 8001);
    assert_eq!(refusal.header("retry-after"), "1");
    redis.restart();
    up.wait_for(|up| *up).await.unwrap();
    login("192.0.2.1").await.expect(200);
    more(50).await;
    done.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
}
