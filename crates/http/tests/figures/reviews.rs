//! The review pipeline, and what people decide instead of it.

use futures_util::future::join_all;
use quarterdeck_domain::role::HumanRole;
use quarterdeck_domain::task::{AcceptanceCriterion, ArtifactType, ExpectedArtifact, Task};
use quarterdeck_store::task;
use quarterdeck_testkit::{Caller, TestServer, on_both_databases};
use serde_json::{Value, json};

use super::{data, go, set};

/// A task that asks for criteria, met or not, and for an artifact.
async fn demanding(server: &TestServer, caller: &mut Caller, met: &[bool], path: Option<&str>) -> String {
    let id = super::task(caller, "", &[]).await;
    let made = server.app.tasks.get(&id).await.expect("a task");
    let criterion = |met: &bool| AcceptanceCriterion { description: "it works".to_owned(), met: *met };
    let artifact = |path: &str| ExpectedArtifact { r#type: ArtifactType::Code, path: path.to_owned() };
    let next = Task {
        acceptance_criteria: met.iter().map(criterion).collect(),
        artifacts_expected: path.map(artifact).into_iter().collect(),
        version: made.version + 1,
        ..made
    };
    let stored = server.app.store.write(move |tx| Box::pin(async move { task::update(tx, &next).await }));
    assert!(stored.await.expect("it is stored"));
    id
}

fn pipeline(task: &str) -> String {
    format!("/reviews/{task}/pipeline")
}

fn stage(task: &str, stage: &str) -> String {
    format!("/api/v1/reviews/{task}/stages/{stage}/decide")
}

/// The final verdict, and what each stage finds.
fn verdicts(result: &Value) -> (String, Vec<(String, String)>) {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let stages = result["stage_results"].as_array().expect("a list").iter();
    (
        text(&result["final_verdict"]),
        stages.map(|one| (text(&one["stage_name"]), text(&one["verdict"]))).collect(),
    )
}

fn found(verdict: &str, criteria: &str, artifacts: &str) -> (String, Vec<(String, String)>) {
    let stage = |name: &str, verdict: &str| (name.to_owned(), verdict.to_owned());
    (verdict.to_owned(), vec![stage("acceptance_criteria", criteria), stage("artifacts_expected", artifacts)])
}

on_both_databases! {
    async fn built_in_stages_look_at_criteria_and_artifacts(db: TestDb) {
        let server = TestServer::on(db.clone()).await;
        let mut ceo = server.ceo().await;
        let plain = demanding(&server, &mut ceo, &[], None).await;
        let result = data(&mut ceo, &pipeline(&plain)).await;
        assert_eq!(verdicts(&result), found("skip", "skip", "skip"));
        assert_eq!((&result["task_id"], &result["reviewed_at"]), (&json!(plain), &json!("2027-01-15T08:00:00Z")));
        assert_eq!((&result["total_duration_ms"], &result["stage_results"][0]["duration_ms"]), (&json!(0), &json!(0)));
        let met = demanding(&server, &mut ceo, &[true, true], None).await;
        assert_eq!(verdicts(&data(&mut ceo, &pipeline(&met)).await), found("pass", "pass", "skip"));
        let unmet = demanding(&server, &mut ceo, &[true, false], Some("src/lib.rs")).await;
        let result = data(&mut ceo, &pipeline(&unmet)).await;
        assert_eq!(verdicts(&result), found("fail", "fail", "fail"));
        let reasons = [0, 1].map(|stage: usize| result["stage_results"][stage]["reason"].clone());
        assert_eq!(reasons, [json!("1 of 2 acceptance criteria are not met"), json!("1 of 1 expected artifacts are missing")]);
        db.execute(
            "CREATE TABLE IF NOT EXISTS artifacts (id TEXT, kind TEXT, path TEXT, task_id TEXT, created_by TEXT, \
             description TEXT, content_type TEXT, created_at BIGINT)",
        )
        .await;
        db.execute(&format!(
            "INSERT INTO artifacts (id, kind, path, task_id, created_by, description, content_type, created_at) \
             VALUES ('artifact-1', 'code', 'src/lib.rs', '{unmet}', 'a', '', 'text/plain', 0)"
        ))
        .await;
        assert_eq!(verdicts(&data(&mut ceo, &pipeline(&unmet)).await), found("fail", "fail", "pass"));
    }

    async fn a_decision_stands_in_the_place_of_a_stage_and_moves_nothing(db: TestDb) {
        let server = TestServer::on(db.clone()).await;
        let mut ceo = server.ceo().await;
        let me = data(&mut ceo, "/auth/me").await["id"].clone();
        let task = demanding(&server, &mut ceo, &[false], None).await;
        let before = data(&mut ceo, &format!("/tasks/{task}")).await;
        let listening = server.listen().await;
        let mut socket = listening.plain(&mut ceo).await;
        socket.ask(&json!({"action": "subscribe", "channels": ["reviews"]})).await;
        let path = stage(&task, "acceptance_criteria");
        let first = ceo.post(&path, &json!({"verdict": "skip", "reason": "later"})).await.expect(201).data();
        assert_eq!((&first["task_id"], &first["stage_name"]), (&json!(task), &json!("acceptance_criteria")));
        assert_eq!(
            first["stage_result"],
            json!({"stage_name": "acceptance_criteria", "verdict": "skip", "reason": "later", "duration_ms": 0,
                   "metadata": {"decided_by": me, "decided_at": "2027-01-15T08:00:00Z"}})
        );
        assert_eq!(verdicts(&first["pipeline_result"]), found("skip", "skip", "skip"));
        let second = ceo.post(&path, &json!({"verdict": "pass"})).await.expect(201).data();
        assert_eq!(second["stage_result"]["reason"], Value::Null);
        assert_eq!(verdicts(&data(&mut ceo, &pipeline(&task)).await), found("pass", "pass", "skip"), "the newest counts");
        assert_eq!(data(&mut ceo, &format!("/tasks/{task}")).await, before);
        for verdict in ["skip", "pass"] {
            let told = socket.next().await;
            assert_eq!((&told["event_type"], &told["channel"]), (&json!("review.stage_decided"), &json!("reviews")));
            let payload = json!({
                "task_id": task, "stage_name": "acceptance_criteria", "verdict": verdict, "decided_by": me,
            });
            assert_eq!(told["payload"], payload);
        }
        let refused = db.try_execute("UPDATE review_stage_decisions SET verdict = 'fail'").await.unwrap_err();
        assert!(refused.to_string().contains("_immutable"));
        ceo.delete(&format!("/api/v1/tasks/{task}")).await.refused(409, 4000);
    }

    async fn racing_decisions_are_all_kept_and_the_last_one_counts(db: TestDb) {
        let server = TestServer::on(db).await;
        let second = if server.db.is_shared() { Some(server.second(|_| {}).await) } else { None };
        let there = second.as_ref().unwrap_or(&server);
        let mut ceo = server.ceo().await;
        let task = demanding(&server, &mut ceo, &[], None).await;
        let callers = [ceo.clone(), there.ceo().await];
        let path = stage(&task, "artifacts_expected");
        let answers = join_all((0..10).map(|number| {
            let (mut caller, path) = (callers[number % 2].clone(), path.clone());
            let verdict = ["pass", "fail"][number % 2];
            async move { caller.post(&path, &json!({ "verdict": verdict })).await }
        }))
        .await;
        assert!(answers.iter().all(|answer| answer.status == 201));
        // What counts is the same wherever it is asked for, and as often.
        let of = async |mut caller: Caller| data(&mut caller, &pipeline(&task)).await["stage_results"][1]["verdict"].clone();
        let counts = of(callers[0].clone()).await;
        for _ in 0..3 {
            assert_eq!(of(callers[1].clone()).await, counts);
        }
        let kept = quarterdeck_store::review::newest(server.app.store.read(), &task).await.unwrap();
        assert_eq!(kept.len(), 1);
    }

    async fn nobody_reviews_their_own_work(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let mut manager = server.person("manager", HumanRole::Manager).await;
        let id = data(&mut manager, "/auth/me").await["id"].as_str().unwrap().to_owned();
        let task = demanding(&server, &mut ceo, &[true], None).await;
        go(&mut ceo, &task, "assigned", Some(&id)).await;
        let (path, body) = (stage(&task, "acceptance_criteria"), json!({"verdict": "pass"}));
        let refused = manager.post(&path, &body).await.refused(403, 1001);
        assert_eq!(refused.error(), "Self-review is not permitted");
        ceo.post(&path, &body).await.expect(201);
        // A name that happens to be an agent's is nobody's id.
        let other = demanding(&server, &mut ceo, &[true], None).await;
        go(&mut ceo, &other, "assigned", Some("manager")).await;
        manager.post(&stage(&other, "acceptance_criteria"), &body).await.expect(201);
    }

    async fn stages_are_those_of_the_setting(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let task = demanding(&server, &mut ceo, &[true], None).await;
        ceo.post(&stage(&task, "legal"), &json!({"verdict": "pass"})).await.refused(409, 4000);
        set(&mut ceo, "engine/review_stages", r#"["legal", "acceptance_criteria"]"#).await;
        let result = data(&mut ceo, &pipeline(&task)).await;
        assert_eq!(result["stage_results"][0]["reason"], json!("Nobody has decided yet"));
        assert_eq!(verdicts(&result).0, "pass");
        let decided = ceo.post(&stage(&task, "legal"), &json!({"verdict": "fail", "reason": "no"})).await.expect(201);
        assert_eq!(verdicts(&decided.data()["pipeline_result"]).0, "fail");
        ceo.post(&stage(&task, "artifacts_expected"), &json!({"verdict": "pass"})).await.refused(409, 4000);
        set(&mut ceo, "engine/review_stages", "[]").await;
        ceo.get(&format!("/api/v1{}", pipeline(&task))).await.refused(503, 8001);
        ceo.post(&stage(&task, "legal"), &json!({"verdict": "pass"})).await.refused(503, 8001);
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_nothing_is_kept() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    ceo.get("/api/v1/reviews/unknown/pipeline").await.refused(404, 3000);
    ceo.post(&stage("unknown", "acceptance_criteria"), &json!({"verdict": "pass"})).await.refused(404, 3000);
    ceo.get(&format!("/api/v1/reviews/{}/pipeline", "x".repeat(129))).await.refused(400, 2001);
    let task = demanding(&server, &mut ceo, &[false], None).await;
    for body in [
        json!({}),
        json!({"verdict": "maybe"}),
        json!({"verdict": "pass", "reason": " "}),
        json!({"verdict": "pass", "reason": "x".repeat(4097)}),
    ] {
        ceo.post(&stage(&task, "acceptance_criteria"), &body).await.refused(400, 2001);
    }
    assert_eq!(verdicts(&data(&mut ceo, &pipeline(&task)).await).0, "fail");
}

#[tokio::test]
async fn readers_run_the_pipeline_and_writers_decide() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let task = demanding(&server, &mut ceo, &[false], None).await;
    let (run, path, body) = (
        format!("/api/v1{}", pipeline(&task)),
        stage(&task, "acceptance_criteria"),
        json!({"verdict": "pass"}),
    );
    server.anonymous().get(&run).await.refused(401, 1000);
    server.anonymous().post(&path, &body).await.refused(401, 1000);
    server.system_cli().get(&run).await.refused(403, 1001);
    server.system_cli().post(&path, &body).await.refused(403, 1001);
    for (role, may) in [
        (HumanRole::Observer, false),
        (HumanRole::BoardMember, false),
        (HumanRole::PairProgrammer, true),
        (HumanRole::Manager, true),
    ] {
        let mut person = server.person(role.as_str(), role).await;
        person.get(&run).await.expect(200);
        let answer = person.post(&path, &body).await;
        if may {
            answer.expect(201)
        } else {
            answer.refused(403, 1001)
        };
    }
}
