//! Figures of teamwork.

use std::time::Duration;

use chrono::{DateTime, Utc};
use quarterdeck_domain::coordination_metrics::{
    CoordinationMetrics, CoordinationMetricsRecord, RedundancyRate,
};
use quarterdeck_testkit::{Caller, TestServer, on_both_databases};
use serde_json::{Value, json};

use super::words;

const PATH: &str = "/api/v1/coordination/metrics";

fn record(task: &str, agent: Option<&str>, computed_at: DateTime<Utc>) -> CoordinationMetricsRecord {
    let metrics = CoordinationMetrics {
        redundancy_rate: Some(RedundancyRate { value: 0.25, sample_count: 4 }),
        ..CoordinationMetrics::default()
    };
    CoordinationMetricsRecord {
        task_id: words(task),
        agent_id: agent.map(words),
        computed_at,
        team_size: 3,
        metrics,
    }
}

on_both_databases! {
    async fn records_that_match_are_listed_the_newest_first(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        for (task, agent) in [("t", Some("a")), ("t", None), ("u", Some("a"))] {
            server.app.coordination_metrics.record(record(task, agent, server.now())).await.unwrap();
            server.advance(Duration::from_secs(1));
        }
        let all = ceo.get(PATH).await.expect(200).json();
        assert_eq!(all["pagination"], json!({"total": 3, "offset": 0, "limit": 50}));
        assert_eq!(
            all["data"][0],
            json!({
                "task_id": "u", "agent_id": "a", "computed_at": "2027-01-15T08:00:02Z", "team_size": 3,
                "metrics": {
                    "efficiency": null, "overhead": null, "error_amplification": null, "message_density": null,
                    "redundancy_rate": {"value": 0.25, "sample_count": 4}, "amdahl_ceiling": null,
                    "straggler_gap": null, "token_speedup_ratio": null, "message_overhead": null,
                },
            })
        );
        for (query, total) in [
            ("task_id=t", 2), ("agent_id=a", 2), ("task_id=t&agent_id=a", 1), ("task_id=v", 0),
            ("since=2027-01-15T08:00:01Z", 2), ("until=2027-01-15T08:00:01Z", 1),
            ("since=2027-01-15T08:00:01Z&until=2027-01-15T08:00:01Z", 0),
            ("since=2027-01-15T09:00:00%2B01:00&until=2027-01-15T08:00:02Z&task_id=t", 2),
        ] {
            let page = ceo.get(&format!("{PATH}?{query}")).await.expect(200).json();
            assert_eq!(page["pagination"]["total"], json!(total), "{query}");
        }
        let second = ceo.get(&format!("{PATH}?limit=1&offset=1")).await.expect(200).data();
        assert_eq!(second, json!([all["data"][1]]));
    }

    async fn the_newest_ten_thousand_are_kept(db: TestDb) {
        let server = TestServer::on(db.clone()).await;
        let mut ceo = server.ceo().await;
        server.app.coordination_metrics.record(record("oldest", None, server.now())).await.unwrap();
        let later = server.now().timestamp_micros() + 1;
        db.execute(&format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) \
             INSERT INTO coordination_metrics (id, task_id, computed_at, team_size, metrics) \
             SELECT 'copy-' || i, 't', {later}, 1, '{{}}' FROM n"
        ))
        .await;
        server.app.coordination_metrics.upkeep().await;
        let total = async |mut caller: Caller, query: &str| -> Value {
            caller.get(&format!("{PATH}{query}")).await.expect(200).json()["pagination"]["total"].take()
        };
        assert_eq!(total(ceo.clone(), "").await, json!(10_000));
        assert_eq!(total(ceo.clone(), "?task_id=oldest").await, json!(0));
        ceo.get(&format!("{PATH}?offset=10000")).await.expect(200);
    }
}

#[tokio::test]
async fn times_have_an_offset_and_an_order() {
    let server = TestServer::start().await;
    server.anonymous().get(PATH).await.refused(401, 1000);
    server.system_cli().get(PATH).await.refused(403, 1001);
    let mut ceo = server.ceo().await;
    for query in [
        "since=2027-01-15T08:00:00",
        "until=2027-01-15",
        "since=2027-01-15T08:00:01Z&until=2027-01-15T08:00:00Z",
        "task_id=",
    ] {
        ceo.get(&format!("{PATH}?{query}")).await.refused(400, 2001);
    }
    ceo.get(&format!("{PATH}?agent_id={}", "x".repeat(129))).await.refused(400, 2001);
}
