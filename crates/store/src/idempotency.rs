//! Answers kept for requests that clients repeat with the same key, so that nothing is done twice
//! (draft-ietf-httpapi-idempotency-key-header).

use chrono::{DateTime, TimeDelta, Utc};
use quarterdeck_domain::Result;
use sea_orm::{ConnectionTrait, FromQueryResult};
use sha2::{Digest, Sha256};

use crate::Tx;
use crate::audit::hex;
use crate::sql::{execute, micros, one};

/// How long an answer is kept.
pub const KEPT: TimeDelta = TimeDelta::hours(24);

/// A key a client has chosen, with what it is chosen for. Neither is stored as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    scope: String,
    key: String,
    request: String,
}

impl IdempotencyKey {
    /// `scope` names operation and caller, `request` is what was asked for.
    pub fn new(scope: impl Into<String>, key: &str, request: &[u8]) -> Self {
        Self { scope: scope.into(), key: hex(&Sha256::digest(key)), request: hex(&Sha256::digest(request)) }
    }

    /// Names the key, for [`Tx::lock`].
    pub fn name(&self) -> String {
        format!("idempotency.{}.{}", self.scope, self.key)
    }
}

/// An answer given before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// To the same request.
    Same {
        /// HTTP status.
        status: u16,
        /// What was answered.
        body: String,
    },
    /// To another one.
    Other,
}

#[derive(FromQueryResult)]
struct Row {
    request_digest: String,
    status: i64,
    body: String,
}

/// What was answered to this key in the last 24 hours.
pub async fn find(
    connection: &impl ConnectionTrait,
    key: &IdempotencyKey,
    now: DateTime<Utc>,
) -> Result<Option<Seen>> {
    let sql = "SELECT request_digest, status, body FROM idempotency_keys \
               WHERE scope = $1 AND key_digest = $2 AND created_at > $3";
    let values = [key.scope.as_str().into(), key.key.as_str().into(), micros(now - KEPT).into()];
    let row = one::<Row>(connection, sql, values).await?;
    Ok(row.map(|row| match row.request_digest == key.request {
        true => Seen::Same { status: u16::try_from(row.status).unwrap_or(500), body: row.body },
        false => Seen::Other,
    }))
}

/// Keeps an answer with the change it reports; `false` when another request with this key was faster, and
/// then this transaction has to be rolled back.
pub async fn keep(
    tx: &Tx,
    key: &IdempotencyKey,
    status: u16,
    body: &str,
    now: DateTime<Utc>,
) -> Result<bool> {
    let old = "DELETE FROM idempotency_keys WHERE scope = $1 AND key_digest = $2 AND created_at <= $3";
    let values = [key.scope.as_str().into(), key.key.as_str().into(), micros(now - KEPT).into()];
    execute(&**tx, old, values).await?;
    let sql = "INSERT INTO idempotency_keys (scope, key_digest, request_digest, status, body, created_at) \
               VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (scope, key_digest) DO NOTHING";
    let values = [
        key.scope.as_str().into(),
        key.key.as_str().into(),
        key.request.as_str().into(),
        i64::from(status).into(),
        body.into(),
        micros(now).into(),
    ];
    Ok(execute(&**tx, sql, values).await? == 1)
}

/// Forgets answers that are too old; how many.
pub async fn prune(tx: &Tx, now: DateTime<Utc>) -> Result<u64> {
    execute(&**tx, "DELETE FROM idempotency_keys WHERE created_at <= $1", [micros(now - KEPT).into()]).await
}
