//! Health and metrics: what anybody may ask, at any time.

use std::time::Duration;

use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{Caller, PASSWORD, TestServer, on_both_databases};
use sea_orm::TransactionTrait;
use serde_json::json;

use crate::{KEYS, ME, USERS, id_of};

async fn health(server: &TestServer) -> serde_json::Value {
    // A second later, since an answer serves everybody who asks within one.
    server.advance(Duration::from_secs(1));
    server.anonymous().get("/api/v1/health").await.expect(200).data()
}

async fn ready(server: &TestServer) -> u16 {
    server.advance(Duration::from_secs(1));
    server.anonymous().get("/api/v1/readyz").await.status
}

on_both_databases! {
    async fn a_sound_server_says_so(db: TestDb) {
        let server = TestServer::on(db).await;
        server.advance(Duration::from_millis(1_234));
        let data = health(&server).await;
        assert_eq!(data, json!({
            "status": "ok", "persistence": true, "message_bus": null, "telemetry": "disabled",
            "version": env!("CARGO_PKG_VERSION"), "uptime_seconds": 2.23,
        }));
        assert_eq!(ready(&server).await, 200);
        let live = server.anonymous().get("/api/v1/healthz").await.expect(200).data();
        assert_eq!(live["status"], "ok");
    }

    async fn health_answers_while_the_database_is_gone(db: TestDb) {
        let server = TestServer::on(db).await;
        server.app.store.close().await;
        let data = health(&server).await;
        assert_eq!((&data["status"], &data["persistence"]), (&json!("down"), &json!(false)));
        let unready = server.anonymous().get("/api/v1/readyz").await;
        assert_eq!(unready.status, 503);
        assert_eq!(unready.json()["data"]["status"], "unavailable");
        assert_eq!(unready.json()["success"], true, "an answer, not a failure");
        server.anonymous().get("/api/v1/healthz").await.expect(200);
        server.anonymous().get("/api/v1/metrics").await.expect(200);
        let mut nobody = server.anonymous();
        nobody.post("/api/v1/auth/login", &crate::credentials("ceo")).await.refused(503, 8001);
    }

    async fn health_answers_while_the_database_hangs(db: TestDb) {
        let server = TestServer::on(db).await;
        // As many as the pool has: whoever wants one now waits far longer than a probe may.
        let mut held = Vec::new();
        while let Ok(taken) = tokio::time::timeout(Duration::from_millis(200), server.app.store.read().begin()).await {
            held.push(taken.unwrap());
        }
        assert_eq!(health(&server).await["persistence"], false);
        // Probes do not pile up: within the second everybody hears the same answer.
        for _ in 0..20 {
            let data = server.anonymous().get("/api/v1/health").await.expect(200).data();
            assert_eq!(data["persistence"], false);
        }
        for taken in held {
            taken.rollback().await.unwrap();
        }
        assert_eq!(health(&server).await["persistence"], true);
    }

    async fn a_failure_of_the_database_shows_nothing_of_it(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        ceo.get(ME).await.expect(200);
        server.db.execute("ALTER TABLE sessions RENAME TO hidden").await;
        let answer = ceo.get("/api/v1/auth/sessions").await.refused(500, 8002);
        assert_eq!(answer.error(), "Internal server error");
        for word in ["SELECT", "sessions", "relation", "table", "hidden", "127.0.0.1", ".db", "sqlx"] {
            assert!(!answer.text().contains(word), "{word}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn metrics_hold_no_name_no_id_and_no_token() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let mut canary = server.person("canary-name", HumanRole::Manager).await;
    let id = id_of(&mut canary).await;
    let key = canary.post(KEYS, &json!({"name": "canary-key", "role": "manager"})).await.expect(201).data();
    let (key_id, raw) = (key["key"]["id"].as_str().unwrap(), key["api_key"].as_str().unwrap());
    server.bearer(raw).get(ME).await.expect(200);
    ceo.get(&format!("{USERS}/{id}")).await.expect(200);
    ceo.get(&format!("{USERS}/canary-path")).await.refused(404, 3000);
    ceo.get(&format!("/api/v1/canary-route/{id}?canary-query=1")).await.refused(404, 3002);
    let wrong = json!({"username": "canary-name", "password": "canary-password"});
    server.anonymous().post("/api/v1/auth/login", &wrong).await.refused(401, 1000);
    canary.delete(&format!("{KEYS}/{key_id}")).await.expect(204);

    let answer = server.anonymous().get("/api/v1/metrics").await.expect(200);
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text();
    let token = canary.cookie("session").unwrap();
    for secret in ["canary", "ceo\"", id.as_str(), key_id, raw, token, PASSWORD, "argon2"] {
        assert!(!text.contains(secret), "{secret}");
    }
    for label in [r#"route="/api/v1/users/{user_id}""#, r#"route="__unmatched__""#] {
        assert!(text.contains(label), "{label}");
    }
}

#[tokio::test]
async fn a_draining_server_is_not_ready() {
    let server = TestServer::start().await;
    let mut probe: Caller = server.anonymous();
    probe.get("/api/v1/readyz").await.expect(200);
    server.app.edge.drain();
    assert_eq!(probe.get("/api/v1/readyz").await.status, 503);
}
