//! Artifacts: what is known about them.

use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{Caller, TestServer, on_both_databases};
use serde_json::{Value, json};

use super::{about, artifact, content, download, put};

const ARTIFACTS: &str = "/api/v1/artifacts";

fn body(kind: &str, task: &str, by: &str) -> Value {
    json!({"type": kind, "path": "p", "task_id": task, "created_by": by})
}

on_both_databases! {
    async fn an_artifact_is_what_was_sent_and_has_no_content(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let sent = json!({
            "type": "tests", "path": "../a\\b", "task_id": "nobody knows it", "created_by": "a",
            "description": "d", "project_id": "p", "content_type": "text/csv",
            "id": "artifact-1", "size_bytes": 7, "created_at": "2020-01-01T00:00:00Z",
        });
        let made = ceo.post(ARTIFACTS, &sent).await.expect(201).data();
        let id = made["id"].as_str().unwrap();
        assert_eq!(id.strip_prefix("artifact-").unwrap().len(), 32);
        let wanted = json!({
            "id": id, "type": "tests", "path": "../a\\b", "task_id": "nobody knows it", "created_by": "a",
            "description": "d", "project_id": "p", "content_type": "text/csv", "size_bytes": 0,
            "created_at": "2027-01-15T08:00:00Z",
        });
        assert_eq!((&made, about(&mut ceo, id).await), (&wanted, wanted.clone()));
        let bare = ceo.post(ARTIFACTS, &body("code", "t", "a")).await.expect(201).data();
        assert_eq!(
            (&bare["description"], &bare["project_id"], &bare["content_type"]),
            (&json!(""), &Value::Null, &json!(""))
        );
        let none = download(&ceo, id, &[]).await.refused(404, 3000);
        assert_eq!(none.error(), format!("Artifact '{id}' has no content"));
    }

    async fn what_has_the_wrong_shape_is_refused(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let with = |member: &str, value: Value| {
            let mut body = body("code", "t", "a");
            body[member] = value;
            body
        };
        for wrong in [
            json!({}),
            with("type", json!("binary")),
            with("path", json!(" ")),
            with("path", json!("p".repeat(1025))),
            with("task_id", json!("")),
            with("created_by", json!("\t")),
            with("description", json!("d".repeat(4097))),
            with("content_type", json!("t".repeat(257))),
            with("project_id", json!("")),
            with("path", json!("a\0b")),
        ] {
            let refused = ceo.post(ARTIFACTS, &wrong).await.refused(400, 2001);
            assert!(refused.json()["error_detail"].is_object(), "{wrong}");
        }
        ceo.post(ARTIFACTS, &with("path", json!("p".repeat(1024)))).await.expect(201);
        assert_eq!(ceo.get(ARTIFACTS).await.json()["pagination"]["total"], 1);
    }

    async fn lists_are_by_id_and_filters_are_exact(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let mut ids = Vec::new();
        for (kind, task, by) in
            [("code", "t1", "a"), ("tests", "t1", "b"), ("code", "t2", "a"), ("documentation", "t2", "b")]
        {
            let made = ceo.post(ARTIFACTS, &body(kind, task, by)).await.expect(201).data();
            ids.push(made["id"].as_str().unwrap().to_owned());
        }
        let listed = async |query: &str| {
            let page = ceo.clone().get(&format!("{ARTIFACTS}?{query}")).await.expect(200).json();
            let found = page["data"].as_array().unwrap().iter();
            found.map(|artifact| artifact["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let only = |numbers: &[usize]| {
            let mut wanted: Vec<_> = numbers.iter().map(|number| ids[*number].clone()).collect();
            wanted.sort();
            wanted
        };
        assert_eq!(listed("").await, only(&[0, 1, 2, 3]));
        assert_eq!(listed("limit=2&offset=1").await, only(&[0, 1, 2, 3])[1..3]);
        assert_eq!(listed("task_id=t1").await, only(&[0, 1]));
        assert_eq!(listed("created_by=b").await, only(&[1, 3]));
        assert_eq!(listed("type=code").await, only(&[0, 2]));
        assert_eq!(listed("type=code&task_id=t2&created_by=a").await, only(&[2]));
        assert_eq!(listed("type=code&task_id=t2&created_by=b").await, only(&[]));
        let refused = ceo.get(&format!("{ARTIFACTS}?type=binary")).await.refused(400, 2001);
        assert_eq!(
            refused.json()["error_detail"]["errors"],
            json!([{"pointer": "type", "detail": "must be one of code, tests, documentation"}])
        );
        for query in ["task_id=", "created_by=%20", "type=", "limit=0", &format!("task_id={}", "x".repeat(129))] {
            ceo.get(&format!("{ARTIFACTS}?{query}")).await.refused(400, 2001);
        }
    }

    async fn deleting_takes_the_content_along_and_frees_its_room(db: TestDb) {
        let server = TestServer::with(db, |options| options.artifact_bytes = 10).await;
        let mut ceo = server.ceo().await;
        let (first, second) = (artifact(&mut ceo, "").await, artifact(&mut ceo, "").await);
        put(&ceo, &first, "0123456789").await.expect(200);
        put(&ceo, &second, "0").await.refused(507, 8007);
        let deleted = ceo.delete(&format!("{ARTIFACTS}/{first}")).await.expect(200).json();
        assert_eq!(deleted, json!({"data": null, "error": null, "error_detail": null, "success": true}));
        assert_eq!(crate::files(&server), Vec::<String>::new());
        ceo.get(&format!("{ARTIFACTS}/{first}")).await.refused(404, 3000);
        download(&ceo, &first, &[]).await.refused(404, 3000);
        put(&ceo, &first, "0").await.refused(404, 3000);
        ceo.delete(&format!("{ARTIFACTS}/{first}")).await.refused(404, 3000);
        put(&ceo, &second, "0123456789").await.expect(200);
        ceo.delete(&format!("{ARTIFACTS}/{second}")).await.expect(200);
    }

    async fn every_change_is_told_once_and_no_refused_one(db: TestDb) {
        let server = TestServer::with(db, |options| options.artifact_bytes = 10).await;
        let mut ceo = server.ceo().await;
        let listening = server.listen().await;
        let mut socket = listening.plain(&mut ceo).await;
        socket.ask(&json!({"action": "subscribe", "channels": ["artifacts"]})).await;
        ceo.post(ARTIFACTS, &json!({})).await.refused(400, 2001);
        let id = artifact(&mut ceo, "").await;
        put(&ceo, &id, "0123456789A").await.refused(507, 8007);
        put(&ceo, &id, "0123456789").await.expect(200);
        ceo.delete(&format!("{ARTIFACTS}/artifact-0")).await.refused(404, 3000);
        ceo.delete(&format!("{ARTIFACTS}/{id}")).await.expect(200);
        for (event_type, payload) in [
            ("artifact.created", json!({"artifact_id": id, "task_id": "t", "created_by": "a", "type": "code"})),
            (
                "artifact.content_uploaded",
                json!({"artifact_id": id, "size_bytes": 10, "content_type": "application/octet-stream"}),
            ),
            ("artifact.deleted", json!({"artifact_id": id, "task_id": "t"})),
        ] {
            let event = socket.next().await;
            assert_eq!((&event["event_type"], &event["payload"]), (&json!(event_type), &payload));
            assert_eq!(event["channel"], "artifacts");
        }
        let dump = server.db.dump().await;
        for action in ["artifact:create", "artifact:upload", "artifact:delete"] {
            assert!(dump.contains(action), "{action}");
        }
    }

    async fn readers_read_and_writers_write(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let id = artifact(&mut ceo, "").await;
        put(&ceo, &id, "bytes").await.expect(200);
        let (one, bytes) = (format!("{ARTIFACTS}/{id}"), content(&id));
        let everything = async |mut caller: Caller| {
            [
                caller.get(ARTIFACTS).await.status,
                caller.get(&one).await.status,
                caller.get(&bytes).await.status,
                caller.post(ARTIFACTS, &body("code", "t", "a")).await.status,
                caller.put(&bytes, &json!({})).await.status,
                caller.delete(&format!("{ARTIFACTS}/artifact-0")).await.status,
            ]
        };
        assert_eq!(everything(server.anonymous()).await, [401; 6]);
        assert_eq!(everything(server.system_cli()).await, [403; 6]);
        for role in [HumanRole::Observer, HumanRole::BoardMember] {
            let seen = everything(server.person(role.as_str(), role).await).await;
            assert_eq!(seen, [200, 200, 200, 403, 403, 403]);
        }
        for role in [HumanRole::PairProgrammer, HumanRole::Manager] {
            let seen = everything(server.person(role.as_str(), role).await).await;
            assert_eq!(seen, [200, 200, 200, 201, 200, 404]);
        }
        ceo.without_csrf().delete(&one).await.refused(403, 1004);
    }
}
