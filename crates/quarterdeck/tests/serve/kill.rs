//! A server that is killed again and again while clients write: what it answered is there, whole and once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use quarterdeck_testkit::{TestDb, on_both_databases};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::Connection;
use sqlx::sqlite::SqliteConnectOptions;
use tokio::sync::watch;

use crate::caller::Caller;
use crate::process::{Home, Server, patiently};

const WRITERS: usize = 6;

/// After how many further answers the server is killed: early and late in its life, and never at a moment
/// when nothing is under way.
const LIVES: [usize; 10] = [3, 160, 25, 90, 1, 240, 60, 12, 130, 40];

/// What every task goes through, with who does it from then on.
const STEPS: [(&str, Option<&str>); 3] =
    [("assigned", Some("agent-1")), ("in_progress", None), ("in_review", None)];

/// Somebody who makes tasks and moves them on, and asks again whenever the connection is lost.
struct Writer {
    name: usize,
    http: reqwest::Client,
    tasks: String,
    token: String,
    answered: watch::Sender<usize>,
    end: watch::Receiver<bool>,
}

impl Writer {
    /// Works until told to end; every task as it was answered last.
    async fn work(self) -> BTreeMap<String, Value> {
        let mut known = BTreeMap::new();
        while !*self.end.borrow() {
            let task = self.create(known.len()).await;
            let id = task["id"].as_str().unwrap().to_owned();
            let mut moved = task;
            for (status, assignee) in STEPS {
                moved = self.transition(&moved, status, assignee).await;
            }
            known.insert(id, moved);
        }
        known
    }

    /// Repeats itself with the same key, so that one task comes of it however often the server dies.
    async fn create(&self, number: usize) -> Value {
        let key = format!("writer-{}-{number}", self.name);
        let body = json!({"title": key, "description": "Survives", "type": "development",
            "project": "kill", "created_by": "ada"});
        loop {
            if let Some((status, task)) = self.send(Method::POST, "", &body, &key).await {
                assert_eq!(status, StatusCode::CREATED, "{task}");
                return task;
            }
        }
    }

    /// Moves a task on. Without an answer, the task itself says whether it was moved, and nothing in between.
    async fn transition(&self, task: &Value, status: &str, assignee: Option<&str>) -> Value {
        let (id, version) = (task["id"].as_str().unwrap(), task["version"].as_i64().unwrap());
        let body = json!({"target_status": status, "assigned_to": assignee, "expected_version": version});
        loop {
            let path = format!("/{id}/transition");
            if let Some((code, moved)) = self.send(Method::POST, &path, &body, "").await {
                assert_eq!(code, StatusCode::CREATED, "{moved}");
                return moved;
            }
            let now = loop {
                if let Some((code, now)) = self.send(Method::GET, &format!("/{id}"), &Value::Null, "").await {
                    assert_eq!(code, StatusCode::OK, "an answered task is lost: {now}");
                    break now;
                }
            };
            if now != *task {
                assert_eq!((&now["status"], &now["version"]), (&json!(status), &json!(version + 1)));
                return now;
            }
        }
    }

    /// Status and data of the answer, unless there was none.
    async fn send(&self, method: Method, path: &str, body: &Value, key: &str) -> Option<(StatusCode, Value)> {
        let mut request = self.http.request(method, format!("{}{path}", self.tasks)).bearer_auth(&self.token);
        if !key.is_empty() {
            request = request.header("idempotency-key", key);
        }
        if !body.is_null() {
            request = request.json(body);
        }
        let answer = async {
            let answer = request.send().await.ok()?;
            let status = answer.status();
            Some((status, answer.json::<Value>().await.ok()?["data"].take()))
        };
        let answer = patiently("an answer", answer).await.filter(|(status, _)| status.as_u16() != 503);
        match answer {
            Some(_) => self.answered.send_modify(|count| *count += 1),
            // The server is dead or not there yet.
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        answer
    }
}

/// The database, looked at behind the server's back: one text for each row.
struct Behind<'a> {
    home: &'a Home,
    db: &'a TestDb,
}

impl Behind<'_> {
    async fn texts(&self, sql: &'static str) -> Vec<String> {
        if let Some(pool) = self.db.postgres_pool().await {
            return sqlx::query_scalar(sql).fetch_all(&pool).await.unwrap();
        }
        let options = SqliteConnectOptions::new().filename(self.home.data("quarterdeck.db"));
        let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap()
    }
}

