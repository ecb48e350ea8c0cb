//! SQLite: a pool of readers and one writer that gives concurrent jobs one commit.

use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use quarterdeck_domain::{Error, Result};
use sea_orm::{
    DatabaseConnection, DatabaseTransaction, SqliteTransactionMode, SqlxSqliteConnector, TransactionOptions,
    TransactionTrait,
};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::news::{After, News};
use crate::signal::Signals;
use crate::sql::{failure, number};
use crate::{Signal, Tx, startup};

/// Jobs that may wait for the writer; more are refused with 503.
const QUEUE: usize = 1024;
/// Jobs that share one commit at most: bounds how long the first of them waits.
const BATCH: usize = 128;
const READERS: u32 = 4;
/// How often a change by another process, such as the command line, is looked for.
const FOREIGN_CHANGE_INTERVAL: Duration = Duration::from_millis(250);

pub(crate) enum Claim {
    /// The one server of this file.
    Exclusive,
    /// A short-lived visitor beside it.
    Shared,
}

pub(crate) struct Opened {
    pub(crate) readers: DatabaseConnection,
    pub(crate) writer: DatabaseConnection,
    pub(crate) lock: Option<File>,
}

pub(crate) async fn open(path: &Path, journal_size_limit: u64, claim: Claim) -> Result<Opened> {
    let lock = match claim {
        Claim::Exclusive => Some(claim_file(path)?),
        Claim::Shared => None,
    };
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
        .pragma("journal_size_limit", journal_size_limit.to_string())
        .optimize_on_close(false, None);
    let unusable = |e: sqlx::Error| {
        startup(format_args!(
            "the database file {} cannot be used ({e}); check that it is an SQLite file and that its folder \
             is writable, or name another with QUARTERDECK_DB_PATH",
            path.display()
        ))
    };
    restrict(path);
    // The writer comes first: it switches the file to write-ahead logging.
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(options.clone())
        .await
        .map_err(unusable)?;
    let readers = SqlitePoolOptions::new()
        .min_connections(1)
        .max_connections(READERS)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(options.read_only(true))
        .await
        .map_err(unusable)?;
    Ok(Opened {
        readers: SqlxSqliteConnector::from_sqlx_sqlite_pool(readers),
        writer: SqlxSqliteConnector::from_sqlx_sqlite_pool(writer),
        lock,
    })
}

/// The database holds password hashes and the signing secret: its owner alone may read it. A new file is
/// born so; SQLite gives the files beside it the same permissions.
fn restrict(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
        if File::options().write(true).create_new(true).mode(0o600).open(path).is_ok() {
            return;
        }
        if let Err(e) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)) {
            tracing::warn!(target: "persistence", error = %e, "persistence.permissions.failed");
        }
    }
}

/// SQLite has one writer process; the claim ends with the process, however it ends.
fn claim_file(path: &Path) -> Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock = File::options().create(true).truncate(false).write(true).open(&name).map_err(|e| {
        startup(format_args!(
            "cannot write beside the database file {} ({e}); check the folder's permissions",
            path.display()
        ))
    })?;
    match fs4::FileExt::try_lock(&lock) {
        Ok(()) => Ok(lock),
        Err(_) => Err(startup(format_args!(
            "another quarterdeck server is using {}; stop it, or give this one its own --data-dir",
            path.display()
        ))),
    }
}

type Deliver = Box<dyn FnOnce(Result<()>) + Send>;
type Job = Box<dyn FnOnce(DatabaseTransaction) -> BoxFuture<'static, Finished> + Send>;

/// A job that has run and waits for the commit it shares.
struct Finished {
    signals: Vec<Signal>,
    after: After,
    deliver: Deliver,
    /// The database gave up the whole transaction, as it does when the disk is full.
    broken: bool,
}

