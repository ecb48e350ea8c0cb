//! Cost records, and the sums of each day that are kept beside them.
//!
//! A sum is one row per day, whatever it is of, so no question about money reads records: it reads the rows
//! of one agent and task, in the order of the primary key.

use chrono::{DateTime, Days, NaiveDate, Utc};
use quarterdeck_domain::cost_record::{
    CallCategory, CostRecord, DayTotals, FinishReason, MAX_ID, Totals, currency_of,
};
use quarterdeck_domain::event::{Event, EventType};
use quarterdeck_domain::money::{Currency, Money};
use quarterdeck_domain::period::Period;
use quarterdeck_domain::text::NotBlank;
use quarterdeck_domain::{Error, ErrorCode, Result};
use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use serde_json::json;
use uuid::Uuid;

use crate::Tx;
use crate::sql::{all, execute, from_micros, micros, number};

const COLUMNS: &str = "id, agent_id, task_id, project_id, provider, model, input_tokens, output_tokens, whole, \
                       fraction, currency, recorded_at, call_category, accuracy_effort_ratio, latency_ms, \
                       cache_hit, retry_count, retry_reason, finish_reason, success";
/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;
/// Records that one statement removes at most, so that others need not wait for long.
const BATCH: i64 = 10_000;

/// Whose records; `None` for everybody's. An id is never empty.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of one agent.
    pub agent_id: Option<String>,
    /// Of one task.
    pub task_id: Option<String>,
}

#[derive(FromQueryResult)]
struct Row {
    id: String,
    agent_id: String,
    task_id: String,
    project_id: Option<String>,
    provider: String,
    model: String,
    input_tokens: i64,
    output_tokens: i64,
    whole: i64,
    fraction: i64,
    currency: String,
    recorded_at: i64,
    call_category: Option<String>,
    accuracy_effort_ratio: Option<f64>,
    latency_ms: Option<f64>,
    cache_hit: Option<bool>,
    retry_count: Option<i64>,
    retry_reason: Option<String>,
    finish_reason: Option<String>,
    success: Option<bool>,
}

impl TryFrom<Row> for CostRecord {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let id = row.id.clone();
        read(row).ok_or_else(|| unreadable(format_args!("cost record {id}")))
    }
}

fn unreadable(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::PersistenceError).caused_by(format_args!("{what} is unreadable"))
}

/// What a row says, if it can be read.
fn read(row: Row) -> Option<CostRecord> {
    let id = |text: String| NotBlank::<MAX_ID>::new(text).ok();
    Some(CostRecord {
        agent_id: id(row.agent_id)?,
        task_id: id(row.task_id)?,
        project_id: row.project_id.map(NotBlank::new).transpose().ok()?,
        provider: id(row.provider)?,
        model: id(row.model)?,
        input_tokens: row.input_tokens,
        output_tokens: row.output_tokens,
        cost: Money::from_parts(row.whole, row.fraction),
        currency: Currency::parse(&row.currency)?,
        timestamp: from_micros(row.recorded_at),
        call_category: optional(row.call_category, CallCategory::parse)?,
        accuracy_effort_ratio: row.accuracy_effort_ratio,
        latency_ms: row.latency_ms,
        cache_hit: row.cache_hit,
        retry_count: row.retry_count,
        retry_reason: row.retry_reason.map(NotBlank::new).transpose().ok()?,
        finish_reason: optional(row.finish_reason, FinishReason::parse)?,
        success: row.success,
    })
}

fn optional<T>(text: Option<String>, parse: fn(&str) -> Option<T>) -> Option<Option<T>> {
    match text {
        Some(text) => parse(&text).map(Some),
        None => Some(None),
    }
}

