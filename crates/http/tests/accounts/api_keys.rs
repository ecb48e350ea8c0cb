//! What an API key opens, and when it stops.

use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta};
use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{Caller, PASSWORD, TestServer, on_both_databases};
use serde_json::{Value, json};

use crate::{KEYS, ME, PEOPLE, USERS, id_of, somebody};

/// Issues a key of this role; its id and the key itself.
async fn issue(owner: &mut Caller, role: &str) -> (String, String) {
    let body = json!({"name": "script", "role": role});
    let data = owner.post(KEYS, &body).await.expect(201).data();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    (text(&data["key"]["id"]), text(&data["api_key"]))
}

on_both_databases! {
    async fn a_revoked_key_is_dead_on_the_next_request_and_revoking_again_is_fine(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let (id, key) = issue(&mut ceo, "ceo").await;
        let (_, other) = issue(&mut ceo, "ceo").await;
        server.bearer(&key).get(ME).await.expect(200);
        for _ in 0..2 {
            ceo.delete(&format!("{KEYS}/{id}")).await.expect(204);
            let refusal = server.bearer(&key).get(ME).await.refused(401, 1000);
            assert_eq!(refusal.error(), "Invalid credentials");
        }
        server.bearer(&other).get(ME).await.expect(200);
        let listed = ceo.get(KEYS).await.expect(200).data();
        let revoked: Vec<_> = listed.as_array().unwrap().iter().map(|k| k["revoked"] == true).collect();
        assert_eq!(revoked.iter().filter(|revoked| **revoked).count(), 1, "the list keeps it");
    }

    async fn a_key_is_good_up_to_its_last_instant(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let end = (server.now() + TimeDelta::seconds(60)).to_rfc3339_opts(SecondsFormat::Micros, true);
        let body = json!({"name": "brief", "role": "ceo", "expires_at": end});
        let data = ceo.post(KEYS, &body).await.expect(201).data();
        let key = data["api_key"].as_str().unwrap();
        server.advance(Duration::from_secs(60));
        server.bearer(key).get(ME).await.expect(200);
        server.advance(Duration::from_micros(1));
        server.bearer(key).get(ME).await.refused(401, 1000);
    }

    async fn a_key_never_outranks_its_owner_as_they_are_now(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let (_, of_ceo) = issue(&mut ceo, "ceo").await;
        let (_, of_observer) = issue(&mut ceo, "observer").await;
        server.bearer(&of_ceo).get(USERS).await.expect(200);
        server.bearer(&of_observer).get(USERS).await.refused(403, 1001);
        assert_eq!(server.bearer(&of_observer).get(ME).await.data()["role"], "observer");
        let heir = id_of(&mut server.person("heir", HumanRole::Manager).await).await;
        ceo.post_empty(&format!("{USERS}/{heir}/transfer-ceo")).await.expect(200);
        server.bearer(&of_ceo).get(USERS).await.refused(403, 1001);
        assert_eq!(server.bearer(&of_ceo).get(ME).await.data()["role"], "manager");
    }

    async fn keys_die_with_their_owner(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut owner = server.person("owner", HumanRole::Manager).await;
        let (_, key) = issue(&mut owner, "manager").await;
        server.bearer(&key).get(ME).await.expect(200);
        let id = id_of(&mut owner).await;
        server.ceo().await.delete(&format!("{USERS}/{id}")).await.expect(204);
        server.bearer(&key).get(ME).await.refused(401, 1000);
    }

    async fn another_signing_secret_ends_every_key(db: TestDb) {
        let server = TestServer::on(db).await;
        let (_, key) = issue(&mut server.ceo().await, "ceo").await;
        server.app.store.close().await;
        let server = server
            .second(|options| options.auth.jwt_secret = "another secret, long enough as well".into())
            .await;
        server.bearer(&key).get(ME).await.refused(401, 1000);
        server.app.store.close().await;
        let server = server.second(|_| {}).await;
        server.bearer(&key).get(ME).await.expect(200);
    }

    async fn a_key_acts_as_its_owner(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let mut owner = server.person("owner", HumanRole::Manager).await;
        let (_, key) = issue(&mut owner, "manager").await;
        let id = id_of(&mut owner).await;
        let body = json!({"role": "department_admin", "scoped_departments": ["Eng"]});
        ceo.post(&format!("{USERS}/{id}/org-roles"), &body).await.expect(201);
        let me = server.bearer(&key).get(ME).await.expect(200).data();
        assert_eq!(me, owner.get(ME).await.data());
        assert_eq!(me["scoped_departments"], json!(["Eng"]));
        let sessions = server.bearer(&key).get("/api/v1/auth/sessions").await.expect(200).data();
        let sessions = sessions.as_array().unwrap();
        assert!(!sessions.is_empty() && sessions.iter().all(|s| s["is_current"] == false));
    }

    async fn the_key_of_somebody_who_must_change_the_password_opens_only_the_way_there(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut owner = server.person("owner", HumanRole::Manager).await;
        let (_, key) = issue(&mut owner, "manager").await;
        let password = quarterdeck_auth::Password::new("an operator's choice".to_owned()).unwrap();
        server.app.auth.reset_password("owner", &password).await.unwrap();
        let refusal = server.bearer(&key).get(KEYS).await.refused(403, 1001);
        assert_eq!(refusal.error(), "Password change required");
        assert_eq!(server.bearer(&key).get(ME).await.expect(200).data()["must_change_password"], true);
    }

    async fn the_database_holds_no_key_but_its_hash(db: TestDb) {
        let server = TestServer::on(db).await;
        let (_, key) = issue(&mut server.ceo().await, "ceo").await;
        assert!(key.len() == 43 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)));
        server.bearer(&key).get(ME).await.expect(200);
        server.app.auth.upkeep().await;
        let signature = jsonwebtoken::crypto::sign(
            key.as_bytes(),
            &jsonwebtoken::EncodingKey::from_secret(quarterdeck_testkit::SECRET.as_bytes()),
            jsonwebtoken::Algorithm::HS256,
        );
        let hash = base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, signature.unwrap());
        let hash: String = hash.unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        let held = server.db.dump().await;
        assert!(held.contains(&hash), "its HMAC under the signing secret");
        assert!(!held.contains(&key));
    }
}

