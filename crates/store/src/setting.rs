//! Stored settings. A missing row means that another source decides.
//!
//! Rows of namespaces no definition belongs to, such as the signing secret's, live here too.

use chrono::{DateTime, Utc};
use quarterdeck_domain::Result;
use sea_orm::{ConnectionTrait, FromQueryResult};

use crate::sql::{all as rows, execute, from_micros, micros, one};
use crate::{Signal, Tx};

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
pub async fn get(connection: &impl ConnectionTrait, namespace: &str, key: &str) -> Result<Option<Row>> {
    let sql = "SELECT namespace, key, value, updated_at FROM settings WHERE namespace = $1 AND key = $2";
    Ok(one::<Columns>(connection, sql, [namespace.into(), key.into()]).await?.map(Row::from))
}

/// Stores a value whatever was there before.
pub async fn put(tx: &Tx, namespace: &str, key: &str, value: &str, now: DateTime<Utc>) -> Result<()> {
    let sql = "INSERT INTO settings (namespace, key, value, updated_at) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value, \
               updated_at = excluded.updated_at";
    execute(&**tx, sql, [namespace.into(), key.into(), value.into(), micros(now).into()]).await?;
    announce(tx, namespace, key);
    Ok(())
}

/// Stores `row` if the stored version still is `expected`; `None` expects no row. Says whether it did.
pub async fn swap(tx: &Tx, row: &Row, expected: Option<DateTime<Utc>>) -> Result<bool> {
    let Row { namespace, key, value, updated_at } = row;
    let mut values = vec![
        namespace.as_str().into(),
        key.as_str().into(),
        value.as_str().into(),
        micros(*updated_at).into(),
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
    let done = execute(&**tx, sql, values).await? == 1;
    if done {
        announce(tx, namespace, key);
    }
    Ok(done)
}

/// Removes a row if the stored version still is `expected`. Says whether it did.
pub async fn remove(tx: &Tx, namespace: &str, key: &str, expected: DateTime<Utc>) -> Result<bool> {
    let sql = "DELETE FROM settings WHERE namespace = $1 AND key = $2 AND updated_at = $3";
    let values = [namespace.into(), key.into(), micros(expected).into()];
    let done = execute(&**tx, sql, values).await? == 1;
    if done {
        announce(tx, namespace, key);
    }
    Ok(done)
}

/// Exchanges the stored text of a row for another text of the same value, as when a secret is sealed
/// anew; nobody needs to hear of it. Says whether the row was still as it is given.
pub async fn exchange(tx: &Tx, row: &Row, text: &str) -> Result<bool> {
    let sql = "UPDATE settings SET value = $4 WHERE namespace = $1 AND key = $2 AND value = $3";
    let values =
        [row.namespace.as_str().into(), row.key.as_str().into(), row.value.as_str().into(), text.into()];
    Ok(execute(&**tx, sql, values).await? == 1)
}

fn announce(tx: &Tx, namespace: &str, key: &str) {
    tx.signal(Signal::Setting { namespace: namespace.to_owned(), key: key.to_owned() });
}
