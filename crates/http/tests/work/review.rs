//! The review gate: finished work, and who may say that it is done.

use futures_util::future::join_all;
use quarterdeck_domain::audit::Actor;
use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{Caller, TestServer, on_both_databases};
use serde_json::{Value, json};

use super::{asking, decide, go, id, path, task, task_in};

/// Asks for the decision about a task.
async fn review_of(caller: &mut Caller, task: &Value) -> Value {
    let mut body = asking("review:task_completion");
    body["task_id"] = task["id"].clone();
    caller.post("/api/v1/approvals", &body).await.expect(201).data()
}

async fn status(caller: &mut Caller, task: &Value) -> Value {
    caller.get(&path(task)).await.expect(200).data()["status"].clone()
}

async fn records(caller: &mut Caller, task: &Value) -> Vec<Value> {
    let page = caller.get(&format!("{}/decisions", path(task))).await.expect(200).json();
    page["data"].as_array().unwrap().clone()
}

on_both_databases! {
    async fn a_review_ends_in_completion_or_in_more_work(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let reviewed = task_in(&mut ceo, "in_review").await;
        let first = review_of(&mut ceo, &reviewed).await;
        ceo.post(&format!("/api/v1/approvals/{}/reject", id(&first)), &json!({"reason": "tests are missing"}))
            .await
            .expect(200);
        assert_eq!(status(&mut ceo, &reviewed).await, json!("in_progress"));
        go(&mut ceo, &reviewed, "in_review", None).await.expect(201);
        let second = review_of(&mut ceo, &reviewed).await;
        decide(&mut ceo, &id(&second), true).await.expect(200);
        assert_eq!(status(&mut ceo, &reviewed).await, json!("completed"));
        let records = records(&mut ceo, &reviewed).await;
        let seen: Vec<_> = records.iter().map(|r| (&r["version"], &r["decision"], &r["reason"], &r["approval_id"])).collect();
        assert_eq!(
            seen,
            [
                (&json!(1), &json!("rejected"), &json!("tests are missing"), &first["id"]),
                (&json!(2), &json!("approved"), &Value::Null, &second["id"]),
            ]
        );
        assert_eq!(records[0]["executing_agent_id"], json!("agent-1"));
        ceo.delete(&path(&reviewed)).await.refused(409, 4000);
    }

    async fn finished_work_is_handed_over_in_one_step(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let done = task_in(&mut ceo, "in_progress").await;
        let engine = Actor::system("engine.finish");
        let approval = server.app.approvals.submit_for_review(&engine, &id(&done)).await.unwrap();
        assert_eq!((approval.action_type.as_str(), approval.requested_by.as_str()), ("review:task_completion", "agent-1"));
        assert_eq!(status(&mut ceo, &done).await, json!("in_review"));
        let again = server.app.approvals.submit_for_review(&engine, &id(&done)).await.unwrap_err();
        assert_eq!(again.status(), 422);
        decide(&mut ceo, &approval.id, true).await.expect(200);
        assert_eq!(status(&mut ceo, &done).await, json!("completed"));
    }

    async fn nobody_approves_their_own_work(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let mut manager = server.person("max", HumanRole::Manager).await;
        let max = server.app.auth.users(0, 10).await.unwrap().0.into_iter().find(|u| u.username == "max").unwrap();
        for name in [max.id.as_str(), "max"] {
            let mut work = task(&mut ceo).await;
            for step in ["assigned", "in_progress", "in_review"] {
                let agent = (step == "assigned").then_some(name);
                work = go(&mut ceo, &work, step, agent).await.expect(201).data();
            }
            let approval = review_of(&mut ceo, &work).await;
            for approve in [true, false] {
                let error = decide(&mut manager, &id(&approval), approve).await.refused(403, 1001).error();
                assert_eq!(error, "Self-review is not permitted");
            }
            let shown = ceo.get(&format!("/api/v1/approvals/{}", id(&approval))).await.data();
            assert_eq!((&shown["status"], status(&mut ceo, &work).await), (&json!("pending"), json!("in_review")));
            decide(&mut ceo, &id(&approval), true).await.expect(200);
        }
    }

    async fn a_refused_review_leaves_the_approval_pending_and_tells_nobody(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let early = task_in(&mut ceo, "in_progress").await;
        let of_early = review_of(&mut ceo, &early).await;
        let of_nothing = review_of(&mut ceo, &json!({"id": "task-0"})).await;
        let listening = server.listen().await;
        let mut socket = listening.plain(&mut ceo).await;
        socket.ask(&json!({"action": "subscribe", "channels": ["approvals", "tasks"]})).await;
        let error = decide(&mut ceo, &id(&of_early), true).await.refused(409, 4000).error();
        assert!(!error.contains("task-"), "{error}");
        let error = decide(&mut ceo, &id(&of_nothing), false).await.refused(404, 3000).error();
        assert_eq!(error, "Associated task could not be found");
        for approval in [&of_early, &of_nothing] {
            let shown = ceo.get(&format!("/api/v1/approvals/{}", id(approval))).await.data();
            assert_eq!(shown["status"], json!("pending"));
        }
        assert_eq!(socket.drain().await, Vec::<Value>::new());
        let waiting = task_in(&mut ceo, "auth_required").await;
        let approval = review_of(&mut ceo, &waiting).await;
        decide(&mut ceo, &id(&approval), true).await.expect(200);
        assert_eq!(status(&mut ceo, &waiting).await, json!("auth_required"));
    }

    async fn racing_reviews_of_one_task_end_it_once_and_number_their_records(db: TestDb) {
        let server = TestServer::on(db).await;
        let second = if server.db.is_shared() { Some(server.second(|_| {}).await) } else { None };
        let there = second.as_ref().unwrap_or(&server);
        let (here_ceo, there_ceo) = (server.ceo().await, there.ceo().await);
        for _ in 0..4 {
            let work = task_in(&mut here_ceo.clone(), "in_review").await;
            let mut approvals = Vec::new();
            for _ in 0..6 {
                approvals.push(id(&review_of(&mut here_ceo.clone(), &work).await));
            }
            let answers = join_all(approvals.iter().enumerate().map(|(number, approval)| {
                let mut caller = if number % 2 == 0 { here_ceo.clone() } else { there_ceo.clone() };
                async move { decide(&mut caller, approval, true).await.status }
            }))
            .await;
            assert_eq!(answers.iter().filter(|status| **status == 200).count(), 1, "{answers:?}");
            assert!(answers.iter().all(|status| matches!(status, 200 | 409)), "{answers:?}");
            let records = records(&mut here_ceo.clone(), &work).await;
            assert_eq!(records.iter().map(|r| r["version"].as_i64().unwrap()).collect::<Vec<_>>(), [1]);
        }
    }

    async fn records_cannot_be_changed_behind_the_back_of_the_store(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let work = task_in(&mut ceo, "in_review").await;
        let approval = review_of(&mut ceo, &work).await;
        decide(&mut ceo, &id(&approval), true).await.expect(200);
        for sql in [
            "UPDATE decision_records SET decision = 'rejected'",
            "DELETE FROM decision_records",
            "DELETE FROM tasks",
            "UPDATE audit_entries SET payload = '{}'",
            "DELETE FROM audit_entries",
        ] {
            server.db.try_execute(sql).await.expect_err(sql);
        }
    }
}
