//! Tasks: their life, their versions, their events.

use futures_util::future::join_all;
use quarterdeck_domain::role::HumanRole;
use quarterdeck_domain::task::TaskStatus;
use quarterdeck_testkit::{TestServer, on_both_databases};
use serde_json::{Value, json};

use super::{go, id, new, path, task, task_in};

on_both_databases! {
    async fn a_task_is_made_shown_changed_listed_and_deleted(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let made = ceo.post("/api/v1/tasks", &new("first")).await.expect(201);
        assert_eq!(made.header("etag"), "\"1\"");
        let first = made.data();
        assert_eq!(
            (&first["status"], &first["version"], &first["priority"], &first["assigned_to"]),
            (&json!("created"), &json!(1), &json!("medium"), &Value::Null)
        );
        let shown = ceo.get(&path(&first)).await.expect(200);
        assert_eq!((shown.data(), shown.header("etag")), (first.clone(), "\"1\""));
        let body = json!({"title": "second", "priority": "high", "budget_limit": 2.5, "expected_version": 1});
        let changed = ceo.patch(&path(&first), &body).await.expect(200);
        assert_eq!(changed.header("etag"), "\"2\"");
        let changed = changed.data();
        assert_eq!((&changed["title"], &changed["budget_limit"]), (&json!("second"), &json!(2.5)));
        assert_eq!(changed["created_at"], first["created_at"]);
        let page = ceo.get("/api/v1/tasks").await.expect(200).json();
        assert_eq!(page["data"], json!([changed]));
        assert_eq!(page["pagination"], json!({"total": 1, "offset": 0, "limit": 50}));
        let gone = ceo.delete(&path(&first)).await.expect(204);
        assert!(gone.body.is_empty());
        ceo.get(&path(&first)).await.refused(404, 3000);
        ceo.delete(&path(&first)).await.refused(404, 3000);
        let page = ceo.get("/api/v1/tasks").await.expect(200).json();
        assert_eq!((&page["data"], &page["pagination"]["total"]), (&json!([]), &json!(0)));
    }

    async fn every_pair_of_statuses_is_answered_as_the_table_says(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        for from in TaskStatus::ALL {
            for to in TaskStatus::ALL {
                let before = task_in(&mut ceo, from.as_str()).await;
                let answer = go(&mut ceo, &before, to.as_str(), Some("agent-2")).await;
                let now = ceo.get(&path(&before)).await.expect(200).data();
                if from.targets().contains(to) {
                    let after = answer.expect(201).data();
                    assert_eq!(after["version"], json!(before["version"].as_i64().unwrap() + 1));
                    assert_eq!((&after["status"], &after), (&json!(to), &now), "{from} to {to}");
                } else {
                    let words = answer.refused(422, 2000).error();
                    assert!(words.starts_with(&format!("A task that is {from} cannot become {to}; allowed: ")));
                    assert_eq!(now, before, "{from} to {to}");
                }
            }
        }
    }

    async fn of_many_writers_with_one_version_exactly_one_wins(db: TestDb) {
        let server = TestServer::on(db).await;
        let second = if server.db.is_shared() { Some(server.second(|_| {}).await) } else { None };
        let there = second.as_ref().unwrap_or(&server);
        let (here_ceo, there_ceo) = (server.ceo().await, there.ceo().await);
        for round in 0..6 {
            let made = task(&mut here_ceo.clone()).await;
            let answers = join_all((0..16).map(|number| {
                let mut caller = if number % 2 == 0 { here_ceo.clone() } else { there_ceo.clone() };
                let path = path(&made);
                async move {
                    match round % 3 {
                        0 => caller.patch(&path, &json!({"title": format!("t{number}"), "expected_version": 1})).await,
                        1 => {
                            let body = json!({"target_status": "assigned", "assigned_to": "a", "expected_version": 1});
                            caller.post(&format!("{path}/transition"), &body).await
                        }
                        _ => caller.with_header("if-match", "\"1\"").patch(&path, &json!({"priority": "low"})).await,
                    }
                }
            }))
            .await;
            let won = answers.iter().filter(|answer| matches!(answer.status, 200 | 201)).count();
            assert_eq!(won, 1);
            for lost in answers.into_iter().filter(|answer| answer.status >= 400) {
                lost.refused(409, 4000);
            }
            let now = here_ceo.clone().get(&path(&made)).await.expect(200).data();
            assert_eq!(now["version"], json!(2));
        }
    }

    async fn writers_without_a_version_all_win_one_after_the_other(db: TestDb) {
        let server = TestServer::on(db).await;
        let second = if server.db.is_shared() { Some(server.second(|_| {}).await) } else { None };
        let there = second.as_ref().unwrap_or(&server);
        let (here_ceo, there_ceo) = (server.ceo().await, there.ceo().await);
        let made = task(&mut here_ceo.clone()).await;
        let answers = join_all((0..20).map(|number| {
            let mut caller = if number % 2 == 0 { here_ceo.clone() } else { there_ceo.clone() };
            let path = path(&made);
            async move { caller.patch(&path, &json!({"title": format!("t{number}")})).await.expect(200).data() }
        }))
        .await;
        let mut versions: Vec<_> = answers.iter().map(|task| task["version"].as_i64().unwrap()).collect();
        versions.sort_unstable();
        assert_eq!(versions, (2..=21).collect::<Vec<_>>());
    }

    async fn a_repeated_request_makes_no_second_task(db: TestDb) {
        let server = TestServer::on(db).await;
        let second = if server.db.is_shared() { Some(server.second(|_| {}).await) } else { None };
        let there = second.as_ref().unwrap_or(&server);
        let ceo = server.ceo().await.with_header("idempotency-key", "k-1");
        let twin = there.ceo().await.with_header("idempotency-key", "k-1");
        let answers = join_all((0..8).map(|number| {
            let mut caller = if number % 2 == 0 { ceo.clone() } else { twin.clone() };
            async move { caller.post("/api/v1/tasks", &new("once")).await.expect(201).data() }
        }))
        .await;
        assert!(answers.iter().all(|task| *task == answers[0]));
        let error = ceo.clone().post("/api/v1/tasks", &new("another")).await.refused(422, 2000).error();
        assert_eq!(error, "Idempotency-Key was used for another request");
        let page = ceo.clone().get("/api/v1/tasks").await.expect(200).json();
        assert_eq!(page["pagination"]["total"], json!(1));
        let mut other = server.person("max", HumanRole::Manager).await.with_header("idempotency-key", "k-1");
        assert_ne!(other.post("/api/v1/tasks", &new("once")).await.expect(201).data(), answers[0]);
        server.advance(std::time::Duration::from_secs(24 * 3600 + 1));
        let mut later = server.sign_in("max").await.with_header("idempotency-key", "k-1");
        later.post("/api/v1/tasks", &new("another")).await.expect(201);
    }

    async fn lists_are_filtered_counted_and_stable(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let mut made = Vec::new();
        for number in 0..7 {
            let mut body = new(&format!("t{number}"));
            body["project"] = json!(if number % 2 == 0 { "even" } else { "odd" });
            made.push(ceo.post("/api/v1/tasks", &body).await.expect(201).data());
        }
        // All at one time of the clock: the id decides.
        made.sort_by_key(id);
        for (place, agent) in [(0, "x"), (1, "y"), (2, "x")] {
            made[place] = go(&mut ceo, &made[place].clone(), "assigned", Some(agent)).await.expect(201).data();
        }
        let mut pages = Vec::new();
        for offset in [0, 3, 6, 9] {
            let page = ceo.get(&format!("/api/v1/tasks?offset={offset}&limit=3")).await.expect(200).json();
            assert_eq!(page["pagination"]["total"], json!(7));
            pages.extend(page["data"].as_array().unwrap().clone());
        }
        assert_eq!(pages, made);
        let mut find = async |query: &str| {
            let page = ceo.get(&format!("/api/v1/tasks?{query}")).await.expect(200).json();
            let total = page["pagination"]["total"].as_u64().unwrap() as usize;
            assert_eq!(page["data"].as_array().unwrap().len(), total, "{query}");
            page["data"].as_array().unwrap().clone()
        };
        let of = |test: &dyn Fn(&Value) -> bool| made.iter().filter(|t| test(t)).cloned().collect::<Vec<_>>();
        assert_eq!(find("status=assigned").await, of(&|t| t["status"] == "assigned"));
        assert_eq!(find("assigned_to=x").await, of(&|t| t["assigned_to"] == "x"));
        assert_eq!(find("project=odd").await, of(&|t| t["project"] == "odd"));
        let all = find("status=assigned&assigned_to=x&project=even").await;
        assert_eq!(all, of(&|t| t["assigned_to"] == "x" && t["project"] == "even"));
        assert_eq!(find("project=od").await, Vec::<Value>::new());
        assert_eq!(find("status=completed").await, Vec::<Value>::new());
    }

    async fn everyone_who_may_know_is_told_in_the_order_of_versions(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let listening = server.listen().await;
        let mut socket = listening.plain(&mut ceo).await;
        socket.ask(&json!({"action": "subscribe", "channels": ["tasks"]})).await;
        let made = task(&mut ceo).await;
        ceo.patch(&path(&made), &json!({})).await.expect(200);
        ceo.patch(&path(&made), &json!({"title": "other"})).await.expect(200);
        go(&mut ceo, &made, "completed", None).await.refused(422, 2000);
        go(&mut ceo, &made, "assigned", Some("agent-1")).await.expect(201);
        let cancel = format!("{}/cancel", path(&made));
        let cancelled = ceo.post(&cancel, &json!({"reason": "no need"})).await.expect(201).data();
        ceo.delete(&path(&made)).await.expect(204);
        let mut told = Vec::new();
        for _ in 0..6 {
            told.push(socket.next().await);
        }
        let types: Vec<_> = told.iter().map(|event| event["event_type"].as_str().unwrap()).collect();
        assert_eq!(
            types,
            ["task.created", "task.updated", "task.status_changed", "task.assigned", "task.status_changed", "task.deleted"]
        );
        let payload = |place: usize| &told[place]["payload"];
        assert_eq!(payload(0)["task"], made);
        assert_eq!(payload(0)["requested_by"], server.app.auth.users(0, 1).await.unwrap().0[0].id);
        assert_eq!((&payload(2)["from_status"], &payload(2)["to_status"]), (&json!("created"), &json!("assigned")));
        assert_eq!(payload(3)["agent_id"], json!("agent-1"));
        assert_eq!((&payload(4)["task"], &payload(4)["reason"]), (&cancelled, &json!("no need")));
        let versions: Vec<_> = (0..6).map(|place| payload(place)["version"].as_i64().unwrap()).collect();
        assert_eq!(versions, [1, 2, 3, 3, 4, 4]);
    }
}
