//! What becomes of requests about tasks that must not succeed.

use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{TestServer, on_both_databases};
use serde_json::json;

use super::{go, new, path, task, task_in};

on_both_databases! {
    async fn who_may_not_write_is_refused_every_write(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let made = task(&mut ceo).await;
        let path = path(&made);
        let callers = [
            (server.person("olga", HumanRole::Observer).await, 403, 200),
            (server.person("bo", HumanRole::BoardMember).await, 403, 200),
            (server.system_cli(), 403, 403),
            (server.anonymous(), 401, 401),
        ];
        for (mut caller, writes, reads) in callers {
            let answers = [
                caller.post("/api/v1/tasks", &new("x")).await.status,
                caller.patch(&path, &json!({"title": "x"})).await.status,
                caller.post(&format!("{path}/transition"), &json!({"target_status": "rejected"})).await.status,
                caller.post(&format!("{path}/cancel"), &json!({"reason": "x"})).await.status,
                caller.delete(&path).await.status,
            ];
            assert_eq!(answers, [writes; 5]);
            assert_eq!([caller.get(&path).await.status, caller.get("/api/v1/tasks").await.status], [reads; 2]);
        }
        let mut writer = server.person("pat", HumanRole::PairProgrammer).await;
        writer.post("/api/v1/tasks", &new("x")).await.expect(201);
        assert_eq!(ceo.get(&path).await.expect(200).data(), made);
    }

    async fn what_has_the_wrong_shape_is_refused_without_a_change(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let made = task(&mut ceo).await;
        let with = |member: &str, value: serde_json::Value| {
            let mut body = new("x");
            body[member] = value;
            body
        };
        for body in [
            with("title", json!(" ")),
            with("title", json!("x".repeat(257))),
            with("title", json!(null)),
            with("description", json!("x".repeat(4097))),
            with("type", json!("gossip")),
            with("priority", json!("urgent")),
            with("budget_limit", json!(-1)),
            with("budget_limit", json!("1")),
            with("project", json!("")),
            with("created_by", json!(7)),
            json!({"title": "x"}),
        ] {
            let error = ceo.post("/api/v1/tasks", &body).await.refused(400, 2001);
            assert!(!error.json()["error_detail"]["errors"][0]["pointer"].as_str().unwrap().is_empty());
        }
        let raw = r#"{"title":"x","description":"d","type":"admin","project":"p","created_by":"c","budget_limit":NaN}"#;
        ceo.send(axum::http::Method::POST, "/api/v1/tasks", Some(raw.to_owned())).await.refused(400, 2001);
        for body in [
            json!({"expected_version": 0}), json!({"expected_version": 1.5}), json!({"title": ""}),
            json!({"budget_limit": -0.01}), json!({"priority": "x"}), json!([]),
        ] {
            ceo.patch(&path(&made), &body).await.refused(400, 2001);
        }
        let transition = format!("{}/transition", path(&made));
        ceo.post(&transition, &json!({"target_status": "done"})).await.refused(400, 2001);
        ceo.post(&transition, &json!({})).await.refused(400, 2001);
        ceo.post(&format!("{}/cancel", path(&made)), &json!({"reason": " "})).await.refused(400, 2001);
        for query in ["status=done", "offset=-1", "limit=0", "limit=201"] {
            ceo.get(&format!("/api/v1/tasks?{query}")).await.refused(400, 2001);
        }
        ceo.get(&format!("/api/v1/tasks?project={}", "x".repeat(257))).await.refused(400, 2001);
        ceo.get(&format!("/api/v1/tasks/{}", "x".repeat(129))).await.refused(400, 2001);
        let long = "k".repeat(256);
        let mut keyed = ceo.clone().with_header("idempotency-key", &long);
        let refused = keyed.post("/api/v1/tasks", &new("x")).await.refused(400, 2001);
        assert_eq!(refused.json()["error_detail"]["errors"][0]["pointer"], "Idempotency-Key");
        let page = ceo.get("/api/v1/tasks").await.expect(200).json();
        assert_eq!(page["data"], json!([made]));
    }

    async fn what_breaks_a_rule_is_refused_and_changes_nothing(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let mut body = new("x");
        body["assigned_to"] = json!("agent-1");
        ceo.post("/api/v1/tasks", &body).await.refused(422, 2000);
        let made = task(&mut ceo).await;
        ceo.patch(&path(&made), &json!({"assigned_to": "agent-1"})).await.refused(422, 2000);
        go(&mut ceo, &made, "assigned", None).await.refused(422, 2000);
        assert_eq!(ceo.get(&path(&made)).await.expect(200).data(), made);
        for status in ["created", "blocked", "failed", "interrupted", "suspended", "completed", "cancelled", "rejected"] {
            let stays = task_in(&mut ceo, status).await;
            let cancel = format!("{}/cancel", path(&stays));
            ceo.post(&cancel, &json!({"reason": "x"})).await.refused(422, 2000);
            assert_eq!(ceo.get(&path(&stays)).await.expect(200).data(), stays);
        }
        ceo.patch("/api/v1/tasks/task-0", &json!({"title": "x"})).await.refused(404, 3000);
        ceo.post("/api/v1/tasks/task-0/cancel", &json!({"reason": "x"})).await.refused(404, 3000);
        go(&mut ceo, &json!({"id": "task-0"}), "assigned", Some("a")).await.refused(404, 3000);
    }

    async fn a_version_is_looked_at_before_a_rule_and_before_an_empty_patch(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let made = task(&mut ceo).await;
        ceo.patch(&path(&made), &json!({"expected_version": 2})).await.refused(409, 4000);
        let body = json!({"target_status": "completed", "expected_version": 2});
        ceo.post(&format!("{}/transition", path(&made)), &body).await.refused(409, 4000);
        assert_eq!(ceo.patch(&path(&made), &json!({"expected_version": 1})).await.expect(200).data(), made);
        for tag in ["\"2\"", "W/\"1\"", "junk"] {
            let mut caller = ceo.clone().with_header("if-match", tag);
            caller.patch(&path(&made), &json!({"title": "x"})).await.refused(409, 4000);
            caller.delete(&path(&made)).await.refused(409, 4000);
        }
        ceo.clone().with_header("if-match", "\"1\"").delete(&path(&made)).await.expect(204);
    }

    async fn after_the_end_nothing_is_accepted_and_what_was_accepted_is_made(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let racing = futures_util::future::join_all((0..20).map(|_| {
            let mut ceo = ceo.clone();
            async move { ceo.post("/api/v1/tasks", &new("x")).await.status }
        }));
        let (answers, ()) = futures_util::future::join(racing, server.app.tasks.stop()).await;
        assert!(answers.iter().all(|status| matches!(status, 201 | 503)), "{answers:?}");
        ceo.post("/api/v1/tasks", &new("x")).await.refused(503, 8001);
        server.app.tasks.stop().await;
        let total = ceo.get("/api/v1/tasks").await.expect(200).json()["pagination"]["total"].clone();
        assert_eq!(total, json!(answers.iter().filter(|status| **status == 201).count()));
    }
}
