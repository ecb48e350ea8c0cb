//! Several copies of the program on one PostgreSQL: what ends on one has ended on all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{Answer, Caller, PASSWORD, TestDb, TestServer};
use serde_json::json;

use crate::support::*;

/// Two copies on one database; `None` without PostgreSQL.
async fn two() -> Option<(TestServer, Arc<TestServer>)> {
    let first = refreshing(TestDb::postgres().await?).await;
    let second = first.second(|options| options.auth.jwt_refresh_enabled = true).await;
    Some((first, Arc::new(second)))
}

/// Lets six callers ask the other copy without pause while `end` runs on this one. No answer that was
/// asked for after the end may be `good`, and all are 200, 401 or 403.
async fn end_while_used(
    callers: Caller,
    path: &'static str,
    good: impl Fn(&Answer) -> bool + Send + Copy + 'static,
    end: impl Future<Output = Answer>,
) {
    let (over, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let hammers: Vec<_> = (0..6)
        .map(|_| {
            let (mut caller, over, stop) = (callers.clone(), over.clone(), stop.clone());
            tokio::spawn(async move {
                let mut asked = 0;
                while !stop.load(Ordering::SeqCst) {
                    let late = over.load(Ordering::SeqCst);
                    let answer = caller.get(path).await;
                    assert!(matches!(answer.status, 200 | 401 | 403), "{}", answer.text());
                    assert!(!(late && good(&answer)), "a success after the end");
                    asked += 1;
                    tokio::task::yield_now().await;
                }
                asked
            })
        })
        .collect();
    let mut caller = callers;
    assert!(good(&caller.get(path).await), "good before the end");
    let answer = end.await;
    over.store(true, Ordering::SeqCst);
    assert!(answer.status < 300, "{}", answer.text());
    for _ in 0..20 {
        assert!(!good(&caller.get(path).await), "a success after the end");
    }
    stop.store(true, Ordering::SeqCst);
    for hammer in hammers {
        assert!(hammer.await.expect("every answer was allowed") > 0);
    }
}

fn succeeds(answer: &Answer) -> bool {
    answer.status == 200
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_revoked_on_one_copy_is_dead_on_the_other() {
    let Some((here, there)) = two().await else { return };
    let mut ceo = here.ceo().await;
    for _ in 0..3 {
        let other = there.sign_in("ceo").await;
        let path = format!("{SESSIONS}/{}", session_of(&other));
        end_while_used(there.bearer(&token_of(&other)), ME, succeeds, async { ceo.delete(&path).await })
            .await;
        me(&there, &token_of(&other)).await.refused(401, 1002);
    }
    let mut leaving = here.sign_in("ceo").await;
    let there_too = there.bearer(&token_of(&leaving));
    end_while_used(there_too, ME, succeeds, async { leaving.post_empty(LOGOUT).await }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demotion_on_one_copy_counts_on_the_other() {
    let Some((here, there)) = two().await else { return };
    let mut ceo = here.ceo().await;
    let person = here.person("max", HumanRole::Manager).await;
    let path = format!("{USERS}/{}", user_of(&person));
    let manager = |answer: &Answer| answer.data()["role"] == "manager";
    let demote = async { ceo.patch(&path, &json!({"role": "observer"})).await };
    end_while_used(there.bearer(&token_of(&person)), ME, manager, demote).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_changed_on_one_copy_ends_old_tokens_on_the_other() {
    let Some((here, there)) = two().await else { return };
    let mut ceo = here.ceo().await;
    let claims = patched(claims_of(&token_of(&ceo)), json!({"jti": "without-a-row"}));
    let body = new_password(PASSWORD, "another good password");
    let change = async { ceo.post(CHANGE, &body).await };
    end_while_used(there.bearer(&signed(&claims)), ME, succeeds, change).await;
    me(&there, &token_of(&ceo)).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_deleted_on_one_copy_is_gone_on_the_other_with_every_key() {
    let Some((here, there)) = two().await else { return };
    let mut ceo = here.ceo().await;
    for with_key in [false, true] {
        let person = here.person("ann", HumanRole::Observer).await;
        let path = format!("{USERS}/{}", user_of(&person));
        plant_key(&here, &user_of(&person), &format!("planted{with_key}")).await;
        let shown = match with_key {
            true => format!("planted{with_key}"),
            false => signed(&patched(claims_of(&token_of(&person)), json!({"jti": "without-a-row"}))),
        };
        end_while_used(there.bearer(&shown), ME, succeeds, async { ceo.delete(&path).await }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_revoked_on_one_copy_is_dead_on_the_other() {
    let Some((here, there)) = two().await else { return };
    let mut ceo = here.ceo().await;
    let body = json!({"name": "script", "role": "observer"});
    let issued = ceo.post("/api/v1/auth/api-keys", &body).await.expect(201).data();
    let path = format!("/api/v1/auth/api-keys/{}", issued["key"]["id"].as_str().unwrap());
    let script = there.bearer(issued["api_key"].as_str().unwrap());
    end_while_used(script, ME, succeeds, async { ceo.delete(&path).await }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_cannot_hear_the_others_does_not_trust_what_it_remembers() {
    let Some((here, there)) = two().await else { return };
    let mut ceo = here.ceo().await;
    for _ in 0..3 {
        let other = there.sign_in("ceo").await;
        me(&there, &token_of(&other)).await.expect(200);
        // Cuts the line both copies hear by.
        here.db
            .execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' \
                 AND mode = 'ShareLock' \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            )
            .await;
        ceo.delete(&format!("{SESSIONS}/{}", session_of(&other))).await.expect(204);
        me(&there, &token_of(&other)).await.refused(401, 1002);
        me(&here, &token_of(&other)).await.refused(401, 1002);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_refreshes_racing_on_two_copies_one_wins() {
    let Some((here, there)) = two().await else { return };
    let ceo = here.ceo().await;
    let refresh = ceo.cookie("refresh_token").unwrap().to_owned();
    let callers = [here.anonymous(), there.anonymous()].map(|c| c.with_cookie("refresh_token", &refresh));
    let answers = race(12, |i| {
        let mut caller = callers[i % 2].clone();
        async move { caller.post_empty(REFRESH).await }
    })
    .await;
    assert_eq!((count(&answers, 200, 0), count(&answers, 401, 1005)), (1, 11));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_and_sign_ins_on_two_copies_are_counted_together() {
    let Some((here, there)) = two().await else { return };
    here.ceo().await;
    let here = Arc::new(here);
    let callers = race(12, |i| {
        let server = if i % 2 == 0 { here.clone() } else { there.clone() };
        async move {
            server.advance(Duration::from_millis(1));
            server.sign_in("ceo").await
        }
    })
    .await;
    let mut alive = 0;
    for caller in &callers {
        let (a, b) = (me(&here, &token_of(caller)).await, me(&there, &token_of(caller)).await);
        assert_eq!(a.status, b.status);
        alive += usize::from(a.status == 200);
    }
    assert_eq!(alive, 5);
    let guesses = race(20, |i| {
        let server = if i % 2 == 0 { here.clone() } else { there.clone() };
        async move { login(&server, "ceo", WRONG).await }
    })
    .await;
    assert_eq!((count(&guesses, 401, 1000), count(&guesses, 429, 1003)), (9, 11));
    login(&here, "ceo", PASSWORD).await.refused(429, 1003);
    login(&there, "ceo", PASSWORD).await.refused(429, 1003);
}
