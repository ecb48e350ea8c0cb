//! Windows of one limiter.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use quarterdeck_domain::ErrorCode;
use quarterdeck_domain::clock::{ManualClock, SystemClock};
use quarterdeck_limits::{DEFAULT_MAX_KEYS, Decision, Limiter, OnOutage, Quota, Subject, Window};

use crate::{ask, clock, in_memory, on_both, patient, quota, race};
use quarterdeck_testkit::RedisServer;

const USER: Subject<'_> = Subject::User("u");

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racers_on_a_cold_bucket_exactly_the_limit_is_admitted() {
    on_both(async |limiter: Limiter, time: Arc<ManualClock>| {
        assert_eq!(race(std::slice::from_ref(&limiter), "floor", quota(20, 60), 25).await, 20);
        time.advance(Duration::from_secs(60));
        assert_eq!(race(&[limiter], "floor", quota(20, 60), 25).await, 20);
    })
    .await;
}

#[tokio::test]
async fn the_next_is_admitted_when_the_oldest_stamp_has_expired_and_not_a_microsecond_before() {
    on_both(async |limiter: Limiter, time: Arc<ManualClock>| {
        let scope = limiter.scope("tasks.create", OnOutage::LocalWindow);
        for remaining in [2, 1, 0] {
            let outcome = ask(&limiter, &scope, USER, quota(3, 60)).await;
            assert!(outcome.admitted());
            assert_eq!(outcome.remaining, remaining);
            time.advance(Duration::from_secs(1));
        }
        time.advance(Duration::from_secs(57) - Duration::from_micros(1));
        assert!(!ask(&limiter, &scope, USER, quota(3, 60)).await.admitted());
        time.advance(Duration::from_micros(1));
        assert!(ask(&limiter, &scope, USER, quota(3, 60)).await.admitted());
        // Only the oldest has gone.
        assert!(!ask(&limiter, &scope, USER, quota(3, 60)).await.admitted());
    })
    .await;
}

