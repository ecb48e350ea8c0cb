//! Decision records: appended, never changed.

use quarterdeck_domain::approval::DecisionOutcome;
use quarterdeck_domain::decision_record::DecisionRecord;
use quarterdeck_domain::{Error, ErrorCode, Result};
use sea_orm::{ConnectionTrait, FromQueryResult};

use crate::Tx;
use crate::sql::{all, count, execute, from_micros, micros};

#[derive(FromQueryResult)]
struct Row {
    id: String,
    task_id: String,
    approval_id: Option<String>,
    executing_agent_id: String,
    reviewer_agent_id: String,
    decision: String,
    reason: Option<String>,
    criteria_snapshot: String,
    recorded_at: i64,
    version: i64,
    metadata: String,
}

impl TryFrom<Row> for DecisionRecord {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let corrupt = || {
            Error::new(ErrorCode::PersistenceError)
                .caused_by(format_args!("decision record {} is unreadable", row.id))
        };
        Ok(Self {
            decision: DecisionOutcome::parse(&row.decision).ok_or_else(corrupt)?,
            criteria_snapshot: serde_json::from_str(&row.criteria_snapshot).map_err(|_| corrupt())?,
            metadata: serde_json::from_str(&row.metadata).map_err(|_| corrupt())?,
            id: row.id,
            task_id: row.task_id,
            approval_id: row.approval_id,
            executing_agent_id: row.executing_agent_id,
            reviewer_agent_id: row.reviewer_agent_id,
            reason: row.reason,
            recorded_at: from_micros(row.recorded_at),
            version: row.version,
        })
    }
}

/// Appends a record under the next version of its task, in one statement. Whoever holds the task's row
/// meets nobody; others are held apart by the unique index.
pub async fn append(tx: &Tx, record: &DecisionRecord) -> Result<()> {
    let sql = "INSERT INTO decision_records (id, task_id, approval_id, executing_agent_id, reviewer_agent_id, \
               decision, reason, criteria_snapshot, recorded_at, version, metadata) \
               SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, \
               (SELECT COALESCE(MAX(version), 0) + 1 FROM decision_records WHERE task_id = $2), $10";
    let values = [
        record.id.as_str().into(),
        record.task_id.as_str().into(),
        record.approval_id.clone().into(),
        record.executing_agent_id.as_str().into(),
        record.reviewer_agent_id.as_str().into(),
        record.decision.as_str().into(),
        record.reason.clone().into(),
        serde_json::to_string(&record.criteria_snapshot).map_err(Error::internal)?.into(),
        micros(record.recorded_at).into(),
        serde_json::to_string(&record.metadata).map_err(Error::internal)?.into(),
    ];
    execute(&**tx, sql, values).await.map(drop)
}

/// The records of a task, the oldest first, and how many there are.
pub async fn page(
    connection: &impl ConnectionTrait,
    task_id: &str,
    offset: u64,
    limit: u32,
) -> Result<(Vec<DecisionRecord>, u64)> {
    let total = "SELECT count(*) FROM decision_records WHERE task_id = $1";
    let total = count(connection, total, [task_id.into()]).await?;
    let sql = "SELECT * FROM decision_records WHERE task_id = $1 ORDER BY version LIMIT $2 OFFSET $3";
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    let rows: Vec<Row> =
        all(connection, sql, [task_id.into(), i64::from(limit).into(), offset.into()]).await?;
    Ok((rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?, total))
}
