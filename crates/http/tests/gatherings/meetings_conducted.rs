//! Meetings that are held: by whom, how often, and what is kept of them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use quarterdeck_domain::meeting::{ActionItem, Agenda, Contribution, Held, Meeting, MeetingStatus, Phase};
use quarterdeck_domain::task::Priority;
use quarterdeck_testkit::{TestDb, TestServer, on_both_databases};
use quarterdeck_work::meetings::{Conductor, Context, Unheld};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::SOON;
use super::meetings::types;

const TRIGGER: &str = "/api/v1/meetings/trigger";

/// Holds meetings as a test says, and keeps count.
#[derive(Default)]
struct Stub {
    held: AtomicUsize,
    seen: Mutex<Vec<Vec<String>>>,
    /// What it does, by the name of the type: nothing special unless it is one of these words.
    begun: Notify,
}

impl Conductor for Stub {
    fn stands_for<'a>(&'a self, participant: &'a str) -> BoxFuture<'a, Vec<String>> {
        let agents: &[&str] = match participant {
            "all" => &["ada", "bob", "eve"],
            "product" => &["bob", "eve"],
            _ => &[],
        };
        let agents = agents.iter().map(|agent| (*agent).to_owned()).collect();
        Box::pin(async { agents })
    }

    fn conduct<'a>(&'a self, meeting: &'a Meeting, _: &'a Context) -> BoxFuture<'a, Result<Held, Unheld>> {
        self.held.fetch_add(1, Ordering::SeqCst);
        self.seen.lock().unwrap().push(meeting.participants.clone());
        Box::pin(async move {
            self.begun.notify_one();
            match meeting.type_name.as_str() {
                "fails" => return Err(Unheld::Failed("eve did not answer".to_owned())),
                "spends" => return Err(Unheld::BudgetExhausted("no tokens left for the summary".to_owned())),
                "mute" => return Err(Unheld::Failed(" \0".to_owned())),
                "panics" => panic!("a conductor that drops the baton"),
                "lasts" => std::future::pending().await,
                _ => {}
            }
            let said = |agent: &str, input, output| Contribution {
                agent_id: agent.to_owned(),
                content: "I think so".to_owned(),
                phase: Phase::RoundRobinTurn,
                turn_number: 1,
                input_tokens: input,
                output_tokens: output,
                timestamp: meeting.started_at,
            };
            let stranger =
                if meeting.type_name == "invaded" { "mallory" } else { meeting.participants[1].as_str() };
            let item = |assignee: &str| ActionItem {
                description: "write it down".to_owned(),
                assignee_id: Some(assignee.to_owned()),
                priority: Priority::High,
            };
            Ok(Held {
                agenda: Agenda { title: "the plan".to_owned(), context: String::new(), items: Vec::new() },
                contributions: vec![said(&meeting.participants[0], 100, 20), said(stranger, 300, 40)],
                summary: "all agree".to_owned(),
                decisions: vec!["go on".to_owned()],
                action_items: vec![item(&meeting.participants[1]), item("mallory")],
                conflicts_detected: false,
            })
        })
    }
}

async fn with(db: TestDb, kinds: Value) -> (TestServer, Arc<Stub>) {
    let stub = Arc::new(Stub::default());
    let conductor = Arc::clone(&stub);
    let server = TestServer::with(db, move |options| {
        options.meetings.types = types(kinds);
        options.meetings.validate().expect("sound types");
        options.conductor = Some(conductor);
    })
    .await;
    (server, stub)
}

fn happened(event: &str) -> Value {
    json!({"event_name": event})
}

