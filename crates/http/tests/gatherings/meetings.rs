//! Meetings over the API: what is listed, what may be asked, who may.

use quarterdeck_domain::meeting::{Meeting, MeetingStatus, Protocol};
use quarterdeck_domain::role::HumanRole;
use quarterdeck_store::meeting;
use quarterdeck_testkit::{Answer, TestDb, TestServer, on_both_databases};
use quarterdeck_work::meetings::MeetingType;
use serde_json::{Map, Value, json};

use super::limited;

const TRIGGER: &str = "/api/v1/meetings/trigger";

/// Types as an operator writes them.
pub(super) fn types(types: Value) -> Vec<MeetingType> {
    serde_json::from_value(types).expect("sound types")
}

async fn stored(server: &TestServer, kind: &str, status: MeetingStatus) -> String {
    let participants = vec!["ada".to_owned(), "bob".to_owned()];
    let meeting = Meeting::begin(kind.to_owned(), Protocol::RoundRobin, 2000, participants, server.now());
    let id = meeting.id.clone();
    let now = server.now();
    let write = server.app.store.write(move |tx| {
        Box::pin(async move {
            meeting::insert(tx, &meeting).await?;
            if status == MeetingStatus::InProgress {
                return Ok(true);
            }
            meeting::finish(tx, &meeting.fail(status, "lost".to_owned()), now).await
        })
    });
    assert!(write.await.unwrap());
    id
}

fn ids(answer: &Answer) -> Vec<String> {
    let data = answer.json()["data"].take();
    data.as_array()
        .unwrap()
        .iter()
        .map(|meeting| meeting["meeting_id"].as_str().unwrap().to_owned())
        .collect()
}

on_both_databases! {
    async fn the_list_is_chronological_filtered_and_paged(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut reader = server.person("reader", HumanRole::Observer).await;
        let mut all = Vec::new();
        for (kind, status) in [
            ("standup", MeetingStatus::Failed), ("review", MeetingStatus::Failed),
            ("standup", MeetingStatus::BudgetExhausted), ("standup", MeetingStatus::InProgress),
        ] {
            all.push(stored(&server, kind, status).await);
            server.advance(std::time::Duration::from_millis(1));
        }
        let mut found = async |query: &str| ids(&reader.get(&format!("/api/v1/meetings{query}")).await.expect(200));
        assert_eq!(found("").await, all);
        assert_eq!(found("?status=failed").await, all[..2]);
        assert_eq!(found("?status=failed&meeting_type=standup").await, all[..1]);
        assert_eq!(found("?meeting_type=review").await, all[1..2]);
        assert_eq!(found("?meeting_type=nothing").await, [""; 0]);
        assert_eq!(found("?offset=1&limit=2").await, all[1..3]);
        assert_eq!(found("?offset=7").await, [""; 0]);
        reader.get("/api/v1/meetings?status=lost").await.refused(400, 2001);
        reader.get(&format!("/api/v1/meetings?meeting_type={}", "x".repeat(128))).await.expect(200);
        reader.get(&format!("/api/v1/meetings?meeting_type={}", "x".repeat(129))).await.refused(422, 2000);
        let one = reader.get(&format!("/api/v1/meetings/{}", all[2])).await.expect(200).data();
        assert_eq!(one, json!({
            "meeting_id": all[2], "meeting_type_name": "standup", "protocol_type": "round_robin",
            "status": "budget_exhausted", "minutes": null, "error_message": "lost", "token_budget": 2000,
            "token_usage_by_participant": {}, "contribution_rank": [], "meeting_duration_seconds": null,
        }));
        assert!(all[2].len() == 16 && all[2].starts_with("mtg-") && all[2][4..].bytes().all(|b| b.is_ascii_hexdigit()));
        let unknown = reader.get("/api/v1/meetings/mtg-0").await.refused(404, 3000);
        assert_eq!(unknown.error(), "Meeting 'mtg-0' not found");
        reader.get(&format!("/api/v1/meetings/{}", "x".repeat(129))).await.refused(400, 2001);
    }

    async fn a_broken_record_never_breaks_the_list(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let (sound, broken) =
            (stored(&server, "standup", MeetingStatus::Failed).await, stored(&server, "standup", MeetingStatus::Failed).await);
        for damage in ["participants = 'no json'", "participants = '[]', protocol = 'chaos'"] {
            server.db.execute(&format!("UPDATE meetings SET {damage} WHERE id = '{broken}'")).await;
            let list = ceo.get("/api/v1/meetings").await.expect(200);
            assert_eq!(ids(&list), std::slice::from_ref(&sound), "{damage}");
            assert_eq!(list.json()["degraded_sources"], json!(["meetings"]));
            ceo.get(&format!("/api/v1/meetings/{broken}")).await.refused(500, 8002);
        }
        for contradiction in ["status = 'completed'", "error_message = NULL", "minutes = '{}'", "token_budget = 0"] {
            let sql = format!("UPDATE meetings SET {contradiction} WHERE id = '{sound}'");
            assert!(server.db.try_execute(&sql).await.is_err(), "{contradiction}");
        }
    }
}