/// Adds a record and its part of the sums, and tells of it. Of transactions that add to the same day one
/// waits for the other.
pub async fn insert(tx: &Tx, record: &CostRecord) -> Result<()> {
    let (whole, fraction) = record.cost.parts();
    let text = |text: &Option<_>| text.as_deref().map(str::to_owned);
    let sql = format!(
        "INSERT INTO cost_records ({COLUMNS}) VALUES \
         ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)"
    );
    let values: [Value; 20] = [
        Uuid::now_v7().to_string().into(),
        record.agent_id.as_str().into(),
        record.task_id.as_str().into(),
        record.project_id.as_deref().map(str::to_owned).into(),
        record.provider.as_str().into(),
        record.model.as_str().into(),
        record.input_tokens.into(),
        record.output_tokens.into(),
        whole.into(),
        fraction.into(),
        record.currency.as_str().into(),
        micros(record.timestamp).into(),
        record.call_category.map(|category| category.to_string()).into(),
        record.accuracy_effort_ratio.into(),
        record.latency_ms.into(),
        record.cache_hit.into(),
        record.retry_count.into(),
        text(&record.retry_reason).into(),
        record.finish_reason.map(|reason| reason.to_string()).into(),
        record.success.into(),
    ];
    execute(&**tx, &sql, values).await?;
    add_up(tx, record).await?;
    let payload = json!({
        "amount": record.cost, "currency": record.currency, "category": record.call_category,
        "agent_id": record.agent_id,
    });
    tx.publish(Event::new(EventType::BudgetRecordAdded, record.timestamp, payload));
    Ok(())
}

/// Everybody's sum comes first: all transactions take the rows in the same order and none waits in a circle.
async fn add_up(tx: &Tx, record: &CostRecord) -> Result<()> {
    let sql = "INSERT INTO cost_days (agent_id, task_id, day, currency, whole, fraction, input_tokens, \
               output_tokens, records) VALUES \
               ('', '', $3, $4, $5, $6, $7, $8, 1), ($1, '', $3, $4, $5, $6, $7, $8, 1), \
               ('', $2, $3, $4, $5, $6, $7, $8, 1), ($1, $2, $3, $4, $5, $6, $7, $8, 1) \
               ON CONFLICT (agent_id, task_id, day, currency) DO UPDATE SET \
               whole = cost_days.whole + excluded.whole, fraction = cost_days.fraction + excluded.fraction, \
               input_tokens = cost_days.input_tokens + excluded.input_tokens, \
               output_tokens = cost_days.output_tokens + excluded.output_tokens, \
               records = cost_days.records + 1";
    let (whole, fraction) = record.cost.parts();
    let values = [
        record.agent_id.as_str().into(),
        record.task_id.as_str().into(),
        micros(record.timestamp).div_euclid(DAY).into(),
        record.currency.as_str().into(),
        whole.into(),
        fraction.into(),
        record.input_tokens.into(),
        record.output_tokens.into(),
    ];
    execute(&**tx, sql, values).await.map(drop)
}

#[derive(FromQueryResult)]
struct DayRow {
    day: i64,
    currency: String,
    whole: i64,
    fraction: i64,
    input_tokens: i64,
    output_tokens: i64,
    records: i64,
}

impl TryFrom<DayRow> for DayTotals {
    type Error = Error;

    fn try_from(row: DayRow) -> Result<Self> {
        Ok(Self {
            day: from_micros(row.day.saturating_mul(DAY)).date_naive(),
            currency: Currency::parse(&row.currency).ok_or_else(|| unreadable("a sum of costs"))?,
            totals: Totals {
                cost: Money::from_parts(row.whole, row.fraction),
                input_tokens: row.input_tokens,
                output_tokens: row.output_tokens,
                records: row.records,
            },
        })
    }
}

