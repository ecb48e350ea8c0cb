//! Refresh tokens: each works once.

use std::time::Duration;

use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{Answer, Caller, PASSWORD, TestServer, on_both_databases};
use serde_json::json;

use crate::support::*;

/// Shows this refresh token and nothing else.
async fn redeem(server: &TestServer, refresh: &str) -> Answer {
    server.anonymous().with_cookie("refresh_token", refresh).post_empty(REFRESH).await
}

fn refresh_of(caller: &Caller) -> String {
    caller.cookie("refresh_token").expect("a refresh cookie").to_owned()
}

fn cut(mut body: serde_json::Value) -> serde_json::Value {
    body["error_detail"]["instance"] = serde_json::Value::Null;
    body
}

on_both_databases! {
    async fn a_refresh_token_works_once_and_its_successor_after_it(db: TestDb) {
        let server = refreshing(db).await;
        let mut ceo = server.ceo().await;
        let (first, session, old) = (refresh_of(&ceo), session_of(&ceo), token_of(&ceo));
        let before = stored_session(&server, &session).await.unwrap();
        server.advance(Duration::from_secs(5));
        let answer = ceo.post_empty(REFRESH).await.expect(200);
        assert_eq!(answer.data(), json!({"expires_in": 1440 * 60, "must_change_password": false}));
        assert_ne!(refresh_of(&ceo), first);
        assert_eq!(session_of(&ceo), session, "the session goes on");
        redeem(&server, &first).await.refused(401, 1005);
        ceo.get(ME).await.expect(200);
        me(&server, &old).await.expect(200);
        ceo.post_empty(REFRESH).await.expect(200);
        let after = stored_session(&server, &session).await.unwrap();
        assert_eq!(after.created_at, before.created_at);
        assert_eq!(after.last_active_at, server.now());
        assert_eq!(after.expires_at - before.expires_at, chrono::TimeDelta::seconds(5));
    }

    async fn the_old_access_token_lives_until_its_own_end_or_the_sessions(db: TestDb) {
        let server = refreshing(db).await;
        let mut ceo = server.ceo().await;
        let old = token_of(&ceo);
        server.advance(Duration::from_secs(600));
        ceo.post_empty(REFRESH).await.expect(200);
        me(&server, &old).await.expect(200);
        server.advance(Duration::from_secs(1440 * 60 - 600));
        me(&server, &old).await.refused(401, 1000);
        ceo.get(ME).await.expect(200);
        server.advance(Duration::from_secs(1));
        ceo.post_empty(REFRESH).await.expect(200);
        let token = token_of(&ceo);
        ceo.post_empty(LOGOUT).await.expect(204);
        me(&server, &token).await.refused(401, 1002);
    }

    async fn every_refusal_looks_the_same(db: TestDb) {
        let server = refreshing(db).await;
        let mut ceo = server.ceo().await;
        let used = refresh_of(&ceo);
        ceo.post_empty(REFRESH).await.expect(200);
        let revoked = server.sign_in("ceo").await;
        revoked.clone().post_empty(LOGOUT).await.expect(204);
        let gone = server.person("ann", HumanRole::Observer).await;
        ceo.delete(&format!("{USERS}/{}", user_of(&gone))).await.expect(204);
        let reference = cut(server.anonymous().post_empty(REFRESH).await.refused(401, 1005).json());
        for (why, token) in [
            ("empty", String::new()),
            ("unknown", "x".repeat(43)),
            ("odd", "\u{1}\u{7f}".escape_default().to_string()),
            ("used", used),
            ("revoked session", refresh_of(&revoked)),
            ("deleted owner", refresh_of(&gone)),
        ] {
            let answer = redeem(&server, &token).await.refused(401, 1005);
            assert_eq!(cut(answer.json()), reference, "{why}");
            assert!(set_cookies(&answer).is_empty(), "{why}");
        }
        let mut late = server.sign_in("ceo").await;
        server.advance(Duration::from_secs(10_080 * 60));
        late.post_empty(REFRESH).await.refused(401, 1005);
    }

    async fn a_late_replay_ends_the_session_and_an_early_one_does_not(db: TestDb) {
        let server = refreshing(db).await;
        let mut ceo = server.ceo().await;
        let first = refresh_of(&ceo);
        ceo.post_empty(REFRESH).await.expect(200);
        server.advance(Duration::from_secs(10));
        redeem(&server, &first).await.refused(401, 1005);
        ceo.get(ME).await.expect(200);
        ceo.post_empty(REFRESH).await.expect(200);
        server.advance(Duration::from_millis(1));
        redeem(&server, &first).await.refused(401, 1005);
        ceo.get(ME).await.refused(401, 1002);
        redeem(&server, &refresh_of(&ceo)).await.refused(401, 1005);
    }

    async fn a_refused_token_of_a_failing_store_stays_usable(db: TestDb) {
        let server = refreshing(db).await;
        let mut ceo = server.ceo().await;
        server.app.store.close().await;
        let status = ceo.post_empty(REFRESH).await.status;
        assert!(status >= 500, "{status}");
        let server = server.second(|options| options.auth.jwt_refresh_enabled = true).await;
        redeem(&server, &refresh_of(&ceo)).await.expect(200);
    }

    async fn a_new_password_voids_every_refresh_token_of_the_user(db: TestDb) {
        let server = refreshing(db).await;
        let mut ceo = server.ceo().await;
        let other = server.sign_in("ceo").await;
        let (mine, theirs) = (refresh_of(&ceo), refresh_of(&other));
        ceo.post(CHANGE, &new_password(PASSWORD, "another good password")).await.expect(200);
        redeem(&server, &mine).await.refused(401, 1005);
        redeem(&server, &theirs).await.refused(401, 1005);
        ceo.post_empty(REFRESH).await.expect(200);
    }

    async fn signing_out_voids_the_refresh_token_of_that_session_only(db: TestDb) {
        let server = refreshing(db).await;
        let ceo = server.ceo().await;
        let other = server.sign_in("ceo").await;
        ceo.clone().post_empty(LOGOUT).await.expect(204);
        redeem(&server, &refresh_of(&ceo)).await.refused(401, 1005);
        redeem(&server, &refresh_of(&other)).await.expect(200);
    }

    async fn an_expired_access_token_can_still_sign_its_session_out(db: TestDb) {
        let server = refreshing(db).await;
        let ceo = server.ceo().await;
        server.advance(Duration::from_secs(1440 * 60));
        ceo.clone().post_empty(LOGOUT).await.expect(204);
        redeem(&server, &refresh_of(&ceo)).await.refused(401, 1005);
    }

    async fn the_database_holds_hashes_only(db: TestDb) {
        let server = refreshing(db).await;
        let mut ceo = server.ceo().await;
        let first = refresh_of(&ceo);
        ceo.post_empty(REFRESH).await.expect(200);
        let raw = [first, refresh_of(&ceo), token_of(&ceo), ceo.cookie("csrf_token").unwrap().to_owned()];
        let dump = server.db.dump().await;
        assert!(dump.contains(&session_of(&ceo)), "the dump shows what is stored");
        for secret in raw {
            assert!(!dump.contains(&secret));
        }
    }

    async fn without_refresh_nothing_is_redeemed(db: TestDb) {
        let server = refreshing(db).await;
        let refresh = refresh_of(&server.ceo().await);
        let server = restarted(server, |_| {}).await;
        redeem(&server, &refresh).await.refused(401, 1005);
    }
}
