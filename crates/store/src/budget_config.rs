//! Versions of the budget: one for every change, numbered from 1.

use chrono::{DateTime, Utc};
use quarterdeck_domain::budget::BudgetConfig;
use quarterdeck_domain::{Error, ErrorCode, Result};
use sea_orm::{ConnectionTrait, FromQueryResult};
use sha2::{Digest, Sha256};

use crate::Tx;
use crate::audit::hex;
use crate::sql::{all, execute, from_micros, micros, number, one};

const COLUMNS: &str = "version, content_hash, snapshot, saved_by, saved_at";

/// A budget that was in force once.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// Ascending from 1.
    pub version: u64,
    /// SHA-256 of its JSON, lower-case hex.
    pub content_hash: String,
    /// The budget.
    pub snapshot: BudgetConfig,
    /// User id of who changed it.
    pub saved_by: String,
    /// When.
    pub saved_at: DateTime<Utc>,
}

#[derive(FromQueryResult)]
struct Row {
    version: i64,
    content_hash: String,
    snapshot: String,
    saved_by: String,
    saved_at: i64,
}

impl TryFrom<Row> for Version {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let snapshot = serde_json::from_str(&row.snapshot).map_err(|_| {
            let text = format_args!("version {} of the budget is unreadable", row.version);
            Error::new(ErrorCode::PersistenceError).caused_by(text)
        })?;
        Ok(Self {
            version: row.version.unsigned_abs(),
            content_hash: row.content_hash,
            snapshot,
            saved_by: row.saved_by,
            saved_at: from_micros(row.saved_at),
        })
    }
}

/// Adds a version unless the newest is the same; its number when it was added. Callers that may race hold
/// a lock.
pub async fn append(
    tx: &Tx,
    config: &BudgetConfig,
    saved_by: &str,
    now: DateTime<Utc>,
) -> Result<Option<u64>> {
    let snapshot = serde_json::to_string(config).map_err(Error::internal)?;
    let content_hash = hex(&Sha256::digest(&snapshot));
    let newest = format!("SELECT {COLUMNS} FROM budget_config_versions ORDER BY version DESC LIMIT 1");
    let newest = one::<Row>(&**tx, &newest, []).await?;
    if newest.as_ref().is_some_and(|row| row.content_hash == content_hash) {
        return Ok(None);
    }
    let version = newest.map_or(1, |row| row.version + 1);
    let sql = format!("INSERT INTO budget_config_versions ({COLUMNS}) VALUES ($1, $2, $3, $4, $5)");
    let values = [version.into(), content_hash.into(), snapshot.into(), saved_by.into(), micros(now).into()];
    execute(&**tx, &sql, values).await?;
    Ok(Some(version.unsigned_abs()))
}

/// Versions, the newest first, and how many there are in all; the primary key holds them in order.
pub async fn page(connection: &impl ConnectionTrait, offset: u64, limit: u64) -> Result<(Vec<Version>, u64)> {
    let total = number(connection, "SELECT count(*) FROM budget_config_versions", []).await?;
    let sql =
        format!("SELECT {COLUMNS} FROM budget_config_versions ORDER BY version DESC LIMIT $1 OFFSET $2");
    let values = [(limit as i64).into(), i64::try_from(offset).unwrap_or(i64::MAX).into()];
    let rows = all::<Row>(connection, &sql, values).await?;
    Ok((rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?, total.unsigned_abs()))
}

/// The version with this number.
pub async fn by_version(connection: &impl ConnectionTrait, version: i64) -> Result<Option<Version>> {
    let sql = format!("SELECT {COLUMNS} FROM budget_config_versions WHERE version = $1");
    one::<Row>(connection, &sql, [version.into()]).await?.map(TryInto::try_into).transpose()
}
