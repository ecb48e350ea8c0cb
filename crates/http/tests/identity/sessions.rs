//! Sessions: listed, limited, ended.

use std::time::Duration;

use quarterdeck_domain::role::HumanRole;
use quarterdeck_store::refresh_token;
use quarterdeck_testkit::{Caller, PASSWORD, TestServer, on_both_databases};
use serde_json::{Value, json};

use crate::support::*;

/// Ids of the sessions a caller sees.
async fn listed(caller: &mut Caller, query: &str) -> Vec<String> {
    let list = caller.get(&format!("{SESSIONS}{query}")).await.expect(200).data();
    let ids = list.as_array().unwrap().iter().map(|s| s["session_id"].as_str().unwrap().to_owned());
    ids.collect()
}

/// Signs the same person in `n` times, a second apart.
async fn sign_in_often(server: &TestServer, name: &str, n: usize) -> Vec<Caller> {
    let mut callers = Vec::new();
    for _ in 0..n {
        server.advance(Duration::from_secs(1));
        callers.push(server.sign_in(name).await);
    }
    callers
}

/// Whether a refresh token is stored as used.
async fn used_up(server: &TestServer, raw: &str) -> bool {
    let (hash, now) = (keyed_hash(raw), server.now());
    let shown = server
        .app
        .store
        .write(move |tx| Box::pin(async move { refresh_token::consume(tx, &hash, now).await }));
    matches!(shown.await.unwrap(), refresh_token::Consumed::Replayed { .. })
}

