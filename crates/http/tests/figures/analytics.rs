//! Overview, trends, forecasts and reports.

use std::time::Duration;

use quarterdeck_domain::role::HumanRole;
use quarterdeck_http::limits::Overrides;
use quarterdeck_testkit::{Caller, TestServer, on_both_databases};
use serde_json::{Value, json};

use super::{data, go, set, spend, task};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const DONE: &[&str] = &["assigned", "in_progress", "in_review", "completed"];

/// Signed in anew, whatever time has passed.
async fn ceo(server: &TestServer) -> Caller {
    server.ceo().await
}

fn points(trend: &Value) -> Vec<(String, f64)> {
    let points = trend["data_points"].as_array().expect("a list").iter();
    points
        .map(|point| (point["timestamp"].as_str().unwrap().to_owned(), point["value"].as_f64().unwrap()))
        .collect()
}

on_both_databases! {
    async fn an_empty_company_has_an_overview_of_zeros(db: TestDb) {
        let server = TestServer::on(db).await;
        let overview = data(&mut ceo(&server).await, "/analytics/overview").await;
        let statuses = overview["tasks_by_status"].as_object().unwrap();
        assert!(statuses.len() == 12 && statuses.values().all(|count| *count == json!(0)));
        for (member, value) in [
            ("total_tasks", json!(0)), ("total_agents", json!(0)), ("active_agents_count", json!(0)),
            ("idle_agents_count", json!(0)), ("total_cost", json!(0.0)), ("budget_remaining", json!(100.0)),
            ("budget_used_percent", json!(0.0)), ("currency", json!("USD")),
        ] {
            assert_eq!(overview[member], value, "{member}");
        }
    }

    async fn the_overview_counts_tasks_agents_and_money(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = ceo(&server).await;
        task(&mut ceo, "a", &["assigned", "in_progress"]).await;
        task(&mut ceo, "a", &["assigned", "in_progress"]).await;
        task(&mut ceo, "b", &["assigned"]).await;
        task(&mut ceo, "c", DONE).await;
        task(&mut ceo, "", &[]).await;
        spend(&server, "a", "t", 150.1).await;
        let overview = data(&mut ceo, "/analytics/overview").await;
        assert_eq!(overview["total_tasks"], json!(5));
        let by_status = &overview["tasks_by_status"];
        assert_eq!((&by_status["in_progress"], &by_status["completed"], &by_status["failed"]), (&json!(2), &json!(1), &json!(0)));
        assert_eq!((&overview["total_agents"], &overview["active_agents_count"], &overview["idle_agents_count"]), (&json!(2), &json!(1), &json!(1)));
        assert_eq!((&overview["total_cost"], &overview["budget_remaining"]), (&json!(150.1), &json!(0.0)));
        assert_eq!(overview["budget_used_percent"], json!(150.1));
        for limit in ["per_task_limit", "per_agent_daily_limit"] {
            set(&mut ceo, &format!("budget/{limit}"), "0").await;
        }
        set(&mut ceo, "budget/total_monthly", "0").await;
        let boundless = data(&mut ceo, "/analytics/overview").await;
        assert_eq!((&boundless["budget_remaining"], &boundless["budget_used_percent"]), (&json!(0.0), &json!(0.0)));
    }

    async fn the_short_trend_has_seven_days_at_every_hour(db: TestDb) {
        let server = TestServer::on(db).await;
        spend(&server, "a", "t", 1.5).await;
        for hour in 0..26 {
            let overview = data(&mut ceo(&server).await, "/analytics/overview").await;
            let trend = overview["cost_7d_trend"].as_array().unwrap().clone();
            assert_eq!(trend.len(), 7, "{hour} hours later");
            let today = server.now().format("%Y-%m-%dT00:00:00Z").to_string();
            assert_eq!(trend[6]["timestamp"], json!(today));
            let spent = trend.iter().position(|point| point["value"] == json!(1.5));
            assert_eq!(spent, Some(if hour < 16 { 6 } else { 5 }), "{hour} hours later");
            server.advance(HOUR);
        }
        server.advance(6 * DAY);
        let overview = data(&mut ceo(&server).await, "/analytics/overview").await;
        assert!(overview["cost_7d_trend"].as_array().unwrap().iter().all(|point| point["value"] == json!(0.0)));
    }

    async fn trends_have_a_point_for_every_bucket(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = ceo(&server).await;
        spend(&server, "a", "t", 0.1).await;
        server.advance(HOUR);
        spend(&server, "a", "t", 0.2).await;
        spend(&server, "a", "t", 0.1).await;
        task(&mut ceo, "a", DONE).await;
        task(&mut ceo, "a", DONE).await;
        task(&mut ceo, "b", &["assigned", "failed"]).await;
        task(&mut ceo, "b", &["assigned", "in_progress"]).await;
        let week = data(&mut ceo, "/analytics/trends").await;
        assert_eq!((&week["period"], &week["metric"], &week["bucket_size"]), (&json!("7d"), &json!("spend"), &json!("hour")));
        let spent = points(&week);
        assert_eq!((spent.len(), spent[0].0.as_str()), (169, "2027-01-08T09:00:00Z"));
        assert_eq!(spent[167..], [("2027-01-15T08:00:00Z".to_owned(), 0.1), ("2027-01-15T09:00:00Z".to_owned(), 0.3)]);
        assert!(spent[..167].iter().all(|(_, value)| *value == 0.0));
        for (period, days) in [("30d", 31), ("90d", 91)] {
            let trend = data(&mut ceo, &format!("/analytics/trends?period={period}")).await;
            let spent = points(&trend);
            assert_eq!((&trend["bucket_size"], spent.len()), (&json!("day"), days));
            assert_eq!(spent[days - 1], ("2027-01-15T00:00:00Z".to_owned(), 0.4));
        }
        for period in ["7d", "30d"] {
            let last = async |mut caller: Caller, metric: &str| {
                let path = format!("/analytics/trends?period={period}&metric={metric}");
                points(&data(&mut caller, &path).await)
            };
            assert_eq!(last(ceo.clone(), "tasks_completed").await.last().unwrap().1, 2.0);
            let rate = last(ceo.clone(), "success_rate").await;
            assert_eq!(rate.last().unwrap().1, 2.0 / 3.0);
            assert!(rate[..rate.len() - 1].iter().all(|(_, value)| *value == 0.0));
            assert!(last(ceo.clone(), "active_agents").await.iter().all(|(_, value)| *value == 1.0));
        }
    }

    async fn a_bucket_holds_its_start_and_not_its_end(db: TestDb) {
        let server = TestServer::on(db).await;
        spend(&server, "a", "t", 1.0).await;
        server.advance(HOUR - Duration::from_micros(1));
        spend(&server, "a", "t", 2.0).await;
        server.advance(Duration::from_micros(1));
        spend(&server, "a", "t", 4.0).await;
        let spent = points(&data(&mut ceo(&server).await, "/analytics/trends").await);
        assert_eq!(spent[167..].iter().map(|(_, value)| *value).collect::<Vec<_>>(), [3.0, 4.0]);
    }

    async fn a_forecast_goes_on_from_the_days_with_spending(db: TestDb) {
        let server = TestServer::on(db).await;
        let none = data(&mut ceo(&server).await, "/analytics/forecast").await;
        assert_eq!(none["horizon_days"], json!(14));
        for member in ["projected_total", "confidence", "avg_daily_spend"] {
            assert_eq!(none[member], json!(0.0), "{member}");
        }
        assert_eq!((&none["days_until_exhausted"], none["daily_projections"].as_array().unwrap().len()), (&Value::Null, 14));
        spend(&server, "a", "t", 10.0).await;
        server.advance(3 * DAY);
        spend(&server, "a", "t", 14.0).await;
        let forecast = data(&mut ceo(&server).await, "/analytics/forecast?horizon_days=4").await;
        assert_eq!(
            forecast,
            json!({
                "horizon_days": 4, "projected_total": 24.0, "days_until_exhausted": 13, "confidence": 0.5,
                "avg_daily_spend": 6.0, "currency": "USD",
                "daily_projections": [
                    {"day": "2027-01-19", "projected_spend": 6.0}, {"day": "2027-01-20", "projected_spend": 12.0},
                    {"day": "2027-01-21", "projected_spend": 18.0}, {"day": "2027-01-22", "projected_spend": 24.0},
                ],
            })
        );
        let near = data(&mut ceo(&server).await, "/analytics/forecast?horizon_days=3").await;
        assert_eq!((&near["avg_daily_spend"], &near["confidence"]), (&json!(14.0), &json!(1.0)));
    }

    async fn a_report_says_what_there_was_in_the_period_that_is_over(db: TestDb) {
        let server = TestServer::on(db).await;
        let mut ceo = ceo(&server).await;
        spend(&server, "a", "t", 1.0).await;
        task(&mut ceo, "a", DONE).await;
        let report = async |mut caller: Caller, period: &str| {
            caller.post("/api/v1/reports/generate", &json!({ "period": period })).await.expect(201).data()
        };
        let parts = |report: &Value| {
            ["has_spending", "has_performance", "has_task_completion", "has_risk_trends"].map(|part| report[part].as_bool().unwrap())
        };
        let daily = report(ceo.clone(), "daily").await;
        assert_eq!(parts(&daily), [false; 4], "today is not over");
        assert_eq!((&daily["start"], &daily["end"]), (&json!("2027-01-14T00:00:00Z"), &json!("2027-01-15T00:00:00Z")));
        assert_eq!((&daily["period"], &daily["generated_at"]), (&json!("daily"), &json!("2027-01-15T08:00:00Z")));
        let body = json!({"action_type": "code:write", "title": "t", "description": "d", "risk_level": "low"});
        ceo.post("/api/v1/approvals", &body).await.expect(201);
        server.advance(DAY - 9 * HOUR);
        let failed = task(&mut server.ceo().await, "b", &["assigned"]).await;
        server.advance(2 * HOUR);
        let mut ceo = server.ceo().await;
        go(&mut ceo, &failed, "failed", None).await;
        assert_eq!(parts(&report(ceo.clone(), "daily").await), [true; 4]);
        server.advance(DAY);
        let mut ceo = server.ceo().await;
        assert_eq!(parts(&report(ceo.clone(), "daily").await), [false, true, false, false]);
        assert_eq!(data(&mut ceo, "/reports/periods").await, json!(["daily", "weekly", "monthly"]));
    }
}