#[tokio::test]
async fn a_key_needs_no_csrf_token_and_cannot_breed() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let (id, key) = issue(&mut ceo, "ceo").await;
    let mut script = server.bearer(&key);
    let body = json!({"name": "child", "role": "observer"});
    let refusal = script.post(KEYS, &body).await.refused(403, 1001);
    assert!(refusal.error().contains("signed-in"), "{}", refusal.error());
    let body = json!({"current_password": PASSWORD, "new_password": "another password"});
    script.post("/api/v1/auth/change-password", &body).await.refused(403, 1001);
    script.delete(&format!("{KEYS}/{id}")).await.expect(204);
    script.get(ME).await.refused(401, 1000);
}

#[tokio::test]
async fn somebody_elses_key_looks_like_no_key_except_to_the_ceo() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let mut owner = server.person("owner", HumanRole::Manager).await;
    let (id, key) = issue(&mut owner, "manager").await;
    let mut stranger = server.person("stranger", HumanRole::Manager).await;
    let theirs = stranger.delete(&format!("{KEYS}/{id}")).await.refused(404, 3000);
    let none = stranger.delete(&format!("{KEYS}/no-such-key")).await.refused(404, 3000);
    assert_eq!(theirs.error().replace(&id, "?"), none.error().replace("no-such-key", "?"));
    assert_eq!(stranger.get(KEYS).await.expect(200).data(), json!([]));
    server.bearer(&key).get(ME).await.expect(200);
    ceo.delete(&format!("{KEYS}/{id}")).await.expect(204);
    server.bearer(&key).get(ME).await.refused(401, 1000);
}

#[tokio::test]
async fn what_is_almost_a_key_is_none() {
    let server = TestServer::start().await;
    let (_, key) = issue(&mut server.ceo().await, "ceo").await;
    let (first, rest) = key.split_at(1);
    let flipped = format!("{}{rest}", if first == "A" { "B" } else { "A" });
    for wrong in [rest, &format!("{key}A"), &format!("{key}="), &flipped, "x", "null"] {
        server.bearer(wrong).get(ME).await.refused(401, 1000);
    }
    server.anonymous().with_cookie("session", &key).get(ME).await.refused(401, 1000);
    for role in PEOPLE {
        let owner = somebody(&server, role).await;
        server.key_of(&owner, role).await.get(ME).await.expect(200);
    }
}
