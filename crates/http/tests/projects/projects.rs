//! Projects: made, listed, changed, deleted.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{Caller, TestServer, on_both_databases};
use serde_json::{Value, json};

use super::elsewhere;

const PROJECTS: &str = "/api/v1/projects";

async fn project(caller: &mut Caller, body: Value) -> Value {
    caller.post(PROJECTS, &body).await.expect(201).data()
}

fn path(project: &Value) -> String {
    format!("{PROJECTS}/{}", project["id"].as_str().expect("an id"))
}

on_both_databases! {
    async fn a_project_is_what_was_sent_and_begins_in_planning(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let body = json!({
            "name": "Apollo", "description": "to the moon", "team": ["a", "b"], "lead": "b",
            "deadline": "2026-05-01", "budget": 12.5,
            "id": "proj-mine", "status": "completed", "task_ids": ["t"], "other": 1,
        });
        let made = project(&mut ceo, body).await;
        let id = made["id"].as_str().unwrap();
        assert!(id.strip_prefix("proj-").unwrap().len() == 32 && id != "proj-mine", "{id}");
        let wanted = json!({
            "id": id, "name": "Apollo", "description": "to the moon", "team": ["a", "b"], "lead": "b",
            "task_ids": [], "deadline": "2026-05-01", "budget": 12.5, "status": "planning",
        });
        assert_eq!(made, wanted);
        assert_eq!(ceo.get(&path(&made)).await.expect(200).data(), wanted);
        let bare = project(&mut ceo, json!({"name": " n "})).await;
        let wanted = json!({
            "id": bare["id"], "name": " n ", "description": "", "team": [], "lead": null, "task_ids": [],
            "deadline": null, "budget": 0.0, "status": "planning",
        });
        assert_eq!(bare, wanted);
        for deadline in ["2026-05-01T10:00:00Z", "2026-05-01T10:00:00+02:00", "2026-05-01T10:00:00"] {
            let made = project(&mut ceo, json!({"name": "n", "deadline": deadline})).await;
            assert_eq!(made["deadline"], deadline);
        }
        ceo.get(&format!("{PROJECTS}/proj-0")).await.refused(404, 3000);
        ceo.get(&format!("{PROJECTS}/{}", "x".repeat(129))).await.refused(400, 2001);
    }

    async fn two_with_the_same_name_are_two(db: TestDb) {
        let server = TestServer::on(db).await;
        let ceo = server.ceo().await;
        let made = join_all((0..8).map(|_| {
            let mut caller = ceo.clone();
            async move { project(&mut caller, json!({"name": "same"})).await }
        }));
        let ids: BTreeSet<_> = made.await.iter().map(|project| project["id"].to_string()).collect();
        assert_eq!(ids.len(), 8);
    }

    async fn what_has_the_wrong_shape_is_refused_and_nobody_is_told(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let listening = server.listen().await;
        let mut socket = listening.plain(&mut ceo).await;
        socket.ask(&json!({"action": "subscribe", "channels": ["projects"]})).await;
        let names = |count: usize| (0..count).map(|number| number.to_string()).collect::<Vec<_>>();
        for body in [
            json!({}),
            json!({"name": null}),
            json!({"name": " "}),
            json!({"name": "n".repeat(257)}),
            json!({"name": "n", "description": "d".repeat(4097)}),
            json!({"name": "n", "team": names(51)}),
            json!({"name": "n", "team": ["a", "b", "a"]}),
            json!({"name": "n", "team": [""]}),
            json!({"name": "n", "lead": ""}),
            json!({"name": "n", "deadline": ""}),
            json!({"name": "n", "deadline": " "}),
            json!({"name": "n", "deadline": "soon"}),
            json!({"name": "n", "deadline": "2026-02-30"}),
            json!({"name": "n", "budget": -0.01}),
            json!({"name": "n", "budget": "1"}),
            json!([]),
        ] {
            ceo.post(PROJECTS, &body).await.refused(400, 2001);
        }
        let stranger = json!({"name": "n", "team": ["a"], "lead": "b"});
        let refused = ceo.post(PROJECTS, &stranger).await.refused(422, 2000);
        assert_eq!(refused.error(), "lead must be a member of the team");
        let most = json!({
            "name": "n".repeat(256), "description": "d".repeat(4096), "team": names(50), "lead": "49",
        });
        let made = project(&mut ceo, most).await;
        let event = socket.next().await;
        assert_eq!((&event["event_type"], &event["channel"]), (&json!("project.created"), &json!("projects")));
        let payload = json!({
            "project_id": made["id"], "name": made["name"], "status": "planning", "lead": "49",
        });
        assert_eq!(event["payload"], payload, "nothing was told of what was refused");
        assert_eq!(ceo.get(PROJECTS).await.json()["pagination"]["total"], 1);
    }

    async fn lists_are_by_id_and_filters_are_exact(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let mut ids = Vec::new();
        for number in 0..7 {
            let lead = if number % 2 == 0 { json!("even") } else { Value::Null };
            let made = project(&mut ceo, json!({"name": "n", "lead": lead})).await;
            if number < 2 {
                ceo.patch(&path(&made), &json!({"status": "active"})).await.expect(200);
            }
            ids.push(made["id"].as_str().unwrap().to_owned());
        }
        let even: BTreeSet<_> = ids.iter().step_by(2).cloned().collect();
        ids.sort();
        let listed = async |query: &str| {
            let page = ceo.clone().get(&format!("{PROJECTS}?{query}")).await.expect(200).json();
            let ids: Vec<_> =
                page["data"].as_array().unwrap().iter().map(|p| p["id"].as_str().unwrap().to_owned()).collect();
            (ids, page["pagination"].clone())
        };
        assert_eq!(listed("").await, (ids.clone(), json!({"total": 7, "offset": 0, "limit": 50})));
        let (page, meta) = listed("offset=2&limit=3").await;
        assert_eq!((page.as_slice(), meta), (&ids[2..5], json!({"total": 7, "offset": 2, "limit": 3})));
        let past = listed("offset=100&limit=200").await;
        assert_eq!(past, (vec![], json!({"total": 7, "offset": 7, "limit": 200})));
        assert_eq!(listed("lead=even").await.0, even.into_iter().collect::<Vec<_>>());
        assert_eq!(listed("lead=Even").await.0, Vec::<String>::new());
        assert_eq!(listed("status=active").await.0.len(), 2);
        assert_eq!(listed("status=active&lead=even").await.0.len(), 1);
        assert_eq!(listed("status=cancelled").await.1["total"], 0);
        let refused = ceo.get(&format!("{PROJECTS}?status=done")).await.refused(422, 2000);
        assert_eq!(
            refused.error(), "status must be one of planning, active, on_hold, completed, cancelled"
        );
        let long = "x".repeat(129);
        for query in ["status=", "lead=", "offset=-1", "limit=0", "limit=201", &format!("lead={long}")] {
            ceo.get(&format!("{PROJECTS}?{query}")).await.refused(400, 2001);
        }
    }

    async fn a_list_ends_after_ten_thousand(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let numbers = "WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers \
                       WHERE number < 10050)";
        server.db.execute(&format!(
            "INSERT INTO projects (id, name, description, team, budget, status) {numbers} \
             SELECT 'proj-' || (100000 + number), 'n', '', '[]', 0, 'planning' FROM numbers"
        ))
        .await;
        let mut page = async |query: &str| ceo.get(&format!("{PROJECTS}?{query}")).await.expect(200).json();
        let last = page("offset=9990&limit=50&status=planning").await;
        assert_eq!(last["data"].as_array().unwrap().len(), 10);
        assert_eq!(last["pagination"], json!({"total": 10_000, "offset": 9990, "limit": 50}));
        let past = page("offset=10000").await;
        assert_eq!((&past["data"], &past["pagination"]["offset"]), (&json!([]), &json!(10_000)));
    }

    async fn a_change_changes_what_it_names(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let body = json!({"name": "n", "team": ["a"], "lead": "a", "deadline": "2026-05-01", "budget": 1});
        let made = project(&mut ceo, body).await;
        let path = path(&made);
        assert_eq!(ceo.patch(&path, &json!({})).await.expect(200).data(), made);
        let ids = json!({"id": "x", "task_ids": ["t"]});
        assert_eq!(ceo.patch(&path, &ids).await.expect(200).data(), made);
        let change = json!({"name": "m", "lead": null, "deadline": null, "budget": 0, "status": "on_hold"});
        let changed = ceo.patch(&path, &change).await.expect(200).data();
        let wanted = json!({
            "id": made["id"], "name": "m", "description": "", "team": ["a"], "lead": null, "task_ids": [],
            "deadline": null, "budget": 0.0, "status": "on_hold",
        });
        assert_eq!(changed, wanted);
        assert_eq!(ceo.get(&path).await.data(), wanted);
        for wrong in [json!({"name": null}), json!({"status": "done"}), json!({"team": ["a", "a"]})] {
            ceo.patch(&path, &wrong).await.refused(400, 2001);
        }
        ceo.patch(&path, &json!({"name": "x", "lead": "b"})).await.refused(422, 2000);
        assert_eq!(ceo.get(&path).await.data(), wanted, "a refused change changes nothing");
        ceo.patch(&path, &json!({"team": [], "lead": "b"})).await.expect(200);
        ceo.patch(&format!("{PROJECTS}/proj-0"), &json!({})).await.refused(404, 3000);
    }

    async fn what_is_final_does_not_reopen_and_moves_are_told(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let listening = server.listen().await;
        let mut socket = listening.plain(&mut ceo).await;
        socket.ask(&json!({"action": "subscribe", "channels": ["projects"]})).await;
        let made = project(&mut ceo, json!({"name": "n"})).await;
        let path = path(&made);
        assert_eq!(socket.next().await["event_type"], "project.created");
        for status in ["active", "active", "completed"] {
            ceo.patch(&path, &json!({"status": status})).await.expect(200);
        }
        for status in ["planning", "active", "on_hold", "cancelled"] {
            let refused = ceo.patch(&path, &json!({"status": status})).await.refused(422, 2000);
            assert_eq!(refused.error(), "status must stay completed: it is final");
        }
        ceo.patch(&path, &json!({"name": "m", "status": "completed"})).await.expect(200);
        ceo.delete(&path).await.expect(204);
        for (from, to) in [("planning", "active"), ("active", "completed")] {
            let event = socket.next().await;
            let payload = json!({
                "project_id": made["id"], "status": to, "previous_status": from, "from_status": from,
                "to_status": to,
            });
            assert_eq!((&event["event_type"], &event["payload"]), (&json!("project.status_changed"), &payload));
        }
        let event = socket.next().await;
        let payload = json!({"project_id": made["id"], "name": "m"});
        assert_eq!((&event["event_type"], &event["payload"]), (&json!("project.deleted"), &payload));
        ceo.get(&path).await.refused(404, 3000);
        ceo.delete(&path).await.refused(404, 3000);
    }

    async fn a_project_with_tasks_stays(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let made = project(&mut ceo, json!({"name": "n"})).await;
        let body = json!({
            "title": "t", "description": "d", "type": "development", "project": made["id"], "created_by": "ceo"
        });
        let task = ceo.post("/api/v1/tasks", &body).await.expect(201).data();
        ceo.delete(&path(&made)).await.refused(409, 4000);
        assert_eq!(ceo.get(&path(&made)).await.expect(200).data()["task_ids"], json!([task["id"]]));
        assert_eq!(ceo.get(PROJECTS).await.data()[0]["task_ids"], json!([task["id"]]));
        ceo.delete(&format!("/api/v1/tasks/{}", task["id"].as_str().unwrap())).await.expect(204);
        ceo.delete(&path(&made)).await.expect(204);
    }

    async fn of_racing_ends_one_counts_and_of_racing_deletes_one_is_told(db: TestDb) {
        let server = TestServer::on(db).await;
        let second = elsewhere(&server).await;
        let there = second.as_ref().unwrap_or(&server);
        let callers = [server.ceo().await, there.ceo().await];
        let mut ceo = callers[0].clone();
        let listening = server.listen().await;
        let mut socket = listening.plain(&mut ceo).await;
        socket.ask(&json!({"action": "subscribe", "channels": ["projects"]})).await;
        for _ in 0..5 {
            let made = project(&mut ceo, json!({"name": "n"})).await;
            assert_eq!(socket.next().await["event_type"], "project.created");
            let path = path(&made);
            let ends = join_all((0..8).map(|number| {
                let mut caller = callers[number % 2].clone();
                let (path, status) = (path.clone(), ["completed", "cancelled"][number / 2 % 2]);
                async move { (status, caller.patch(&path, &json!({"status": status})).await) }
            }));
            let ends = ends.await;
            let now = ceo.get(&path).await.data()["status"].clone();
            for (status, answer) in ends {
                if now == status { answer.expect(200) } else { answer.refused(422, 2000) };
            }
            assert_eq!(socket.next().await["payload"]["to_status"], now);
            let deletes = join_all((0..8).map(|number| {
                let (mut caller, path) = (callers[number % 2].clone(), path.clone());
                async move { caller.delete(&path).await.status }
            }));
            let deletes = deletes.await;
            assert_eq!(deletes.iter().filter(|status| **status == 204).count(), 1, "{deletes:?}");
            assert_eq!(deletes.iter().filter(|status| **status == 404).count(), 7, "{deletes:?}");
            assert_eq!(socket.next().await["event_type"], "project.deleted");
        }
    }

    async fn readers_read_and_writers_write(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let made = project(&mut ceo, json!({"name": "n"})).await;
        let (path, body) = (path(&made), json!({"name": "m"}));
        let everything = async |mut caller: Caller| {
            [
                caller.get(PROJECTS).await.status,
                caller.get(&path).await.status,
                caller.post(PROJECTS, &body).await.status,
                caller.patch(&path, &body).await.status,
                caller.delete(&format!("{PROJECTS}/proj-0")).await.status,
            ]
        };
        assert_eq!(everything(server.anonymous()).await, [401; 5]);
        assert_eq!(everything(server.system_cli()).await, [403; 5]);
        for role in [HumanRole::Observer, HumanRole::BoardMember] {
            assert_eq!(everything(server.person(role.as_str(), role).await).await, [200, 200, 403, 403, 403]);
        }
        for role in [HumanRole::PairProgrammer, HumanRole::Manager] {
            assert_eq!(everything(server.person(role.as_str(), role).await).await, [200, 200, 201, 200, 404]);
        }
        ceo.without_csrf().patch(&path, &body).await.refused(403, 1004);
    }

    async fn every_change_is_in_the_audit_trail(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let made = project(&mut ceo, json!({"name": "n"})).await;
        ceo.patch(&path(&made), &json!({"name": "n"})).await.expect(200);
        ceo.patch(&path(&made), &json!({"name": "m"})).await.expect(200);
        ceo.patch(&path(&made), &json!({"name": ""})).await.refused(400, 2001);
        ceo.delete(&path(&made)).await.expect(204);
        ceo.delete(&path(&made)).await.refused(404, 3000);
        let dump = server.db.dump().await;
        for (action, operation) in [
            ("project:create", "projects.create"), ("project:update", "projects.update"),
            ("project:delete", "projects.delete"),
        ] {
            assert!(dump.contains(action) && dump.contains(operation), "{action}");
        }
    }
}

#[tokio::test]
async fn the_document_says_what_a_project_may_hold() {
    let server = TestServer::start().await;
    let document = server.anonymous().get("/docs/openapi.json").await.expect(200).json();
    let schemas = &document["components"]["schemas"];
    for (form, member, schema) in [
        ("Project", "team", "Team"),
        ("CreateProjectRequest", "team", "Team"),
        ("UpdateProjectRequest", "team", "Team"),
        ("UpdateProjectRequest", "status", "ProjectStatus"),
    ] {
        let member = &schemas[form]["properties"][member];
        assert_eq!(member["$ref"], format!("#/components/schemas/{schema}"), "{form}: {member}");
        assert!(member.get("default").is_none(), "{form}: null is no value of it");
    }
    let team = &schemas["Team"];
    assert_eq!((&team["maxItems"], &team["uniqueItems"]), (&json!(50), &json!(true)));
    assert_eq!(schemas["CreateProjectRequest"]["required"], json!(["name"]));
    assert_eq!(schemas["UpdateProjectRequest"].get("required"), None);
}
