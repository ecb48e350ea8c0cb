//! Failed sign-ins, by lower-cased name; the lockout is read from these rows.

use chrono::{DateTime, Utc};
use quarterdeck_domain::Result;
use sea_orm::{ConnectionTrait, FromQueryResult};

use crate::Tx;
use crate::sql::{execute, from_micros, micros, number, one};

/// Records one failure.
pub async fn insert(tx: &Tx, username: &str, network: &str, now: DateTime<Utc>) -> Result<()> {
    execute(
        &**tx,
        "INSERT INTO login_attempts (id, username, attempted_at, ip_address) VALUES ($1, $2, $3, $4)",
        [uuid::Uuid::now_v7().to_string().into(), username.into(), micros(now).into(), network.into()],
    )
    .await?;
    Ok(())
}

#[derive(FromQueryResult)]
struct Newest {
    newest: Option<i64>,
}

/// The newest failure of a name.
pub async fn newest(connection: &impl ConnectionTrait, username: &str) -> Result<Option<DateTime<Utc>>> {
    let sql = "SELECT max(attempted_at) AS newest FROM login_attempts WHERE username = $1";
    let row = one::<Newest>(connection, sql, [username.into()]).await?;
    Ok(row.and_then(|row| row.newest).map(from_micros))
}

/// Failures of a name later than `after`.
pub async fn count(connection: &impl ConnectionTrait, username: &str, after: DateTime<Utc>) -> Result<u64> {
    let sql = "SELECT count(*) FROM login_attempts WHERE username = $1 AND attempted_at > $2";
    Ok(number(connection, sql, [username.into(), micros(after).into()]).await?.unsigned_abs())
}

/// Failures from one network later than `after`.
pub async fn count_from(
    connection: &impl ConnectionTrait,
    network: &str,
    after: DateTime<Utc>,
) -> Result<u64> {
    let sql = "SELECT count(*) FROM login_attempts WHERE ip_address = $1 AND attempted_at > $2";
    Ok(number(connection, sql, [network.into(), micros(after).into()]).await?.unsigned_abs())
}

/// Forgets the failures of a name; how many there were.
pub async fn clear(tx: &Tx, username: &str) -> Result<u64> {
    execute(&**tx, "DELETE FROM login_attempts WHERE username = $1", [username.into()]).await
}

/// Forgets failures up to `until`; how many.
pub async fn prune(tx: &Tx, until: DateTime<Utc>) -> Result<u64> {
    execute(&**tx, "DELETE FROM login_attempts WHERE attempted_at <= $1", [micros(until).into()]).await
}
