//! What the limits promise, on memory and on Redis.

mod flights;
mod model;
mod outage;
mod shared;
mod sweeping;
mod windows;

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use quarterdeck_domain::clock::{ManualClock, SharedClock};
use quarterdeck_limits::{
    DEFAULT_MAX_KEYS, Limiter, OnOutage, Outcome, Quota, RedisOptions, Scope, Subject, Time, Window,
};

use quarterdeck_testkit::RedisServer;
use secrecy::ExposeSecret;

/// A clock that stands, some time after its start.
fn clock() -> Arc<ManualClock> {
    let clock = ManualClock::at(DateTime::UNIX_EPOCH);
    clock.advance(Duration::from_secs(1_000));
    clock
}

fn in_memory(clock: &Arc<ManualClock>) -> Limiter {
    Limiter::memory(Arc::clone(clock) as SharedClock, DEFAULT_MAX_KEYS)
}

/// Patient, so that a busy machine does not look like an outage.
fn patient() -> RedisOptions {
    RedisOptions { timeout: Duration::from_secs(20), ..RedisOptions::default() }
}

/// A limiter on this server that goes by the given clock instead of the server's.
async fn in_redis(server: &RedisServer, clock: &Arc<ManualClock>) -> Limiter {
    let given = Arc::clone(clock) as SharedClock;
    let options = RedisOptions { time: Time::Given(Arc::clone(&given)), ..patient() };
    Limiter::redis(&server.url(), options, given).await.unwrap()
}

/// The same sentence for both back ends.
async fn on_both<F: Future<Output = ()>>(sentence: impl Fn(Limiter, Arc<ManualClock>) -> F) {
    let time = clock();
    sentence(in_memory(&time), time).await;
    if let Some(server) = RedisServer::start() {
        let time = clock();
        sentence(in_redis(&server, &time).await, time).await;
    }
}

/// A connection beside those of limiters.
async fn connection(server: &RedisServer) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(server.url().expose_secret()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

fn quota(max: u32, seconds: u64) -> Quota {
    Quota::new(max, Duration::from_secs(seconds)).unwrap()
}

async fn ask(limiter: &Limiter, scope: &Scope, subject: Subject<'_>, quota: Quota) -> Outcome {
    limiter.check(&[Window { scope, subject, quota }]).await[0]
}

/// How many of `racers` concurrent requests are admitted.
async fn race(limiters: &[Limiter], name: &'static str, quota: Quota, racers: usize) -> usize {
    let mut running = tokio::task::JoinSet::new();
    for racer in 0..racers {
        let limiter = limiters[racer % limiters.len()].clone();
        running.spawn(async move {
            let scope = limiter.scope(name, OnOutage::LocalWindow);
            ask(&limiter, &scope, Subject::User("u"), quota).await.admitted()
        });
    }
    running.join_all().await.into_iter().filter(|admitted| *admitted).count()
}
