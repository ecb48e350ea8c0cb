//! The internal user: only the command line speaks as it, and nobody touches it.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use quarterdeck_domain::role::HumanRole;
use quarterdeck_domain::user::SYSTEM_USER;
use quarterdeck_store::user;
use quarterdeck_testkit::{PASSWORD, SECRET, TestServer, on_both_databases};
use serde_json::{Value, json};

use crate::{ME, TICKET, USERS, credentials};

const SYSTEM: &str = "/api/v1/users/system";
const BACKUPS: &str = "/api/v1/admin/backups";

/// The claims of a token the command line mints now.
fn claims(server: &TestServer) -> Value {
    let now = server.now().timestamp();
    json!({
        "sub": "system", "iss": "quarterdeck-cli", "aud": "quarterdeck-backend", "jti": "once",
        "iat": now, "exp": now + 60,
    })
}

/// A token another implementation signs with our secret.
fn signed(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), claims, &key).expect("a token")
}

on_both_databases! {
    async fn the_command_line_reaches_the_backups_and_no_other_guard(db: TestDb) {
        let server = TestServer::on(db).await;
        server.ceo().await;
        server.system_cli().get(BACKUPS).await.expect(200);
        let me = server.system_cli().get(ME).await.expect(200).data();
        assert_eq!((me["id"].as_str(), me["role"].as_str()), (Some("system"), Some("system")));
        for path in [USERS, SYSTEM, "/api/v1/auth/api-keys", "/api/v1/settings"] {
            server.system_cli().get(path).await.refused(403, 1001);
        }
    }

    async fn nobody_changes_or_becomes_the_system_user(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let before = user::by_id(server.app.store.read(), SYSTEM_USER).await.unwrap();
        ceo.patch(SYSTEM, &json!({"role": "observer"})).await.refused(409, 4000);
        ceo.delete(SYSTEM).await.refused(409, 4000);
        ceo.post_empty(&format!("{SYSTEM}/transfer-ceo")).await.refused(409, 4000);
        ceo.post(&format!("{SYSTEM}/org-roles"), &json!({"role": "viewer"})).await.refused(422, 2000);
        ceo.delete(&format!("{SYSTEM}/org-roles/viewer")).await.refused(404, 3000);
        for name in ["system", "System", "ＳＹＳＴＥＭ"] {
            let body = json!({"username": name, "password": PASSWORD, "role": "observer"});
            ceo.post(USERS, &body).await.refused(409, 4000);
        }
        let body = json!({"username": "second", "password": PASSWORD, "role": "system"});
        ceo.post(USERS, &body).await.refused(422, 2000);
        let id = crate::id_of(&mut server.person("other", HumanRole::Observer).await).await;
        ceo.patch(&format!("{USERS}/{id}"), &json!({"role": "system"})).await.refused(422, 2000);
        assert!(before.is_some() && before == user::by_id(server.app.store.read(), SYSTEM_USER).await.unwrap());
    }

    async fn a_second_start_keeps_the_system_user_as_it_is(db: TestDb) {
        let server = TestServer::on(db).await;
        let stored = async || user::by_id(server.app.store.read(), SYSTEM_USER).await.unwrap().unwrap();
        let hash = stored().await.password_hash;
        server.advance(Duration::from_secs(60));
        server.app.auth.ensure_system_user().await.unwrap();
        assert_eq!(stored().await.password_hash, hash);
        assert_eq!(server.app.auth.users(0, 50).await.unwrap().1, 0, "it is not counted");
        assert!(server.app.auth.needs_setup().await.unwrap());
        assert_eq!(user::count_role(server.app.store.read(), HumanRole::System).await.unwrap(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_start_together_on_a_fresh_database_make_one_system_user() {
    let Some(db) = quarterdeck_testkit::TestDb::postgres().await else { return };
    let starts = (0..4).map(|_| tokio::spawn(TestServer::on(db.clone())));
    let servers: Vec<_> = futures_util::future::join_all(starts).await;
    for server in &servers {
        let server = server.as_ref().expect("it starts");
        assert_eq!(user::count_role(server.app.store.read(), HumanRole::System).await.unwrap(), 1);
        server.system_cli().get(BACKUPS).await.expect(200);
    }
}

#[tokio::test]
async fn signing_in_as_the_system_user_is_refused_like_a_wrong_password() {
    let server = TestServer::start().await;
    server.ceo().await;
    let login = async |username: &str| {
        let body = json!({"username": username, "password": "certainly wrong"});
        let mut answer = server.anonymous().post("/api/v1/auth/login", &body).await.refused(401, 1000).json();
        answer["error_detail"]["instance"] = Value::Null;
        answer
    };
    assert_eq!(login("system").await, login("ceo").await);
    assert_eq!(login("system").await, login("nobody").await);
}

#[tokio::test]
async fn the_command_line_has_no_password_no_tickets_and_no_keys() {
    let server = TestServer::start().await;
    let body = json!({"current_password": PASSWORD, "new_password": "another password"});
    let refusal = server.system_cli().post("/api/v1/auth/change-password", &body).await.refused(403, 1001);
    assert_eq!(refusal.error(), "System user cannot be modified");
    server.system_cli().post_empty(TICKET).await.refused(403, 1001);
    let body = json!({"name": "key", "role": "observer"});
    server.system_cli().post("/api/v1/auth/api-keys", &body).await.refused(403, 1001);
}

#[tokio::test]
async fn the_ceo_can_look_at_the_system_user_but_it_is_not_in_the_list() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let system = ceo.get(SYSTEM).await.expect(200).data();
    assert_eq!((system["id"].as_str(), system["role"].as_str()), (Some("system"), Some("system")));
    let list = ceo.get(USERS).await.expect(200).json();
    assert_eq!(list["pagination"]["total"], 1);
    assert!(list["data"].as_array().unwrap().iter().all(|user| user["id"] != "system"));
}

#[tokio::test]
async fn a_system_token_needs_its_issuer_its_audience_and_its_minute() {
    let server = TestServer::start().await;
    let with = |member: &str, value: Value| {
        let mut claims = claims(&server);
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(member)),
            value => claims[member] = value,
        }
        signed(&claims)
    };
    let now = server.now().timestamp();
    server.bearer(&signed(&claims(&server))).get(ME).await.expect(200);
    let stale = with("pwd_sig", json!("0123456789abcdef"));
    server.bearer(&stale).get(ME).await.expect(200);
    let longest = with("exp", json!(now + 120));
    server.bearer(&longest).get(ME).await.expect(200);
    for (member, value) in [
        ("iss", Value::Null),
        ("iss", json!("quarterdeck-api")),
        ("iss", json!(["quarterdeck-cli"])),
        ("aud", Value::Null),
        ("aud", json!("quarterdeck-api")),
        ("aud", json!(["quarterdeck-backend"])),
        ("sub", json!("System")),
        ("jti", Value::Null),
        ("exp", json!(now)),
        ("exp", json!(now + 121)),
    ] {
        let shown = with(member, value.clone());
        server.bearer(&shown).get(ME).await.refused(401, 1000);
    }
    server.anonymous().with_cookie("session", &signed(&claims(&server))).get(ME).await.refused(401, 1000);
    server.advance(Duration::from_secs(60));
    let old = {
        let mut claims = claims(&server);
        (claims["iat"], claims["exp"]) = (json!(now), json!(now + 60));
        signed(&claims)
    };
    server.bearer(&old).get(ME).await.refused(401, 1000);
}

#[tokio::test]
async fn a_persons_token_with_the_claims_of_the_command_line_gains_nothing() {
    let server = TestServer::start().await;
    let id = crate::id_of(&mut server.ceo().await).await;
    let mut forged = claims(&server);
    forged["sub"] = json!(id);
    server.bearer(&signed(&forged)).get(ME).await.refused(401, 1000);
    server.anonymous().post("/api/v1/auth/login", &credentials("ceo")).await.expect(200);
}

#[tokio::test]
async fn logging_out_with_a_system_token_ends_nothing() {
    let server = TestServer::start().await;
    let token = signed(&claims(&server));
    server.bearer(&token).post_empty("/api/v1/auth/logout").await.expect(204);
    server.bearer(&token).get(ME).await.expect(200);
}
