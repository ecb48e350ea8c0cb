//! Many tasks at once, as the store would have written them one by one.

use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};

use crate::Failure;

/// Distinct projects, and agents; few enough for a full page of each among the fewest tasks.
const PROJECTS: u32 = 20;
const AGENTS: u32 = 16;

/// Copies the one task there is: a tenth is new, a tenth under way, the rest completed.
const TASKS: &str = "
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < $1),
made AS (
    SELECT n, 'task-' || lower(hex(randomblob(16))) AS id, 'project-' || (n % $2) AS project,
        CASE n % 10 WHEN 0 THEN 'created' WHEN 1 THEN 'in_progress' ELSE 'completed' END AS status,
        CASE n % 10 WHEN 0 THEN NULL ELSE 'agent-' || (n / 10 % $3) END AS assigned_to,
        one.created_at + n * 1000000 AS at, one.document
    FROM number, (SELECT created_at, document FROM tasks LIMIT 1) AS one
)
INSERT INTO tasks (id, status, assigned_to, project, version, created_at, updated_at, finished_at, document)
SELECT id, status, assigned_to, project, 1, at, at, CASE status WHEN 'completed' THEN at END,
    json_set(document, '$.id', id, '$.status', status, '$.assigned_to', assigned_to, '$.project', project,
        '$.created_at', strftime('%Y-%m-%dT%H:%M:%SZ', at / 1000000, 'unixepoch'),
        '$.updated_at', strftime('%Y-%m-%dT%H:%M:%SZ', at / 1000000, 'unixepoch'))
FROM made";

/// Adds tasks until there are so many, in one transaction.
pub(super) async fn fill(database: &Path, size: u32) -> Result<(), Failure> {
    // A seed that is lost is made again.
    let options = SqliteConnectOptions::new()
        .filename(database)
        .pragma("synchronous", "OFF")
        .pragma("cache_size", "-1000000");
    let mut connection = SqliteConnection::connect_with(&options).await?;
    sqlx::query(TASKS)
        .bind(size.saturating_sub(1))
        .bind(PROJECTS)
        .bind(AGENTS)
        .execute(&mut connection)
        .await?;
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}
