//! API keys, by hash.

use chrono::{DateTime, Utc};
use quarterdeck_domain::role::HumanRole;
use quarterdeck_domain::user::ApiKey;
use quarterdeck_domain::{Error, ErrorCode, Result};
use sea_orm::{ConnectionTrait, FromQueryResult};

use crate::sql::{all, execute, from_micros, micros, number, one};
use crate::{Signal, Tx};

const COLUMNS: &str = "id, name, role, user_id, created_at, expires_at, revoked";

#[derive(FromQueryResult)]
struct Row {
    id: String,
    name: String,
    role: String,
    user_id: String,
    created_at: i64,
    expires_at: Option<i64>,
    revoked: bool,
}

impl TryFrom<Row> for ApiKey {
    type Error = Error;

    fn try_from(row: Row) -> Result<ApiKey> {
        let role = HumanRole::parse(&row.role).ok_or_else(|| {
            Error::new(ErrorCode::PersistenceError).caused_by("an API key has an unreadable role")
        })?;
        Ok(ApiKey {
            id: row.id,
            name: row.name,
            role,
            user_id: row.user_id,
            created_at: from_micros(row.created_at),
            expires_at: row.expires_at.map(from_micros),
            revoked: row.revoked,
        })
    }
}

/// Stores a key.
pub async fn insert(tx: &Tx, key: &ApiKey, key_hash: &str) -> Result<()> {
    execute(
        &**tx,
        &format!("INSERT INTO api_keys ({COLUMNS}, key_hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"),
        [
            key.id.as_str().into(),
            key.name.as_str().into(),
            key.role.as_str().into(),
            key.user_id.as_str().into(),
            micros(key.created_at).into(),
            key.expires_at.map(micros).into(),
            key.revoked.into(),
            key_hash.into(),
        ],
    )
    .await?;
    Ok(())
}

/// The key with this hash.
pub async fn by_hash(connection: &impl ConnectionTrait, key_hash: &str) -> Result<Option<ApiKey>> {
    let sql = format!("SELECT {COLUMNS} FROM api_keys WHERE key_hash = $1");
    one::<Row>(connection, &sql, [key_hash.into()]).await?.map(ApiKey::try_from).transpose()
}

/// The key with this id.
pub async fn by_id(connection: &impl ConnectionTrait, id: &str) -> Result<Option<ApiKey>> {
    let sql = format!("SELECT {COLUMNS} FROM api_keys WHERE id = $1");
    one::<Row>(connection, &sql, [id.into()]).await?.map(ApiKey::try_from).transpose()
}

/// Every key of a user, revoked ones included, newest first.
pub async fn of_user(connection: &impl ConnectionTrait, user_id: &str) -> Result<Vec<ApiKey>> {
    let sql = format!("SELECT {COLUMNS} FROM api_keys WHERE user_id = $1 ORDER BY created_at DESC, id");
    all::<Row>(connection, &sql, [user_id.into()]).await?.into_iter().map(ApiKey::try_from).collect()
}

/// Keys of a user that still open something.
pub async fn count_live(connection: &impl ConnectionTrait, user_id: &str, now: DateTime<Utc>) -> Result<u64> {
    let sql = "SELECT count(*) FROM api_keys WHERE user_id = $1 AND revoked = $2 \
               AND (expires_at IS NULL OR expires_at >= $3)";
    Ok(number(connection, sql, [user_id.into(), false.into(), micros(now).into()]).await?.unsigned_abs())
}

/// Takes a key back; whether it was good until now.
pub async fn revoke(tx: &Tx, id: &str) -> Result<bool> {
    let changed = execute(
        &**tx,
        "UPDATE api_keys SET revoked = $2 WHERE id = $1 AND revoked = $3",
        [id.into(), true.into(), false.into()],
    )
    .await?;
    if changed == 1 {
        tx.signal(Signal::Keys);
    }
    Ok(changed == 1)
}

/// Remembers when a key was last used.
pub async fn touch(tx: &Tx, id: &str, used_at: DateTime<Utc>) -> Result<()> {
    execute(
        &**tx,
        "UPDATE api_keys SET last_used_at = $2 WHERE id = $1",
        [id.into(), micros(used_at).into()],
    )
    .await?;
    Ok(())
}
