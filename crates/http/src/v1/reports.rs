//! Reports over periods that are over.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use chrono::{DateTime, Utc};
use quarterdeck_domain::period::ReportPeriod;
use quarterdeck_domain::role::Guard;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::edge::{Data, Result};
use crate::endpoint::{Endpoint, get, post};
use crate::extract::Body;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/reports/periods", "reports.list_periods", Guard::Read)
            .doc("List what reports are about", "")
            .gives_list::<ReportPeriod>()
            .to(periods),
        post("/reports/generate", "reports.generate", Guard::Write)
            .limit(5, 60)
            .doc(
                "Generate a report",
                "About the previous day, the previous week from Monday or the previous calendar month, UTC. \
                 It says of which parts there is something to tell.",
            )
            .body::<GenerateReportRequest>()
            .gives::<ReportResponse>(201)
            .to(generate),
    ]
}

/// What the report is to be about.
#[derive(Deserialize, ToSchema)]
struct GenerateReportRequest {
    period: ReportPeriod,
}

/// What there is to report.
#[derive(Serialize, ToSchema)]
struct ReportResponse {
    period: ReportPeriod,
    /// Its first moment.
    start: DateTime<Utc>,
    /// The first moment after it.
    end: DateTime<Utc>,
    /// Whether money was spent.
    has_spending: bool,
    /// Whether tasks were completed or failed.
    has_performance: bool,
    /// Whether tasks were completed.
    has_task_completion: bool,
    /// Whether approvals, and the risk that goes with them, were asked for.
    has_risk_trends: bool,
    generated_at: DateTime<Utc>,
}

async fn periods() -> Result<impl IntoResponse> {
    Ok(Data(ReportPeriod::ALL))
}

async fn generate(
    State(app): State<App>,
    Body(request): Body<GenerateReportRequest>,
) -> Result<impl IntoResponse> {
    let report = app.analytics.report(request.period).await?;
    let response = ReportResponse {
        period: request.period,
        start: report.period.start,
        end: report.period.end,
        has_spending: report.has_spending,
        has_performance: report.has_performance,
        has_task_completion: report.has_task_completion,
        has_risk_trends: report.has_risk_trends,
        generated_at: report.generated_at,
    };
    Ok((StatusCode::CREATED, Data(response)))
}
