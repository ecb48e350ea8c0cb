//! The shared log of events, on PostgreSQL: what every copy of the program tells its clients from.
//!
//! Within a channel the sequence is the order of commits, without holes: the row of the channel is
//! counted up by the last statements of a transaction, and so locked until it ends.

use chrono::{DateTime, Utc};
use quarterdeck_domain::Result;
use quarterdeck_domain::clock::random_bytes;
use quarterdeck_domain::event::Event;
use sea_orm::FromQueryResult;
use serde::Serialize;

use crate::sql::{all, execute, micros, one};
use crate::{Store, Tx};

/// The notification that a channel has grown; its payload is the name of the channel.
pub(crate) const NOTIFICATION: &str = "quarterdeck_events";

/// How far a channel has come.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Head {
    /// Its name.
    pub channel: String,
    /// New whenever its history does not go on from what it was.
    pub epoch: String,
    /// Sequence of the newest event, 0 before the first.
    pub top: i64,
    /// Highest sequence that is no longer in the log.
    pub floor: i64,
}

/// An event of the log.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Logged {
    /// Name of its channel.
    pub channel: String,
    /// Epoch of its channel.
    pub epoch: String,
    /// Its place in the channel.
    pub seq: i64,
    /// The event as every plain client receives it.
    pub body: String,
    /// When it happened, microseconds since 1970 UTC.
    pub created_at: i64,
}

/// A random name for a stretch of unbroken history.
pub fn new_epoch() -> String {
    random_bytes::<8>().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) async fn append(tx: &Tx, event: &Event) -> Result<()> {
    // The lock is taken with the count; who is waiting for it sees the count of who had it.
    let sql = "WITH head AS ( \
                   INSERT INTO realtime_channels (channel, epoch, top, floor, touched_at) \
                   VALUES ($1, $2, 1, 0, $5) \
                   ON CONFLICT (channel) DO UPDATE SET top = realtime_channels.top + 1, touched_at = $5 \
                   RETURNING channel, top), \
               told AS (SELECT pg_notify($6, channel) FROM head) \
               INSERT INTO realtime_events (channel, seq, event_id, body, created_at) \
               SELECT channel, top, $3, $4, $5 FROM head, told";
    execute(
        &**tx,
        sql,
        [
            event.channel.to_string().into(),
            new_epoch().into(),
            event.id.to_string().into(),
            event.body().into(),
            micros(event.timestamp).into(),
            NOTIFICATION.into(),
        ],
    )
    .await
    .map(drop)
}

/// Every channel of the log.
pub async fn heads(store: &Store) -> Result<Vec<Head>> {
    all(store.read(), "SELECT channel, epoch, top, floor FROM realtime_channels", []).await
}

/// One channel, which begins now if it is not there.
pub async fn ensure(store: &Store, channel: &str, now: DateTime<Utc>) -> Result<Head> {
    let sql = "SELECT channel, epoch, top, floor FROM realtime_channels WHERE channel = $1";
    if let Some(head) = one::<Head>(store.read(), sql, [channel.into()]).await? {
        return Ok(head);
    }
    let name = channel.to_owned();
    store
        .write(move |tx| {
            Box::pin(async move {
                execute(
                    &**tx,
                    "INSERT INTO realtime_channels (channel, epoch, top, floor, touched_at) \
                     VALUES ($1, $2, 0, 0, $3) ON CONFLICT (channel) DO NOTHING",
                    [name.as_str().into(), new_epoch().into(), micros(now).into()],
                )
                .await?;
                let head = one::<Head>(&**tx, sql, [name.as_str().into()]).await?;
                head.ok_or_else(|| quarterdeck_domain::Error::internal("a channel vanished while it began"))
            })
        })
        .await
}

/// Up to where somebody has read a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Name of the channel.
    pub channel: String,
    /// Epoch it was read in.
    pub epoch: String,
    /// Sequence of the last event read.
    pub seq: i64,
}

/// What came after these places, channel by channel in order; at most `limit` events. A channel in
/// another epoch than its place begins from its start.
pub async fn after(store: &Store, places: &[Place], limit: u32) -> Result<Vec<Logged>> {
    let sql = "SELECT e.channel, c.epoch, e.seq, e.body, e.created_at \
               FROM json_to_recordset($1::json) AS place(channel text, epoch text, seq bigint) \
               JOIN realtime_channels c ON c.channel = place.channel \
               JOIN realtime_events e ON e.channel = place.channel \
                    AND e.seq > CASE WHEN c.epoch = place.epoch THEN place.seq ELSE 0 END \
               ORDER BY e.channel, e.seq LIMIT $2";
    let places = serde_json::to_string(places).map_err(quarterdeck_domain::Error::internal)?;
    all(store.read(), sql, [places.into(), i64::from(limit).into()]).await
}

#[derive(FromQueryResult)]
struct Excess {
    channel: String,
    seq: i64,
}

/// Drops events older than `before` and beyond the newest `most` of a channel (`most_of_user` of a user's
/// own), and users' channels that hold none and were not touched since.
pub async fn prune(store: &Store, before: DateTime<Utc>, most: u32, most_of_user: u32) -> Result<()> {
    let before = micros(before);
    let sql = "SELECT channel, max(seq) AS seq FROM ( \
                   SELECT channel, seq, created_at, \
                          row_number() OVER (PARTITION BY channel ORDER BY seq DESC) AS newness \
                   FROM realtime_events) events \
               WHERE created_at < $1 \
                  OR newness > CASE WHEN channel LIKE 'user:%' THEN $3 ELSE $2 END \
               GROUP BY channel";
    let values = [before.into(), i64::from(most).into(), i64::from(most_of_user).into()];
    // One channel at a time: who publishes locks several, and nobody may wait crosswise.
    for Excess { channel, seq } in all::<Excess>(store.read(), sql, values).await? {
        store
            .write(move |tx| {
                Box::pin(async move {
                    let values = [channel.as_str().into(), seq.into()];
                    execute(
                        &**tx,
                        "UPDATE realtime_channels SET floor = greatest(floor, $2) WHERE channel = $1",
                        values.clone(),
                    )
                    .await?;
                    execute(&**tx, "DELETE FROM realtime_events WHERE channel = $1 AND seq <= $2", values)
                        .await
                })
            })
            .await?;
    }
    store
        .write(move |tx| {
            Box::pin(async move {
                execute(
                    &**tx,
                    "DELETE FROM realtime_channels c WHERE channel LIKE 'user:%' AND touched_at < $1 \
                     AND NOT EXISTS (SELECT 1 FROM realtime_events e WHERE e.channel = c.channel)",
                    [before.into()],
                )
                .await
            })
        })
        .await
        .map(drop)
}