#[tokio::test]
async fn waiting_the_named_seconds_always_succeeds() {
    on_both(async |limiter: Limiter, time: Arc<ManualClock>| {
        let scope = limiter.scope("tasks.create", OnOutage::LocalWindow);
        for (max, window_ms, step_ms) in
            [(1, 1, 0), (1, 999, 1), (2, 1_001, 400), (3, 2_500, 700), (5, 60_000, 1)]
        {
            let quota = Quota::new(max, Duration::from_millis(window_ms)).unwrap();
            let name = format!("{max}/{window_ms}");
            let subject = Subject::Name(&name);
            for _ in 0..max {
                assert!(ask(&limiter, &scope, subject, quota).await.admitted());
                time.advance(Duration::from_millis(step_ms));
            }
            let refusal = ask(&limiter, &scope, subject, quota).await;
            if refusal.admitted() {
                continue;
            }
            assert!(refusal.reset_seconds() >= 1);
            time.advance(Duration::from_secs(refusal.reset_seconds().into()));
            assert!(ask(&limiter, &scope, subject, quota).await.admitted(), "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn waiting_succeeds_also_after_the_limit_was_lowered() {
    on_both(async |limiter: Limiter, time: Arc<ManualClock>| {
        let scope = limiter.scope("tasks.create", OnOutage::LocalWindow);
        for _ in 0..5 {
            assert!(ask(&limiter, &scope, USER, quota(5, 60)).await.admitted());
            time.advance(Duration::from_secs(2));
        }
        let refusal = ask(&limiter, &scope, USER, quota(2, 60)).await;
        // Four of the five have to go; the fourth came four seconds ago.
        assert_eq!(refusal.reset(), Duration::from_secs(56));
        time.advance(refusal.reset());
        assert!(ask(&limiter, &scope, USER, quota(2, 60)).await.admitted());
    })
    .await;
}

#[tokio::test]
async fn waiting_the_named_time_of_the_machine_succeeds() {
    let sentence = async |limiter: Limiter| {
        let scope = limiter.scope("tasks.create", OnOutage::LocalWindow);
        let quota = Quota::new(1, Duration::from_millis(200)).unwrap();
        assert!(ask(&limiter, &scope, USER, quota).await.admitted());
        let refusal = ask(&limiter, &scope, USER, quota).await;
        if !refusal.admitted() {
            tokio::time::sleep(refusal.reset()).await;
            assert!(ask(&limiter, &scope, USER, quota).await.admitted());
        }
    };
    sentence(Limiter::memory(SystemClock::shared(), DEFAULT_MAX_KEYS)).await;
    if let Some(server) = RedisServer::start() {
        sentence(Limiter::redis(&server.url(), patient(), SystemClock::shared()).await.unwrap()).await;
    }
}

#[tokio::test]
async fn a_refusal_is_not_charged() {
    on_both(async |limiter: Limiter, time: Arc<ManualClock>| {
        let scope = limiter.scope("login", OnOutage::LocalWindow);
        assert!(ask(&limiter, &scope, USER, quota(1, 60)).await.admitted());
        for _ in 0..10 {
            time.advance(Duration::from_secs(5));
            assert!(!ask(&limiter, &scope, USER, quota(1, 60)).await.admitted());
        }
        time.advance(Duration::from_secs(10));
        assert!(ask(&limiter, &scope, USER, quota(1, 60)).await.admitted());
    })
    .await;
}

#[tokio::test]
async fn the_first_refusal_ends_a_decision_and_only_those_before_it_are_charged() {
    on_both(async |limiter: Limiter, _| {
        let [floor, tier, operation] =
            ["floor", "auth", "tasks.create"].map(|name| limiter.scope(name, OnOutage::LocalWindow));
        let windows = [(&floor, 5), (&tier, 2), (&operation, 4)].map(|(scope, max)| Window {
            scope,
            subject: USER,
            quota: quota(max, 60),
        });
        for _ in 0..2 {
            let verdict = limiter.check(&windows).await;
            assert_eq!((verdict.len(), verdict.refused()), (3, None));
            assert_eq!(verdict.tightest().unwrap().quota.max(), 2);
        }
        let verdict = limiter.check(&windows).await;
        assert_eq!(verdict.len(), 2);
        let (place, refusal) = verdict.refused().unwrap();
        assert_eq!((place, refusal.quota.max()), (1, 2));
        assert_eq!(verdict.tightest(), Some(refusal));
        // The floor counted all three, the operation two.
        assert_eq!(ask(&limiter, &floor, USER, quota(5, 60)).await.remaining, 1);
        assert_eq!(ask(&limiter, &operation, USER, quota(4, 60)).await.remaining, 1);
    })
    .await;
}

#[tokio::test]
async fn one_budget_never_touches_another() {
    on_both(async |limiter: Limiter, _| {
        let delete = limiter.scope("users.delete", OnOutage::LocalWindow);
        let create = limiter.scope("users.create", OnOutage::LocalWindow);
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let subjects = [
            USER,
            Subject::User("u2"),
            Subject::Name("u"),
            Subject::Address(address),
            Subject::User("10.0.0.1"),
        ];
        for subject in subjects {
            for scope in [&delete, &create] {
                assert!(
                    ask(&limiter, scope, subject, quota(1, 60)).await.admitted(),
                    "{scope:?} {subject:?}"
                );
                assert!(!ask(&limiter, scope, subject, quota(1, 60)).await.admitted());
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_window_that_shrinks_and_grows_again_finds_its_stamps() {
    on_both(async |limiter: Limiter, time: Arc<ManualClock>| {
        let scope = limiter.scope("tasks.create", OnOutage::LocalWindow);
        for _ in 0..3 {
            assert!(ask(&limiter, &scope, USER, quota(3, 3_600)).await.admitted());
        }
        time.advance(Duration::from_secs(20));
        assert!(ask(&limiter, &scope, USER, quota(3, 10)).await.admitted());
        let refusal = ask(&limiter, &scope, USER, quota(4, 3_600)).await;
        assert_eq!(refusal.reset(), Duration::from_secs(3_580));
        assert_eq!(refusal.decision, Decision::Exhausted);
    })
    .await;
}

#[tokio::test]
async fn a_jump_of_the_wall_clock_changes_nothing() {
    let time = clock();
    let limiter = in_memory(&time);
    let scope = limiter.scope("tasks.create", OnOutage::LocalWindow);
    assert!(ask(&limiter, &scope, USER, quota(1, 60)).await.admitted());
    for jump in [TimeDelta::days(1), TimeDelta::days(-3), TimeDelta::hours(1)] {
        time.step_wall(jump);
        assert_eq!(ask(&limiter, &scope, USER, quota(1, 60)).await.reset(), Duration::from_secs(60));
    }
    time.advance(Duration::from_secs(60));
    assert!(ask(&limiter, &scope, USER, quota(1, 60)).await.admitted());
}

#[test]
fn zero_limits_nothing_and_ages_are_cut() {
    assert_eq!(Quota::new(0, Duration::from_secs(1)), None);
    assert_eq!(Quota::new(1, Duration::ZERO), None);
    assert_eq!(Quota::new(1, Duration::MAX).unwrap().window(), Duration::from_secs(10 * 365 * 86_400));
}

#[tokio::test]
async fn a_refusal_becomes_the_failure_of_its_tier() {
    let time = clock();
    let limiter = in_memory(&time);
    let scope = limiter.scope("floor", OnOutage::LocalWindow);
    let admitted = ask(&limiter, &scope, USER, quota(1, 60)).await;
    assert!(admitted.error(ErrorCode::RateLimited).is_none());
    time.advance(Duration::from_millis(59_999));
    let refused = ask(&limiter, &scope, USER, quota(1, 60)).await;
    let error = refused.error(ErrorCode::RateLimited).unwrap();
    assert_eq!((error.code(), error.retry_after_seconds()), (ErrorCode::RateLimited, Some(1)));
}

#[tokio::test]
#[should_panic(expected = "another outage policy")]
async fn a_scope_has_one_outage_policy() {
    let limiter = in_memory(&clock());
    limiter.scope("login", OnOutage::Refuse);
    limiter.scope("login", OnOutage::LocalWindow);
}
