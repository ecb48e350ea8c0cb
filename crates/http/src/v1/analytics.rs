//! How work and spending stand, develop, and what they let expect.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::IntoResponse;
use chrono::{DateTime, NaiveDate, Utc};
use quarterdeck_domain::ErrorCode::MixedCurrencyAggregation;
use quarterdeck_domain::analytics::{BucketSize, Forecast, MAX_HORIZON, TrendMetric, TrendPeriod, sparkline};
use quarterdeck_domain::money::{Currency, Money};
use quarterdeck_domain::role::Guard;
use quarterdeck_work::analytics::Overview;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::edge::{Data, Result};
use crate::endpoint::{Endpoint, get};
use crate::extract::Query;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/analytics/overview", "analytics.overview", Guard::Read)
            .doc(
                "Show how everything stands",
                "Money is that of the current billing period. An agent counts while it has a task that is \
                 not over, and is active while it works on one.",
            )
            .gives::<OverviewMetrics>(200)
            .fails(&[MixedCurrencyAggregation])
            .to(overview),
        get("/analytics/trends", "analytics.trends", Guard::Read)
            .doc(
                "Show how something has developed",
                "One point for each hour of 7 days, or each day of longer periods, the oldest first.",
            )
            .query::<TrendsQuery>()
            .gives::<TrendsResponse>(200)
            .fails(&[MixedCurrencyAggregation])
            .to(trends),
        get("/analytics/forecast", "analytics.forecast", Guard::Read)
            .doc(
                "Forecast spending",
                "From the average of as many days as it looks ahead. All zero when nothing was spent.",
            )
            .query::<ForecastQuery>()
            .gives::<ForecastResponse>(200)
            .fails(&[MixedCurrencyAggregation])
            .to(forecast),
    ]
}

/// How everything stands.
#[derive(Serialize, ToSchema)]
struct OverviewMetrics {
    total_tasks: u64,
    /// Every status is named.
    tasks_by_status: BTreeMap<&'static str, u64>,
    /// Agents with tasks that are not over.
    total_agents: u64,
    /// What the billing period has cost.
    #[schema(value_type = f64, minimum = 0)]
    total_cost: Money,
    /// What may still be spent in it; 0 without a budget.
    #[schema(value_type = f64, minimum = 0)]
    budget_remaining: Money,
    /// Used part of the budget; may exceed 100, 0 without one.
    #[schema(minimum = 0)]
    budget_used_percent: f64,
    currency: Currency,
    /// What each of the last seven days, UTC, has cost, today last.
    cost_7d_trend: Vec<TrendDataPoint>,
    /// Agents that work on a task.
    active_agents_count: u64,
    /// The other ones.
    idle_agents_count: u64,
}

impl From<Overview> for OverviewMetrics {
    fn from(overview: Overview) -> Self {
        let Overview { tasks, agents, active_agents, spending, now } = overview;
        let points = sparkline(&spending.week, now).into_iter();
        Self {
            total_tasks: tasks.iter().map(|(_, count)| count).sum(),
            tasks_by_status: tasks.into_iter().map(|(status, count)| (status.as_str(), count)).collect(),
            total_agents: agents,
            total_cost: spending.spent,
            budget_remaining: spending.left.unwrap_or_default(),
            budget_used_percent: spending.used_percent,
            currency: spending.currency,
            cost_7d_trend: points
                .map(|(timestamp, cost)| TrendDataPoint { timestamp, value: cost.to_f64() })
                .collect(),
            active_agents_count: active_agents,
            idle_agents_count: agents.saturating_sub(active_agents),
        }
    }
}

/// One point of a trend.
#[derive(Serialize, ToSchema)]
struct TrendDataPoint {
    /// The beginning of what it stands for.
    timestamp: DateTime<Utc>,
    #[schema(minimum = 0)]
    value: f64,
}

#[derive(Deserialize, IntoParams)]
struct TrendsQuery {
    /// How far to look back.
    #[serde(default = "week")]
    #[param(default = "7d")]
    period: TrendPeriod,
    /// What to look at.
    #[serde(default = "spend")]
    #[param(default = "spend")]
    metric: TrendMetric,
}

fn week() -> TrendPeriod {
    TrendPeriod::Week
}

fn spend() -> TrendMetric {
    TrendMetric::Spend
}

/// How something has developed.
#[derive(Serialize, ToSchema)]
struct TrendsResponse {
    period: TrendPeriod,
    metric: TrendMetric,
    bucket_size: BucketSize,
    data_points: Vec<TrendDataPoint>,
}

#[derive(Deserialize, IntoParams)]
struct ForecastQuery {
    /// Days to look ahead, and back.
    #[param(minimum = 1, maximum = 90, default = 14)]
    #[serde(default = "fortnight", deserialize_with = "horizon")]
    horizon_days: u32,
}

fn fortnight() -> u32 {
    14
}

fn horizon<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        days @ 1..=MAX_HORIZON => Ok(days),
        _ => Err(serde::de::Error::custom(format_args!("must be between 1 and {MAX_HORIZON}"))),
    }
}

/// What spending lets expect.
#[derive(Serialize, ToSchema)]
struct ForecastResponse {
    #[schema(minimum = 1)]
    horizon_days: u32,
    /// What the days of the horizon will cost together.
    #[schema(value_type = f64, minimum = 0)]
    projected_total: Money,
    /// One for each day from tomorrow.
    daily_projections: Vec<ForecastPoint>,
    /// Whole days until the budget is used up; `null` when it never is.
    #[schema(minimum = 0)]
    days_until_exhausted: Option<u64>,
    /// Days with spending among those looked at.
    #[schema(minimum = 0, maximum = 1)]
    confidence: f64,
    /// What a day costs.
    #[schema(value_type = f64, minimum = 0)]
    avg_daily_spend: Money,
    currency: Currency,
}

/// What will have been spent by the end of a day, counted from today.
#[derive(Serialize, ToSchema)]
struct ForecastPoint {
    day: NaiveDate,
    #[schema(value_type = f64, minimum = 0)]
    projected_spend: Money,
}

async fn overview(State(app): State<App>) -> Result<impl IntoResponse> {
    Ok(Data(OverviewMetrics::from(app.analytics.overview().await?)))
}

async fn trends(State(app): State<App>, Query(query): Query<TrendsQuery>) -> Result<impl IntoResponse> {
    let TrendsQuery { period, metric } = query;
    let points = app.analytics.trend(metric, period).await?.into_iter();
    Ok(Data(TrendsResponse {
        period,
        metric,
        bucket_size: period.bucket(),
        data_points: points.map(|(timestamp, value)| TrendDataPoint { timestamp, value }).collect(),
    }))
}

async fn forecast(State(app): State<App>, Query(query): Query<ForecastQuery>) -> Result<impl IntoResponse> {
    let horizon_days = query.horizon_days;
    let (forecast, currency) = app.budget.forecast(horizon_days).await?;
    let Forecast { total, days, days_until_exhausted, confidence, daily } = forecast;
    let points = days.into_iter().map(|(day, projected_spend)| ForecastPoint { day, projected_spend });
    Ok(Data(ForecastResponse {
        horizon_days,
        projected_total: total,
        daily_projections: points.collect(),
        days_until_exhausted,
        confidence,
        avg_daily_spend: daily,
        currency,
    }))
}
