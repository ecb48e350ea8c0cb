//! Accounts.

use chrono::{DateTime, Utc};
use quarterdeck_domain::event::{Event, EventType};
use quarterdeck_domain::role::{HumanRole, OrgRole};
use quarterdeck_domain::text;
use quarterdeck_domain::user::{SYSTEM_USER, User};
use quarterdeck_domain::{Error, ErrorCode, Result};
use sea_orm::{ConnectionTrait, FromQueryResult};
use serde_json::json;

use crate::sql::{all, execute, from_micros, micros, number, one};
use crate::{Signal, Tx, ws_ticket};

const COLUMNS: &str = "id, username, password_hash, role, must_change_password, org_roles, \
                       scoped_departments, created_at, updated_at";

#[derive(FromQueryResult)]
struct Row {
    id: String,
    username: String,
    password_hash: String,
    role: String,
    must_change_password: bool,
    org_roles: String,
    scoped_departments: String,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<Row> for User {
    type Error = Error;

    fn try_from(row: Row) -> Result<User> {
        let corrupt = |what: &str| {
            Error::new(ErrorCode::PersistenceError)
                .caused_by(format_args!("user {} has an unreadable {what}", row.id))
        };
        Ok(User {
            role: HumanRole::parse(&row.role).ok_or_else(|| corrupt("role"))?,
            org_roles: serde_json::from_str(&row.org_roles).map_err(|_| corrupt("org_roles"))?,
            scoped_departments: serde_json::from_str(&row.scoped_departments)
                .map_err(|_| corrupt("scoped_departments"))?,
            id: row.id,
            username: row.username,
            password_hash: row.password_hash,
            must_change_password: row.must_change_password,
            created_at: from_micros(row.created_at),
            updated_at: from_micros(row.updated_at),
        })
    }
}

fn list<T: serde::Serialize>(values: &[T]) -> String {
    serde_json::to_string(values).unwrap_or_else(|_| "[]".to_owned())
}

/// Adds an account.
///
/// # Errors
/// 409/4000 when the name (or one that reads like it) is taken or a second CEO would exist.
pub async fn insert(tx: &Tx, user: &User) -> Result<()> {
    insert_where(tx, user, "").await.map(drop)
}

/// Adds an account unless one with its id exists; whether it was added.
pub async fn insert_if_absent(tx: &Tx, user: &User) -> Result<bool> {
    insert_where(tx, user, " ON CONFLICT (id) DO NOTHING").await
}

async fn insert_where(tx: &Tx, user: &User, conflict: &str) -> Result<bool> {
    let added = execute(
        &**tx,
        &format!(
            "INSERT INTO users ({COLUMNS}, username_folded) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10){conflict}"
        ),
        [
            user.id.as_str().into(),
            user.username.as_str().into(),
            user.password_hash.as_str().into(),
            user.role.as_str().into(),
            user.must_change_password.into(),
            list(&user.org_roles).into(),
            list(&user.scoped_departments).into(),
            micros(user.created_at).into(),
            micros(user.updated_at).into(),
            text::fold(&user.username).into(),
        ],
    )
    .await?;
    if added == 1 {
        tell(tx, EventType::UserCreated, &user.id, user.created_at);
    }
    Ok(added == 1)
}

async fn changed(tx: &Tx, id: &str, now: DateTime<Utc>) -> Result<()> {
    tx.signal(Signal::User { user_id: id.to_owned() });
    tell(tx, EventType::UserUpdated, id, now);
    ws_ticket::purge_user(tx, id).await
}

/// Everybody may know that there is a change; what it is, they ask for.
fn tell(tx: &Tx, event_type: EventType, id: &str, now: DateTime<Utc>) {
    if id != SYSTEM_USER {
        tx.publish(Event::new(event_type, now, json!({"user_id": id})));
    }
}

/// The account with this id.
pub async fn by_id(connection: &impl ConnectionTrait, id: &str) -> Result<Option<User>> {
    let row =
        one::<Row>(connection, &format!("SELECT {COLUMNS} FROM users WHERE id = $1"), [id.into()]).await?;
    row.map(User::try_from).transpose()
}

/// The account with this id, held against changes by other transactions until this one ends.
pub async fn lock(tx: &Tx, id: &str) -> Result<Option<User>> {
    let suffix = match tx.get_database_backend() {
        sea_orm::DbBackend::Postgres => " FOR UPDATE",
        _ => "",
    };
    let sql = format!("SELECT {COLUMNS} FROM users WHERE id = $1{suffix}");
    one::<Row>(&**tx, &sql, [id.into()]).await?.map(User::try_from).transpose()
}

/// The account with exactly this login name.
pub async fn by_username(connection: &impl ConnectionTrait, username: &str) -> Result<Option<User>> {
    let sql = format!("SELECT {COLUMNS} FROM users WHERE username = $1");
    one::<Row>(connection, &sql, [username.into()]).await?.map(User::try_from).transpose()
}

/// People (never the system user), oldest first, and how many there are in all.
pub async fn page(connection: &impl ConnectionTrait, offset: u64, limit: u64) -> Result<(Vec<User>, u64)> {
    let total = number(connection, "SELECT count(*) FROM users WHERE id <> $1", [SYSTEM_USER.into()]).await?;
    let sql =
        format!("SELECT {COLUMNS} FROM users WHERE id <> $1 ORDER BY created_at, id LIMIT $2 OFFSET $3");
    let rows =
        all::<Row>(connection, &sql, [SYSTEM_USER.into(), (limit as i64).into(), (offset as i64).into()])
            .await?;
    let users = rows.into_iter().map(User::try_from).collect::<Result<_>>()?;
    Ok((users, total.unsigned_abs()))
}

/// How many accounts hold a role, the system user included.
pub async fn count_role(connection: &impl ConnectionTrait, role: HumanRole) -> Result<u64> {
    let count =
        number(connection, "SELECT count(*) FROM users WHERE role = $1", [role.as_str().into()]).await?;
    Ok(count.unsigned_abs())
}

/// Sets the role.
///
/// # Errors
/// 409/4000 when the only CEO would lose the role or a second would gain it.
pub async fn set_role(tx: &Tx, id: &str, role: HumanRole, now: DateTime<Utc>) -> Result<bool> {
    changed(tx, id, now).await?;
    let changed = execute(
        &**tx,
        "UPDATE users SET role = $2, updated_at = $3 WHERE id = $1",
        [id.into(), role.as_str().into(), micros(now).into()],
    )
    .await?;
    Ok(changed == 1)
}

/// Makes `to` the CEO and `from` a manager, in one step that the one-CEO rules let pass.
///
/// # Errors
/// 404/3000 when `to` does not exist: the role must not get lost on the way.
pub async fn transfer_ceo(tx: &Tx, from: &str, to: &str, now: DateTime<Utc>) -> Result<()> {
    execute(&**tx, "INSERT INTO ceo_transfers (from_user) VALUES ($1)", [from.into()]).await?;
    set_role(tx, from, HumanRole::Manager, now).await?;
    if !set_role(tx, to, HumanRole::Ceo, now).await? {
        return Err(Error::missing("User", to));
    }
    execute(&**tx, "DELETE FROM ceo_transfers WHERE from_user = $1", [from.into()]).await?;
    Ok(())
}

/// Sets organisation roles and departments.
///
/// # Errors
/// 409/4000 when the last owner would lose the role.
pub async fn set_org_roles(
    tx: &Tx,
    id: &str,
    roles: &[OrgRole],
    departments: &[String],
    now: DateTime<Utc>,
) -> Result<()> {
    changed(tx, id, now).await?;
    execute(
        &**tx,
        "UPDATE users SET org_roles = $2, scoped_departments = $3, updated_at = $4 WHERE id = $1",
        [id.into(), list(roles).into(), list(departments).into(), micros(now).into()],
    )
    .await?;
    Ok(())
}

/// Replaces the password hash.
pub async fn set_password(
    tx: &Tx,
    id: &str,
    password_hash: &str,
    must_change_password: bool,
    now: DateTime<Utc>,
) -> Result<()> {
    changed(tx, id, now).await?;
    execute(
        &**tx,
        "UPDATE users SET password_hash = $2, must_change_password = $3, updated_at = $4 WHERE id = $1",
        [id.into(), password_hash.into(), must_change_password.into(), micros(now).into()],
    )
    .await?;
    Ok(())
}

/// Replaces the hash by one of the same password with newer parameters, unless the password has
/// changed meanwhile; whether it did.
pub async fn rehash(tx: &Tx, id: &str, old_hash: &str, new_hash: &str) -> Result<bool> {
    let changed = execute(
        &**tx,
        "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2",
        [id.into(), old_hash.into(), new_hash.into()],
    )
    .await?;
    if changed == 1 {
        tx.signal(Signal::User { user_id: id.to_owned() });
    }
    Ok(changed == 1)
}

/// Deletes an account with its sessions, keys and refresh tokens.
///
/// # Errors
/// 409/4000 for the system user, the CEO and the last owner.
pub async fn delete(tx: &Tx, id: &str, now: DateTime<Utc>) -> Result<bool> {
    if id == SYSTEM_USER {
        return Err(Error::conflict("The system user cannot be modified"));
    }
    let deleted = execute(&**tx, "DELETE FROM users WHERE id = $1", [id.into()]).await? == 1;
    if deleted {
        tx.signal(Signal::User { user_id: id.to_owned() });
        tell(tx, EventType::UserDeleted, id, now);
    }
    Ok(deleted)
}

/// Whether any person is an owner; else the person who was here first.
pub async fn first_person_without_owner(tx: &Tx) -> Result<Option<User>> {
    let owners = number(
        &**tx,
        "SELECT count(*) FROM users WHERE id <> $1 AND org_roles LIKE '%\"owner\"%'",
        [SYSTEM_USER.into()],
    )
    .await?;
    if owners > 0 {
        return Ok(None);
    }
    let sql = format!("SELECT {COLUMNS} FROM users WHERE id <> $1 ORDER BY created_at, id LIMIT 1");
    one::<Row>(&**tx, &sql, [SYSTEM_USER.into()]).await?.map(User::try_from).transpose()
}
