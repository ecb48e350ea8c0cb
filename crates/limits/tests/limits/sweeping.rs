//! What is held, and for how long.

use std::sync::Arc;
use std::time::Duration;

use quarterdeck_domain::clock::SharedClock;
use quarterdeck_limits::{DEFAULT_MAX_KEYS, Limiter, OnOutage, Subject};

use crate::{ask, clock, in_memory, quota};

#[tokio::test]
async fn a_scan_of_addresses_is_forgotten_while_requests_come() {
    let time = clock();
    let limiter = in_memory(&time);
    let floor = limiter.scope("floor", OnOutage::LocalWindow);
    let address = |i: u32| Subject::Address(std::net::Ipv4Addr::from(i).into());
    for i in 0..50_000 {
        ask(&limiter, &floor, address(i), quota(20, 60)).await;
    }
    assert_eq!(limiter.stats().keys, 50_000);
    time.advance(Duration::from_secs(120));
    for i in 0..50_000 {
        ask(&limiter, &floor, address(1_000_000 + i % 100), quota(1_000, 60)).await;
    }
    assert!(limiter.stats().keys < 2_000, "{} keys", limiter.stats().keys);
}

#[tokio::test]
async fn a_sweep_forgets_without_any_request_and_only_what_is_old() {
    let time = clock();
    let limiter = in_memory(&time);
    let scope = limiter.scope("tasks.create", OnOutage::LocalWindow);
    ask(&limiter, &scope, Subject::User("short"), quota(1, 1)).await;
    ask(&limiter, &scope, Subject::User("long"), quota(1, 3_600)).await;
    for (seconds, keys) in [(59, 2), (1, 1), (7_139, 1), (1, 0)] {
        time.advance(Duration::from_secs(seconds));
        limiter.sweep();
        assert_eq!(limiter.stats().keys, keys);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sweeping_never_makes_two_buckets_of_one_key() {
    let time = clock();
    let limiter = Limiter::memory(Arc::clone(&time) as SharedClock, DEFAULT_MAX_KEYS);
    for round in 0..50 {
        // Every bucket of the round before is due to be swept while the racers come.
        time.advance(Duration::from_secs(120));
        let sweeper = tokio::spawn({
            let limiter = limiter.clone();
            async move {
                for _ in 0..20 {
                    limiter.sweep();
                    tokio::task::yield_now().await;
                }
            }
        });
        let admitted = crate::race(std::slice::from_ref(&limiter), "floor", quota(7, 60), 40).await;
        sweeper.await.unwrap();
        assert_eq!(admitted, 7, "round {round}");
    }
}

#[tokio::test]
async fn filling_the_memory_buys_nobody_a_second_budget() {
    let time = clock();
    let limiter = Limiter::memory(Arc::clone(&time) as SharedClock, 4_096);
    let login = limiter.scope("login", OnOutage::Refuse);
    for _ in 0..5 {
        assert!(ask(&limiter, &login, Subject::Name("guessed"), quota(5, 3_600)).await.admitted());
    }
    let floor = limiter.scope("floor", OnOutage::LocalWindow);
    for i in 0..100_000u32 {
        ask(&limiter, &floor, Subject::Address(std::net::Ipv4Addr::from(i).into()), quota(20, 60)).await;
    }
    let stats = limiter.stats();
    assert!(stats.keys <= 4_096 && stats.evicted >= 90_000, "{stats:?}");
    assert!(!ask(&limiter, &login, Subject::Name("guessed"), quota(5, 3_600)).await.admitted());
}

#[tokio::test]
async fn figures_reach_a_registry_under_closed_labels() {
    let limiter = in_memory(&clock());
    let floor = limiter.scope("floor", OnOutage::LocalWindow);
    for _ in 0..3 {
        ask(&limiter, &floor, Subject::User("u"), quota(2, 60)).await;
    }
    let permit = limiter.enter(&floor, Subject::User("u"), 1.try_into().unwrap()).await.unwrap();
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    limiter.publish(&recorder);
    limiter.publish(&recorder);
    let page = recorder.handle().render();
    for line in [
        r#"quarterdeck_limits_decisions_total{scope="floor",kind="window",outcome="admitted"} 2"#,
        r#"quarterdeck_limits_decisions_total{scope="floor",kind="window",outcome="exhausted"} 1"#,
        r#"quarterdeck_limits_decisions_total{scope="floor",kind="in_flight",outcome="admitted"} 1"#,
        "quarterdeck_limits_keys 1",
        "quarterdeck_limits_in_flight 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
    drop(permit);
}
