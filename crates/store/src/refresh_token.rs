//! Refresh tokens, by hash; each works once.

use chrono::{DateTime, Utc};
use quarterdeck_domain::Result;
use sea_orm::FromQueryResult;

use crate::Tx;
use crate::sql::{execute, from_micros, micros, one};

/// A refresh token without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshToken {
    /// HMAC of the value, lower-case hex.
    pub token_hash: String,
    /// Session it prolongs.
    pub session_id: String,
    /// Owner.
    pub user_id: String,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
    /// When it was issued.
    pub created_at: DateTime<Utc>,
}

/// What became of a token that was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consumed {
    /// It was good and is used up now.
    Taken {
        /// Session it prolongs.
        session_id: String,
    },
    /// It had been used before.
    Replayed {
        /// Session it belonged to.
        session_id: String,
        /// When it was used.
        used_at: DateTime<Utc>,
    },
    /// Unknown or too old.
    Unknown,
}

#[derive(FromQueryResult)]
struct Row {
    session_id: String,
    used: bool,
    used_at: Option<i64>,
}

/// Stores a token.
pub async fn insert(tx: &Tx, token: &RefreshToken) -> Result<()> {
    execute(
        &**tx,
        "INSERT INTO refresh_tokens (token_hash, session_id, user_id, expires_at, used, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6)",
        [
            token.token_hash.as_str().into(),
            token.session_id.as_str().into(),
            token.user_id.as_str().into(),
            micros(token.expires_at).into(),
            false.into(),
            micros(token.created_at).into(),
        ],
    )
    .await?;
    Ok(())
}

#[derive(FromQueryResult)]
struct Owner {
    user_id: String,
}

/// Whose token this is, used or not.
pub async fn owner(tx: &Tx, token_hash: &str) -> Result<Option<String>> {
    let sql = "SELECT user_id FROM refresh_tokens WHERE token_hash = $1";
    Ok(one::<Owner>(&**tx, sql, [token_hash.into()]).await?.map(|row| row.user_id))
}

/// Uses a token up, if it is good; of racing callers one gets it.
pub async fn consume(tx: &Tx, token_hash: &str, now: DateTime<Utc>) -> Result<Consumed> {
    let taken = one::<Row>(
        &**tx,
        "UPDATE refresh_tokens SET used = $2, used_at = $3 \
         WHERE token_hash = $1 AND used = $4 AND expires_at > $3 \
         RETURNING session_id, used, used_at",
        [token_hash.into(), true.into(), micros(now).into(), false.into()],
    )
    .await?;
    if let Some(row) = taken {
        return Ok(Consumed::Taken { session_id: row.session_id });
    }
    let known = one::<Row>(
        &**tx,
        "SELECT session_id, used, used_at FROM refresh_tokens WHERE token_hash = $1",
        [token_hash.into()],
    )
    .await?;
    Ok(match known {
        Some(row) if row.used => Consumed::Replayed {
            session_id: row.session_id,
            used_at: from_micros(row.used_at.unwrap_or_default()),
        },
        _ => Consumed::Unknown,
    })
}

/// Uses up every token of a session.
pub async fn use_up_session(tx: &Tx, session_id: &str, now: DateTime<Utc>) -> Result<u64> {
    use_up(tx, "session_id", session_id, now).await
}

/// Uses up every token of a user.
pub async fn use_up_user(tx: &Tx, user_id: &str, now: DateTime<Utc>) -> Result<u64> {
    use_up(tx, "user_id", user_id, now).await
}

async fn use_up(tx: &Tx, column: &'static str, value: &str, now: DateTime<Utc>) -> Result<u64> {
    execute(
        &**tx,
        &format!("UPDATE refresh_tokens SET used = $2, used_at = $3 WHERE {column} = $1 AND used = $4"),
        [value.into(), true.into(), micros(now).into(), false.into()],
    )
    .await
}

/// Forgets tokens that have ended; how many.
pub async fn prune(tx: &Tx, now: DateTime<Utc>) -> Result<u64> {
    execute(&**tx, "DELETE FROM refresh_tokens WHERE expires_at <= $1", [micros(now).into()]).await
}
