//! A new password, wanted or demanded.

use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{Caller, PASSWORD, TestServer, on_both_databases};
use serde_json::json;

use crate::support::*;

const NEW: &str = "another good password";

/// A person whose password somebody else has chosen.
async fn flagged(server: &TestServer) -> Caller {
    let mut ceo = server.ceo().await;
    let body = json!({"username": "new", "password": PASSWORD, "role": "manager"});
    ceo.post(USERS, &body).await.expect(201);
    let mut caller = server.anonymous();
    let answer = caller.post(LOGIN, &known("new")).await.expect(200);
    assert_eq!(answer.data()["must_change_password"], true);
    caller
}

on_both_databases! {
    async fn a_change_ends_every_older_token_and_begins_a_session(db: TestDb) {
        let server = refreshing(db).await;
        let mut ceo = server.ceo().await;
        let older = [token_of(&ceo), token_of(&server.sign_in("ceo").await)];
        let answer = ceo.post(CHANGE, &new_password(PASSWORD, NEW)).await.expect(200);
        let mine = ceo.get(ME).await.expect(200).data();
        assert_eq!(answer.data(), mine);
        for token in older {
            assert_eq!(me(&server, &token).await.status, 401);
        }
        let list = ceo.get(SESSIONS).await.expect(200).data();
        assert_eq!((list.as_array().unwrap().len(), &list[0]["is_current"]), (1, &json!(true)));
        login(&server, "ceo", PASSWORD).await.refused(401, 1000);
        login(&server, "ceo", NEW).await.expect(200);
    }

    async fn a_key_outlives_its_owners_password(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let mut key = server.key_of(&ceo, HumanRole::Observer).await;
        ceo.post(CHANGE, &new_password(PASSWORD, NEW)).await.expect(200);
        key.get(ME).await.expect(200);
    }

    async fn who_must_change_the_password_reaches_nothing_else(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut caller = flagged(&server).await;
        let demanded = |answer: quarterdeck_testkit::Answer| {
            assert_eq!(answer.refused(403, 1001).error(), "Password change required");
        };
        for path in [SESSIONS, USERS, "/api/v1/auth/api-keys", "/api/v1/admin/backups"] {
            demanded(caller.get(path).await);
        }
        demanded(caller.post_empty(TICKET).await);
        demanded(caller.delete(&format!("{SESSIONS}?scope=all")).await);
        assert_eq!(caller.get(ME).await.expect(200).data()["must_change_password"], true);
        let answer = caller.post(CHANGE, &new_password(PASSWORD, NEW)).await.expect(200);
        assert_eq!(answer.data()["must_change_password"], false);
        caller.get(SESSIONS).await.expect(200);
        caller.post_empty(TICKET).await.expect(200);
    }

    async fn who_must_change_the_password_can_sign_out(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut caller = flagged(&server).await;
        let token = token_of(&caller);
        caller.post_empty(LOGOUT).await.expect(204);
        me(&server, &token).await.refused(401, 1002);
    }

    async fn a_key_of_somebody_who_must_change_the_password_is_held_back_too(db: TestDb) {
        let server = TestServer::on(db).await;
        let caller = flagged(&server).await;
        plant_key(&server, &user_of(&caller), "planted").await;
        let mut key = server.bearer("planted");
        key.get(SESSIONS).await.refused(403, 1001);
        assert_eq!(key.get(ME).await.expect(200).data()["must_change_password"], true);
        key.post(CHANGE, &new_password(PASSWORD, NEW)).await.refused(403, 1001);
    }

    async fn an_operators_reset_ends_sessions_lifts_the_lock_and_demands_a_change(db: TestDb) {
        let server = refreshing(db).await;
        let mut ceo = server.ceo().await;
        let token = token_of(&ceo);
        for _ in 0..10 {
            login(&server, "ceo", WRONG).await;
        }
        login(&server, "ceo", PASSWORD).await.refused(429, 1003);
        let new = quarterdeck_auth::Password::new(NEW.to_owned()).unwrap();
        server.app.auth.reset_password("ceo", &new).await.unwrap();
        assert_eq!(me(&server, &token).await.status, 401);
        ceo.post_empty(REFRESH).await.refused(401, 1005);
        let answer = login(&server, "ceo", NEW).await.expect(200);
        assert_eq!(answer.data()["must_change_password"], true);
    }
}

#[tokio::test]
async fn the_refusals_come_in_the_order_of_the_contract() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    server.anonymous().post(CHANGE, &json!({})).await.refused(401, 1000);
    for body in [
        json!({}),
        json!({"current_password": PASSWORD}),
        json!({"current_password": "", "new_password": NEW}),
        json!({"current_password": PASSWORD, "new_password": "   "}),
        json!({"current_password": PASSWORD, "new_password": "a".repeat(129)}),
        json!({"current_password": 1, "new_password": NEW}),
        new_password(PASSWORD, "elevenchars"),
    ] {
        ceo.post(CHANGE, &body).await.refused(400, 2001);
        server.system_cli().post(CHANGE, &body).await.refused(400, 2001);
    }
    let blocked = server.system_cli().post(CHANGE, &new_password(WRONG, NEW)).await.refused(403, 1001);
    assert_eq!(blocked.error(), "System user cannot be modified");
    let wrong = ceo.post(CHANGE, &new_password(WRONG, NEW)).await.refused(401, 1000);
    assert_eq!(wrong.error(), "Invalid current password");
    ceo.post(CHANGE, &new_password(PASSWORD, PASSWORD)).await.refused(422, 2000);
    ceo.post(CHANGE, &new_password(WRONG, WRONG)).await.refused(401, 1000);
    let mut key = server.key_of(&ceo, HumanRole::Ceo).await;
    key.post(CHANGE, &new_password(PASSWORD, NEW)).await.refused(403, 1001);
    ceo.clone().without_csrf().post(CHANGE, &new_password(PASSWORD, NEW)).await.refused(403, 1004);
    ceo.post(CHANGE, &new_password(PASSWORD, "twelve chars")).await.expect(200);
}

#[tokio::test]
async fn the_same_password_in_another_spelling_is_no_new_one() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let composed = "pass\u{e9}-pass\u{e9}-pass\u{e9}";
    let decomposed = "passe\u{301}-passe\u{301}-passe\u{301}";
    ceo.post(CHANGE, &new_password(PASSWORD, composed)).await.expect(200);
    login(&server, "ceo", decomposed).await.expect(200);
    ceo.post(CHANGE, &new_password(decomposed, composed)).await.refused(422, 2000);
}

#[tokio::test]
async fn only_the_two_paths_themselves_are_open_to_who_must_change_the_password() {
    let server = TestServer::start().await;
    let mut caller = flagged(&server).await;
    for path in ["/api/v1/users/auth/me", "/api/v1/users/me", "/api/v1/users/x/auth/change-password"] {
        let status = caller.get(path).await.status;
        assert!(matches!(status, 403..=405), "{path}: {status}");
    }
    let answer = caller.get("/api/v1/users/me").await.refused(403, 1001);
    assert_eq!(answer.error(), "Password change required");
}

#[tokio::test]
async fn me_shows_the_stored_user_and_for_a_key_the_role_it_acts_with() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let expected = json!({
        "id": user_of(&ceo), "username": "ceo", "role": "ceo", "must_change_password": false,
        "org_roles": ["owner"], "scoped_departments": [],
    });
    assert_eq!(ceo.get(ME).await.expect(200).data(), expected);
    let mut key = server.key_of(&ceo, HumanRole::Observer).await;
    assert_eq!(key.get(ME).await.expect(200).data(), patched(expected, json!({"role": "observer"})));
}
