//! Sessions: who is signed in, and which tokens were taken back before their time.

use chrono::{DateTime, Utc};
use quarterdeck_domain::channel::Channel;
use quarterdeck_domain::event::{Event, EventType};
use quarterdeck_domain::role::HumanRole;
use quarterdeck_domain::user::Session;
use quarterdeck_domain::{Error, ErrorCode, Result};
use sea_orm::{ConnectionTrait, FromQueryResult};
use serde_json::json;

use crate::sql::{all, execute, from_micros, micros, number, one};
use crate::{Signal, Tx, refresh_token, user, ws_ticket};

const COLUMNS: &str = "session_id, user_id, username, role, ip_address, user_agent, created_at, \
                       last_active_at, expires_at, revoked";

#[derive(FromQueryResult)]
struct Row {
    session_id: String,
    user_id: String,
    username: String,
    role: String,
    ip_address: String,
    user_agent: String,
    created_at: i64,
    last_active_at: i64,
    expires_at: i64,
    revoked: bool,
}

impl TryFrom<Row> for Session {
    type Error = Error;

    fn try_from(row: Row) -> Result<Session> {
        let role = HumanRole::parse(&row.role).ok_or_else(|| {
            Error::new(ErrorCode::PersistenceError).caused_by("a session has an unreadable role")
        })?;
        Ok(Session {
            session_id: row.session_id,
            user_id: row.user_id,
            username: row.username,
            role,
            ip_address: row.ip_address,
            user_agent: row.user_agent,
            created_at: from_micros(row.created_at),
            last_active_at: from_micros(row.last_active_at),
            expires_at: from_micros(row.expires_at),
            revoked: row.revoked,
        })
    }
}

/// Stores a session; one with the same id moves on (expiry, activity, address, agent) and keeps its
/// beginning and its revocation.
pub async fn upsert(tx: &Tx, session: &Session) -> Result<()> {
    execute(
        &**tx,
        &format!(
            "INSERT INTO sessions ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
             ON CONFLICT (session_id) DO UPDATE SET ip_address = excluded.ip_address, \
             user_agent = excluded.user_agent, last_active_at = excluded.last_active_at, \
             expires_at = excluded.expires_at"
        ),
        [
            session.session_id.as_str().into(),
            session.user_id.as_str().into(),
            session.username.as_str().into(),
            session.role.as_str().into(),
            session.ip_address.as_str().into(),
            session.user_agent.as_str().into(),
            micros(session.created_at).into(),
            micros(session.last_active_at).into(),
            micros(session.expires_at).into(),
            session.revoked.into(),
        ],
    )
    .await?;
    Ok(())
}

/// Tells the owner of a new session.
pub fn announce(tx: &Tx, user_id: &str, session_id: &str, now: DateTime<Utc>) {
    tell(tx, EventType::SessionStarted, user_id, session_id, now);
}

fn tell(tx: &Tx, event_type: EventType, user_id: &str, session_id: &str, now: DateTime<Utc>) {
    let channel = Channel::User(user_id.into());
    tx.publish(Event::on(channel, event_type, now, json!({"session_id": session_id})));
}

/// The session with this id, revoked or not.
pub async fn by_id(connection: &impl ConnectionTrait, id: &str) -> Result<Option<Session>> {
    let sql = format!("SELECT {COLUMNS} FROM sessions WHERE session_id = $1");
    one::<Row>(connection, &sql, [id.into()]).await?.map(Session::try_from).transpose()
}

/// Active sessions of one user or of everybody, newest first.
pub async fn active(
    connection: &impl ConnectionTrait,
    user_id: Option<&str>,
    now: DateTime<Utc>,
) -> Result<Vec<Session>> {
    let order = "ORDER BY created_at DESC, session_id";
    let rows = match user_id {
        Some(user) => {
            let sql = format!(
                "SELECT {COLUMNS} FROM sessions WHERE user_id = $1 AND revoked = $2 AND expires_at > $3 {order}"
            );
            all::<Row>(connection, &sql, [user.into(), false.into(), micros(now).into()]).await?
        }
        None => {
            let sql =
                format!("SELECT {COLUMNS} FROM sessions WHERE revoked = $1 AND expires_at > $2 {order}");
            all::<Row>(connection, &sql, [false.into(), micros(now).into()]).await?
        }
    };
    rows.into_iter().map(Session::try_from).collect()
}

