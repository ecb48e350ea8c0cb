//! Rows, migrations, queries and sealed secrets: one code base for SQLite and PostgreSQL.
//!
//! Nothing outside this crate knows SQL. Times are stored as microseconds since 1970 UTC.

mod migrate;
mod news;
mod postgres;
mod signal;
mod sql;
mod sqlite;
mod tx;

pub mod activity;
pub mod analytics;
pub mod api_key;
pub mod approval;
pub mod artifact;
pub mod audit;
pub mod backup;
pub mod budget_config;
pub mod config;
pub mod coordination_metrics;
pub mod cost_record;
pub mod decision_record;
pub mod escalation;
pub mod event_log;
pub mod idempotency;
pub mod interrupt;
pub mod login_attempt;
pub mod meeting;
pub mod outbox;
pub mod presence;
pub mod project;
pub mod refresh_token;
pub mod review;
pub mod seal;
pub mod session;
pub mod setting;
pub mod task;
pub mod user;
pub mod ws_ticket;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use quarterdeck_domain::escalation::NotifyChannel;
use quarterdeck_domain::event::Event;
use quarterdeck_domain::{Error, Result};
use sea_orm::{ConnectionTrait, DatabaseConnection};

pub use migrate::{Migration, latest_version};
pub use news::Way;
/// What queries run on: a pool or a transaction.
pub use sea_orm::ConnectionTrait as Connection;
pub use signal::Signal;
pub use sql::{Listed, failure, from_micros, micros};
pub use tx::Tx;

/// Which database to open; see [`config::StoreConfig::database`].
#[derive(Clone)]
pub enum Database {
    /// An embedded file, made when missing.
    Sqlite {
        /// The file; its folder must exist.
        path: PathBuf,
        /// Size the write-ahead log is cut back to, in bytes.
        journal_size_limit: u64,
    },
    /// A server, shared by any number of copies of this program.
    Postgres {
        /// Address, credentials, TLS mode and session parameters.
        options: Box<sqlx::postgres::PgConnectOptions>,
        /// Connections kept open.
        min_connections: u32,
        /// Most connections.
        max_connections: u32,
        /// Longest wait for a free connection; after it a request is answered 503.
        acquire_timeout: Duration,
        /// Longest wait for the first connection.
        connect_timeout: Duration,
    },
}

/// An open database: a pool for reads, an ordered way in for writes, and news of what changed.
#[derive(Clone)]
pub struct Store {
    database: Arc<Database>,
    reads: DatabaseConnection,
    writes: Writes,
    signals: Arc<signal::Signals>,
    news: Arc<news::News>,
}

#[derive(Clone)]
enum Writes {
    Sqlite(sqlite::Writer),
    Postgres(postgres::Writer),
}

impl Store {
    /// Opens the database and brings its schema up to date.
    ///
    /// # Errors
    /// When the database cannot be reached, is already served by another process (SQLite), or holds a
    /// schema this program does not know. The cause is a sentence for the operator.
    pub async fn open(database: Database) -> Result<Self> {
        let store = Self::connect(database).await?;
        if let Err(error) = migrate::up(&store).await {
            store.close().await;
            return Err(error);
        }
        store.join().await
    }

    /// Opens the database as it is: no migration, no exclusive claim. For the command line next to a
    /// running server.
    pub async fn attach(database: Database) -> Result<Self> {
        match database {
            Database::Sqlite { ref path, journal_size_limit } => {
                let opened = sqlite::open(path, journal_size_limit, sqlite::Claim::Shared).await?;
                // The server beside it finds what a visitor leaves there.
                Self::sqlite(database, opened, Way::Outbox)
            }
            // Only who listens hears that the servers have applied a change.
            postgres => Self::connect(postgres).await?.join().await,
        }
    }

    /// Opens the database once more, as [`open`](Self::open) does, for what is to be done after this one was
    /// closed. Audit entries are signed as before.
    pub async fn reopen(&self) -> Result<Self> {
        let store = Self::open((*self.database).clone()).await?;
        store.publish_by(self.news.way());
        if let Some(key) = self.news.chain.key() {
            store.sign_audit_with(key);
        }
        Ok(store)
    }

    async fn join(self) -> Result<Self> {
        if let Writes::Postgres(writer) = &self.writes
            && let Err(error) = writer.listen().await
        {
            self.close().await;
            return Err(error);
        }
        Ok(self)
    }

    async fn connect(database: Database) -> Result<Self> {
        let kept = Arc::new(database.clone());
        match database {
            Database::Sqlite { ref path, journal_size_limit } => {
                let opened = sqlite::open(path, journal_size_limit, sqlite::Claim::Exclusive).await?;
                Self::sqlite(database, opened, Way::Direct)
            }
            Database::Postgres {
                options,
                min_connections,
                max_connections,
                acquire_timeout,
                connect_timeout,
            } => {
                let signals = Arc::new(signal::Signals::default());
                let news = Arc::new(news::News::new(Way::Log));
                let (reads, writer) = postgres::open(
                    *options,
                    min_connections,
                    max_connections,
                    acquire_timeout,
                    connect_timeout,
                    Arc::clone(&signals),
                    Arc::clone(&news),
                )
                .await?;
                Ok(Self { database: kept, reads, writes: Writes::Postgres(writer), signals, news })
            }
        }
    }

    fn sqlite(database: Database, opened: sqlite::Opened, way: Way) -> Result<Self> {
        let signals = Arc::new(signal::Signals::default());
        let news = Arc::new(news::News::new(way));
        let (heard, told) = (Arc::clone(&signals), Arc::clone(&news));
        let writer = sqlite::Writer::start(opened.writer, opened.lock, heard, told);
        let database = Arc::new(database);
        Ok(Self { database, reads: opened.readers, writes: Writes::Sqlite(writer), signals, news })
    }

