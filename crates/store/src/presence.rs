//! Who is connected to which copy of the program, on PostgreSQL. A copy that dies is forgotten when its
//! lease ends.

use chrono::{DateTime, Utc};
use quarterdeck_domain::Result;
use sea_orm::FromQueryResult;

use crate::sql::{all, execute, micros};
use crate::{Store, Tx};

/// A user's connections to one copy, or to all of them together.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Present {
    /// The user's id.
    pub user_id: String,
    /// How many.
    pub connections: i64,
    /// Since when, microseconds since 1970 UTC.
    pub since: i64,
}

/// Replaces what a copy has said of itself; good until `lease_until`.
pub async fn report(
    tx: &Tx,
    instance: &str,
    present: &[Present],
    lease_until: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<()> {
    let outdated = "DELETE FROM presence WHERE instance = $1 OR lease_until < $2";
    execute(&**tx, outdated, [instance.into(), micros(now).into()]).await?;
    let sql = "INSERT INTO presence (instance, user_id, connections, since, lease_until) \
               SELECT $1, user_id, connections, since, $3 \
               FROM json_to_recordset($2::json) AS p(user_id text, connections bigint, since bigint)";
    let rows: Vec<_> = present
        .iter()
        .map(|p| serde_json::json!({"user_id": p.user_id, "connections": p.connections, "since": p.since}))
        .collect();
    let rows = serde_json::Value::from(rows).to_string();
    execute(&**tx, sql, [instance.into(), rows.into(), micros(lease_until).into()]).await.map(drop)
}

/// What all other copies with a good lease have said.
pub async fn of_others(store: &Store, instance: &str, now: DateTime<Utc>) -> Result<Vec<Present>> {
    let sql = "SELECT user_id, sum(connections)::bigint AS connections, min(since) AS since FROM presence \
               WHERE instance <> $1 AND lease_until >= $2 GROUP BY user_id";
    all(store.read(), sql, [instance.into(), micros(now).into()]).await
}
