//! Fresh databases.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quarterdeck_store::{Database, Store};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, Row};
use tempfile::TempDir;

/// A database of one test; clones are the same one.
#[derive(Clone)]
pub struct TestDb {
    /// What [`Store::open`] takes.
    pub database: Database,
    folder: Arc<TempDir>,
}

impl TestDb {
    /// An SQLite file in a temporary folder.
    pub fn sqlite() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().join("quarterdeck.db");
        Self { database: Database::Sqlite { path, journal_size_limit: 1 << 20 }, folder: Arc::new(folder) }
    }

    /// A new database on the PostgreSQL of the tests; `None`, with a word, without one.
    #[allow(clippy::print_stderr, reason = "the reader of a test run must know what it left out")]
    pub async fn postgres() -> Option<Self> {
        let Ok(url) = std::env::var("QUARTERDECK_TEST_POSTGRES_URL") else {
            eprintln!("skipped: QUARTERDECK_TEST_POSTGRES_URL is not set; run make test");
            return None;
        };
        let options: PgConnectOptions = url.parse().expect("QUARTERDECK_TEST_POSTGRES_URL is an URL");
        let admin = PgPoolOptions::new().max_connections(1).connect_with(options.clone()).await;
        let admin = admin.expect("PostgreSQL answers");
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&admin)
            .await
            .expect("a new database");
        admin.close().await;
        let database = Database::Postgres {
            options: Box::new(options.database(&name)),
            min_connections: 1,
            max_connections: 8,
            connect_timeout: Duration::from_secs(10),
            acquire_timeout: Duration::from_secs(30),
        };
        let folder = Arc::new(TempDir::new().expect("a temporary folder"));
        Some(Self { database, folder })
    }

    /// Folder of the contents of artifacts, the same for all servers on this database.
    pub fn artifacts(&self) -> PathBuf {
        self.folder.path().join("artifacts")
    }

    /// Opens a store; on PostgreSQL any number of times.
    pub async fn open(&self) -> Store {
        Store::open(self.database.clone()).await.expect("the store opens")
    }

    /// A folder of its own, for what is beside the database.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Whether two servers may share it.
    pub fn is_shared(&self) -> bool {
        matches!(self.database, Database::Postgres { .. })
    }

    /// Address of the database as the program's configuration wants it; PostgreSQL only.
    pub fn url(&self) -> Option<String> {
        match &self.database {
            Database::Postgres { options, .. } => {
                let mut url = options.to_url_lossy();
                // The driver's own parameters are no part of an address.
                url.set_query(None);
                Some(url.into())
            }
            Database::Sqlite { .. } => None,
        }
    }

    /// The database itself, for looking behind the store's back; PostgreSQL only.
    pub async fn postgres_pool(&self) -> Option<PgPool> {
        match &self.database {
            Database::Postgres { options, .. } => {
                Some(PgPoolOptions::new().max_connections(1).connect_with((**options).clone()).await.ok()?)
            }
            Database::Sqlite { .. } => None,
        }
    }

    /// Everything the database holds, as text, for looking for what must not be there.
    pub async fn dump(&self) -> String {
        let Some(pool) = self.postgres_pool().await else { return self.files() };
        let tables: Vec<String> =
            sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
                .fetch_all(&pool)
                .await
                .expect("a list of tables");
        let mut text = String::new();
        for table in tables {
            let rows = format!("SELECT coalesce(string_agg(t::text, ' '), '') FROM {table} t");
            let rows = sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(rows)).fetch_one(&pool).await;
            text.push_str(&rows.expect("a table as text"));
        }
        text
    }

    fn files(&self) -> String {
        let Database::Sqlite { path, .. } = &self.database else { return String::new() };
        let folder = std::fs::read_dir(path.parent().expect("a folder")).expect("a folder");
        let paths = folder.map(|entry| entry.expect("a file").path()).filter(|path| path.is_file());
        let files = paths.map(|path| std::fs::read(path).expect("a readable file"));
        String::from_utf8_lossy(&files.collect::<Vec<_>>().concat()).into_owned()
    }

    /// How SQLite would run a query, for tests of indexes.
    pub async fn plan(&self, sql: &str) -> String {
        let Database::Sqlite { path, .. } = &self.database else { return String::new() };
        let mut connection =
            SqliteConnectOptions::new().filename(path).connect().await.expect("the file opens");
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        let steps = sqlx::query(sql).fetch_all(&mut connection).await.expect("a plan");
        let steps = steps.iter().map(|step| step.get::<String, _>("detail"));
        steps.collect::<Vec<_>>().join("; ")
    }

    /// Runs a statement behind the store's back, as an operator with the database's own tools would.
    pub async fn execute(&self, sql: &str) {
        self.try_execute(sql).await.expect("the database does it");
    }

    /// As [`execute`](Self::execute), with the database's refusal.
    ///
    /// # Errors
    /// What the database says.
    pub async fn try_execute(&self, sql: &str) -> sqlx::Result<()> {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        match &self.database {
            Database::Postgres { options, .. } => {
                let mut connection = options.connect().await?;
                connection.execute(sql).await?;
                connection.close().await
            }
            Database::Sqlite { path, .. } => {
                let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
                let mut connection = options.foreign_keys(true).connect().await?;
                connection.execute(sql).await?;
                connection.close().await
            }
        }
    }
}
