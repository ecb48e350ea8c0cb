//! Forward-only migrations, embedded in the program and recorded with a checksum.

use quarterdeck_domain::Result;
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};
use sha2::{Digest, Sha256};

use crate::{Store, Tx, sql, startup};

struct Step {
    version: i64,
    name: &'static str,
    sql: &'static str,
}

macro_rules! steps {
    ($($version:literal $name:literal),+ $(,)?) => {
        &[$(Step {
            version: $version,
            name: $name,
            sql: include_str!(concat!("../migrations/", $name, ".sql")),
        }),+]
    };
}

const STEPS: &[Step] = steps![
    1 "0001_identity",
    2 "0002_realtime",
    3 "0003_audit",
    4 "0004_tasks",
    5 "0005_approvals",
    6 "0006_projects",
    7 "0007_escalations",
    8 "0008_budget",
    9 "0009_audit_reading",
    10 "0010_task_counts",
];

/// A migration as the database remembers it.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Migration {
    /// Ascending from 1.
    pub version: i64,
    /// File name without its ending.
    pub name: String,
    /// SHA-256 of the file, lower-case hex.
    pub checksum: String,
}

/// Version a database has after [`Store::open`](crate::Store::open).
pub fn latest_version() -> i64 {
    STEPS.last().map_or(0, |step| step.version)
}

/// Applies what is missing, all in one transaction; a second program starting at the same time waits.
pub(crate) async fn up(store: &Store) -> Result<()> {
    store.write(|tx| Box::pin(apply(tx))).await
}

async fn apply(tx: &Tx) -> Result<()> {
    if tx.get_database_backend() == DbBackend::Postgres {
        // Waiting for another program's migration, or a long one of ours, is no runaway query.
        tx.execute_unprepared("SET LOCAL statement_timeout = 0").await.map_err(sql::failure)?;
    }
    tx.lock("quarterdeck.migrations").await?;
    tx.execute_unprepared(
        "CREATE TABLE IF NOT EXISTS schema_migrations \
         (version BIGINT PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL)",
    )
    .await
    .map_err(sql::failure)?;
    let applied = recorded(&**tx).await?;
    if let Some(newer) = applied.iter().find(|m| m.version > latest_version()) {
        return Err(startup(format_args!(
            "the database was made by a newer version of quarterdeck (migration {}); start that version",
            newer.name
        )));
    }
    for step in STEPS {
        let checksum = checksum(step.sql);
        match applied.iter().find(|m| m.version == step.version) {
            Some(done) if done.checksum == checksum => {}
            Some(_) => {
                return Err(startup(format_args!(
                    "migration {} was applied with other content than this version of quarterdeck has; \
                     restore a backup or start the version that made this database",
                    step.name
                )));
            }
            None => {
                let statements = for_dialect(step.sql, tx.get_database_backend());
                tx.execute_unprepared(&statements).await.map_err(sql::failure)?;
                sql::execute(
                    &**tx,
                    "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
                    [step.version.into(), step.name.into(), checksum.into()],
                )
                .await?;
                tracing::info!(target: "persistence", version = step.version, "persistence.migration.applied");
            }
        }
    }
    Ok(())
}

pub(crate) async fn applied(connection: &impl ConnectionTrait) -> Result<Vec<Migration>> {
    let table = match connection.get_database_backend() {
        DbBackend::Postgres => "SELECT count(*) FROM pg_tables WHERE tablename = 'schema_migrations'",
        _ => "SELECT count(*) FROM sqlite_master WHERE name = 'schema_migrations'",
    };
    if sql::number(connection, table, []).await? == 0 { Ok(Vec::new()) } else { recorded(connection).await }
}

async fn recorded(connection: &impl ConnectionTrait) -> Result<Vec<Migration>> {
    sql::all(connection, "SELECT version, name, checksum FROM schema_migrations ORDER BY version", []).await
}

fn checksum(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Keeps the parts of a migration file meant for one database.
fn for_dialect(text: &str, backend: DbBackend) -> String {
    let wanted = if backend == DbBackend::Postgres { "postgres" } else { "sqlite" };
    let mut keep = true;
    let mut kept = String::with_capacity(text.len());
    for line in text.lines() {
        if let Some(dialect) = line.strip_prefix("-- dialect: ") {
            keep = dialect == "both" || dialect == wanted;
        } else if keep {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}
