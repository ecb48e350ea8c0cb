//! The budget, its versions, and what was spent.

use std::time::Duration;

use futures_util::future::join_all;
use quarterdeck_domain::cost_record::{CallCategory, CostRecord, FinishReason};
use quarterdeck_domain::money::Currency;
use quarterdeck_domain::role::HumanRole;
use quarterdeck_store::from_micros;
use quarterdeck_testkit::{Caller, TestServer, on_both_databases};
use serde_json::{Value, json};

use super::{cost, data, set, spend, words};

const DAY: Duration = Duration::from_secs(86_400);
const RECORDS: &str = "/api/v1/budget/records";

on_both_databases! {
    async fn the_budget_in_force_is_the_one_of_the_settings(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let config = json!({
            "total_monthly": 100.0,
            "alerts": {"warn_at": 75, "critical_at": 90, "hard_stop_at": 100},
            "per_task_limit": 5.0, "per_agent_daily_limit": 10.0,
            "auto_downgrade": {
                "enabled": false, "threshold": 85, "downgrade_map": [], "boundary": "task_assignment",
            },
            "reset_day": 1, "currency": "USD",
            "risk_budget": {
                "enabled": false, "per_task_risk_limit": 5.0, "per_agent_daily_risk_limit": 20.0,
                "total_daily_risk_limit": 100.0, "alerts": {"warn_at": 75, "critical_at": 90},
            },
            "pte_tracking_enabled": false,
        });
        assert_eq!(data(&mut ceo, "/budget/config").await, config);
        set(&mut ceo, "budget/auto_downgrade_map", r#"[["large", "small"]]"#).await;
        set(&mut ceo, "budget/total_monthly", "250.5").await;
        let changed = data(&mut ceo, "/budget/config").await;
        assert_eq!(changed["auto_downgrade"]["downgrade_map"], json!([["large", "small"]]));
        assert_eq!(changed["total_monthly"], json!(250.5));
    }

    async fn every_change_adds_a_version_and_nothing_else_does(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let me = data(&mut ceo, "/auth/me").await["id"].clone();
        set(&mut ceo, "budget/total_monthly", "200").await;
        set(&mut ceo, "budget/total_monthly", "200.0").await;
        set(&mut ceo, "budget/records_kept", "5000").await;
        set(&mut ceo, "api/jwt_expiry_minutes", "60").await;
        let broken = json!({"value": "300"});
        let refused = ceo.put("/api/v1/settings/budget/per_task_limit", &broken).await.refused(422, 2000);
        assert!(refused.error().contains("must not exceed total_monthly"), "{}", refused.error());
        let page = ceo.get("/api/v1/budget/config/versions").await.expect(200).json();
        assert_eq!(page["pagination"], json!({"total": 2, "offset": 0, "limit": 20}));
        let [newest, oldest] = [&page["data"][0], &page["data"][1]];
        assert_eq!((&newest["version"], &newest["saved_by"]), (&json!(2), &me));
        assert_eq!((&oldest["version"], &oldest["saved_by"]), (&json!(1), &json!("system")));
        assert_eq!(newest["snapshot"], data(&mut ceo, "/budget/config").await);
        assert_eq!(oldest["snapshot"]["total_monthly"], json!(100.0));
        assert_eq!((&newest["entity_id"], &newest["saved_at"]), (&json!("budget_config"), &json!("2027-01-15T08:00:00Z")));
        let hashes = [newest, oldest].map(|version| version["content_hash"].as_str().unwrap().to_owned());
        assert!(hashes[0] != hashes[1] && hashes.iter().all(|hash| hash.len() == 64));
        assert_eq!(data(&mut ceo, "/budget/config/versions/1").await, *oldest);
        for (number, status, code) in [("3", 404, 3000), ("0", 400, 2001), ("-1", 400, 2001), ("one", 400, 2001)] {
            ceo.get(&format!("/api/v1/budget/config/versions/{number}")).await.refused(status, code);
        }
        let past = ceo.get("/api/v1/budget/config/versions?offset=9&limit=1").await.expect(200).json();
        assert_eq!((&past["data"], &past["pagination"]["offset"]), (&json!([]), &json!(2)));
    }

    async fn racing_changes_get_consecutive_versions(db: TestDb) {
        let server = TestServer::on(db).await;
        let second = if server.db.is_shared() { Some(server.second(|_| {}).await) } else { None };
        let there = second.as_ref().unwrap_or(&server);
        let callers = [server.ceo().await, there.ceo().await];
        join_all((0..12).map(|number| {
            let mut caller = callers[number % 2].clone();
            async move { set(&mut caller, "budget/total_monthly", &format!("{}", 200 + number)).await }
        }))
        .await;
        let versions = data(&mut callers[0].clone(), "/budget/config/versions").await;
        let numbers: Vec<_> = versions.as_array().unwrap().iter().map(|v| v["version"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (1..=13).rev().collect::<Vec<_>>());
        let now = data(&mut callers[1].clone(), "/budget/config").await;
        assert_eq!(versions[0]["snapshot"], now);
    }

    async fn summaries_are_of_all_matches_and_exact(db: TestDb) {
        let server = TestServer::on(db).await;
        for _ in 0..10 {
            spend(&server, "a", "t", 0.1).await;
        }
        server.advance(DAY);
        let mut ceo = server.ceo().await;
        spend(&server, "b", "t", 0.2).await;
        spend(&server, "a", "u", 0.000_000_075).await;
        let page = ceo.get(&format!("{RECORDS}?limit=1")).await.expect(200).json();
        assert_eq!(page["data"].as_array().unwrap().len(), 1);
        assert_eq!(page["data"][0]["task_id"], json!("u"), "the newest first");
        assert_eq!(page["pagination"], json!({"total": 12, "offset": 0, "limit": 1}));
        assert_eq!(
            page["daily_summary"],
            json!([
                {"date": "2027-01-15", "total_cost": 1.0, "currency": "USD", "total_input_tokens": 12000,
                 "total_output_tokens": 3000, "record_count": 10},
                {"date": "2027-01-16", "total_cost": 0.200000075, "currency": "USD", "total_input_tokens": 2400,
                 "total_output_tokens": 600, "record_count": 2},
            ])
        );
        assert_eq!(
            page["period_summary"],
            json!({"total_cost": 1.200000075, "currency": "USD", "total_input_tokens": 14400,
                   "total_output_tokens": 3600, "record_count": 12, "avg_cost": 0.1000000063})
        );
        assert_eq!((&page["currency"], &page["success"]), (&json!("USD"), &json!(true)));
        let of = async |mut caller: Caller, query: &str| {
            let page = caller.get(&format!("{RECORDS}?{query}")).await.expect(200).json();
            (page["pagination"]["total"].clone(), page["period_summary"]["total_cost"].clone())
        };
        assert_eq!(of(ceo.clone(), "agent_id=a").await, (json!(11), json!(1.000000075)));
        assert_eq!(of(ceo.clone(), "task_id=t").await, (json!(11), json!(1.2)));
        assert_eq!(of(ceo.clone(), "agent_id=b&task_id=t").await, (json!(1), json!(0.2)));
        assert_eq!(of(ceo.clone(), "agent_id=b&task_id=u").await, (json!(0), json!(0.0)));
        let none = ceo.get(&format!("{RECORDS}?agent_id=nobody")).await.expect(200).json();
        assert_eq!((&none["daily_summary"], &none["period_summary"]["avg_cost"]), (&json!([]), &json!(0.0)));
    }

    async fn every_record_is_on_one_page_and_pages_have_an_order(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        for number in 0..7 {
            spend(&server, "a", &format!("t-{number}"), 0.5).await;
        }
        let all = data(&mut ceo, "/budget/records").await;
        let mut seen = Vec::new();
        for offset in [0, 3, 6] {
            let page = data(&mut ceo, &format!("/budget/records?limit=3&offset={offset}")).await;
            seen.extend(page.as_array().unwrap().clone());
        }
        assert_eq!(json!(seen), all);
        let past = ceo.get(&format!("{RECORDS}?offset=99")).await.expect(200).json();
        assert_eq!((&past["data"], &past["pagination"]["offset"]), (&json!([]), &json!(7)));
        assert_eq!(past["period_summary"]["record_count"], json!(7));
    }

    async fn a_record_is_shown_as_it_was_made(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let record = CostRecord {
            project_id: Some(words("p")),
            call_category: Some(CallCategory::Productive),
            latency_ms: Some(12.5),
            cache_hit: Some(true),
            retry_count: Some(1),
            retry_reason: Some(words("timeout")),
            finish_reason: Some(FinishReason::ToolUse),
            success: Some(false),
            ..cost(&server, "a", "t", 0.25)
        };
        server.app.budget.record(record).await.unwrap();
        assert_eq!(
            data(&mut ceo, "/budget/records").await,
            json!([{
                "agent_id": "a", "task_id": "t", "project_id": "p", "provider": "acme", "model": "secret-model-9",
                "input_tokens": 1200, "output_tokens": 300, "cost": 0.25, "currency": "USD",
                "timestamp": "2027-01-15T08:00:00Z", "call_category": "productive",
                "accuracy_effort_ratio": null, "latency_ms": 12.5, "cache_hit": true, "retry_count": 1,
                "retry_reason": "timeout", "finish_reason": "tool_use", "success": false,
            }])
        );
        let refused = server.app.budget.record(CostRecord { input_tokens: 0, output_tokens: 0, ..cost(&server, "a", "t", 1.0) });
        assert_eq!(refused.await.unwrap_err().status(), 422);
    }

    async fn records_are_immutable(db: TestDb) {
        let server = TestServer::on(db.clone()).await;
        spend(&server, "a", "t", 0.5).await;
        for sql in [
            "UPDATE cost_records SET whole = 0",
            "UPDATE budget_config_versions SET saved_by = 'x'",
            "DELETE FROM budget_config_versions",
        ] {
            let refused = db.try_execute(sql).await.unwrap_err().to_string();
            assert!(refused.contains("_immutable"), "{sql}: {refused}");
        }
        let mut ceo = server.ceo().await;
        let one = data(&mut ceo, "/budget/records").await;
        assert_eq!(one[0]["cost"], json!(0.5));
    }

    async fn currencies_are_never_mixed(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let euros = |server: &TestServer| CostRecord { currency: Currency::Eur, ..cost(server, "e", "t", 1.0) };
        let refused = server.app.budget.record(euros(&server)).await.unwrap_err();
        assert_eq!((refused.status(), refused.code().number()), (409, 4007));
        spend(&server, "a", "t", 1.0).await;
        let unknown = json!({"value": "XXX"});
        ceo.put("/api/v1/settings/budget/currency", &unknown).await.refused(422, 2000);
        set(&mut ceo, "budget/currency", "EUR").await;
        let kept = ceo.get(RECORDS).await.expect(200).json();
        assert_eq!((&kept["currency"], &kept["data"][0]["currency"]), (&json!("USD"), &json!("USD")));
        server.app.budget.record(euros(&server)).await.unwrap();
        for path in [
            "/budget/records", "/budget/records?task_id=t", "/analytics/overview", "/analytics/forecast",
            "/analytics/trends?period=7d", "/analytics/trends?period=30d",
        ] {
            let refused = ceo.get(&format!("/api/v1{path}")).await.refused(409, 4007).json();
            assert_eq!(refused["error_detail"]["retryable"], json!(false), "{path}");
        }
        let of_one = data(&mut ceo, "/budget/agents/e").await;
        assert_eq!(of_one, json!({"agent_id": "e", "total_cost": 1.0, "currency": "EUR"}));
        assert_eq!(ceo.get(&format!("{RECORDS}?agent_id=a")).await.expect(200).json()["currency"], json!("USD"));
        assert_eq!(data(&mut ceo, "/budget/agents/nobody").await["currency"], json!("EUR"));
    }

    async fn an_agent_nobody_knows_has_spent_nothing(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        spend(&server, "a", "t", 0.1).await;
        spend(&server, "a", "u", 0.2).await;
        let spent = |agent: &str, cost: f64| json!({"agent_id": agent, "total_cost": cost, "currency": "USD"});
        assert_eq!(data(&mut ceo, "/budget/agents/a").await, spent("a", 0.3));
        assert_eq!(data(&mut ceo, "/budget/agents/b").await, spent("b", 0.0));
        ceo.get(&format!("/api/v1/budget/agents/{}", "x".repeat(129))).await.refused(400, 2001);
    }

    async fn sums_of_racing_records_lose_nothing_and_each_threshold_is_told_once(db: TestDb) {
        let server = TestServer::on(db).await;
        let second = if server.db.is_shared() { Some(server.second(|_| {}).await) } else { None };
        let there = second.as_ref().unwrap_or(&server);
        let mut ceo = server.ceo().await;
        let listening = server.listen().await;
        let mut socket = listening.plain(&mut ceo).await;
        socket.ask(&json!({"action": "subscribe", "channels": ["budget"]})).await;
        join_all((0..40).map(|number| {
            let on = if number % 2 == 0 { &server } else { there };
            async move { spend(on, &format!("a-{}", number % 3), "t", 2.5).await }
        }))
        .await;
        let mut told = Vec::new();
        while told.len() < 43 {
            told.push(socket.next().await);
        }
        assert_eq!(socket.drain().await, Vec::<Value>::new());
        let (alerts, added): (Vec<_>, Vec<_>) = told.iter().partition(|event| event["event_type"] == "budget.alert");
        assert_eq!(added.len(), 40);
        assert!(added.iter().all(|event| event["payload"]["amount"] == 2.5 && event["payload"]["currency"] == "USD"));
        let alerts: Vec<_> = alerts.iter().map(|event| event["payload"].clone()).collect();
        let alert = |severity: &str, percent: i64| {
            json!({"severity": severity, "threshold": percent, "current": f64::from(percent as i32), "currency": "USD",
                   "message": format!("Spending has reached {percent} % of the monthly budget")})
        };
        assert_eq!(alerts, [alert("warning", 75), alert("critical", 90), alert("hard_stop", 100)]);
        let page = ceo.get(RECORDS).await.expect(200).json();
        assert_eq!(page["period_summary"]["total_cost"], json!(100.0));
        assert_eq!(page["period_summary"]["record_count"], json!(40));
    }

    async fn a_cost_of_another_billing_period_raises_no_alert(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = server.ceo().await;
        let listening = server.listen().await;
        let mut socket = listening.plain(&mut ceo).await;
        socket.ask(&json!({"action": "subscribe", "channels": ["budget"]})).await;
        let december = from_micros(1_798_761_599_999_999);
        let late = CostRecord { timestamp: december, ..cost(&server, "a", "t", 500.0) };
        server.app.budget.record(late).await.unwrap();
        assert_eq!(socket.next().await["event_type"], json!("budget.record_added"));
        assert_eq!(socket.drain().await, Vec::<Value>::new());
        assert_eq!(data(&mut ceo, "/analytics/overview").await["total_cost"], json!(0.0));
        // The first moment of January is.
        let early = CostRecord { timestamp: from_micros(1_798_761_600_000_000), ..cost(&server, "a", "t", 80.0) };
        server.app.budget.record(early).await.unwrap();
        let told = [socket.next().await, socket.next().await];
        assert!(told.iter().any(|event| event["event_type"] == "budget.alert"));
        assert_eq!(data(&mut ceo, "/analytics/overview").await["total_cost"], json!(80.0));
    }

    async fn old_records_go_when_there_are_many_and_their_sums_stay(db: TestDb) {
        let server = TestServer::on(db.clone()).await;
        let mut ceo = server.ceo().await;
        set(&mut ceo, "budget/records_kept", "1000").await;
        for number in 0..3 {
            spend(&server, "a", &format!("t-{number}"), 0.5).await;
        }
        let columns = "agent_id, task_id, provider, model, input_tokens, output_tokens, whole, fraction, currency";
        let recent = server.now().timestamp_micros() + 1;
        let copies = format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 997) \
             INSERT INTO cost_records (id, {columns}, recorded_at) \
             SELECT 'copy-' || i, 'b', 't', 'p', 'm', 1, 1, 0, 0, 'USD', {recent} FROM n"
        );
        db.execute(&copies).await;
        server.advance(Duration::from_secs(168 * 3600));
        server.app.budget.upkeep().await;
        let total = |page: &Value| page["pagination"]["total"].clone();
        let page = ceo.get(&format!("{RECORDS}?agent_id=a")).await;
        // A week later nobody is signed in any more.
        assert_eq!(page.status, 401);
        let mut ceo = server.sign_in("ceo").await;
        assert_eq!(total(&ceo.get(RECORDS).await.expect(200).json()), json!(1000));
        server.advance(Duration::from_micros(1));
        spend(&server, "b", "t", 0.5).await;
        server.app.budget.upkeep().await;
        let page = ceo.get(&format!("{RECORDS}?agent_id=a")).await.expect(200).json();
        assert_eq!((total(&page), &page["period_summary"]["total_cost"]), (json!(0), &json!(1.5)));
        assert_eq!(total(&ceo.get(RECORDS).await.expect(200).json()), json!(998));
    }
}