#[derive(Clone)]
pub(crate) struct Writer {
    news: Arc<News>,
    jobs: mpsc::Sender<Job>,
    /// The task, until somebody closes it.
    running: Arc<Mutex<Option<Running>>>,
}

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Writer {
    pub(crate) fn start(
        connection: DatabaseConnection,
        lock: Option<File>,
        signals: Arc<Signals>,
        news: Arc<News>,
    ) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(run(connection, queue, signals, Arc::clone(&news), stopped, lock));
        Self { news, jobs, running: Arc::new(Mutex::new(Some(Running { stop, task }))) }
    }

    pub(crate) async fn write<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c Tx) -> BoxFuture<'c, Result<T>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let news = Arc::clone(&self.news);
        let job: Job = Box::new(move |savepoint| {
            Box::pin(async move {
                let tx = Tx::new(savepoint);
                // Called inside the future, so that a panic before its first wait is caught too.
                let outcome = AssertUnwindSafe(async { job(&tx).await }).catch_unwind().await;
                let outcome = outcome.unwrap_or_else(|_| Err(Error::internal("a database job panicked")));
                let outcome = match outcome {
                    Ok(value) => news.write(&tx).await.map(|after| (value, after)),
                    Err(error) => Err(error),
                };
                let (savepoint, signals) = tx.into_parts();
                let settled = match &outcome {
                    Ok(_) => savepoint.commit().await,
                    Err(_) => savepoint.rollback().await,
                };
                let broken = settled.is_err();
                let outcome = outcome.and_then(|done| settled.map(|()| done).map_err(failure));
                let (outcome, after) = match outcome {
                    Ok((value, after)) => (Ok(value), after),
                    Err(error) => (Err(error), After::default()),
                };
                let signals = if outcome.is_ok() { signals } else { Vec::new() };
                let deliver: Deliver = Box::new(move |committed| {
                    let _ = answer.send(outcome.and_then(|value| committed.map(|()| value)));
                });
                Finished { signals, after, deliver, broken }
            })
        });
        self.jobs.try_send(job).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Error::unavailable("the database's write queue is full", 1),
            mpsc::error::TrySendError::Closed(_) => Error::unavailable("the database is closed", 1),
        })?;
        answered.await.unwrap_or_else(|_| Err(Error::unavailable("the database is closed", 1)))
    }

    pub(crate) async fn close(&self) {
        let running = self.running.lock().unwrap_or_else(|e| e.into_inner()).take();
        if let Some(Running { stop, task }) = running {
            let _ = stop.send(());
            let _ = task.await;
        }
    }
}

/// Works off the queue until told to stop, and then whatever is already queued.
async fn run(
    connection: DatabaseConnection,
    mut queue: mpsc::Receiver<Job>,
    signals: Arc<Signals>,
    news: Arc<News>,
    mut stopped: oneshot::Receiver<()>,
    lock: Option<File>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut tick = tokio::time::interval(FOREIGN_CHANGE_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut version = data_version(&connection).await;
    loop {
        tokio::select! {
            // Jobs come last: a queue that is never empty must not drown the others.
            biased;
            _ = &mut stopped, if !queue.is_closed() => queue.close(),
            // The server keeps a lock; a visitor has nothing cached to drop.
            _ = tick.tick(), if lock.is_some() => {
                let now = data_version(&connection).await;
                if now != version {
                    version = now;
                    signals.deliver(&[Signal::Everything]);
                }
            }
            received = queue.recv_many(&mut batch, BATCH) => {
                if received == 0 {
                    break;
                }
                if !commit(&connection, &mut batch, &signals, &news).await {
                    renew(&connection).await;
                }
            }
        }
        if queue.is_closed() && queue.is_empty() {
            break;
        }
    }
    let _ = connection.close().await;
    drop(lock);
}

/// Changes whenever another connection than the writer has changed the file.
async fn data_version(connection: &DatabaseConnection) -> i64 {
    number(connection, "SELECT data_version FROM pragma_data_version", []).await.unwrap_or(-1)
}

/// Runs the jobs and commits what they did; whether the connection can go on.
///
/// A job that is dropped here answers its caller 503; the cause is logged once for all.
async fn commit(
    connection: &DatabaseConnection,
    batch: &mut Vec<Job>,
    signals: &Signals,
    news: &News,
) -> bool {
    let immediate = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    let transaction = match connection.begin_with_options(immediate).await {
        Ok(transaction) => transaction,
        Err(error) => {
            tracing::error!(target: "persistence", error = %error, "persistence.write.failed");
            batch.clear();
            return false;
        }
    };
    let mut finished = Vec::with_capacity(batch.len());
    let mut heard = Vec::new();
    let mut after = After::default();
    let mut broken = false;
    for job in batch.drain(..) {
        let done = match transaction.begin().await {
            Ok(savepoint) => job(savepoint).await,
            Err(error) => {
                tracing::error!(target: "persistence", error = %error, "persistence.write.failed");
                broken = true;
                break;
            }
        };
        heard.extend(done.signals);
        after.events.extend(done.after.events);
        after.left |= done.after.left;
        after.done.extend(done.after.done);
        finished.push(done.deliver);
        if done.broken {
            broken = true;
            break;
        }
    }
    let committed = match broken {
        false => transaction.commit().await.map_err(failure),
        true => Err(Error::unavailable("another job of this commit broke it", 1)),
    };
    match &committed {
        Ok(()) => {
            signals.deliver(&heard);
            news.committed(after);
        }
        // Nobody knows how much of it is in the file.
        Err(_) => signals.deliver(&[Signal::Everything]),
    }
    for deliver in finished {
        deliver(committed.clone());
    }
    committed.is_ok()
}

/// Closes the writer's connection; the next job opens a new one. After a failure the driver and SQLite
/// may disagree on which transaction is open, and then no further one can begin.
async fn renew(connection: &DatabaseConnection) {
    if let Ok(broken) = connection.get_sqlite_connection_pool().acquire().await {
        let _ = broken.close().await;
    }
}
