//! Money: the budget, its versions, and what was spent.

use axum::extract::State;
use axum::response::IntoResponse;
use chrono::{DateTime, NaiveDate, Utc};
use quarterdeck_domain::ErrorCode::{MixedCurrencyAggregation, ValidationError};
use quarterdeck_domain::budget::BudgetConfig;
use quarterdeck_domain::cost_record::{CostRecord, DayTotals, Totals};
use quarterdeck_domain::money::{Currency, Money};
use quarterdeck_domain::role::Guard;
use quarterdeck_work::budget::{Filter, Records, Version};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::edge::{Data, PaginatedResponse, Result};
use crate::endpoint::{Endpoint, get};
use crate::extract::{Id, Page, PageOf, Path, Query, Version as Number};

/// Versions on a page when the request does not say.
const VERSIONS: u32 = 20;
/// What the budget is called where versions of several things are shown together.
const ENTITY: &str = "budget_config";

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/budget/config", "budget.get_config", Guard::Read)
            .doc("Show the budget in force", "Made of the settings of namespace `budget`.")
            .gives::<BudgetConfig>(200)
            .to(config),
        get("/budget/records", "budget.list_records", Guard::Read)
            .doc(
                "List cost records",
                "The newest first. The sums are of all that match, not of the page, and outlive records that \
                 were removed for their age.",
            )
            .query::<RecordsQuery>()
            .gives_page_beside::<CostRecord, Summaries>()
            .fails(&[ValidationError, MixedCurrencyAggregation])
            .to(records),
        get("/budget/agents/{agent_id}", "budget.get_agent", Guard::Read)
            .doc("Show what an agent has spent", "In all; 0 for an agent nobody knows.")
            .gives::<AgentSpending>(200)
            .fails(&[MixedCurrencyAggregation])
            .to(agent),
        get("/budget/config/versions", "budget.list_versions", Guard::Read)
            .doc("List versions of the budget", "The newest first; every change adds one.")
            .gives_page_of::<BudgetConfigVersion>(VERSIONS)
            .to(versions),
        get("/budget/config/versions/{version_num}", "budget.get_version", Guard::Read)
            .path_number("version_num")
            .doc("Show a version of the budget", "")
            .gives::<BudgetConfigVersion>(200)
            .to(version),
    ]
}

#[derive(Deserialize, IntoParams)]
struct RecordsQuery {
    /// Of one agent.
    #[param(min_length = 1, max_length = 128)]
    agent_id: Option<String>,
    /// Of one task.
    #[param(min_length = 1, max_length = 128)]
    task_id: Option<String>,
}

/// Sums of all records that match.
#[derive(Serialize, ToSchema)]
#[schema(as = CostSummaries)]
struct Summaries {
    /// Of each day with records, oldest first.
    daily_summary: Vec<DailySummary>,
    /// Of all days.
    period_summary: PeriodSummary,
    /// What all sums are in.
    currency: Currency,
}

/// What one day, UTC, has cost.
#[derive(Serialize, ToSchema)]
struct DailySummary {
    /// Such as `2027-01-15`.
    #[schema(value_type = String, format = Date)]
    date: NaiveDate,
    #[schema(value_type = f64, minimum = 0)]
    total_cost: Money,
    currency: Currency,
    #[schema(minimum = 0)]
    total_input_tokens: i64,
    #[schema(minimum = 0)]
    total_output_tokens: i64,
    #[schema(minimum = 0)]
    record_count: i64,
}

/// What all records that match have cost.
#[derive(Serialize, ToSchema)]
struct PeriodSummary {
    #[schema(value_type = f64, minimum = 0)]
    total_cost: Money,
    currency: Currency,
    #[schema(minimum = 0)]
    total_input_tokens: i64,
    #[schema(minimum = 0)]
    total_output_tokens: i64,
    #[schema(minimum = 0)]
    record_count: i64,
    /// 0 without records.
    #[schema(value_type = f64, minimum = 0, read_only)]
    avg_cost: Money,
}

impl Summaries {
    fn new(days: Vec<DayTotals>, sums: Totals, currency: Currency) -> Self {
        let daily = |DayTotals { day, totals, .. }: DayTotals| DailySummary {
            date: day,
            total_cost: totals.cost,
            currency,
            total_input_tokens: totals.input_tokens,
            total_output_tokens: totals.output_tokens,
            record_count: totals.records,
        };
        Self {
            daily_summary: days.into_iter().map(daily).collect(),
            period_summary: PeriodSummary {
                total_cost: sums.cost,
                currency,
                total_input_tokens: sums.input_tokens,
                total_output_tokens: sums.output_tokens,
                record_count: sums.records,
                avg_cost: sums.cost.scaled(1, sums.records.unsigned_abs()),
            },
            currency,
        }
    }
}

/// What an agent has spent.
#[derive(Serialize, ToSchema)]
struct AgentSpending {
    agent_id: String,
    #[schema(value_type = f64, minimum = 0)]
    total_cost: Money,
    currency: Currency,
}

/// A budget that was in force once.
#[derive(Serialize, ToSchema)]
struct BudgetConfigVersion {
    /// `budget_config`.
    entity_id: &'static str,
    /// Ascending from 1.
    #[schema(minimum = 1)]
    version: u64,
    /// SHA-256 of the snapshot, lower-case hex.
    content_hash: String,
    snapshot: BudgetConfig,
    /// User id of who changed it, or `system`.
    saved_by: String,
    saved_at: DateTime<Utc>,
}

impl From<Version> for BudgetConfigVersion {
    fn from(version: Version) -> Self {
        let Version { version, content_hash, snapshot, saved_by, saved_at } = version;
        Self { entity_id: ENTITY, version, content_hash, snapshot, saved_by, saved_at }
    }
}

async fn config(State(app): State<App>) -> Result<impl IntoResponse> {
    Ok(Data(app.budget.config()))
}

async fn records(
    State(app): State<App>,
    Query(query): Query<RecordsQuery>,
    page: Page,
) -> Result<impl IntoResponse> {
    let filter = Filter { agent_id: query.agent_id, task_id: query.task_id };
    let found = app.budget.records(filter, page.offset, page.limit.into()).await?;
    let Records { page: records, total, days, sums, currency } = found;
    let page = PaginatedResponse::new(records, page.offset, page.limit, total);
    Ok(page.beside(Summaries::new(days, sums, currency)))
}

async fn agent(State(app): State<App>, Path(id): Path<Id>) -> Result<impl IntoResponse> {
    let (total_cost, currency) = app.budget.spent_by(&id).await?;
    Ok(Data(AgentSpending { agent_id: id.into_inner(), total_cost, currency }))
}

async fn versions(State(app): State<App>, PageOf(page): PageOf<VERSIONS>) -> Result<impl IntoResponse> {
    let (versions, total) = app.budget.versions(page.offset, page.limit.into()).await?;
    let versions: Vec<_> = versions.into_iter().map(BudgetConfigVersion::from).collect();
    Ok(PaginatedResponse::new(versions, page.offset, page.limit, total))
}

async fn version(State(app): State<App>, Path(number): Path<Number>) -> Result<impl IntoResponse> {
    Ok(Data(BudgetConfigVersion::from(app.budget.version(number.get()).await?)))
}
