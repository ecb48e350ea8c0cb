//! What happens at the same time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quarterdeck_auth::HashCost;
use quarterdeck_domain::role::HumanRole;
use quarterdeck_store::login_attempt;
use quarterdeck_testkit::{Answer, PASSWORD, TestServer, on_both_databases};

use crate::support::*;

const NEW: &str = "another good password";

/// Uses a token without pause until told to stop. Every answer must be one of these statuses, and none
/// may be 200 that was asked for after `over` was set.
async fn hammer(
    server: Arc<TestServer>,
    token: String,
    over: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
) -> usize {
    let mut asked = 0;
    while !stop.load(Ordering::SeqCst) {
        let late = over.load(Ordering::SeqCst);
        let answer = me(&server, &token).await;
        assert!(matches!(answer.status, 200 | 401), "{}", answer.text());
        assert!(!(late && answer.status == 200), "a success after the end");
        asked += 1;
        tokio::task::yield_now().await;
    }
    asked
}

/// Lets eight callers use a token while `end` ends it, and for a while after.
async fn end_while_used(server: &Arc<TestServer>, token: &str, end: impl Future<Output = Answer>) {
    let (over, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let hammers: Vec<_> = (0..8)
        .map(|_| tokio::spawn(hammer(server.clone(), token.to_owned(), over.clone(), stop.clone())))
        .collect();
    me(server, token).await.expect(200);
    let answer = end.await;
    over.store(true, Ordering::SeqCst);
    assert!(answer.status < 300, "{}", answer.text());
    for _ in 0..20 {
        assert_eq!(me(server, token).await.status, 401);
    }
    stop.store(true, Ordering::SeqCst);
    for hammer in hammers {
        assert!(hammer.await.expect("every answer was allowed") > 0);
    }
}

on_both_databases! {
    async fn of_racing_refreshes_with_one_cookie_one_wins_and_its_new_cookie_works(db: TestDb) {
        let server = Arc::new(refreshing(db).await);
        let mut refresh = server.ceo().await.cookie("refresh_token").unwrap().to_owned();
        for _ in 0..5 {
            let caller = server.anonymous().with_cookie("refresh_token", &refresh);
            let outcomes = race(12, |_| {
                let mut caller = caller.clone();
                async move { (caller.post_empty(REFRESH).await, caller) }
            }).await;
            let (won, lost): (Vec<_>, Vec<_>) =
                outcomes.into_iter().partition(|(answer, _)| answer.status == 200);
            let lost: Vec<_> = lost.into_iter().map(|(answer, _)| answer).collect();
            assert_eq!((won.len(), count(&lost, 401, 1005)), (1, 11));
            let winner = &won[0].1;
            me(&server, &token_of(winner)).await.expect(200);
            refresh = winner.cookie("refresh_token").unwrap().to_owned();
        }
    }

    async fn racing_guesses_lock_at_the_threshold_and_none_succeeds_before_the_lock_ends(db: TestDb) {
        let server = Arc::new(TestServer::on(db).await);
        server.ceo().await;
        let guesses = race(40, |_| {
            let server = server.clone();
            async move { login(&server, "ceo", WRONG).await }
        }).await;
        assert_eq!((count(&guesses, 401, 1000), count(&guesses, 429, 1003)), (9, 31));
        let tries = race(8, |_| {
            let server = server.clone();
            async move { login(&server, "ceo", PASSWORD).await }
        }).await;
        assert_eq!(count(&tries, 429, 1003), 8);
        server.advance(Duration::from_secs(15 * 60));
        login(&server, "ceo", PASSWORD).await.expect(200);
    }

    async fn a_right_guess_among_wrong_ones_never_outlives_the_lock(db: TestDb) {
        let server = Arc::new(server_with(db, |auth| auth.lockout_threshold = 3).await);
        server.ceo().await;
        for _ in 0..4 {
            let guesses = race(12, |i| {
                let server = server.clone();
                let password = if i == 6 { PASSWORD } else { WRONG };
                async move { login(&server, "ceo", password).await }
            }).await;
            let expected = count(&guesses, 401, 1000) + count(&guesses, 429, 1003) + count(&guesses, 200, 0);
            assert_eq!(expected, 12, "{guesses:?}");
            // Two failures before and two after a success are the most that stay below the threshold.
            assert!(count(&guesses, 401, 1000) <= 4, "{guesses:?}");
            server.advance(Duration::from_secs(15 * 60));
        }
    }

    async fn a_right_guess_is_refused_when_the_name_was_locked_while_it_was_checked(db: TestDb) {
        let server = Arc::new(TestServer::with(db, |options| {
            options.cost = HashCost { memory: 16_384, passes: 4, lanes: 1 };
        }).await);
        server.ceo().await;
        // Strangers keep the password pool busy, so that the right guess waits for its turn.
        let strangers: Vec<_> = (0..16).map(|i| {
            let server = server.clone();
            tokio::spawn(async move { login(&server, &format!("stranger-{i}"), WRONG).await })
        }).collect();
        let guess = tokio::spawn({
            let server = server.clone();
            async move { login(&server, "ceo", PASSWORD).await }
        });
        let now = server.now();
        let failures = server.app.store.write(move |tx| Box::pin(async move {
            for _ in 0..10 {
                login_attempt::insert(tx, "ceo", "elsewhere", now).await?;
            }
            Ok(())
        }));
        failures.await.unwrap();
        guess.await.unwrap().refused(429, 1003);
        for stranger in strangers {
            stranger.await.unwrap().refused(401, 1000);
        }
    }

    async fn of_racing_sign_ins_the_newest_within_the_limit_survive(db: TestDb) {
        let server = Arc::new(TestServer::on(db).await);
        server.ceo().await;
        let callers = race(16, |_| {
            let server = server.clone();
            async move {
                server.advance(Duration::from_millis(1));
                server.sign_in("ceo").await
            }
        }).await;
        let (mut alive, mut ended) = (Vec::new(), Vec::new());
        for caller in &callers {
            let answer = me(&server, &token_of(caller)).await;
            let session = stored_session(&server, &session_of(caller)).await.unwrap();
            assert_eq!(session.revoked, answer.status != 200);
            if answer.status == 200 {
                alive.push(session.created_at);
            } else {
                answer.refused(401, 1002);
                ended.push(session.created_at);
            }
        }
        assert_eq!((alive.len(), ended.len()), (5, 11));
        assert!(ended.iter().max() <= alive.iter().min(), "an older session outlived a newer one");
    }

    async fn no_old_token_works_after_a_password_change_has_returned(db: TestDb) {
        let server = Arc::new(refreshing(db).await);
        server.ceo().await;
        for (current, new) in [(PASSWORD, NEW), (NEW, PASSWORD)] {
            let mut caller = server.anonymous();
            caller.post(LOGIN, &credentials("ceo", current)).await.expect(200);
            // A token without a stored session dies by its signature alone.
            let claims = claims_of(&token_of(&caller));
            let stray = signed(&patched(claims, serde_json::json!({"jti": "without-a-row"})));
            let body = new_password(current, new);
            end_while_used(&server, &stray, async { caller.post(CHANGE, &body).await }).await;
            caller.get(ME).await.expect(200);
        }
    }

    async fn no_request_succeeds_after_its_session_was_revoked(db: TestDb) {
        let server = Arc::new(TestServer::on(db).await);
        let mut ceo = server.ceo().await;
        for _ in 0..3 {
            let other = server.sign_in("ceo").await;
            let path = format!("{SESSIONS}/{}", session_of(&other));
            end_while_used(&server, &token_of(&other), async { ceo.delete(&path).await }).await;
        }
    }

    async fn a_refresh_racing_with_a_revocation_revives_nothing(db: TestDb) {
        let server = Arc::new(refreshing(db).await);
        let ceo = server.ceo().await;
        for round in 0..8 {
            let caller = server.sign_in("ceo").await;
            let (id, end_all) = (session_of(&caller), round % 2 == 0);
            let outcomes = race(4, |i| {
                let (mut caller, mut ceo, id) = (caller.clone(), ceo.clone(), id.clone());
                async move {
                    let answer = match (i, end_all) {
                        (0, true) => ceo.delete(&format!("{SESSIONS}?scope=others")).await,
                        (0, false) => ceo.delete(&format!("{SESSIONS}/{id}")).await,
                        _ => caller.post_empty(REFRESH).await,
                    };
                    (answer, caller)
                }
            }).await;
            for (answer, mut caller) in outcomes {
                assert!(answer.status < 500, "{}", answer.text());
                me(&server, &token_of(&caller)).await.refused(401, 1002);
                caller.post_empty(REFRESH).await.refused(401, 1005);
            }
            // The memory of the revocation lasts as long as any token of the session.
            let kept = stored_session(&server, &id).await.unwrap();
            assert!(kept.revoked && kept.expires_at >= server.now() + chrono::TimeDelta::minutes(1440));
        }
    }

    async fn a_password_change_racing_with_refreshes_fails_nobody(db: TestDb) {
        let server = Arc::new(refreshing(db).await);
        server.ceo().await;
        for (current, new) in [(PASSWORD, NEW), (NEW, PASSWORD), (PASSWORD, NEW), (NEW, PASSWORD)] {
            let mut changer = server.anonymous();
            changer.post(LOGIN, &credentials("ceo", current)).await.expect(200);
            let others = race(3, |_| {
                let server = server.clone();
                async move {
                    let mut caller = server.anonymous();
                    caller.post(LOGIN, &credentials("ceo", current)).await.expect(200);
                    caller
                }
            }).await;
            let outcomes = race(4, |i| {
                let (mut changer, mut other) = (changer.clone(), others[i.min(2)].clone());
                async move {
                    match i {
                        3 => (changer.post(CHANGE, &new_password(current, new)).await, changer),
                        _ => (other.post_empty(REFRESH).await, other),
                    }
                }
            }).await;
            for (i, (answer, mut caller)) in outcomes.into_iter().enumerate() {
                if i == 3 {
                    answer.expect(200);
                    caller.get(ME).await.expect(200);
                } else {
                    assert!(matches!(answer.status, 200 | 401), "{}", answer.text());
                    assert_eq!(caller.get(ME).await.status, 401);
                    caller.post_empty(REFRESH).await.refused(401, 1005);
                }
            }
        }
    }

    async fn a_deleted_user_gets_no_token_from_a_racing_refresh(db: TestDb) {
        let server = Arc::new(refreshing(db).await);
        let ceo = server.ceo().await;
        for round in 0..6 {
            let person = server.person(&format!("person-{round}"), HumanRole::Observer).await;
            let path = format!("{USERS}/{}", user_of(&person));
            let outcomes = race(5, |i| {
                let (mut person, mut ceo, path) = (person.clone(), ceo.clone(), path.clone());
                async move {
                    match i {
                        2 => (ceo.delete(&path).await, person),
                        _ => (person.post_empty(REFRESH).await, person),
                    }
                }
            }).await;
            for (i, (answer, mut caller)) in outcomes.into_iter().enumerate() {
                let allowed: BTreeSet<u16> = if i == 2 { [204].into() } else { [200, 401].into() };
                assert!(allowed.contains(&answer.status), "{}", answer.text());
                assert_eq!(me(&server, &token_of(&caller)).await.status, 401);
                caller.post_empty(REFRESH).await.refused(401, 1005);
            }
        }
    }

    async fn parallel_sign_ins_sign_outs_and_refreshes_of_one_user_fail_nobody(db: TestDb) {
        let server = Arc::new(refreshing(db).await);
        server.ceo().await;
        let answers = race(24, |i| {
            let server = server.clone();
            async move {
                let mut caller = server.anonymous();
                let mut answers = vec![caller.post(LOGIN, &known("ceo")).await];
                answers.push(caller.post_empty(REFRESH).await);
                answers.push(match i % 3 {
                    0 => caller.post_empty(LOGOUT).await,
                    1 => caller.delete(&format!("{SESSIONS}?scope=others")).await,
                    _ => caller.get(SESSIONS).await,
                });
                answers
            }
        }).await;
        for answer in answers.iter().flatten() {
            assert!(matches!(answer.status, 200 | 204 | 401), "{}", answer.text());
        }
        assert!(answers.iter().all(|all| all[0].status == 200));
    }
}