/// Ends a session and its refresh tokens; whether it was active until now.
pub async fn revoke(tx: &Tx, id: &str, now: DateTime<Utc>) -> Result<bool> {
    let Some(session) = by_id(&**tx, id).await? else { return Ok(false) };
    user::lock(tx, &session.user_id).await?;
    end(tx, id, now).await
}

#[derive(FromQueryResult)]
struct Ended {
    user_id: String,
    expires_at: i64,
}

/// Ends a session whose owner is locked: no refresh can prolong it meanwhile, and everything that
/// touches sessions and tokens of one user takes its turn instead of waiting crosswise.
async fn end(tx: &Tx, id: &str, now: DateTime<Utc>) -> Result<bool> {
    refresh_token::use_up_session(tx, id, now).await?;
    let ended = one::<Ended>(
        &**tx,
        "UPDATE sessions SET revoked = $2 WHERE session_id = $1 AND revoked = $3 RETURNING user_id, expires_at",
        [id.into(), true.into(), false.into()],
    )
    .await?;
    if let Some(Ended { user_id, expires_at }) = &ended {
        tx.signal(Signal::SessionRevoked { session_id: id.to_owned(), until: *expires_at });
        tell(tx, EventType::SessionEnded, user_id, id, now);
        ws_ticket::purge_session(tx, id).await?;
    }
    Ok(ended.is_some())
}

/// Ends every active session of a user but `keep`; the ids that were ended.
pub async fn revoke_all(
    tx: &Tx,
    user_id: &str,
    keep: Option<&str>,
    now: DateTime<Utc>,
) -> Result<Vec<String>> {
    user::lock(tx, user_id).await?;
    let mut ended = Vec::new();
    for session in active(&**tx, Some(user_id), now).await? {
        if keep != Some(session.session_id.as_str()) && end(tx, &session.session_id, now).await? {
            ended.push(session.session_id);
        }
    }
    Ok(ended)
}

/// Ends the oldest active sessions of a user beyond `limit`, never `keep`; the ids that were ended.
pub async fn enforce_limit(
    tx: &Tx,
    user_id: &str,
    limit: usize,
    keep: &str,
    now: DateTime<Utc>,
) -> Result<Vec<String>> {
    // Parallel sign-ins of one user must count each other's sessions.
    user::lock(tx, user_id).await?;
    let mut ended = Vec::new();
    let mut active = active(&**tx, Some(user_id), now).await?;
    let excess = active.len().saturating_sub(limit);
    active.retain(|session| session.session_id != keep);
    for session in active.iter().rev().take(excess) {
        if end(tx, &session.session_id, now).await? {
            ended.push(session.session_id.clone());
        }
    }
    Ok(ended)
}

#[derive(FromQueryResult)]
struct Revoked {
    session_id: String,
    expires_at: i64,
}

/// Revoked sessions whose tokens could still be shown, with the time after which they cannot.
pub async fn revoked(connection: &impl ConnectionTrait, now: DateTime<Utc>) -> Result<Vec<(String, i64)>> {
    let rows = all::<Revoked>(
        connection,
        "SELECT session_id, expires_at FROM sessions WHERE revoked = $1 AND expires_at > $2",
        [true.into(), micros(now).into()],
    )
    .await?;
    Ok(rows.into_iter().map(|row| (row.session_id, row.expires_at)).collect())
}

/// Whether a session is revoked; one without a row is not.
pub async fn is_revoked(connection: &impl ConnectionTrait, id: &str) -> Result<bool> {
    let count = number(
        connection,
        "SELECT count(*) FROM sessions WHERE session_id = $1 AND revoked = $2",
        [id.into(), true.into()],
    )
    .await?;
    Ok(count > 0)
}

/// Forgets sessions that have ended by themselves; how many.
pub async fn prune(tx: &Tx, now: DateTime<Utc>) -> Result<u64> {
    execute(&**tx, "DELETE FROM sessions WHERE expires_at <= $1", [micros(now).into()]).await
}