    /// The connection pool for reads outside a transaction.
    pub fn read(&self) -> &DatabaseConnection {
        &self.reads
    }

    /// Runs one transaction: all of `job` or nothing of it, durable when this returns `Ok`.
    ///
    /// On SQLite, jobs of concurrent callers share one commit; on PostgreSQL each is its own
    /// transaction. What the job announced with [`Tx::signal`] has reached every live copy of the
    /// program when this returns. Dropping the future does not stop a job that has begun.
    ///
    /// # Errors
    /// The job's own, after rolling back; 503/8001 when the queue is full or the database has no free
    /// connection; 500/8002 for other failures of the database.
    pub async fn write<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c Tx) -> BoxFuture<'c, Result<T>> + Send + 'static,
    {
        match &self.writes {
            Writes::Sqlite(writer) => writer.write(job).await,
            Writes::Postgres(writer) => writer.write(job).await,
        }
    }

    /// Calls `listener` for every signal, whichever copy of the program sent it, before the write that
    /// caused it returns. Listeners must be quick and must not block.
    pub fn on_signal(&self, listener: impl Fn(&Signal) + Send + Sync + 'static) {
        self.signals.subscribe(Box::new(listener));
    }

    /// Calls `catch_up` for the signals of each write of another copy of the program. That write returns
    /// only when what was given back is done, but waits no longer than three seconds.
    pub fn on_news(&self, catch_up: impl Fn(&[Signal]) -> BoxFuture<'static, ()> + Send + Sync + 'static) {
        self.signals.follow(Box::new(catch_up));
    }

    /// Signs audit entries from now on; those written before stay unsigned.
    pub fn sign_audit_with(&self, key: audit::AuditKey) {
        self.news.chain.set_key(key);
    }

    /// What this process has written to the audit chain.
    pub fn audit_stats(&self) -> audit::Stats {
        self.news.chain.stats()
    }

    /// Walks the whole audit chain, in batches. What `anchors` say of it must still be so; each comes from
    /// an earlier report. Signatures are checked with the key entries are signed with now.
    ///
    /// # Errors
    /// The database's own; a broken chain is a report.
    pub async fn verify_audit(&self, anchors: &[audit::Anchor]) -> Result<audit::Report> {
        audit::verify(self.read(), self.news.chain.key(), anchors).await
    }

    /// What becomes of published events from now on. A server begins with [`Way::Direct`] on SQLite and
    /// [`Way::Log`] on PostgreSQL.
    pub fn publish_by(&self, way: Way) {
        self.news.set_way(way);
    }

    /// Hands the events of each commit to `told`, in commit order, when they are published
    /// [directly](Way::Direct). It must be quick and must not block.
    pub fn on_events(&self, told: impl Fn(Vec<Event>) + Send + Sync + 'static) {
        self.news.on_told(Box::new(told));
    }

    /// Calls `logged` with the name of a channel that has grown in the [shared log](Way::Log). A lost
    /// connection loses calls; whoever listens has to look for itself now and then.
    pub fn on_logged(&self, logged: impl Fn(&str) + Send + Sync + 'static) {
        self.news.on_logged(Box::new(logged));
    }

    /// Calls `left` when events may have been put into the [outbox](Way::Outbox) by this process.
    pub fn on_outbox(&self, left: impl Fn() + Send + Sync + 'static) {
        self.news.on_left(Box::new(left));
    }

    /// Whether caches kept up to date by signals may be trusted right now. `false` while the link that
    /// carries other copies' signals is down; readers then ask the database.
    pub fn signals_are_live(&self) -> bool {
        match &self.writes {
            Writes::Sqlite(_) => true,
            Writes::Postgres(writer) => writer.lease_holds(),
        }
    }

    /// Hears what any program tells on this channel of PostgreSQL, for as long as the future is polled:
    /// `heard` is called with each text, and with `None` whenever a connection of its own is made, before
    /// which texts may have been missed. A lost one is made anew after `pause`. SQLite has no channels:
    /// there it is over at once.
    pub async fn follow(
        &self,
        channel: &NotifyChannel,
        pause: Duration,
        heard: impl Fn(Option<&str>) + Sync,
    ) {
        if let Writes::Postgres(writer) = &self.writes {
            writer.follow(channel.as_str(), pause, heard).await;
        }
    }

    /// Whether the database answers a trivial query.
    pub async fn ping(&self) -> Result<()> {
        self.reads.execute_unprepared("SELECT 1").await.map(drop).map_err(failure)
    }

    /// `sqlite` or `postgres`.
    pub fn backend_name(&self) -> &'static str {
        match self.writes {
            Writes::Sqlite(_) => "sqlite",
            Writes::Postgres(_) => "postgres",
        }
    }

    /// Migrations recorded in the database, oldest first; empty for a new one.
    pub async fn applied_migrations(&self) -> Result<Vec<Migration>> {
        migrate::applied(self.read()).await
    }

    /// Waits for writes under way, then closes every connection. Later calls fail; closing twice is
    /// harmless.
    pub async fn close(&self) {
        match &self.writes {
            Writes::Sqlite(writer) => {
                // The writer goes last: the last connection folds the write-ahead log into the file.
                let _ = self.reads.close_by_ref().await;
                writer.close().await;
            }
            Writes::Postgres(writer) => writer.close().await,
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("backend", &self.backend_name()).finish_non_exhaustive()
    }
}

/// The failure of a database that cannot be used at start, as a sentence for the operator.
fn startup(sentence: impl std::fmt::Display) -> Error {
    Error::new(quarterdeck_domain::ErrorCode::PersistenceError).caused_by(sentence)
}
