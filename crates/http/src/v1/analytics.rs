//! How work and spending stand, develop, and what they let expect.

use axum::extract::State;
use axum::response::IntoResponse;
use chrono::NaiveDate;
use quarterdeck_domain::ErrorCode::MixedCurrencyAggregation;
use quarterdeck_domain::analytics::{Forecast, MAX_HORIZON};
use quarterdeck_domain::money::{Currency, Money};
use quarterdeck_domain::role::Guard;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::edge::{Data, Result};
use crate::endpoint::{Endpoint, get};
use crate::extract::Query;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
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
