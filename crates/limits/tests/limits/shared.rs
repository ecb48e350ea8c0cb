//! Several copies of the program on one Redis.

use std::time::Duration;

use quarterdeck_domain::clock::SystemClock;
use quarterdeck_limits::{Limiter, OnOutage, Subject, Window};
use redis::AsyncCommands;

use crate::{ask, clock, connection, in_redis, patient, quota, race};
use quarterdeck_testkit::RedisServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn copies_together_never_admit_more_than_the_limit() {
    let Some(server) = RedisServer::start() else { return };
    let copy = async || Limiter::redis(&server.url(), patient(), SystemClock::shared()).await.unwrap();
    let copies = [copy().await, copy().await];
    assert_eq!(race(&copies, "tasks.create", quota(50, 3_600), 400).await, 50);
}

#[tokio::test]
async fn all_windows_of_a_request_are_one_command() {
    let Some(server) = RedisServer::start() else { return };
    let limiter = in_redis(&server, &clock()).await;
    let scopes = ["floor", "auth", "tasks.create"].map(|name| limiter.scope(name, OnOutage::LocalWindow));
    let windows = [0, 1, 2].map(|i: usize| Window {
        scope: &scopes[i],
        subject: Subject::User("u"),
        quota: quota(10, 60),
    });
    let mut connection = connection(&server).await;
    let calls = async |connection: &mut redis::aio::MultiplexedConnection| -> u64 {
        let stats: String = redis::cmd("INFO").arg("commandstats").query_async(connection).await.unwrap();
        let line = stats.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap();
        line.split(['=', ',']).nth(1).unwrap().parse().unwrap()
    };
    let before = calls(&mut connection).await;
    for _ in 0..5 {
        assert_eq!(limiter.check(&windows).await.len(), 3);
    }
    assert_eq!(calls(&mut connection).await - before, 5);
}

#[tokio::test]
async fn the_time_redis_takes_reaches_the_registry() {
    let Some(server) = RedisServer::start() else { return };
    let limiter = in_redis(&server, &clock()).await;
    let scope = limiter.scope("floor", OnOutage::LocalWindow);
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    limiter.publish(&recorder);
    for _ in 0..3 {
        ask(&limiter, &scope, Subject::User("u"), quota(10, 60)).await;
    }
    limiter.publish(&recorder);
    let page = recorder.handle().render();
    for line in [
        "quarterdeck_limits_store_duration_seconds_count 3",
        "quarterdeck_limits_store_up 1",
        "quarterdeck_limits_store_outages_total 0",
        "quarterdeck_limits_local_decisions_total 0",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
}

#[tokio::test]
async fn keys_expire_share_a_slot_and_hold_no_login_names() {
    let Some(server) = RedisServer::start() else { return };
    let limiter = in_redis(&server, &clock()).await;
    let login = limiter.scope("login", OnOutage::Refuse);
    let name = "root@example.org".repeat(50);
    ask(&limiter, &login, Subject::Name(&name), quota(5, 3_600)).await;
    ask(&limiter, &login, Subject::Address("2001:db8::".parse().unwrap()), quota(5, 1)).await;
    let _permit = limiter.enter(&login, Subject::User("u"), 1.try_into().unwrap()).await.unwrap();
    let mut connection = connection(&server).await;
    let keys: Vec<String> = connection.keys("*login*").await.unwrap();
    assert_eq!(keys.len(), 3);
    for key in keys {
        assert!(key.starts_with("quarterdeck:{limits}:") && key.len() < 80, "{key}");
        assert!(!key.contains("root"), "{key}");
        let life: i64 = connection.pttl(&key).await.unwrap();
        let longest = if key.contains(":name:") { 7_200_000 } else { 60_000 };
        assert!(life > 0 && life <= longest, "{key} lives {life} ms");
    }
}

#[tokio::test]
async fn a_server_clock_set_back_frees_nothing_and_locks_nobody_out_for_longer_than_a_window() {
    let Some(server) = RedisServer::start() else { return };
    let ahead = clock();
    ahead.advance(Duration::from_secs(86_400));
    let behind = clock();
    let limiter = in_redis(&server, &ahead).await;
    let after = in_redis(&server, &behind).await;
    let scope = limiter.scope("tasks.create", OnOutage::LocalWindow);
    let later = after.scope("tasks.create", OnOutage::LocalWindow);
    for seconds in [10, 0] {
        assert!(ask(&limiter, &scope, Subject::User("u"), quota(2, 60)).await.admitted());
        ahead.advance(Duration::from_secs(seconds));
    }
    let refusal = ask(&after, &later, Subject::User("u"), quota(2, 60)).await;
    assert_eq!((refusal.admitted(), refusal.reset()), (false, Duration::from_secs(50)));
    behind.advance(Duration::from_secs(50));
    assert!(ask(&after, &later, Subject::User("u"), quota(2, 60)).await.admitted());
    assert!(!ask(&after, &later, Subject::User("u"), quota(2, 60)).await.admitted());
}
