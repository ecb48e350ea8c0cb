//! Approvals: asking, deciding, and time running out.

use std::time::Duration;

use futures_util::future::join_all;
use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{TestServer, on_both_databases};
use serde_json::{Value, json};

use super::{ask, asking, decide, id};

fn path(approval: &Value) -> String {
    format!("/api/v1/approvals/{}", id(approval))
}

on_both_databases! {
    async fn an_approval_is_asked_for_shown_listed_and_decided(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let mut manager = server.person("max", HumanRole::Manager).await;
        let mut body = asking("deploy:production");
        body["ttl_seconds"] = json!(3600);
        body["metadata"] = json!({"ticket": "42"});
        body["requested_by"] = json!("somebody else");
        let asked = manager.post("/api/v1/approvals", &body).await.expect(201).data();
        assert_eq!(
            (&asked["status"], &asked["requested_by"], &asked["urgency_level"], &asked["seconds_remaining"]),
            (&json!("pending"), &json!("max"), &json!("high"), &json!(3600.0))
        );
        assert_eq!((&asked["decided_at"], &asked["metadata"]), (&Value::Null, &json!({"ticket": "42"})));
        server.advance(Duration::from_secs(1));
        let shown = ceo.get(&path(&asked)).await.expect(200).data();
        assert_eq!((&shown["urgency_level"], &shown["seconds_remaining"]), (&json!("critical"), &json!(3599.0)));
        let second = ask(&mut ceo, "code:write").await;
        let page = ceo.get("/api/v1/approvals").await.expect(200).json();
        let ids: Vec<_> = page["data"].as_array().unwrap().iter().map(id).collect();
        assert_eq!(ids, [id(&second), id(&asked)]);
        let approved = ceo.post(&format!("{}/approve", path(&asked)), &json!({"comment": "go"})).await.expect(200);
        let approved = approved.data();
        assert_eq!(
            (&approved["status"], &approved["decided_by"], &approved["decision_reason"]),
            (&json!("approved"), &json!("ceo"), &json!("go"))
        );
        let rejected = ceo.post(&format!("{}/reject", path(&second)), &json!({"reason": "no"})).await.expect(200);
        assert_eq!(rejected.data()["status"], json!("rejected"));
        for (query, expected) in [
            ("status=approved", vec![id(&asked)]),
            ("status=pending", vec![]),
            ("risk_level=medium", vec![id(&second), id(&asked)]),
            ("action_type=code:write", vec![id(&second)]),
            ("status=rejected&action_type=deploy:production", vec![]),
        ] {
            let page = ceo.get(&format!("/api/v1/approvals?{query}")).await.expect(200).json();
            assert_eq!(page["data"].as_array().unwrap().iter().map(id).collect::<Vec<_>>(), expected, "{query}");
            assert_eq!(page["pagination"]["total"], json!(expected.len()));
        }
    }

    async fn of_racing_decisions_exactly_one_counts(db: TestDb) {
        let server = TestServer::on(db).await;
        let second = if server.db.is_shared() { Some(server.second(|_| {}).await) } else { None };
        let there = second.as_ref().unwrap_or(&server);
        let (here_ceo, there_ceo) = (server.ceo().await, there.ceo().await);
        let listening = server.listen().await;
        let mut socket = listening.plain(&mut here_ceo.clone()).await;
        socket.ask(&json!({"action": "subscribe", "channels": ["approvals"]})).await;
        for _ in 0..5 {
            let asked = ask(&mut here_ceo.clone(), "deploy:staging").await;
            let answers = join_all((0..12).map(|number| {
                let mut caller = if number % 2 == 0 { here_ceo.clone() } else { there_ceo.clone() };
                let id = id(&asked);
                async move { decide(&mut caller, &id, number % 3 == 0).await }
            }))
            .await;
            let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
            assert_eq!((won.len(), lost.len()), (1, 11));
            for refusal in lost {
                assert!(refusal.refused(409, 4000).error().ends_with("no longer pending"));
            }
            let decided = won.into_iter().next().unwrap().data();
            assert_eq!(here_ceo.clone().get(&path(&asked)).await.data(), decided);
            let events = [socket.next().await, socket.next().await];
            let types: Vec<_> = events.iter().map(|event| event["event_type"].as_str().unwrap()).collect();
            assert_eq!(types, ["approval.submitted", &format!("approval.{}", decided["status"].as_str().unwrap())]);
            assert_eq!(events[1]["payload"]["approval_id"], json!(id(&asked)));
            assert_eq!(events[1]["payload"]["approval"], decided);
        }
        assert_eq!(socket.drain().await, Vec::<Value>::new());
    }

    async fn time_ends_what_nobody_decides_and_nothing_opens_it_again(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let mut short = Vec::new();
        for _ in 0..3 {
            let mut body = asking("db:mutate");
            body["ttl_seconds"] = json!(60);
            short.push(ceo.post("/api/v1/approvals", &body).await.expect(201).data());
        }
        let stays = ask(&mut ceo, "db:query").await;
        server.advance(Duration::from_secs(60));
        let listening = server.listen().await;
        let mut socket = listening.plain(&mut ceo).await;
        socket.ask(&json!({"action": "subscribe", "channels": ["approvals"]})).await;
        decide(&mut ceo, &id(&short[0]), true).await.refused(409, 4000);
        let shown = ceo.get(&path(&short[0])).await.expect(200).data();
        assert_eq!((&shown["status"], &shown["seconds_remaining"]), (&json!("expired"), &json!(0.0)));
        assert_eq!((&shown["urgency_level"], &shown["decided_at"]), (&json!("critical"), &Value::Null));
        let page = ceo.get("/api/v1/approvals?status=pending").await.expect(200).json();
        assert_eq!(page["data"].as_array().unwrap().iter().map(id).collect::<Vec<_>>(), [id(&stays)]);
        decide(&mut ceo, &id(&short[1]), false).await.refused(409, 4000);
        assert_eq!(server.app.approvals.sweep().await.unwrap(), 0);
        let mut told: Vec<_> = (socket.drain().await).iter().map(|e| e["payload"]["approval_id"].clone()).collect();
        told.sort_by_key(ToString::to_string);
        let mut expected: Vec<_> = short.iter().map(|approval| approval["id"].clone()).collect();
        expected.sort_by_key(ToString::to_string);
        assert_eq!(told, expected);
    }

    async fn who_may_ask_and_who_may_decide_differ(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let asked = ask(&mut ceo, "code:write").await;
        let people = [
            (server.person("bo", HumanRole::BoardMember).await, 403, 200, 200),
            (server.person("pat", HumanRole::PairProgrammer).await, 201, 403, 200),
            (server.person("olga", HumanRole::Observer).await, 403, 403, 200),
            (server.system_cli(), 403, 403, 403),
            (server.anonymous(), 401, 401, 401),
        ];
        for (mut caller, asks, decides, reads) in people {
            assert_eq!(caller.post("/api/v1/approvals", &asking("code:write")).await.status, asks);
            assert_eq!(caller.get(&path(&asked)).await.status, reads);
            assert_eq!(caller.get("/api/v1/approvals").await.status, reads);
            let fresh = ask(&mut ceo, "code:write").await;
            for approve in [true, false] {
                let status = decide(&mut caller, &id(&fresh), approve).await.status;
                assert!(status == decides || (decides == 200 && !approve && status == 409), "{status}");
            }
        }
    }

    async fn what_has_the_wrong_shape_is_refused(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let with = |member: &str, value: Value| {
            let mut body = asking("code:write");
            body[member] = value;
            body
        };
        let many: serde_json::Map<_, _> = (0..21).map(|n| (n.to_string(), json!("v"))).collect();
        for body in [
            with("action_type", json!("merge")),
            with("action_type", json!("a:b:c")),
            with("action_type", json!(":x")),
            with("action_type", json!("x: ")),
            with("title", json!("x".repeat(257))),
            with("description", json!("")),
            with("risk_level", json!("huge")),
            with("ttl_seconds", json!(59)),
            with("ttl_seconds", json!(604_801)),
            with("ttl_seconds", json!(60.5)),
            with("task_id", json!("x".repeat(129))),
            with("metadata", json!(many)),
            with("metadata", json!({"k".repeat(257): "v"})),
            with("metadata", json!({"k": "v".repeat(257)})),
            with("metadata", json!({"k": 1})),
        ] {
            ceo.post("/api/v1/approvals", &body).await.refused(400, 2001);
        }
        let asked = ask(&mut ceo, "code:write").await;
        ceo.post(&format!("{}/reject", path(&asked)), &json!({})).await.refused(400, 2001);
        ceo.post(&format!("{}/reject", path(&asked)), &json!({"reason": " "})).await.refused(400, 2001);
        ceo.post(&format!("{}/approve", path(&asked)), &json!({"comment": ""})).await.refused(400, 2001);
        for query in ["status=done", "risk_level=huge"] {
            ceo.get(&format!("/api/v1/approvals?{query}")).await.refused(400, 2001);
        }
        ceo.get(&format!("/api/v1/approvals?action_type={}", "x".repeat(129))).await.refused(422, 2000);
        ceo.get("/api/v1/approvals/nothing").await.refused(404, 3000);
        decide(&mut ceo, "nothing", true).await.refused(404, 3000);
        let page = ceo.get("/api/v1/approvals").await.expect(200).json();
        assert_eq!(page["pagination"]["total"], json!(1));
    }

    async fn who_asks_may_be_forbidden_to_decide(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let mut manager = server.person("max", HumanRole::Manager).await;
        let (first, second) = (ask(&mut ceo, "a:b").await, ask(&mut ceo, "a:b").await);
        decide(&mut ceo, &id(&first), true).await.expect(200);
        ceo.put("/api/v1/settings/security/forbid_self_decision", &json!({"value": "true"})).await.expect(200);
        decide(&mut ceo, &id(&second), true).await.refused(403, 1001);
        assert_eq!(ceo.get(&path(&second)).await.data()["status"], json!("pending"));
        decide(&mut manager, &id(&second), true).await.expect(200);
    }

    async fn time_decides_where_the_operator_says_so(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let policy = json!({"type": "tiered", "tiers": [
            {"action_types": ["docs:write"], "after_seconds": 60, "outcome": "approve"},
            {"risk_level": "medium", "after_seconds": 120, "outcome": "deny"},
        ]});
        let setting = "/api/v1/settings/security/approval_timeout_policy";
        ceo.put(setting, &json!({"value": json!({"type": "hope"}).to_string()})).await.refused(422, 2000);
        ceo.put(setting, &json!({"value": policy.to_string()})).await.expect(200);
        let (first, second) = (ask(&mut ceo, "docs:write").await, ask(&mut ceo, "deploy:staging").await);
        let mut of_nothing = asking("docs:write");
        of_nothing["task_id"] = json!("task-0");
        let third = ceo.post("/api/v1/approvals", &of_nothing).await.expect(201).data();
        assert_eq!(server.app.approvals.time_out().await.unwrap(), 0);
        server.advance(Duration::from_secs(60));
        assert_eq!(server.app.approvals.time_out().await.unwrap(), 1);
        server.advance(Duration::from_secs(60));
        assert_eq!(server.app.approvals.time_out().await.unwrap(), 1);
        for (approval, status) in [(&first, "approved"), (&second, "rejected"), (&third, "pending")] {
            let shown = ceo.get(&path(approval)).await.expect(200).data();
            assert_eq!(shown["status"], json!(status));
            let by = if status == "pending" { Value::Null } else { json!("system:timeout") };
            assert_eq!(shown["decided_by"], by);
        }
    }
}