on_both_databases! {
    async fn a_session_remembers_who_where_from_and_until_when(db: TestDb) {
        let server = TestServer::on(db).await;
        let ceo = server.ceo().await;
        let agent = "ä".repeat(600);
        let mut caller = server.anonymous().with_header("user-agent", &agent);
        server.advance(Duration::from_secs(1));
        caller.post(LOGIN, &known("ceo")).await.expect(200);
        let list = caller.get(SESSIONS).await.expect(200).data();
        let mine = &list[0];
        assert_eq!(mine["session_id"], session_of(&caller));
        assert_eq!(mine["user_id"], user_of(&ceo));
        assert_eq!(mine["username"], "ceo");
        assert_eq!(mine["ip_address"], "unknown");
        assert_eq!(mine["user_agent"].as_str().unwrap().chars().count(), 512);
        assert_eq!((&mine["is_current"], &list[1]["is_current"]), (&json!(true), &json!(false)));
        let time = |name: &str| chrono::DateTime::parse_from_rfc3339(mine[name].as_str().unwrap()).unwrap();
        assert_eq!(time("created_at"), server.now());
        assert_eq!(time("last_active_at"), server.now());
        assert_eq!(time("expires_at") - time("created_at"), chrono::TimeDelta::minutes(1440));
        let mut members: Vec<_> = mine.as_object().unwrap().keys().map(String::as_str).collect();
        members.sort_unstable();
        assert_eq!(members, [
            "created_at", "expires_at", "ip_address", "is_current", "last_active_at", "session_id",
            "user_agent", "user_id", "username",
        ]);
    }

    async fn lists_are_newest_first_then_by_id(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        server.advance(Duration::from_secs(1));
        let mut twins = [session_of(&server.sign_in("ceo").await), session_of(&server.sign_in("ceo").await)];
        twins.sort();
        server.advance(Duration::from_secs(1));
        let newest = session_of(&server.sign_in("ceo").await);
        let expected = [newest, twins[0].clone(), twins[1].clone(), session_of(&ceo)];
        assert_eq!(listed(&mut ceo, "").await, expected);
    }

    async fn an_ended_session_is_refused_at_once_and_after_a_restart(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let other = server.sign_in("ceo").await;
        let token = token_of(&other);
        me(&server, &token).await.expect(200);
        ceo.delete(&format!("{SESSIONS}/{}", session_of(&other))).await.expect(204);
        me(&server, &token).await.refused(401, 1002);
        assert_eq!(listed(&mut ceo, "").await, [session_of(&ceo)]);
        let server = restarted(server, |_| {}).await;
        me(&server, &token).await.refused(401, 1002);
        me(&server, &token_of(&ceo)).await.expect(200);
    }

    async fn the_sixth_session_ends_exactly_the_oldest(db: TestDb) {
        let server = TestServer::on(db).await;
        server.person("ann", HumanRole::Observer).await;
        let bystander = server.ceo().await;
        // The person's first session is the oldest of six.
        let first = session_of(&sign_in_often(&server, "ann", 1).await[0]);
        let callers = sign_in_often(&server, "ann", 4).await;
        me(&server, &token_of(&callers[0])).await.expect(200);
        let mut sixth = sign_in_often(&server, "ann", 1).await.remove(0);
        let mut expected: Vec<_> = callers.iter().map(session_of).collect();
        expected.reverse();
        expected.insert(0, session_of(&sixth));
        assert_eq!(listed(&mut sixth, "").await, expected);
        assert!(stored_session(&server, &first).await.unwrap().revoked);
        me(&server, &token_of(&bystander)).await.expect(200);
    }

    async fn a_limit_of_zero_ends_nothing(db: TestDb) {
        let server = server_with(db, |auth| auth.max_concurrent_sessions = 0).await;
        server.ceo().await;
        let mut callers = sign_in_often(&server, "ceo", 12).await;
        for caller in &mut callers {
            caller.get(ME).await.expect(200);
        }
        assert_eq!(listed(&mut callers[0], "").await.len(), 13);
    }

    async fn others_sessions_can_be_neither_seen_nor_ended_nor_probed(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let mut ann = server.person("ann", HumanRole::Manager).await;
        assert_eq!(listed(&mut ann, "?scope=all").await, [session_of(&ann)]);
        assert_eq!(listed(&mut ann, "?scope=own").await, [session_of(&ann)]);
        let neutral = |answer: quarterdeck_testkit::Answer, id: &str| {
            let mut body = answer.refused(404, 3000).json();
            body["error_detail"]["instance"] = Value::Null;
            body.to_string().replace(id, "ID")
        };
        let foreign = session_of(&ceo);
        let unknown = "0123456789abcdef0123456789abcdef";
        let answer = ann.delete(&format!("{SESSIONS}/{foreign}")).await;
        let none = ann.delete(&format!("{SESSIONS}/{unknown}")).await;
        assert_eq!(neutral(answer, &foreign), neutral(none, unknown));
        ceo.get(ME).await.expect(200);
        // The CEO sees and ends everybody's.
        let mut all = listed(&mut ceo, "?scope=all").await;
        all.sort();
        let mut both = [session_of(&ann), session_of(&ceo)];
        both.sort();
        assert_eq!(all, both);
        ceo.delete(&format!("{SESSIONS}/{}", session_of(&ann))).await.expect(204);
        ann.get(ME).await.refused(401, 1002);
    }

    async fn ending_an_ended_session_again_is_fine(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let other = session_of(&server.sign_in("ceo").await);
        for _ in 0..2 {
            ceo.delete(&format!("{SESSIONS}/{other}")).await.expect(204);
        }
        for odd in ["%00", "%ff", "..%2f..%2f", &"x".repeat(300)] {
            let status = ceo.delete(&format!("{SESSIONS}/{odd}")).await.status;
            assert!(matches!(status, 400 | 404), "{odd}: {status}");
        }
    }

    async fn all_other_sessions_can_be_ended_at_once(db: TestDb) {
        let server = TestServer::on(db).await;
        let ceo = server.ceo().await;
        let ann = server.person("ann", HumanRole::Observer).await;
        let mut callers = sign_in_often(&server, "ceo", 3).await;
        let answer = callers[0].delete(&format!("{SESSIONS}?scope=others")).await.expect(200);
        assert_eq!(answer.data(), json!({"revoked": 3}));
        assert!(set_cookies(&answer).is_empty());
        callers[0].get(ME).await.expect(200);
        for ended in [&ceo, &callers[1], &callers[2]] {
            me(&server, &token_of(ended)).await.refused(401, 1002);
        }
        me(&server, &token_of(&ann)).await.expect(200);
    }

    async fn all_sessions_can_be_ended_with_the_own_one_and_its_cookies(db: TestDb) {
        let server = TestServer::on(db).await;
        let ceo = server.ceo().await;
        let mut caller = server.sign_in("ceo").await;
        let token = token_of(&caller);
        let answer = caller.delete(&format!("{SESSIONS}?scope=all")).await.expect(200);
        assert_eq!(answer.data(), json!({"revoked": 2}));
        assert_eq!(set_cookies(&answer).len(), 3);
        assert_eq!(caller.cookie("session"), None);
        me(&server, &token).await.refused(401, 1002);
        me(&server, &token_of(&ceo)).await.refused(401, 1002);
    }

    async fn an_ended_session_cannot_be_brought_back_by_refresh(db: TestDb) {
        let server = refreshing(db).await;
        let mut ceo = server.ceo().await;
        let mut other = server.sign_in("ceo").await;
        ceo.delete(&format!("{SESSIONS}/{}", session_of(&other))).await.expect(204);
        other.post_empty(REFRESH).await.refused(401, 1005);
        assert!(used_up(&server, other.cookie("refresh_token").unwrap()).await);
        // Nor once the token has ended and the rows are swept.
        server.advance(Duration::from_secs(1440 * 60 + 1));
        server.app.auth.upkeep().await;
        other.post_empty(REFRESH).await.refused(401, 1005);
        assert!(stored_session(&server, &session_of(&other)).await.unwrap().revoked, "kept until refresh ends");
    }

    async fn sweeping_drops_what_has_ended_and_keeps_what_has_not(db: TestDb) {
        let server = TestServer::on(db).await;
        let ceo = server.ceo().await;
        server.advance(Duration::from_secs(3600));
        let later = server.sign_in("ceo").await;
        let revoked = server.sign_in("ceo").await;
        revoked.clone().post_empty(LOGOUT).await.expect(204);
        server.advance(Duration::from_secs(23 * 3600));
        server.app.auth.upkeep().await;
        assert!(stored_session(&server, &session_of(&ceo)).await.is_none());
        assert!(stored_session(&server, &session_of(&later)).await.is_some());
        me(&server, &token_of(&revoked)).await.refused(401, 1002);
        server.advance(Duration::from_secs(3600));
        server.app.auth.upkeep().await;
        assert!(stored_session(&server, &session_of(&revoked)).await.is_none());
        me(&server, &token_of(&revoked)).await.refused(401, 1000);
    }

    async fn a_token_without_a_stored_session_leaves_a_tombstone_when_it_signs_out(db: TestDb) {
        let server = TestServer::on(db).await;
        let ceo = server.ceo().await;
        let claims = patched(claims_of(&token_of(&ceo)), json!({"jti": "an-id-no-row-has"}));
        let token = signed(&claims);
        server.anonymous().with_cookie("session", &token).post_empty(LOGOUT).await.expect(204);
        let server = restarted(server, |_| {}).await;
        me(&server, &token).await.refused(401, 1002);
        let row = stored_session(&server, "an-id-no-row-has").await.unwrap();
        assert_eq!((row.revoked, row.expires_at.timestamp()), (true, claims["exp"].as_i64().unwrap()));
    }

    async fn a_session_that_cannot_be_stored_is_not_begun(db: TestDb) {
        let server = TestServer::on(db).await;
        server.ceo().await;
        server.db.execute("DROP TABLE sessions").await;
        let answer = login(&server, "ceo", PASSWORD).await;
        assert!(answer.status >= 500 && set_cookies(&answer).is_empty(), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_scope_that_is_none_is_a_rule_broken() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    ceo.get(&format!("{SESSIONS}?scope=everything")).await.refused(422, 2000);
    ceo.get(&format!("{SESSIONS}?scope=")).await.refused(422, 2000);
    ceo.delete(SESSIONS).await.refused(422, 2000);
    ceo.delete(&format!("{SESSIONS}?scope=own")).await.refused(422, 2000);
    ceo.get(ME).await.expect(200);
}

#[tokio::test]
async fn an_api_key_has_no_session_of_its_own() {
    let server = TestServer::start().await;
    let ceo = server.ceo().await;
    let mut key = server.key_of(&ceo, HumanRole::Ceo).await;
    let list = key.get(SESSIONS).await.expect(200).data();
    assert_eq!((list.as_array().unwrap().len(), &list[0]["is_current"]), (1, &json!(false)));
}
