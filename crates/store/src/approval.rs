//! Approvals. Who decides first, decides: every end is one conditional update.

use chrono::{DateTime, Utc};
use quarterdeck_domain::approval::{Approval, ApprovalStatus, RiskLevel};
use quarterdeck_domain::{Error, ErrorCode, Result};
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult, Value};

use crate::Tx;
use crate::sql::{all, count, execute, from_micros, micros, one, row_count};

const COLUMNS: &str = "id, action_type, title, description, requested_by, requester_id, risk_level, status, \
                       created_at, expires_at, decided_at, decided_by, decision_reason, task_id, \
                       evidence_package, metadata";
/// Most approvals that expire in one transaction.
const BATCH: i64 = 200;

#[derive(FromQueryResult)]
struct Row {
    id: String,
    action_type: String,
    title: String,
    description: String,
    requested_by: String,
    requester_id: String,
    risk_level: String,
    status: String,
    created_at: i64,
    expires_at: Option<i64>,
    decided_at: Option<i64>,
    decided_by: Option<String>,
    decision_reason: Option<String>,
    task_id: Option<String>,
    evidence_package: Option<String>,
    metadata: String,
}

impl TryFrom<Row> for Approval {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let corrupt = || {
            Error::new(ErrorCode::PersistenceError)
                .caused_by(format_args!("approval {} is unreadable", row.id))
        };
        let evidence = row.evidence_package.as_deref().map(serde_json::from_str).transpose();
        Ok(Self {
            risk_level: RiskLevel::parse(&row.risk_level).ok_or_else(corrupt)?,
            status: ApprovalStatus::parse(&row.status).ok_or_else(corrupt)?,
            evidence_package: evidence.map_err(|_| corrupt())?,
            metadata: serde_json::from_str(&row.metadata).map_err(|_| corrupt())?,
            id: row.id,
            action_type: row.action_type,
            title: row.title,
            description: row.description,
            requested_by: row.requested_by,
            requester_id: row.requester_id,
            created_at: from_micros(row.created_at),
            expires_at: row.expires_at.map(from_micros),
            decided_at: row.decided_at.map(from_micros),
            decided_by: row.decided_by,
            decision_reason: row.decision_reason,
            task_id: row.task_id,
        })
    }
}

/// Which approvals a list shows: those that have all that is named.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// What has become of them.
    pub status: Option<ApprovalStatus>,
    /// What is at stake.
    pub risk_level: Option<RiskLevel>,
    /// What is to be done.
    pub action_type: Option<String>,
}

/// Adds an approval.
pub async fn insert(tx: &Tx, approval: &Approval) -> Result<()> {
    let sql = "INSERT INTO approvals (id, action_type, title, description, requested_by, requester_id, \
               risk_level, status, created_at, expires_at, task_id, evidence_package, metadata) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
    let evidence = approval.evidence_package.as_ref().map(serde_json::to_string).transpose();
    let values = [
        approval.id.as_str().into(),
        approval.action_type.as_str().into(),
        approval.title.as_str().into(),
        approval.description.as_str().into(),
        approval.requested_by.as_str().into(),
        approval.requester_id.as_str().into(),
        approval.risk_level.as_str().into(),
        approval.status.as_str().into(),
        micros(approval.created_at).into(),
        approval.expires_at.map(micros).into(),
        approval.task_id.clone().into(),
        evidence.map_err(Error::internal)?.into(),
        serde_json::to_string(&approval.metadata).map_err(Error::internal)?.into(),
    ];
    execute(&**tx, sql, values).await.map(drop)
}

/// Records a decision, if nobody was faster; whether nobody was.
pub async fn decide(tx: &Tx, decided: &Approval) -> Result<bool> {
    let sql = "UPDATE approvals SET status = $2, decided_at = $3, decided_by = $4, decision_reason = $5 \
               WHERE id = $1 AND status = 'pending'";
    let values = [
        decided.id.as_str().into(),
        decided.status.as_str().into(),
        decided.decided_at.map(micros).into(),
        decided.decided_by.clone().into(),
        decided.decision_reason.clone().into(),
    ];
    Ok(execute(&**tx, sql, values).await? == 1)
}