fn files(home: &Home) -> BTreeSet<String> {
    let folder = std::fs::read_dir(home.data("")).unwrap();
    folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

async fn api_key(server: &Server) -> String {
    let mut owner = Caller::owner(server).await;
    let made = owner.post("/auth/api-keys", json!({"name": "writers", "role": "ceo"})).await.expect(201);
    made.data()["api_key"].as_str().unwrap().to_owned()
}

/// Lets writers write while servers die, and answers what they were told.
async fn storm(home: &Home, token: &str) -> BTreeMap<String, Value> {
    let (answered, mut answers) = watch::channel(0);
    let (end, ended) = watch::channel(false);
    let writers = (0..WRITERS).map(|name| {
        let writer = Writer {
            name,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            tasks: format!("http://127.0.0.1:{}/api/v1/tasks", home.port),
            token: token.to_owned(),
            answered: answered.clone(),
            end: ended.clone(),
        };
        tokio::spawn(writer.work())
    });
    let writers: Vec<_> = writers.collect();
    for more in LIVES {
        let server = home.serve().await;
        let enough = *answers.borrow() + more;
        patiently("answers", answers.wait_for(|count| *count >= enough)).await.unwrap();
        server.kill().await;
    }
    let server = home.serve().await;
    end.send_replace(true);
    let known = patiently("the writers' end", join_all(writers)).await;
    server.stop().await;
    known.into_iter().flat_map(|known| known.unwrap()).collect()
}

on_both_databases! {
    async fn what_a_killed_server_has_answered_is_there_whole_and_once(db: TestDb) {
        let home = Home::on(&db)
            .with("QUARTERDECK_API_PER_OP_RATE_LIMIT_ENABLED", "false")
            .with("QUARTERDECK_API__RATE_LIMIT__AUTH_MAX_REQUESTS", "1000000")
            .with("QUARTERDECK_API__RATE_LIMIT__FLOOR_MAX_REQUESTS", "1000000");
        let server = home.serve().await;
        let token = api_key(&server).await;
        server.stop().await;
        let before = files(&home);

        let known = storm(&home, &token).await;
        assert!(known.len() > LIVES.len(), "{} tasks", known.len());
        assert_eq!(files(&home), before, "nothing is left behind");

        let behind = Behind { home: &home, db: &db };
        the_tasks_are_those_that_were_answered(&behind, &known).await;
        every_version_has_its_audit_entry(&behind, &known).await;
        if db.is_shared() {
            the_log_of_events_has_no_gaps(&behind).await;
        }
    }
}

async fn the_tasks_are_those_that_were_answered(behind: &Behind<'_>, known: &BTreeMap<String, Value>) {
    let rows = behind
        .texts("SELECT id || ' ' || status || ' ' || CAST(version AS TEXT) || ' ' || document FROM tasks")
        .await;
    assert_eq!(rows.len(), known.len(), "none is lost and none is there twice");
    for row in rows {
        let columns: Vec<_> = row.splitn(4, ' ').collect();
        let [id, status, version, document] = columns[..] else { panic!("{row}") };
        let document: Value = serde_json::from_str(document).unwrap();
        assert_eq!(Some(&document), known.get(id), "{id}");
        assert_eq!(
            (&document["status"], document["version"].to_string()),
            (&json!(status), version.to_owned())
        );
    }
    let counted = behind
        .texts("SELECT status || ' ' || CAST(tasks AS TEXT) FROM task_counts WHERE tasks <> 0 ORDER BY 1")
        .await;
    let there = behind
        .texts("SELECT status || ' ' || CAST(count(*) AS TEXT) FROM tasks GROUP BY status ORDER BY 1")
        .await;
    assert_eq!(counted, there);
}

async fn every_version_has_its_audit_entry(behind: &Behind<'_>, known: &BTreeMap<String, Value>) {
    let entries = behind
        .texts(
            "SELECT task_id || ' ' || CAST(count(*) AS TEXT) FROM audit_entries WHERE task_id IS NOT NULL \
             GROUP BY task_id ORDER BY 1",
        )
        .await;
    let versions: Vec<_> = known.iter().map(|(id, task)| format!("{id} {}", task["version"])).collect();
    assert_eq!(entries, versions);
    let positions = behind
        .texts("SELECT CAST(position AS TEXT) FROM audit_entries ORDER BY audit_entries.position")
        .await;
    let gapless: Vec<_> = (0..positions.len()).map(|position| position.to_string()).collect();
    assert_eq!(positions, gapless);
    let head = behind.texts("SELECT CAST(position AS TEXT) FROM audit_head").await;
    assert_eq!(head.first(), positions.last());
}

/// Where the database keeps events: from its floor on a channel has all of them.
async fn the_log_of_events_has_no_gaps(behind: &Behind<'_>) {
    let holes = behind
        .texts(
            "SELECT channel FROM realtime_channels AS c WHERE top - floor <> \
             (SELECT count(*) FROM realtime_events AS e WHERE e.channel = c.channel AND e.seq > c.floor)",
        )
        .await;
    assert!(holes.is_empty(), "{holes:?}");
    let waiting = behind.texts("SELECT event_id FROM realtime_outbox").await;
    assert!(waiting.is_empty(), "everything has been told: {waiting:?}");
}
