//! One-time tickets that any copy of the program may take back, on PostgreSQL.

use chrono::{DateTime, Utc};
use quarterdeck_domain::Result;
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};

use crate::sql::{execute, micros, number, one};
use crate::{Store, Tx};

/// Who a ticket was given to.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Owner {
    /// The user's id.
    pub user_id: String,
    /// The session the ticket was asked for in.
    pub session_id: Option<String>,
    expires_at: i64,
}

impl Owner {
    /// Whether the ticket is still good at this instant; its last one counts.
    pub fn is_good_at(&self, now: DateTime<Utc>) -> bool {
        micros(now) <= self.expires_at
    }
}

/// Stores a ticket unless its owner holds `most` good ones; whether it was stored.
pub async fn insert(
    tx: &Tx,
    digest: &str,
    user_id: &str,
    session_id: Option<&str>,
    expires_at: DateTime<Utc>,
    now: DateTime<Utc>,
    most: usize,
) -> Result<bool> {
    tx.lock(&format!("quarterdeck.ws_tickets.{user_id}")).await?;
    let held = number(
        &**tx,
        "SELECT count(*) FROM ws_tickets WHERE user_id = $1 AND expires_at >= $2",
        [user_id.into(), micros(now).into()],
    )
    .await?;
    if held.unsigned_abs() >= most as u64 {
        return Ok(false);
    }
    let sql = "INSERT INTO ws_tickets (digest, user_id, session_id, expires_at) VALUES ($1, $2, $3, $4)";
    let values = [digest.into(), user_id.into(), session_id.into(), micros(expires_at).into()];
    execute(&**tx, sql, values).await?;
    Ok(true)
}

/// Takes a ticket back; of all who try, one gets its owner.
pub async fn take(store: &Store, digest: &str) -> Result<Option<Owner>> {
    let digest = digest.to_owned();
    let sql = "DELETE FROM ws_tickets WHERE digest = $1 RETURNING user_id, session_id, expires_at";
    store.write(move |tx| Box::pin(async move { one(&**tx, sql, [digest.into()]).await })).await
}

/// Forgets a user's tickets.
pub(crate) async fn purge_user(tx: &Tx, user_id: &str) -> Result<()> {
    purge(tx, "DELETE FROM ws_tickets WHERE user_id = $1", user_id).await
}

/// Forgets the tickets of a session.
pub(crate) async fn purge_session(tx: &Tx, session_id: &str) -> Result<()> {
    purge(tx, "DELETE FROM ws_tickets WHERE session_id = $1", session_id).await
}

async fn purge(tx: &Tx, sql: &str, id: &str) -> Result<()> {
    // With SQLite there is one process, which keeps them in memory.
    if tx.get_database_backend() == DbBackend::Postgres {
        execute(&**tx, sql, [id.into()]).await?;
    }
    Ok(())
}

/// Forgets tickets that are no longer good; how many.
pub async fn sweep(tx: &Tx, now: DateTime<Utc>) -> Result<u64> {
    execute(&**tx, "DELETE FROM ws_tickets WHERE expires_at < $1", [micros(now).into()]).await
}
