//! What has happened lately, and who may know how much of it.

use std::time::Duration;

use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{TestServer, on_both_databases};
use serde_json::{Value, json};

use super::{data, go, spend, task};

const HOUR: Duration = Duration::from_secs(3600);
const PATH: &str = "/api/v1/activities";

fn kinds(list: &Value) -> Vec<String> {
    let list = list.as_array().expect("a list").iter();
    list.map(|one| one["event_type"].as_str().unwrap().to_owned()).collect()
}

on_both_databases! {
    async fn activities_of_all_sources_are_one_list_the_newest_first(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let done = task(&mut ceo, "a", &["assigned", "in_progress"]).await;
        server.advance(Duration::from_secs(1));
        spend(&server, "b", &done, 0.25).await;
        server.advance(Duration::from_secs(1));
        go(&mut ceo, &done, "in_review", None).await;
        go(&mut ceo, &done, "completed", None).await;
        let list = data(&mut ceo, "/activities").await;
        assert_eq!(
            list,
            json!([
                {"event_type": "task_completed", "timestamp": "2027-01-15T08:00:02Z",
                 "description": "Task completed: a task", "related_ids": {"agent_id": "a", "task_id": done}},
                {"event_type": "cost_incurred", "timestamp": "2027-01-15T08:00:01Z",
                 "description": "Call of secret-model-9: 1200 tokens in, 300 out, 0.25 USD",
                 "related_ids": {"agent_id": "b", "task_id": done}},
                {"event_type": "task_started", "timestamp": "2027-01-15T08:00:00Z",
                 "description": "Task started: a task", "related_ids": {"agent_id": "a", "task_id": done}},
            ])
        );
        let page = ceo.get(&format!("{PATH}?limit=1&offset=1")).await.expect(200).json();
        assert_eq!((&page["data"], &page["degraded_sources"]), (&json!([list[1]]), &json!([])));
        assert_eq!(page["pagination"], json!({"total": 3, "offset": 1, "limit": 1}));
        let past = ceo.get(&format!("{PATH}?offset=9")).await.expect(200).json();
        assert_eq!((&past["data"], &past["pagination"]["offset"]), (&json!([]), &json!(3)));
    }

    async fn the_total_is_that_of_what_was_asked_for(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let other = task(&mut ceo, "a", &["assigned", "in_progress"]).await;
        for _ in 0..3 {
            spend(&server, "b", &other, 0.5).await;
        }
        for (query, total, kinds_shown) in [
            ("type=cost_incurred&limit=2", 3, vec!["cost_incurred"; 2]),
            ("type=task_started", 1, vec!["task_started"]),
            ("type=task_completed", 0, vec![]),
            ("type=hired", 0, vec![]),
            ("agent_id=a", 1, vec!["task_started"]),
            ("agent_id=b&type=cost_incurred", 3, vec!["cost_incurred"; 3]),
            ("agent_id=b&type=task_started", 0, vec![]),
        ] {
            let page = ceo.get(&format!("{PATH}?{query}")).await.expect(200).json();
            assert_eq!((&page["pagination"]["total"], kinds(&page["data"])), (&json!(total), kinds_shown.iter().map(|kind| (*kind).to_owned()).collect()), "{query}");
        }
    }

    async fn only_the_time_asked_for_is_looked_at(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let first = task(&mut ceo, "a", &["assigned", "in_progress"]).await;
        spend(&server, "a", &first, 0.5).await;
        for (hours, at, beyond) in [(24, 24, 0), (48, 24, 0), (168, 120, 0)] {
            // The start belongs to what is looked at.
            server.advance(HOUR * at);
            let mut ceo = server.sign_in("ceo").await;
            let shown = ceo.get(&format!("{PATH}?last_n_hours={hours}")).await.expect(200).json();
            assert_eq!(shown["pagination"]["total"], json!(2), "{hours}");
            if hours == 168 {
                server.advance(Duration::from_micros(1));
                let later = ceo.get(&format!("{PATH}?last_n_hours=168")).await.expect(200).json();
                assert_eq!(later["pagination"]["total"], json!(beyond));
            }
        }
    }

    async fn those_who_do_not_write_never_see_a_model_or_an_amount(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let done = task(&mut ceo, "a", &["assigned", "in_progress", "in_review", "completed"]).await;
        spend(&server, "b", &done, 0.987_65).await;
        for role in [HumanRole::Observer, HumanRole::BoardMember] {
            let mut person = server.person(role.as_str(), role).await;
            let shown = person.get(PATH).await.expect(200);
            let text = shown.text();
            assert!(!["secret-model-9", "0.987", "USD"].iter().any(|secret| text.contains(secret)), "{role}: {text}");
            let call = &shown.data()[0];
            assert_eq!(call["description"], json!("Call of a model: 1200 tokens in, 300 out"), "{role}");
        }
        for role in [HumanRole::PairProgrammer, HumanRole::Manager] {
            let mut person = server.person(role.as_str(), role).await;
            assert!(person.get(PATH).await.expect(200).text().contains("secret-model-9"), "{role}");
        }
        // A key has the rights of its own role, not of its owner's.
        let mut key = server.key_of(&ceo, HumanRole::Observer).await;
        assert!(!key.get(PATH).await.expect(200).text().contains("secret-model-9"));
    }
}

#[tokio::test]
async fn activities_are_for_readers_and_windows_are_three() {
    let server = TestServer::start().await;
    server.anonymous().get(PATH).await.refused(401, 1000);
    server.system_cli().get(PATH).await.refused(403, 1001);
    let mut ceo = server.ceo().await;
    for query in
        ["last_n_hours=25", "last_n_hours=0", "last_n_hours=x", "type=slept", "agent_id=", "limit=201"]
    {
        ceo.get(&format!("{PATH}?{query}")).await.refused(400, 2001);
    }
    ceo.get(&format!("{PATH}?agent_id={}", "x".repeat(129))).await.refused(400, 2001);
}