on_both_databases! {
    async fn a_meeting_is_held_told_and_kept(db: TestDb) {
        let (server, _) = with(db, json!([
            {"name": "review", "trigger": "deploy.done", "participants": ["ada", "bob"], "protocol": "position_papers"},
        ])).await;
        let mut ceo = server.ceo().await;
        let listening = server.listen().await;
        let mut socket = listening.plain(&mut ceo).await;
        socket.ask(&json!({"action": "subscribe", "channels": ["meetings"]})).await;
        let held = ceo.post(TRIGGER, &happened("deploy.done")).await.expect(200).data();
        let meeting = held[0].clone();
        let id = meeting["meeting_id"].clone();
        assert_eq!(held.as_array().unwrap().len(), 1);
        assert_eq!((&meeting["status"], &meeting["protocol_type"]), (&json!("completed"), &json!("position_papers")));
        assert_eq!(meeting["error_message"], Value::Null);
        assert_eq!(meeting["token_usage_by_participant"], json!({"ada": 120, "bob": 340}));
        assert_eq!(meeting["contribution_rank"], json!(["bob", "ada"]));
        assert_eq!(meeting["meeting_duration_seconds"], json!(0.0));
        let minutes = &meeting["minutes"];
        assert_eq!((&minutes["meeting_id"], &minutes["leader_id"], &minutes["participant_ids"]), (&id, &json!("ada"), &json!(["bob"])));
        let totals = ["total_input_tokens", "total_output_tokens", "total_tokens"].map(|total| minutes[total].clone());
        assert_eq!(totals, [json!(400), json!(60), json!(460)]);
        let assignees: Vec<_> = minutes["action_items"].as_array().unwrap().iter().map(|item| item["assignee_id"].clone()).collect();
        assert_eq!(assignees, [json!("bob"), Value::Null], "an outsider's item is kept for nobody");
        let shown = ceo.get(&format!("/api/v1/meetings/{}", id.as_str().unwrap())).await.expect(200).data();
        assert_eq!(shown, meeting);
        let (started, completed) = (socket.next().await, socket.next().await);
        assert_eq!((&started["event_type"], &started["channel"]), (&json!("meeting.started"), &json!("meetings")));
        assert_eq!((&started["payload"]["meeting_id"], &started["payload"]["status"]), (&id, &json!("in_progress")));
        assert_eq!(started["payload"]["participants"], json!(["ada", "bob"]));
        assert_eq!((&completed["event_type"], &completed["payload"]["status"]), (&json!("meeting.completed"), &json!("completed")));
        assert_eq!((&completed["payload"]["meeting"], &completed["payload"]["meeting_type"]), (&meeting, &json!("review")));
    }

    async fn of_concurrent_calls_within_the_pause_one_is_held(db: TestDb) {
        let (server, stub) = with(db, json!([
            {"name": "review", "trigger": "deploy.done", "participants": ["ada", "bob"], "min_interval_seconds": 60},
        ])).await;
        let conductor = Arc::clone(&stub);
        let second = if server.db.is_shared() {
            Some(server.second(move |options| {
                options.meetings.types = types(json!([
                    {"name": "review", "trigger": "deploy.done", "participants": ["ada", "bob"], "min_interval_seconds": 60},
                ]));
                options.conductor = Some(conductor);
            }).await)
        } else {
            None
        };
        let there = second.as_ref().unwrap_or(&server);
        let (here_ceo, there_ceo) = (server.ceo().await, there.ceo().await);
        for round in 1..=3 {
            let answers = join_all((0..8).map(|number| {
                let mut caller = if number % 2 == 0 { here_ceo.clone() } else { there_ceo.clone() };
                async move { caller.post(TRIGGER, &happened("deploy.done")).await.expect(200).data() }
            })).await;
            let held: usize = answers.iter().map(|answer| answer.as_array().unwrap().len()).sum();
            assert_eq!((held, stub.held.load(Ordering::SeqCst)), (1, round));
            server.advance(Duration::from_secs(59));
            let early = here_ceo.clone().post(TRIGGER, &happened("deploy.done")).await.expect(200).data();
            assert_eq!(early, json!([]));
            server.advance(Duration::from_secs(1));
        }
    }

    async fn what_goes_wrong_is_a_failed_record_and_no_failed_call(db: TestDb) {
        let (server, _) = with(db, json!([
            {"name": "fails", "trigger": "e", "participants": ["ada", "bob"]},
            {"name": "spends", "trigger": "e", "participants": ["ada", "bob"]},
            {"name": "panics", "trigger": "e", "participants": ["ada", "bob"]},
            {"name": "invaded", "trigger": "e", "participants": ["ada", "bob"]},
            {"name": "mute", "trigger": "e", "participants": ["ada", "bob"]},
            {"name": "goes well", "trigger": "e", "participants": ["ada", "bob"]},
        ])).await;
        let mut ceo = server.ceo().await;
        let held = ceo.post(TRIGGER, &happened("e")).await.expect(200).data();
        let ends: Vec<_> = held.as_array().unwrap().iter()
            .map(|meeting| (meeting["status"].as_str().unwrap(), meeting["error_message"].as_str(), meeting["minutes"].is_null()))
            .collect();
        assert_eq!(ends, [
            ("failed", Some("eve did not answer"), true),
            ("budget_exhausted", Some("no tokens left for the summary"), true),
            ("failed", Some("The meeting ended unexpectedly"), true),
            ("failed", Some("The minutes contradict themselves"), true),
            ("failed", Some("No reason was given"), true),
            ("completed", None, false),
        ]);
        let kept = ceo.get("/api/v1/meetings").await.expect(200).json();
        assert_eq!(kept["pagination"]["total"], 6);
    }

    async fn what_comes_by_itself_comes_a_pause_later_and_once_for_all_copies(db: TestDb) {
        let kinds = json!([{"name": "standup", "frequency": "daily", "participants": ["all"]}]);
        let (server, stub) = with(db, kinds.clone()).await;
        let conductor = Arc::clone(&stub);
        let second = if server.db.is_shared() {
            Some(server.second(move |options| {
                options.meetings.types = types(kinds);
                options.conductor = Some(conductor);
            }).await)
        } else {
            None
        };
        let there = second.as_ref().unwrap_or(&server);
        assert_eq!(server.app.meetings.hold_due().await.unwrap(), 0, "it sleeps first");
        server.advance(Duration::from_secs(86_399));
        assert_eq!(there.app.meetings.hold_due().await.unwrap(), 0);
        server.advance(Duration::from_secs(1));
        let (here, there) = tokio::join!(server.app.meetings.hold_due(), there.app.meetings.hold_due());
        assert_eq!((here.unwrap() + there.unwrap(), stub.held.load(Ordering::SeqCst)), (1, 1));
        server.advance(Duration::from_secs(86_400));
        assert_eq!(server.app.meetings.hold_due().await.unwrap(), 1);
    }

    async fn what_nobody_holds_any_more_is_recorded_as_failed(db: TestDb) {
        let (server, stub) = with(db, json!([{"name": "lasts", "trigger": "e", "participants": ["ada", "bob"]}])).await;
        let mut ceo = server.ceo().await;
        let mut caller = ceo.clone();
        let call = tokio::spawn(async move { caller.post(TRIGGER, &happened("e")).await });
        timeout(SOON, stub.begun.notified()).await.expect("it begins");
        call.abort();
        let _ = call.await;
        let list = ceo.get("/api/v1/meetings").await.expect(200).data();
        assert_eq!(list[0]["status"], "in_progress", "it goes on without who called");
        server.advance(Duration::from_secs(3660));
        assert_eq!(server.app.meetings.sweep().await.unwrap(), 0, "not yet");
        server.advance(Duration::from_secs(1));
        assert_eq!(server.app.meetings.sweep().await.unwrap(), 1);
        assert_eq!(server.app.meetings.sweep().await.unwrap(), 0);
        let list = ceo.get("/api/v1/meetings").await.expect(200).data();
        assert_eq!((&list[0]["status"], &list[0]["error_message"]), (&json!("failed"), &json!("The server ended during the meeting")));
        timeout(SOON, server.app.meetings.stop()).await.expect("it stops");
    }
}

