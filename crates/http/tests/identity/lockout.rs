//! Too many failures close a name for a while.

use std::time::{Duration, Instant};

use quarterdeck_auth::HashCost;
use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{Answer, PASSWORD, TestDb, TestServer, on_both_databases};

use crate::support::*;

const MINUTE: Duration = Duration::from_secs(60);

/// Fails to sign in `n` times, each with 401.
async fn fail(server: &TestServer, name: &str, n: usize) {
    for i in 0..n {
        let answer = login(server, name, WRONG).await;
        assert_eq!((answer.status, answer.code()), (401, 1000), "failure {} of {name}", i + 1);
    }
}

/// Demands that a name is locked for so many seconds.
#[track_caller]
fn locked(answer: Answer, seconds: u64) {
    let answer = answer.refused(429, 1003);
    let detail = &answer.json()["error_detail"];
    assert_eq!(answer.header("retry-after"), seconds.to_string());
    assert_eq!(detail["retry_after"], seconds);
    assert_eq!((&detail["error_category"], &detail["retryable"]), (&"auth".into(), &true.into()));
    assert!(set_cookies(&answer).is_empty());
}

/// Tries to sign in from this address.
async fn from(server: &TestServer, address: &str, name: &str, password: &str) -> Answer {
    let peer: std::net::IpAddr = address.parse().unwrap();
    let request = axum::http::Request::post(LOGIN)
        .extension(axum::extract::ConnectInfo(std::net::SocketAddr::from((peer, 4711))))
        .body(axum::body::Body::from(credentials(name, password).to_string()));
    server.anonymous().raw(request.unwrap()).await
}

async fn open(server: &TestServer, name: &str) {
    login(server, name, PASSWORD).await.expect(200);
}

on_both_databases! {
    async fn nine_failures_are_refused_and_the_tenth_locks_even_the_right_password(db: TestDb) {
        let server = TestServer::on(db).await;
        server.ceo().await;
        fail(&server, "ceo", 9).await;
        locked(login(&server, "ceo", WRONG).await, 900);
        locked(login(&server, "ceo", PASSWORD).await, 900);
    }

    async fn a_name_nobody_has_locks_the_same_way(db: TestDb) {
        let server = TestServer::on(db).await;
        for name in ["nobody", "system"] {
            fail(&server, name, 9).await;
            locked(login(&server, name, WRONG).await, 900);
        }
    }

    async fn spellings_of_a_name_share_a_counter_and_other_names_do_not(db: TestDb) {
        let server = TestServer::on(db).await;
        server.ceo().await;
        server.person("Alice", HumanRole::Observer).await;
        for name in ["Alice", "ALICE", "alice", "aLICE", "Alice", "ALICE", "alice", "aLICE", "Alice"] {
            fail(&server, name, 1).await;
        }
        locked(login(&server, "ALICE", WRONG).await, 900);
        locked(login(&server, "Alice", PASSWORD).await, 900);
        open(&server, "ceo").await;
    }

    async fn a_success_before_the_threshold_forgets_the_failures(db: TestDb) {
        let server = TestServer::on(db).await;
        server.ceo().await;
        fail(&server, "ceo", 9).await;
        open(&server, "ceo").await;
        fail(&server, "ceo", 9).await;
        open(&server, "ceo").await;
    }

    async fn a_lock_survives_a_restart_with_the_rest_of_its_time(db: TestDb) {
        let server = TestServer::on(db).await;
        server.ceo().await;
        fail(&server, "ceo", 9).await;
        locked(login(&server, "ceo", WRONG).await, 900);
        server.advance(5 * MINUTE);
        let server = restarted(server, |_| {}).await;
        server.app.auth.upkeep().await;
        locked(login(&server, "ceo", PASSWORD).await, 600);
        server.advance(10 * MINUTE - Duration::from_millis(1));
        locked(login(&server, "ceo", PASSWORD).await, 1);
        server.advance(Duration::from_millis(1));
        open(&server, "ceo").await;
    }

    async fn attempts_during_a_lock_neither_count_nor_prolong_it(db: TestDb) {
        let server = TestServer::on(db).await;
        server.ceo().await;
        fail(&server, "ceo", 9).await;
        locked(login(&server, "ceo", WRONG).await, 900);
        for minute in 1..15 {
            server.advance(MINUTE);
            locked(login(&server, "ceo", WRONG).await, 900 - minute * 60);
        }
        server.advance(MINUTE);
        fail(&server, "ceo", 9).await;
        open(&server, "ceo").await;
    }

    async fn failures_outside_the_window_do_not_count(db: TestDb) {
        let server = TestServer::on(db).await;
        server.ceo().await;
        fail(&server, "ceo", 9).await;
        server.advance(15 * MINUTE);
        fail(&server, "ceo", 9).await;
        locked(login(&server, "ceo", WRONG).await, 900);
    }

    async fn after_a_lock_shorter_than_the_window_one_more_failure_locks_again(db: TestDb) {
        let server = server_with(db, |auth| auth.lockout_duration_minutes = 5).await;
        server.ceo().await;
        fail(&server, "ceo", 9).await;
        locked(login(&server, "ceo", WRONG).await, 300);
        server.advance(5 * MINUTE);
        locked(login(&server, "ceo", WRONG).await, 300);
        server.advance(5 * MINUTE);
        open(&server, "ceo").await;
        fail(&server, "ceo", 9).await;
    }

    async fn a_wrong_current_password_counts_like_a_failed_sign_in(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let guess = new_password(WRONG, "another good password");
        fail(&server, "CEO", 4).await;
        for _ in 0..5 {
            ceo.post(CHANGE, &guess).await.refused(401, 1000);
        }
        locked(ceo.post(CHANGE, &guess).await, 900);
        locked(ceo.post(CHANGE, &new_password(PASSWORD, "another good password")).await, 900);
        locked(login(&server, "ceo", PASSWORD).await, 900);
        ceo.get(ME).await.expect(200);
    }

    async fn an_address_that_fails_with_many_names_is_refused(db: TestDb) {
        let server = server_with(db, |auth| auth.lockout_threshold = 2).await;
        server.ceo().await;
        for i in 0..10 {
            fail(&server, &format!("name-{i}"), 1).await;
        }
        let answer = login(&server, "ceo", PASSWORD).await.refused(429, 5000);
        assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1);
        server.advance(15 * MINUTE);
        open(&server, "ceo").await;
    }

    async fn hosts_of_one_ipv6_network_share_their_failures_and_others_do_not(db: TestDb) {
        let server = server_with(db, |auth| auth.lockout_threshold = 2).await;
        server.ceo().await;
        for host in 0..10 {
            from(&server, &format!("2001:db8:0:1::{host}"), &format!("name-{host}"), WRONG).await.refused(401, 1000);
        }
        from(&server, "2001:db8:0:1:ffff::1", "ceo", PASSWORD).await.refused(429, 5000);
        let answer = from(&server, "2001:db8:0:2::1", "ceo", PASSWORD).await.expect(200);
        let token = set_cookies(&answer)[0].split(['=', ';']).nth(1).unwrap().to_owned();
        let list = server.bearer(&token).get(SESSIONS).await.data();
        let current = list.as_array().unwrap().iter().find(|session| session["is_current"] == true);
        assert_eq!(current.unwrap()["ip_address"], "2001:db8:0:2::1", "the address, not its network");
    }

    async fn a_failing_store_lets_nobody_in(db: TestDb) {
        let server = TestServer::on(db).await;
        server.ceo().await;
        server.app.store.close().await;
        for password in [PASSWORD, WRONG] {
            let answer = login(&server, "ceo", password).await;
            assert!(answer.status >= 500 && set_cookies(&answer).is_empty(), "{}", answer.text());
        }
    }

    async fn a_name_no_database_can_hold_is_refused_by_its_shape(db: TestDb) {
        let server = TestServer::on(db).await;
        for name in ["a\0b", "\0"] {
            login(&server, name, WRONG).await.refused(400, 2001);
        }
        login(&server, "\u{fffd}\u{202e}\u{1f980}\u{7}", WRONG).await.refused(401, 1000);
        login(&server, &"ß".repeat(128), &"ﷺ".repeat(128)).await.refused(401, 1000);
    }
}

