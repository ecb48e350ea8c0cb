//! What every query shares: statements with `$n` placeholders, rows, times and failures.

use chrono::{DateTime, Utc};
use quarterdeck_domain::{Error, ErrorCode, Result};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, RuntimeErr, Statement, Value};

pub(crate) fn statement(
    connection: &impl ConnectionTrait,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Statement {
    Statement::from_sql_and_values(connection.get_database_backend(), sql, values)
}

/// All rows of a query.
pub(crate) async fn all<R: FromQueryResult>(
    connection: &impl ConnectionTrait,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Result<Vec<R>> {
    R::find_by_statement(statement(connection, sql, values)).all(connection).await.map_err(failure)
}

/// The first row of a query.
pub(crate) async fn one<R: FromQueryResult>(
    connection: &impl ConnectionTrait,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Result<Option<R>> {
    R::find_by_statement(statement(connection, sql, values)).one(connection).await.map_err(failure)
}

/// The first column of the first row, for counts and sums.
pub(crate) async fn number(
    connection: &impl ConnectionTrait,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Result<i64> {
    let row = connection.query_one_raw(statement(connection, sql, values)).await.map_err(failure)?;
    row.map_or(Ok(0), |row| row.try_get_by_index(0).map_err(failure))
}

/// The first column of the first row, for counts.
pub(crate) async fn count(
    connection: &impl ConnectionTrait,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Result<u64> {
    number(connection, sql, values).await.map(i64::unsigned_abs)
}

/// How many rows of a kind have this status, or any, as triggers have counted them.
pub(crate) async fn row_count(
    connection: &impl ConnectionTrait,
    kind: &str,
    status: Option<&str>,
) -> Result<u64> {
    let of_status = if status.is_some() { " AND status = $2" } else { "" };
    let sql =
        format!("SELECT CAST(COALESCE(SUM(total), 0) AS BIGINT) FROM row_counts WHERE kind = $1{of_status}");
    count(connection, &sql, [Some(kind), status].into_iter().flatten().map(Into::into)).await
}

/// Runs a statement; the number of rows it touched.
pub(crate) async fn execute(
    connection: &impl ConnectionTrait,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Result<u64> {
    let done = connection.execute_raw(statement(connection, sql, values)).await.map_err(failure)?;
    Ok(done.rows_affected())
}

/// Most rows a list holds on all its pages together, so that counting and skipping them stay cheap.
pub(crate) const MAX_LISTED: u64 = 10_000;

/// The part of a page that lies within [`MAX_LISTED`] rows.
pub(crate) fn window(offset: u64, limit: u64) -> (u64, u64) {
    let offset = offset.min(MAX_LISTED);
    (offset, limit.min(MAX_LISTED - offset))
}

/// Part of a list.
#[derive(Debug)]
pub struct Listed<T> {
    /// What can be read of it.
    pub items: Vec<T>,
    /// How many there are in all.
    pub total: u64,
    /// Whether rows were left out because they cannot be read.
    pub is_partial: bool,
}

/// Logs what cannot be read: one broken row is no reason to show none.
pub(crate) fn readable<T>(id: String, item: Option<T>) -> Option<T> {
    if item.is_none() {
        tracing::error!(target: "persistence", id, "persistence.row.unreadable");
    }
    item
}

/// A time as it is stored: microseconds since 1970 UTC.
pub fn micros(time: DateTime<Utc>) -> i64 {
    time.timestamp_micros()
}

/// A stored time; out of chrono's range reads as 1970.
pub fn from_micros(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or_default()
}

/// Turns a driver's failure into the error clients see: 503/8001 when no connection can be had, 409 for a
/// broken uniqueness or invariant, 500/8002 otherwise. SQL, hosts and paths go to the log only.
pub fn failure(error: DbErr) -> Error {
    match &error {
        DbErr::ConnectionAcquire(cause) => {
            return Error::unavailable(format_args!("no database connection: {cause:?}"), 1);
        }
        DbErr::Conn(cause) => return Error::unavailable(format_args!("no database connection: {cause}"), 1),
        _ => {}
    }
    let message = match &error {
        DbErr::Exec(RuntimeErr::SqlxError(e)) | DbErr::Query(RuntimeErr::SqlxError(e)) => {
            e.as_database_error().map(|e| e.message())
        }
        _ => None,
    }
    .unwrap_or_default();
    // PostgreSQL names the index, SQLite the column; triggers say the same on both.
    let invariants: [(&[&str], &'static str); 5] = [
        (&["users_one_ceo", "users.role"], "A CEO already exists"),
        (&["users_username", "users.username"], "Username already taken"),
        (&["users_last_ceo"], "The only CEO cannot lose the role"),
        (&["users_last_owner"], "The last owner cannot lose the role"),
        (&["users_system"], "The system user cannot be modified"),
    ];
    for (names, detail) in invariants {
        if names.iter().any(|name| message.contains(name)) {
            return Error::conflict(detail);
        }
    }
    match error.sql_err() {
        Some(sea_orm::SqlErr::UniqueConstraintViolation(_)) => {
            Error::new(ErrorCode::DuplicateRecord).caused_by(error)
        }
        _ => Error::new(ErrorCode::PersistenceError).caused_by(error),
    }
}