#[tokio::test]
async fn without_a_conductor_what_could_be_held_is_unavailable_and_the_rest_is_nothing() {
    let server = TestServer::with(TestDb::sqlite(), |options| {
        options.meetings.types = types(json!([
            {"name": "review", "trigger": "deploy.done", "participants": ["ada", "bob"]},
            {"name": "daily", "frequency": "daily", "participants": ["ada", "bob"]},
        ]));
    })
    .await;
    let mut ceo = server.ceo().await;
    ceo.post(TRIGGER, &json!({"event_name": "deploy.done"})).await.refused(503, 8001);
    for event in ["deploy.failed", "daily", "review", "DEPLOY.DONE"] {
        assert_eq!(ceo.post(TRIGGER, &json!({"event_name": event})).await.expect(200).data(), json!([]));
    }
    assert_eq!(server.app.meetings.hold_due().await.unwrap(), 0);
    assert_eq!(ids(&ceo.get("/api/v1/meetings").await), [""; 0]);
    let off = TestServer::with(TestDb::sqlite(), |options| {
        options.meetings.enabled = false;
        options.meetings.types = types(json!([{"name": "review", "trigger": "deploy.done"}]));
    })
    .await;
    let held = off.ceo().await.post(TRIGGER, &json!({"event_name": "deploy.done"})).await.expect(200).data();
    assert_eq!(held, json!([]));
}

#[tokio::test]
async fn what_has_happened_is_said_within_bounds() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let with = |context: Value| json!({"event_name": "e", "context": context});
    let keys = |count: usize| {
        Value::Object((0..count).map(|key| (key.to_string(), json!("v"))).collect::<Map<_, _>>())
    };
    for sound in [
        json!({"event_name": "e"}),
        with(keys(20)),
        with(json!({"k".repeat(256): "v".repeat(1024)})),
        with(json!({"k": vec!["v".repeat(1024); 50], "empty": "", "none": []})),
    ] {
        ceo.post(TRIGGER, &sound).await.expect(200);
    }
    for broken in [
        json!({}),
        json!({"event_name": ""}),
        json!({"event_name": " "}),
        json!({"event_name": "e".repeat(1025)}),
        with(keys(21)),
        with(json!({"k".repeat(257): "v"})),
        with(json!({"k": "v".repeat(1025)})),
        with(json!({"k": vec!["v"; 51]})),
        with(json!({"k": ["v".repeat(1025)]})),
        with(json!({"k": 1})),
        with(json!({"k": null})),
        with(json!({"k": [1]})),
        with(json!({"k": [["v"]]})),
        with(json!({"k": {}})),
        with(json!([])),
        with(Value::Null),
    ] {
        ceo.post(TRIGGER, &broken).await.refused(400, 2001);
    }
}

#[tokio::test]
async fn only_those_who_write_may_call_a_meeting() {
    let server = TestServer::start().await;
    let body = json!({"event_name": "e"});
    server.anonymous().post(TRIGGER, &body).await.refused(401, 1000);
    server.system_cli().post(TRIGGER, &body).await.refused(403, 1001);
    server.system_cli().get("/api/v1/meetings").await.refused(403, 1001);
    for role in [HumanRole::Observer, HumanRole::BoardMember] {
        let mut person = server.person(role.as_str(), role).await;
        person.post(TRIGGER, &body).await.refused(403, 1001);
        person.get("/api/v1/meetings").await.expect(200);
    }
    for role in [HumanRole::PairProgrammer, HumanRole::Manager] {
        server.person(role.as_str(), role).await.post(TRIGGER, &body).await.expect(200);
    }
}

#[tokio::test]
async fn calls_are_limited_to_twenty_a_minute() {
    let server = limited().await;
    let mut ceo = server.ceo().await;
    for _ in 0..20 {
        ceo.post(TRIGGER, &json!({"event_name": "e"})).await.expect(200);
    }
    ceo.post(TRIGGER, &json!({"event_name": "e"})).await.refused(429, 5001);
}