#[tokio::test]
async fn who_does_not_want_to_wait_is_told_what_has_begun() {
    let (server, stub) = with(
        TestDb::sqlite(),
        json!([{"name": "review", "trigger": "e", "participants": ["ada", "bob"], "min_interval_seconds": 60}]),
    )
    .await;
    let mut ceo = server.ceo().await;
    let path = format!("{TRIGGER}?wait=false");
    let begun = ceo.post(&path, &happened("e")).await.expect(202).data();
    assert_eq!((&begun[0]["status"], &begun[0]["minutes"]), (&json!("in_progress"), &Value::Null));
    timeout(SOON, stub.begun.notified()).await.expect("it begins");
    let id = begun[0]["meeting_id"].as_str().unwrap();
    let end = async {
        while server.app.meetings.get(id).await.unwrap().status != MeetingStatus::Completed {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, end).await.expect("it ends");
    assert_eq!(ceo.post(&path, &happened("e")).await.expect(200).data(), json!([]), "too early");
    assert_eq!(ceo.post(&path, &happened("other")).await.expect(200).data(), json!([]));
    ceo.post(&format!("{TRIGGER}?wait=maybe"), &happened("e")).await.refused(400, 2001);
}

#[tokio::test]
async fn participants_are_found_by_context_then_by_what_is_known_then_by_name() {
    let (server, stub) = with(
        TestDb::sqlite(),
        json!([
            {"name": "a", "trigger": "a", "participants": ["owner", "product", "carol", "reviewers"]},
            {"name": "b", "trigger": "b", "participants": ["all", "bob"]},
            {"name": "c", "trigger": "c", "participants": ["owner"]},
            {"name": "d", "trigger": "d", "participants": ["product", "bob"]},
        ]),
    )
    .await;
    let mut ceo = server.ceo().await;
    let context = json!({"owner": "ada", "reviewers": ["eve", "ada", "dan", ""], "other": "x"});
    ceo.post(TRIGGER, &json!({"event_name": "a", "context": context})).await.expect(200);
    ceo.post(TRIGGER, &happened("b")).await.expect(200);
    for skipped in [json!({"event_name": "c", "context": {"owner": "ada"}}), happened("c")] {
        assert_eq!(ceo.post(TRIGGER, &skipped).await.expect(200).data(), json!([]), "one is no meeting");
    }
    ceo.post(TRIGGER, &json!({"event_name": "d", "context": {"product": []}})).await.expect(200);
    let seen = stub.seen.lock().unwrap().clone();
    assert_eq!(seen, [vec!["ada", "bob", "eve", "carol", "dan"], vec!["ada", "bob", "eve"]]);
}

#[tokio::test]
async fn a_meeting_that_takes_too_long_and_one_the_server_stops_are_failed_records() {
    let stub = Arc::new(Stub::default());
    let conductor = Arc::clone(&stub);
    let server = TestServer::with(TestDb::sqlite(), move |options| {
        options.meetings.types =
            types(json!([{"name": "lasts", "trigger": "e", "participants": ["ada", "bob"]}]));
        options.meetings.timeout_seconds = 1;
        options.conductor = Some(conductor);
    })
    .await;
    let mut ceo = server.ceo().await;
    let held = ceo.post(TRIGGER, &happened("e")).await.expect(200).data();
    assert_eq!(held[0]["error_message"], "The meeting took too long");
    timeout(SOON, stub.begun.notified()).await.expect("it began");
    let mut caller = ceo.clone();
    let call = tokio::spawn(async move { caller.post(TRIGGER, &happened("e")).await });
    timeout(SOON, stub.begun.notified()).await.expect("it begins");
    server.app.meetings.stop().await;
    let held = call.await.unwrap().expect(200).data();
    assert_eq!(
        (&held[0]["status"], &held[0]["error_message"]),
        (&json!("failed"), &json!("The server stopped"))
    );
    let kept = server.app.meetings.get(held[0]["meeting_id"].as_str().unwrap()).await.unwrap();
    assert_eq!(kept.status, MeetingStatus::Failed);
}
