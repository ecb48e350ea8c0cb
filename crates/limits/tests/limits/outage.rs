//! Redis goes away and comes back.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use quarterdeck_domain::ErrorCode;
use quarterdeck_domain::clock::SystemClock;
use quarterdeck_limits::{Decision, Limiter, OnOutage, RedisOptions, Subject, Window};
use tokio::sync::watch;

use crate::{ask, patient, quota, race};
use quarterdeck_testkit::RedisServer;

const USER: Subject<'_> = Subject::User("u");

async fn connect(server: &RedisServer, options: RedisOptions) -> Limiter {
    Limiter::redis(&server.url(), options, SystemClock::shared()).await.unwrap()
}

fn store(limiter: &Limiter) -> watch::Receiver<bool> {
    limiter.store_up().unwrap()
}

/// Lines of the log of this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn count(&self, event: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap()).matches(event).count()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_killed_redis_fails_no_ordinary_request_and_is_used_again_when_it_is_back() {
    let Some(mut server) = RedisServer::start() else { return };
    let log = Log::default();
    let _listening = log.listen();
    let limiter = connect(&server, patient()).await;
    let scope = limiter.scope("auth", OnOutage::LocalWindow);
    let login = limiter.scope("login", OnOutage::Refuse);
    let mut up = store(&limiter);
    assert!(*up.borrow());

    let load = tokio::spawn({
        let (limiter, scope) = (limiter.clone(), scope.clone());
        async move {
            let mut decided = 0;
            loop {
                let asked = (0..32).map(|_| ask(&limiter, &scope, USER, quota(1_000_000, 60)));
                let outcomes = futures_util::future::join_all(asked).await;
                assert!(outcomes.iter().all(|outcome| outcome.admitted()));
                decided += outcomes.len();
                if limiter.stats().store.unwrap().local_decisions > 1_000 {
                    return decided;
                }
                tokio::task::yield_now().await;
            }
        }
    });
    server.kill();
    assert!(load.await.unwrap() > 1_000);
    up.wait_for(|up| !up).await.unwrap();

    let refusal = ask(&limiter, &login, USER, quota(5, 60)).await;
    assert_eq!(refusal.decision, Decision::Unavailable);
    let error = refusal.error(ErrorCode::RateLimited).unwrap();
    assert_eq!((error.code(), error.retry_after_seconds()), (ErrorCode::ServiceUnavailable, Some(1)));
    let error = limiter.enter(&login, USER, 1.try_into().unwrap()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ServiceUnavailable);
    assert!(limiter.ping().await.is_err());

    server.restart();
    up.wait_for(|up| *up).await.unwrap();
    assert!(ask(&limiter, &login, USER, quota(5, 60)).await.admitted());
    assert!(limiter.ping().await.is_ok());
    let before = limiter.stats().store.unwrap();
    assert!(ask(&limiter, &scope, USER, quota(1_000_000, 60)).await.admitted());
    assert_eq!(limiter.stats().store.unwrap(), before);
    assert_eq!((before.outages, before.up), (1, true));
    assert_eq!((log.count("limits.store.lost"), log.count("limits.store.recovered")), (1, 1));
}

#[tokio::test]
async fn windows_of_this_process_still_limit_during_an_outage() {
    let Some(mut server) = RedisServer::start() else { return };
    let limiter = connect(&server, patient()).await;
    server.kill();
    assert_eq!(race(&[limiter], "tasks.create", quota(20, 3_600), 25).await, 20);
}

#[tokio::test]
async fn a_refusing_scope_ends_a_decision_with_the_outer_tiers_charged() {
    let Some(mut server) = RedisServer::start() else { return };
    let limiter = connect(&server, patient()).await;
    server.kill();
    let floor = limiter.scope("floor", OnOutage::LocalWindow);
    let login = limiter.scope("login", OnOutage::Refuse);
    let windows = [&floor, &login].map(|scope| Window { scope, subject: USER, quota: quota(2, 60) });
    for expected in [(1, Decision::Unavailable), (1, Decision::Unavailable), (0, Decision::Exhausted)] {
        let verdict = limiter.check(&windows).await;
        assert_eq!(verdict.refused().map(|(place, outcome)| (place, outcome.decision)), Some(expected));
    }
}

#[tokio::test]
async fn a_hanging_redis_is_waited_for_once_and_not_by_everyone() {
    let Some(server) = RedisServer::start() else { return };
    let timeout = Duration::from_millis(300);
    let limiter = connect(&server, RedisOptions { timeout, ..RedisOptions::default() }).await;
    let scope = limiter.scope("auth", OnOutage::LocalWindow);
    let mut up = store(&limiter);
    // A slow machine may have lost it already.
    up.wait_for(|up| *up).await.unwrap();
    server.signal("STOP");
    assert!(ask(&limiter, &scope, USER, quota(1_000_000, 60)).await.admitted());
    assert!(!*up.borrow_and_update());
    // With a wait for each, these would take five minutes, and the test would be ended.
    for _ in 0..1_000 {
        assert!(ask(&limiter, &scope, USER, quota(1_000_000, 60)).await.admitted());
    }
    server.signal("CONT");
    up.wait_for(|up| *up).await.unwrap();
}

#[tokio::test]
async fn a_redis_that_is_away_at_the_start_is_waited_for_in_the_background() {
    let Some(mut server) = RedisServer::start() else { return };
    server.kill();
    let limiter = connect(&server, patient()).await;
    let mut up = store(&limiter);
    assert!(!*up.borrow());
    let login = limiter.scope("login", OnOutage::Refuse);
    assert!(!ask(&limiter, &login, USER, quota(5, 60)).await.admitted());
    server.restart();
    up.wait_for(|up| *up).await.unwrap();
    assert!(ask(&limiter, &login, USER, quota(5, 60)).await.admitted());
}

#[tokio::test]
async fn places_held_through_an_outage_count_for_all_copies_afterwards() {
    let Some(mut server) = RedisServer::start() else { return };
    let one = connect(&server, patient()).await;
    let at_one = one.scope("events.stream", OnOutage::LocalWindow);
    let cap = 2.try_into().unwrap();
    let before = one.enter(&at_one, USER, cap).await.unwrap();
    server.kill();
    let during = one.enter(&at_one, USER, cap).await.unwrap();
    assert!(one.enter(&at_one, USER, cap).await.is_err());

    // The new server knows nothing until the holder tells it.
    server.restart();
    store(&one).wait_for(|up| *up).await.unwrap();
    let two = connect(&server, patient()).await;
    let at_two = two.scope("events.stream", OnOutage::LocalWindow);
    assert!(two.enter(&at_two, USER, cap).await.is_err());
    drop((before, during));
    one.close().await;
    assert!(two.enter(&at_two, USER, cap).await.is_ok());
}

#[tokio::test]
async fn a_wrong_url_is_refused_without_being_repeated() {
    let url = "http://user:hunter2@localhost".to_owned().into();
    let error = Limiter::redis(&url, patient(), SystemClock::shared()).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}
