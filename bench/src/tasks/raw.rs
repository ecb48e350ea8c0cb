//! The database alone: SQLite with the program's tables and settings writes rows the program has made.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};
use tempfile::TempDir;

use crate::Failure;
use crate::wrk::Sample;

/// Most rows repeated in a run; enough for the fastest.
const MOST: u32 = 200_000;

/// Tables and triggers of what creating a task writes.
const SCHEMA: &str = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL \
    AND tbl_name IN ('tasks', 'task_counts', 'audit_entries', 'audit_head') ORDER BY type = 'trigger'";

const ROWS: &str = "SELECT t.*, a.* FROM tasks t JOIN audit_entries a ON a.task_id = t.id LIMIT $1";

const TASK: &str = "INSERT INTO tasks (id, status, assigned_to, project, version, created_at, updated_at, \
    finished_at, document) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

const ENTRY: &str = "INSERT INTO audit_entries (position, id, recorded_at, actor, agent_id, task_id, \
    tool_name, action_type, verdict, payload, event_hash, previous_hash, signature, key_id) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";

const HEAD: &str = "UPDATE audit_head SET position = $1, link = $2, signature = $3, key_id = $4 WHERE id = 1";

/// Runs [`serve`] on the server's core.
pub(super) fn run(source: &Path, batch: u32, seconds: u32) -> Result<Sample, Failure> {
    let output = Command::new("taskset")
        .args(["-c", "0"])
        .arg(std::env::current_exe()?)
        .arg("raw")
        .arg(source)
        .args([batch.to_string(), seconds.to_string()])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<f64> = text.split_whitespace().filter_map(|figure| figure.parse().ok()).collect();
    match figures[..] {
        [rate, p50, p99] => Ok(Sample { rate, p50, p99 }),
        _ => Err(format!("SQLite alone failed:\n{}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// Writes rows of the database in the first argument into a new one, as many in a commit as the second
/// says, for as many seconds as the third says. Prints rows per second and what a commit took.
#[allow(clippy::print_stdout, reason = "the parent reads the figures")]
pub(crate) async fn serve(mut arguments: impl Iterator<Item = String>) -> Result<(), Failure> {
    let mut argument = || arguments.next().ok_or("raw wants a database, a batch and seconds");
    let (source, batch, seconds) = (argument()?, argument()?.parse::<usize>()?, argument()?.parse()?);
    let mut source = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(source)).await?;
    let schema: Vec<String> = sqlx::query_scalar(SCHEMA).fetch_all(&mut source).await?;
    let rows = sqlx::query(ROWS).bind(MOST).fetch_all(&mut source).await?;
    let folder = TempDir::new()?;
    let mut target = SqliteConnection::connect_with(&options(&folder.path().join("raw.db"))).await?;
    for statement in schema {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut target).await?;
    }
    sqlx::query("INSERT INTO audit_head VALUES (1, -1, 'genesis', '', '')").execute(&mut target).await?;
    let (begun, mut commits, mut written) = (Instant::now(), Vec::new(), 0_u32);
    for rows in rows.chunks(batch) {
        let begin = Instant::now();
        let mut tx = target.begin().await?;
        for row in rows {
            write(&mut tx, row).await?;
            written += 1;
        }
        tx.commit().await?;
        commits.push(begin.elapsed().as_secs_f64() * 1e6);
        if begun.elapsed() > Duration::from_secs(seconds) {
            break;
        }
    }
    let rate = f64::from(written) / begun.elapsed().as_secs_f64();
    commits.sort_by(f64::total_cmp);
    let percentile = |percent: usize| commits.get(commits.len() * percent / 100).copied();
    println!("{rate} {} {}", percentile(50).ok_or("there are no rows")?, percentile(99).unwrap_or_default());
    Ok(())
}

/// As the program's writer opens its file.
fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .pragma("journal_size_limit", "67108864")
}

/// What the program writes for a new task.
async fn write(tx: &mut SqliteConnection, row: &SqliteRow) -> Result<(), Failure> {
    let text = |column: usize| row.try_get::<Option<String>, _>(column);
    let number = |column: usize| row.try_get::<Option<i64>, _>(column);
    sqlx::query(TASK)
        .bind(text(0)?)
        .bind(text(1)?)
        .bind(text(2)?)
        .bind(text(3)?)
        .bind(number(4)?)
        .bind(number(5)?)
        .bind(number(6)?)
        .bind(number(7)?)
        .bind(text(8)?)
        .execute(&mut *tx)
        .await?;
    let mut entry = sqlx::query(ENTRY).bind(number(9)?).bind(text(10)?).bind(number(11)?);
    for column in 12..23 {
        entry = entry.bind(text(column)?);
    }
    entry.execute(&mut *tx).await?;
    let head = sqlx::query(HEAD).bind(number(9)?).bind(text(20)?).bind(text(21)?).bind(text(22)?);
    head.execute(&mut *tx).await?;
    Ok(())
}