#[tokio::test]
async fn what_is_not_offered_is_refused() {
    let server = TestServer::start().await;
    let mut ceo = ceo(&server).await;
    for path in [
        "trends?period=8d",
        "trends?metric=cost",
        "forecast?horizon_days=0",
        "forecast?horizon_days=91",
        "forecast?horizon_days=x",
    ] {
        ceo.get(&format!("/api/v1/analytics/{path}")).await.refused(400, 2001);
    }
    for path in ["forecast?horizon_days=1", "forecast?horizon_days=90"] {
        ceo.get(&format!("/api/v1/analytics/{path}")).await.expect(200);
    }
    for body in [json!({}), json!({"period": "yearly"}), json!({"period": null})] {
        ceo.post("/api/v1/reports/generate", &body).await.refused(400, 2001);
    }
}

#[tokio::test]
async fn readers_see_figures_and_only_writers_have_reports_made() {
    let server = TestServer::start().await;
    for path in ["analytics/overview", "analytics/trends", "analytics/forecast", "reports/periods"] {
        let path = format!("/api/v1/{path}");
        server.anonymous().get(&path).await.refused(401, 1000);
        server.system_cli().get(&path).await.refused(403, 1001);
        server.person("observer", HumanRole::Observer).await.get(&path).await.expect(200);
    }
    let body = json!({"period": "daily"});
    server.anonymous().post("/api/v1/reports/generate", &body).await.refused(401, 1000);
    for (role, may) in [
        (HumanRole::Observer, false),
        (HumanRole::BoardMember, false),
        (HumanRole::PairProgrammer, true),
        (HumanRole::Manager, true),
    ] {
        let mut person = server.person(role.as_str(), role).await;
        let answer = person.post("/api/v1/reports/generate", &body).await;
        if may {
            answer.expect(201)
        } else {
            answer.refused(403, 1001)
        };
    }
}

#[tokio::test]
async fn reports_are_made_five_times_a_minute() {
    let server = TestServer::with(quarterdeck_testkit::TestDb::sqlite(), |options| {
        options.overrides = Overrides::new(true, &json!({}), true, &json!({}));
    })
    .await;
    let mut ceo = ceo(&server).await;
    let body = json!({"period": "daily"});
    for _ in 0..5 {
        ceo.post("/api/v1/reports/generate", &body).await.expect(201);
    }
    ceo.post("/api/v1/reports/generate", &body).await.refused(429, 5001);
}
