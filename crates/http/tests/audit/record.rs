//! What people do is in the trail, with the change; what they must not see is not.

use std::time::Duration;

use futures_util::future::join_all;
use quarterdeck_domain::audit::STRANGER;
use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{PASSWORD, Receiver, TestServer, on_both_databases};
use serde_json::{Value, json};

use crate::{actions, entries};

const CANARY: &str = "a canary of a password";

async fn id_of(caller: &mut quarterdeck_testkit::Caller) -> String {
    caller.get("/api/v1/auth/me").await.data()["id"].as_str().unwrap().to_owned()
}

on_both_databases! {
    async fn whatever_changes_who_may_do_what_is_recorded_with_who_did_it(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let ceo_id = id_of(&mut ceo).await;
        let body = json!({"username": "ada", "password": CANARY, "role": "observer"});
        let ada_id = ceo.post("/api/v1/users", &body).await.expect(201).data()["id"].as_str().unwrap().to_owned();
        let mut ada = server.anonymous().from("198.51.100.7");
        ada.post("/api/v1/auth/login", &json!({"username": "ada", "password": CANARY})).await.expect(200);
        let body = json!({"current_password": CANARY, "new_password": format!("{CANARY} too")});
        ada.post("/api/v1/auth/change-password", &body).await.expect(200);
        let issued = ada.post("/api/v1/auth/api-keys", &json!({"name": CANARY, "role": "observer"})).await.expect(201);
        let key = issued.data()["api_key"].as_str().unwrap().to_owned();
        let key_id = issued.data()["key"]["id"].as_str().unwrap().to_owned();
        ada.delete(&format!("/api/v1/auth/api-keys/{key_id}")).await.expect(204);
        ada.delete(&format!("/api/v1/auth/api-keys/{key_id}")).await.expect(204);
        let user = format!("/api/v1/users/{ada_id}");
        let changed = ceo.patch(&user, &json!({"role": "manager"})).await.expect(200);
        let request_id = changed.header("x-request-id").to_owned();
        ceo.patch(&user, &json!({"role": "manager"})).await.expect(200);
        ceo.post(&format!("{user}/org-roles"), &json!({"role": "editor"})).await.expect(201);
        ceo.delete(&format!("{user}/org-roles/editor")).await.expect(204);
        let sessions = ceo.get("/api/v1/auth/sessions?scope=all").await.data();
        let session = sessions.as_array().unwrap().iter().find(|s| s["username"] == "ada").unwrap();
        let session = session["session_id"].as_str().unwrap().to_owned();
        ceo.delete(&format!("/api/v1/auth/sessions/{session}")).await.expect(204);
        ceo.put("/api/v1/settings/security/lockout_threshold", &json!({"value": "77"})).await.expect(200);
        ceo.delete("/api/v1/settings/security/lockout_threshold").await.expect(204);
        ceo.delete("/api/v1/settings/security/lockout_threshold").await.expect(204);
        let sinks = json!({"value": "[]"});
        ceo.put("/api/v1/settings/observability/custom_sinks", &sinks).await.expect(200);
        ceo.delete(&user).await.expect(204);
        ceo.delete("/api/v1/auth/sessions?scope=others").await.expect(200);
        let mut reader = ceo.clone();
        let trail = entries(&mut reader, "").await;
        let told: Vec<_> = trail.iter().rev().map(|e| e["action_type"].as_str().unwrap()).collect();
        assert_eq!(told, [
            "auth:setup", "user:create", "auth:login", "user:password_change", "key:issue", "key:revoke",
            "user:role_change", "user:org_role_grant", "user:org_role_revoke", "session:revoke",
            "setting:update", "setting:reset", "setting:update", "user:delete",
        ], "what changed nothing is not there, and neither is what was refused");
        let of = |action: &str| trail.iter().find(|e| e["action_type"] == action).unwrap();
        let login = of("auth:login");
        assert_eq!((&login["actor"], &login["actor_name"]), (&json!(ada_id), &json!("ada")));
        assert_eq!((&login["ip"], &login["tool_name"]), (&json!("198.51.100.7"), &json!("auth.login")));
        let change = of("user:role_change");
        assert_eq!(change["reason"], "Changed the role of ada from observer to manager");
        assert_eq!((&change["actor"], &change["risk_level"]), (&json!(ceo_id), &json!("high")));
        assert_eq!((&change["request_id"], &change["tool_name"]), (&json!(request_id), &json!("users.update_role")));
        assert_eq!(of("setting:reset")["reason"], "Dropped the stored value of the setting security/lockout_threshold");
        let text = Value::from(trail.clone()).to_string();
        for secret in [CANARY, key.as_str(), PASSWORD, session.as_str()] {
            assert!(!text.contains(secret), "{secret}");
        }
        ceo.post_empty("/api/v1/auth/logout").await.expect(204);
        ceo.post_empty("/api/v1/auth/logout").await.expect(204);
        let mut ceo = server.ceo().await;
        assert_eq!(actions(&mut ceo, "").await[..2], ["auth:login", "auth:logout"]);
        let report = server.app.audit.verify().await.unwrap();
        assert_eq!((report.fault, report.unsigned), (None, 0));
    }

    async fn a_flood_of_wrong_passwords_leaves_few_entries_and_no_names(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        server.person("ada", HumanRole::Observer).await;
        let fail = async |name: &str, from: String| {
            let body = json!({"username": name, "password": "a wrong password"});
            let mut caller = server.anonymous().from(&from);
            let status = caller.post("/api/v1/auth/login", &body).await.status;
            assert!([401, 429].contains(&status), "{status}");
        };
        for number in 0..14 {
            fail("ada", format!("198.51.100.{number}")).await;
        }
        let denied = entries(&mut ceo, "verdict=deny").await;
        let told: Vec<_> = denied.iter().map(|e| e["action_type"].as_str().unwrap()).collect();
        assert_eq!(told, ["auth:lockout", "auth:login_failed"]);
        for entry in &denied {
            assert_eq!((&entry["actor"], entry["ip"].is_string()), (&json!(STRANGER), true));
            assert!(entry["reason"].as_str().unwrap().contains("ada"));
        }
        // Many names from one place, then from many places.
        for number in 0..20 {
            fail(&format!("{CANARY} {number}"), "203.0.113.9".to_owned()).await;
        }
        assert_eq!(entries(&mut ceo, "verdict=deny").await.len(), 3);
        for number in 0..130 {
            fail(&format!("{CANARY} at {number}"), format!("10.1.{number}.1")).await;
        }
        let denied = entries(&mut ceo, "verdict=deny").await;
        assert_eq!(denied.len(), 100, "a bound over all of them");
        assert!(!Value::from(denied).to_string().contains(CANARY), "people type passwords where names belong");
        server.advance(Duration::from_secs(16 * 60));
        fail("nobody", "203.0.113.9".to_owned()).await;
        assert_eq!(entries(&mut ceo, "verdict=deny").await.len(), 101, "a new window");
    }

    async fn a_locked_account_that_can_do_much_is_told_about(db: TestDb) {
        let receiver = Receiver::answering(&[]).await;
        let sinks = json!([{"type": "webhook", "params": {
            "url": receiver.url, "secret": "a secret of a webhook in a test"}}]);
        let server = TestServer::with(db, |options| {
            options.notifications.sinks = serde_json::from_value(sinks).unwrap();
        })
        .await;
        server.ceo().await;
        server.person("ada", HumanRole::Observer).await;
        server.person("max", HumanRole::Manager).await;
        for name in ["ada", "max"] {
            let body = json!({"username": name, "password": "a wrong password"});
            for _ in 0..11 {
                server.anonymous().post("/api/v1/auth/login", &body).await;
            }
        }
        let told = receiver.next().await.json();
        assert_eq!(told["title"], "The account max is locked");
        assert_eq!((&told["severity"], &told["category"]), (&json!("warning"), &json!("security")));
        server.app.notifications.stop(Duration::from_secs(5)).await;
        assert!(receiver.waiting().await.is_none(), "once, and not for everybody");
    }

    async fn changes_that_race_on_two_copies_are_all_in_one_chain(db: TestDb) {
        let server = TestServer::on(db).await;
        let second = if server.db.is_shared() { Some(server.second(|_| {}).await) } else { None };
        let there = second.as_ref().unwrap_or(&server);
        let mut ceo = server.ceo().await;
        server.person("ada", HumanRole::Observer).await;
        let before = ceo.get(crate::AUDIT).await.json()["pagination"]["total"].as_u64().unwrap();
        let sign_ins = (0..24).map(|number| if number % 2 == 0 { &server } else { there });
        join_all(sign_ins.map(|copy| copy.sign_in("ada"))).await;
        let after = ceo.get(crate::AUDIT).await.json()["pagination"]["total"].as_u64().unwrap();
        assert_eq!(after - before, 24);
        let verified = ceo.get("/api/v1/security/audit/verify").await.expect(200).data();
        assert_eq!((&verified["intact"], &verified["entries"]), (&json!(true), &json!(after)));
    }
}
