//! Figures of how agents work together.

use axum::extract::State;
use axum::response::IntoResponse;
use chrono::{DateTime, Utc};
use quarterdeck_domain::Error;
use quarterdeck_domain::coordination_metrics::{CoordinationMetricsRecord, MAX_ID};
use quarterdeck_domain::error::FieldError;
use quarterdeck_domain::role::Guard;
use quarterdeck_domain::text::NotBlank;
use quarterdeck_work::coordination_metrics::Filter;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::app::App;
use crate::edge::{PaginatedResponse, Result};
use crate::endpoint::{Endpoint, get};
use crate::extract::{Page, Query};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/coordination/metrics", "coordination.list_metrics", Guard::Read)
            .doc("List figures of teamwork", "The newest first; of the newest 10,000 runs.")
            .query::<MetricsQuery>()
            .gives_page::<CoordinationMetricsRecord>()
            .to(list),
    ]
}

#[derive(Deserialize, IntoParams)]
struct MetricsQuery {
    /// Of one task.
    #[param(value_type = Option<String>, min_length = 1, max_length = 128, pattern = r"\S")]
    task_id: Option<NotBlank<MAX_ID>>,
    /// Led by one agent.
    #[param(value_type = Option<String>, min_length = 1, max_length = 128, pattern = r"\S")]
    agent_id: Option<NotBlank<MAX_ID>>,
    /// Computed then or later; with offset.
    since: Option<DateTime<Utc>>,
    /// Computed before; with offset, and not before `since`.
    until: Option<DateTime<Utc>>,
}

async fn list(
    State(app): State<App>,
    Query(query): Query<MetricsQuery>,
    page: Page,
) -> Result<impl IntoResponse> {
    let MetricsQuery { task_id, agent_id, since, until } = query;
    if since.zip(until).is_some_and(|(since, until)| since > until) {
        let field = FieldError { pointer: "until".to_owned(), detail: "must not be before since".to_owned() };
        return Err(Error::shape("Validation failed for GET /coordination/metrics")
            .fields(vec![field])
            .into());
    }
    let filter = Filter {
        task_id: task_id.map(NotBlank::into_inner),
        agent_id: agent_id.map(NotBlank::into_inner),
        since,
        until,
    };
    let (records, total) = app.coordination_metrics.page(&filter, page.offset, page.limit.into()).await?;
    Ok(PaginatedResponse::new(records, page.offset, page.limit, total))
}
