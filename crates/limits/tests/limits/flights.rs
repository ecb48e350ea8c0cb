//! Caps on requests under way.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use quarterdeck_domain::ErrorCode;
use quarterdeck_domain::clock::ManualClock;
use quarterdeck_limits::{Limiter, OnOutage, Permit, Scope, Subject};

use crate::{clock, in_redis, on_both};
use quarterdeck_testkit::RedisServer;

const USER: Subject<'_> = Subject::User("u");

fn cap(max: u32) -> NonZeroU32 {
    NonZeroU32::new(max).unwrap()
}

async fn enter(limiter: &Limiter, scope: &Scope, max: u32) -> Option<Permit> {
    limiter.enter(scope, USER, cap(max)).await.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_five_racers_with_two_places_exactly_two_run() {
    on_both(async |limiter: Limiter, _| {
        let scope = limiter.scope("providers.pull_model", OnOutage::LocalWindow);
        let mut racers = tokio::task::JoinSet::new();
        for _ in 0..5 {
            let (limiter, scope) = (limiter.clone(), scope.clone());
            racers.spawn(async move { limiter.enter(&scope, USER, cap(2)).await });
        }
        let (in_time, late): (Vec<_>, Vec<_>) = racers.join_all().await.into_iter().partition(Result::is_ok);
        assert_eq!((in_time.len(), late.len()), (2, 3));
        for refusal in late {
            let error = refusal.unwrap_err();
            assert_eq!(error.code(), ErrorCode::ConcurrencyLimitExceeded);
            assert_eq!(error.retry_after_seconds(), Some(1));
        }
        // Another user's places, and the other operations' of this one, are free.
        assert!(limiter.enter(&scope, Subject::User("u2"), cap(2)).await.is_ok());
        let other = limiter.scope("memory.fine_tune", OnOutage::LocalWindow);
        assert!(enter(&limiter, &other, 1).await.is_some());
    })
    .await;
}

#[tokio::test]
async fn a_place_given_back_is_free_at_once() {
    on_both(async |limiter: Limiter, _| {
        let scope = limiter.scope("memory.fine_tune", OnOutage::LocalWindow);
        for _ in 0..200 {
            let permit = enter(&limiter, &scope, 1).await;
            assert!(permit.is_some());
            assert!(enter(&limiter, &scope, 1).await.is_none());
        }
        assert_eq!(limiter.stats().in_flight, 0);
    })
    .await;
}

#[tokio::test]
async fn after_a_thousand_dropped_and_panicking_requests_nothing_is_held() {
    on_both(async |limiter: Limiter, _| {
        let scope = limiter.scope("events.stream", OnOutage::LocalWindow);
        let mut requests = tokio::task::JoinSet::new();
        for i in 0..1_000 {
            let (limiter, scope) = (limiter.clone(), scope.clone());
            requests.spawn(async move {
                let permit = limiter.enter(&scope, USER, cap(1_000)).await.unwrap();
                match i % 4 {
                    0 => std::panic::panic_any("a handler's mistake"),
                    1 => std::future::pending().await,
                    2 => tokio::task::yield_now().await,
                    _ => {}
                }
                drop(permit);
            });
            // Some are dropped while they are still asking.
            if i % 50 == 49 {
                tokio::task::yield_now().await;
                requests.abort_all();
                while requests.join_next().await.is_some() {}
            }
        }
        assert_eq!(limiter.stats().in_flight, 0);
        // All places can be taken again, so nothing is left in Redis either.
        let mut permits = Vec::new();
        for _ in 0..4 {
            permits.extend(enter(&limiter, &scope, 4).await);
        }
        assert_eq!(permits.len(), 4);
        assert!(enter(&limiter, &scope, 4).await.is_none());
    })
    .await;
}

#[tokio::test]
async fn copies_share_their_places_and_those_of_a_killed_copy_vanish() {
    let Some(server) = RedisServer::start() else { return };
    let time: Arc<ManualClock> = clock();
    let one = in_redis(&server, &time).await;
    let two = in_redis(&server, &time).await;
    let at_one = one.scope("memory.fine_tune", OnOutage::LocalWindow);
    let at_two = two.scope("memory.fine_tune", OnOutage::LocalWindow);
    let permit = enter(&one, &at_one, 1).await.unwrap();
    assert!(enter(&two, &at_two, 1).await.is_none());

    drop(permit);
    one.close().await;
    let permit = enter(&two, &at_two, 1).await.unwrap();
    assert!(enter(&one, &at_one, 1).await.is_none());

    // Nobody renews or gives back any more.
    std::mem::forget(permit);
    drop(two);
    time.advance(Duration::from_secs(29));
    assert!(enter(&one, &at_one, 1).await.is_none());
    time.advance(Duration::from_secs(1));
    assert!(enter(&one, &at_one, 1).await.is_some());
}