#[tokio::test]
async fn only_readers_see_money_and_only_ceo_and_manager_hear_of_it() {
    let server = TestServer::start().await;
    let paths = ["config", "records", "agents/a", "config/versions", "config/versions/1"];
    let mut observer = server.person("observer", HumanRole::Observer).await;
    for path in paths {
        let path = format!("/api/v1/budget/{path}");
        server.anonymous().get(&path).await.refused(401, 1000);
        server.system_cli().get(&path).await.refused(403, 1001);
        observer.get(&path).await.expect(200);
    }
    let listening = server.listen().await;
    let mut socket = listening.plain(&mut observer).await;
    let asked = socket.ask(&json!({"action": "subscribe", "channels": ["budget", "tasks"]})).await;
    assert_eq!(asked["channels"], json!(["tasks"]));
    spend(&server, "a", "t", 90.0).await;
    assert_eq!(socket.drain().await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_filter_of_the_wrong_length_is_refused_by_a_rule_and_a_page_by_its_shape() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    spend(&server, "a", "t", 1.0).await;
    for name in ["agent_id", "task_id"] {
        for value in ["", &"x".repeat(129)] {
            let refused = ceo.get(&format!("{RECORDS}?{name}={value}")).await.refused(422, 2000);
            assert_eq!(refused.error(), format!("{name} must have 1 to 128 characters"));
        }
        ceo.get(&format!("{RECORDS}?{name}={}", "x".repeat(128))).await.expect(200);
    }
    for query in ["limit=0", "limit=201", "offset=-1"] {
        ceo.get(&format!("{RECORDS}?{query}")).await.refused(400, 2001);
    }
}

#[tokio::test]
async fn a_task_that_has_cost_something_stays() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let task = super::task(&mut ceo, "a", &[]).await;
    spend(&server, "a", &task, 1.0).await;
    ceo.delete(&format!("/api/v1/tasks/{task}")).await.refused(409, 4000);
}