/// Ends approvals whose time is over, those that waited longest first, but not too many at once; which.
pub async fn expire(tx: &Tx, now: DateTime<Utc>) -> Result<Vec<Approval>> {
    let skip = if tx.get_database_backend() == DbBackend::Postgres { " FOR UPDATE SKIP LOCKED" } else { "" };
    let sql = format!(
        "UPDATE approvals SET status = 'expired' WHERE status = 'pending' AND id IN (SELECT id FROM approvals \
         WHERE status = 'pending' AND expires_at <= $1 ORDER BY expires_at LIMIT {BATCH}{skip}) \
         RETURNING {COLUMNS}"
    );
    let rows: Vec<Row> = all(&**tx, &sql, [micros(now).into()]).await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Whether there are approvals whose time is over and that still wait.
pub async fn is_any_due(connection: &impl ConnectionTrait, now: DateTime<Utc>) -> Result<bool> {
    let sql = "SELECT count(*) FROM (SELECT 1 FROM approvals WHERE status = 'pending' AND expires_at <= $1 \
               LIMIT 1) AS due";
    Ok(count(connection, sql, [micros(now).into()]).await? > 0)
}

/// Approvals that wait and were asked for by then, the oldest first.
pub async fn waiting_since(
    connection: &impl ConnectionTrait,
    before: DateTime<Utc>,
    limit: u32,
) -> Result<Vec<Approval>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM approvals WHERE status = 'pending' AND created_at <= $1 \
         ORDER BY created_at, id LIMIT $2"
    );
    let rows: Vec<Row> = all(connection, &sql, [micros(before).into(), i64::from(limit).into()]).await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// The approval with this id.
pub async fn by_id(connection: &impl ConnectionTrait, id: &str) -> Result<Option<Approval>> {
    let sql = format!("SELECT {COLUMNS} FROM approvals WHERE id = $1");
    one::<Row>(connection, &sql, [id.into()]).await?.map(TryInto::try_into).transpose()
}

/// The approval with this id, held against changes by other transactions until this one ends.
pub async fn lock(tx: &Tx, id: &str) -> Result<Option<Approval>> {
    let lock = if tx.get_database_backend() == DbBackend::Postgres { " FOR UPDATE" } else { "" };
    let sql = format!("SELECT {COLUMNS} FROM approvals WHERE id = $1{lock}");
    one::<Row>(&**tx, &sql, [id.into()]).await?.map(TryInto::try_into).transpose()
}

/// Approvals, the newest first, and how many match in all: counted by triggers where nothing, or the status
/// alone, is asked for.
pub async fn page(
    connection: &impl ConnectionTrait,
    filter: &Filter,
    offset: u64,
    limit: u32,
) -> Result<(Vec<Approval>, u64)> {
    let Filter { status, risk_level, action_type } = filter;
    let mut conditions = String::new();
    let mut values: Vec<Value> = Vec::new();
    let named = [
        ("status", status.map(ApprovalStatus::as_str)),
        ("risk_level", risk_level.map(RiskLevel::as_str)),
        ("action_type", action_type.as_deref()),
    ];
    for (column, value) in named {
        if let Some(value) = value {
            values.push(value.into());
            let word = if conditions.is_empty() { " WHERE" } else { " AND" };
            conditions += &format!("{word} {column} = ${}", values.len());
        }
    }
    let total = match (risk_level, action_type) {
        (None, None) => row_count(connection, "approvals", status.map(ApprovalStatus::as_str)).await?,
        _ => {
            count(connection, &format!("SELECT count(*) FROM approvals{conditions}"), values.clone()).await?
        }
    };
    let (limits, offsets) = (values.len() + 1, values.len() + 2);
    let sql = format!(
        "SELECT {COLUMNS} FROM approvals{conditions} ORDER BY created_at DESC, id DESC \
         LIMIT ${limits} OFFSET ${offsets}"
    );
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    let rows: Vec<Row> =
        all(connection, &sql, values.into_iter().chain([i64::from(limit).into(), offset.into()])).await?;
    Ok((rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?, total))
}