#[tokio::test]
async fn every_cause_of_a_refusal_reads_the_same() {
    let server = TestServer::start().await;
    server.ceo().await;
    let mut bodies = Vec::new();
    for (name, password) in [("ceo", WRONG), ("CEO", PASSWORD), ("nobody", WRONG), ("system", WRONG)] {
        let answer = login(&server, name, password).await.refused(401, 1000);
        assert_eq!(answer.error(), "Invalid credentials");
        let mut body = answer.json();
        body["error_detail"]["instance"] = serde_json::Value::Null;
        bodies.push(body);
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
}

#[tokio::test]
async fn every_refusal_costs_one_verification() {
    // Dear enough to dwarf the one write that a counted failure costs and a locked one does not.
    let cost = HashCost { memory: 65_536, passes: 2, lanes: 1 };
    let server = TestServer::with(TestDb::sqlite(), |options| {
        options.cost = cost;
        options.auth.lockout_threshold = 100;
    })
    .await;
    server.ceo().await;
    let wrong = |_| [("ceo", WRONG), ("nobody", WRONG), ("system", WRONG)];
    alike(&server, wrong).await;
    // The failures so far are enough now.
    let live = server.app.auth.live();
    server.app.auth.set_live(quarterdeck_auth::Live { lockout_threshold: 5, ..live });
    login(&server, "ceo", PASSWORD).await.refused(429, 1003);
    const FRESH: [&str; 5] = ["a", "b", "c", "d", "e"];
    alike(&server, |round| [("ceo", PASSWORD), (FRESH[round], WRONG)]).await;
}

/// Demands that these sign-ins are refused after about the same work. They take turns, so that the
/// machine is as busy for one as for the other, and the quickest of each counts.
async fn alike<const N: usize>(
    server: &TestServer,
    logins: impl Fn(usize) -> [(&'static str, &'static str); N],
) {
    let mut quickest = [Duration::MAX; N];
    for round in 0..5 {
        for (best, (name, password)) in quickest.iter_mut().zip(logins(round)) {
            let start = Instant::now();
            let answer = login(server, name, password).await;
            *best = start.elapsed().min(*best);
            assert!(matches!(answer.status, 401 | 429), "{}", answer.text());
        }
    }
    let (least, most) = (quickest.iter().min().unwrap(), quickest.iter().max().unwrap());
    assert!(*most < *least * 2, "{quickest:?}");
}