/// What each day has cost, oldest first, from `from` until before `until`; a day with records in several
/// currencies has a row for each.
pub async fn days(
    connection: &impl ConnectionTrait,
    of: &Filter,
    from: Option<NaiveDate>,
    until: Option<NaiveDate>,
) -> Result<Vec<DayTotals>> {
    let number = |day: NaiveDate| (day - NaiveDate::default()).num_days();
    let sql = "SELECT day, currency, whole, fraction, input_tokens, output_tokens, records FROM cost_days \
               WHERE agent_id = $1 AND task_id = $2 AND day >= $3 AND day < $4 ORDER BY day, currency";
    let id = |id: &Option<String>| id.clone().unwrap_or_default();
    let values = [
        id(&of.agent_id).into(),
        id(&of.task_id).into(),
        from.map_or(i64::MIN, number).into(),
        until.map_or(i64::MAX, number).into(),
    ];
    let rows = all::<DayRow>(connection, sql, values).await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// What the days of a period have cost together.
///
/// # Errors
/// 409/4007 when something of it is in another currency than `currency`.
pub async fn spent(connection: &impl ConnectionTrait, period: Period, currency: Currency) -> Result<Money> {
    let last = period.end.date_naive();
    let days = days(connection, &Filter::default(), Some(period.start.date_naive()), Some(last)).await?;
    if currency_of(&days, currency)? != currency {
        return Err(ErrorCode::MixedCurrencyAggregation.into());
    }
    Ok(days.iter().map(|day| day.totals.cost).sum())
}

#[derive(FromQueryResult)]
struct HourRow {
    bucket: i64,
    currency: String,
    whole: i64,
    fraction: i64,
}

/// What each hour since `from` has cost, with its beginning, per currency; hours without records are left
/// out.
pub async fn hours(
    connection: &impl ConnectionTrait,
    from: DateTime<Utc>,
) -> Result<Vec<(DateTime<Utc>, Currency, Money)>> {
    const HOUR: i64 = 3_600_000_000;
    // Of one week, which the index on time holds together.
    let sql = "SELECT bucket, currency, CAST(SUM(whole) AS BIGINT) AS whole, \
               CAST(SUM(fraction) AS BIGINT) AS fraction FROM \
               (SELECT recorded_at / 3600000000 AS bucket, currency, whole, fraction FROM cost_records \
               WHERE recorded_at >= $1) AS hours GROUP BY bucket, currency ORDER BY bucket, currency";
    let rows = all::<HourRow>(connection, sql, [micros(from).into()]).await?;
    let read = |row: HourRow| {
        let currency = Currency::parse(&row.currency).ok_or_else(|| unreadable("a sum of costs"))?;
        Ok((from_micros(row.bucket * HOUR), currency, Money::from_parts(row.whole, row.fraction)))
    };
    rows.into_iter().map(read).collect()
}

/// Records, the newest first, and how many there are in all. One of the three indexes holds them in that
/// order, whatever the filter.
pub async fn page(
    connection: &impl ConnectionTrait,
    of: &Filter,
    offset: u64,
    limit: u64,
) -> Result<(Vec<CostRecord>, u64)> {
    let mut conditions = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    for (column, id) in [("agent_id", &of.agent_id), ("task_id", &of.task_id)] {
        if let Some(id) = id {
            values.push(id.as_str().into());
            conditions.push(format!("{column} = ${}", values.len()));
        }
    }
    let only =
        if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    let total =
        number(connection, &format!("SELECT count(*) FROM cost_records{only}"), values.clone()).await?;
    let (limit_at, offset_at) = (values.len() + 1, values.len() + 2);
    values.extend([(limit as i64).into(), i64::try_from(offset).unwrap_or(i64::MAX).into()]);
    let sql = format!(
        "SELECT {COLUMNS} FROM cost_records{only} ORDER BY recorded_at DESC, id DESC \
         LIMIT ${limit_at} OFFSET ${offset_at}"
    );
    let rows = all::<Row>(connection, &sql, values).await?;
    Ok((rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?, total.unsigned_abs()))
}

/// Forgets records older than `before` while there are more than `kept`; how many. Their sums stay.
pub async fn prune(tx: &Tx, kept: i64, before: DateTime<Utc>) -> Result<u64> {
    if number(&**tx, "SELECT count(*) FROM cost_records", []).await? <= kept {
        return Ok(0);
    }
    let sql = "DELETE FROM cost_records WHERE id IN (SELECT id FROM cost_records WHERE recorded_at < $1 \
               ORDER BY recorded_at, id LIMIT $2)";
    execute(&**tx, sql, [micros(before).into(), BATCH.into()]).await
}

/// The first day of the last `count` days, `today` among them.
pub fn first_of(count: u64, today: NaiveDate) -> NaiveDate {
    today.checked_sub_days(Days::new(count.saturating_sub(1))).unwrap_or(today)
}
