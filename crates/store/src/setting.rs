//! Stored settings. A missing row means that another source decides.
//!
//! Rows of namespaces no definition belongs to, such as the signing secret's, live here too.

use chrono::{DateTime, Utc};
use quarterdeck_domain::Result;
use sea_orm::{ConnectionTrait, FromQueryResult};

use crate::sql::{all as rows, execute, from_micros, micros, one};

/// A stored setting.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    /// Namespace.
    pub namespace: String,
    /// Key.
    pub key: String,
    /// The value; sealed when the setting is sensitive.
    pub value: String,
    /// When it was written; also its version.
    pub updated_at: DateTime<Utc>,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} of {}", self.namespace, self.key, self.updated_at)
    }
}

#[derive(FromQueryResult)]
struct Columns {
    namespace: String,
    key: String,
    value: String,
    updated_at: i64,
}

impl From<Columns> for Row {
    fn from(row: Columns) -> Self {
        let Columns { namespace, key, value, updated_at } = row;
        Self { namespace, key, value, updated_at: from_micros(updated_at) }
    }
}

/// Every row, sorted by namespace and key.
pub async fn all(connection: &impl ConnectionTrait) -> Result<Vec<Row>> {
    let sql = "SELECT namespace, key, value, updated_at FROM settings ORDER BY namespace, key";
    Ok(rows::<Columns>(connection, sql, []).await?.into_iter().map(Row::from).collect())
}

/// One row.
pub async fn find(connection: &impl ConnectionTrait, namespace: &str, key: &str) -> Result<Option<Row>> {
    let sql = "SELECT namespace, key, value, updated_at FROM settings WHERE namespace = $1 AND key = $2";
    Ok(one::<Columns>(connection, sql, [namespace.into(), key.into()]).await?.map(Row::from))
}

/// Stores `row` if the stored version still is `expected`; `None` expects no row. Says whether it did.
pub async fn put(
    connection: &impl ConnectionTrait,
    row: &Row,
    expected: Option<DateTime<Utc>>,
) -> Result<bool> {
    let mut values = vec![
        row.namespace.as_str().into(),
        row.key.as_str().into(),
        row.value.as_str().into(),
        micros(row.updated_at).into(),
    ];
    let sql = match expected {
        None => {
            "INSERT INTO settings (namespace, key, value, updated_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (namespace, key) DO NOTHING"
        }
        Some(expected) => {
            values.push(micros(expected).into());
            "UPDATE settings SET value = $3, updated_at = $4 \
             WHERE namespace = $1 AND key = $2 AND updated_at = $5"
        }
    };
    Ok(execute(connection, sql, values).await? == 1)
}

/// Removes a row if the stored version still is `expected`. Says whether it did.
pub async fn remove(
    connection: &impl ConnectionTrait,
    namespace: &str,
    key: &str,
    expected: DateTime<Utc>,
) -> Result<bool> {
    let sql = "DELETE FROM settings WHERE namespace = $1 AND key = $2 AND updated_at = $3";
    let values = [namespace.into(), key.into(), micros(expected).into()];
    Ok(execute(connection, sql, values).await? == 1)
}

/// Exchanges the stored text of a row for another text of the same value, as when a secret is sealed
/// anew; its version stays. Says whether `old` was still stored.
pub async fn exchange(connection: &impl ConnectionTrait, old: &Row, text: &str) -> Result<bool> {
    let sql = "UPDATE settings SET value = $4 WHERE namespace = $1 AND key = $2 AND value = $3";
    let values =
        [old.namespace.as_str().into(), old.key.as_str().into(), old.value.as_str().into(), text.into()];
    Ok(execute(connection, sql, values).await? == 1)
}
