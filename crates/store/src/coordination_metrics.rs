//! Figures of teamwork.

use chrono::{DateTime, Utc};
use quarterdeck_domain::coordination_metrics::CoordinationMetricsRecord;
use quarterdeck_domain::text::NotBlank;
use quarterdeck_domain::{Error, ErrorCode, Result};
use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use uuid::Uuid;

use crate::Tx;
use crate::sql::{all, execute, from_micros, micros, number};

const COLUMNS: &str = "id, task_id, agent_id, computed_at, team_size, metrics";

/// Which records; all conditions have to hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of one task.
    pub task_id: Option<String>,
    /// Led by one agent.
    pub agent_id: Option<String>,
    /// Computed then or later.
    pub since: Option<DateTime<Utc>>,
    /// Computed before.
    pub until: Option<DateTime<Utc>>,
}

#[derive(FromQueryResult)]
struct Row {
    id: String,
    task_id: String,
    agent_id: Option<String>,
    computed_at: i64,
    team_size: i64,
    metrics: String,
}

impl TryFrom<Row> for CoordinationMetricsRecord {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let id = row.id.clone();
        read(row).ok_or_else(|| {
            let text = format_args!("coordination metrics {id} are unreadable");
            Error::new(ErrorCode::PersistenceError).caused_by(text)
        })
    }
}

/// What a row says, if it can be read.
fn read(row: Row) -> Option<CoordinationMetricsRecord> {
    Some(CoordinationMetricsRecord {
        task_id: NotBlank::new(row.task_id).ok()?,
        agent_id: row.agent_id.map(NotBlank::new).transpose().ok()?,
        computed_at: from_micros(row.computed_at),
        team_size: row.team_size,
        metrics: serde_json::from_str(&row.metrics).ok()?,
    })
}

/// Adds a record.
///
/// # Errors
/// As [`CoordinationMetricsRecord::figures`].
pub async fn insert(tx: &Tx, record: &CoordinationMetricsRecord) -> Result<()> {
    let sql = format!("INSERT INTO coordination_metrics ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6)");
    let values = [
        Uuid::now_v7().to_string().into(),
        record.task_id.as_str().into(),
        record.agent_id.as_deref().map(str::to_owned).into(),
        micros(record.computed_at).into(),
        record.team_size.into(),
        record.figures()?.into(),
    ];
    execute(&**tx, &sql, values).await.map(drop)
}

/// Forgets all but the newest `kept`; how many.
pub async fn prune(tx: &Tx, kept: i64) -> Result<u64> {
    let sql = "DELETE FROM coordination_metrics WHERE id IN (SELECT id FROM coordination_metrics \
               ORDER BY computed_at DESC, id DESC LIMIT 1000000 OFFSET $1)";
    execute(&**tx, sql, [kept.into()]).await
}

/// Records, the newest first, and how many there are in all. There are never many, and an index holds
/// those of a task, of an agent and of all in that order.
pub async fn page(
    connection: &impl ConnectionTrait,
    filter: &Filter,
    offset: u64,
    limit: u64,
) -> Result<(Vec<CoordinationMetricsRecord>, u64)> {
    let (task, agent) = (filter.task_id.as_deref(), filter.agent_id.as_deref());
    let conditions: [(&str, Option<Value>); 4] = [
        ("task_id =", task.map(Into::into)),
        ("agent_id =", agent.map(Into::into)),
        ("computed_at >=", filter.since.map(|since| micros(since).into())),
        ("computed_at <", filter.until.map(|until| micros(until).into())),
    ];
    let mut only = String::new();
    let mut values = Vec::new();
    for (condition, value) in conditions {
        if let Some(value) = value {
            values.push(value);
            let joint = if values.len() == 1 { "WHERE" } else { "AND" };
            only.push_str(&format!(" {joint} {condition} ${}", values.len()));
        }
    }
    let total =
        number(connection, &format!("SELECT count(*) FROM coordination_metrics{only}"), values.clone())
            .await?;
    let (limit_at, offset_at) = (values.len() + 1, values.len() + 2);
    values.extend([(limit as i64).into(), i64::try_from(offset).unwrap_or(i64::MAX).into()]);
    let sql = format!(
        "SELECT {COLUMNS} FROM coordination_metrics{only} ORDER BY computed_at DESC, id DESC \
         LIMIT ${limit_at} OFFSET ${offset_at}"
    );
    let rows = all::<Row>(connection, &sql, values).await?;
    Ok((rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?, total.unsigned_abs()))
}
