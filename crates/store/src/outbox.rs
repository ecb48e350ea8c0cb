//! Events that wait to be passed on: each is here from the commit of its change until somebody has told it.

use quarterdeck_domain::Result;
use quarterdeck_domain::event::Event;
use sea_orm::FromQueryResult;

use crate::sql::{all, execute, micros};
use crate::{Store, Tx};

/// An event that waits.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Waiting {
    /// Place in the queue, ascending.
    pub id: i64,
    /// Id of the event, by which whoever gets it twice recognises it.
    pub event_id: String,
    /// Name of the channel.
    pub channel: String,
    /// The event as every plain client receives it.
    pub body: String,
}

/// One lock for all of the outbox: the order of its rows is the order of commits.
const LOCK: &str = "quarterdeck.outbox";

pub(crate) async fn put(tx: &Tx, event: &Event) -> Result<()> {
    tx.lock(LOCK).await?;
    execute(
        &**tx,
        "INSERT INTO realtime_outbox (event_id, channel, body, created_at) VALUES ($1, $2, $3, $4)",
        [
            event.id.to_string().into(),
            event.channel.to_string().into(),
            event.body().into(),
            micros(event.timestamp).into(),
        ],
    )
    .await
    .map(drop)
}

/// The events that wait, the oldest first. Only one copy of the program should pass them on at a time, or
/// else their order is lost: see [`claim`].
pub async fn waiting(store: &Store, limit: u32) -> Result<Vec<Waiting>> {
    let sql = "SELECT id, event_id, channel, body FROM realtime_outbox ORDER BY id LIMIT $1";
    all(store.read(), sql, [i64::from(limit).into()]).await
}

/// As [`waiting`], while no other transaction may claim or pass on any.
pub async fn claim(tx: &Tx, limit: u32) -> Result<Vec<Waiting>> {
    tx.lock("quarterdeck.outbox.relay").await?;
    let sql = "SELECT id, event_id, channel, body FROM realtime_outbox ORDER BY id LIMIT $1";
    all(&**tx, sql, [i64::from(limit).into()]).await
}

/// Forgets what has been passed on: the rows up to this one.
pub async fn done(tx: &Tx, last: i64) -> Result<()> {
    execute(&**tx, "DELETE FROM realtime_outbox WHERE id <= $1", [last.into()]).await.map(drop)
}
