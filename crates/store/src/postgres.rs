//! PostgreSQL: one pool, and signals between the copies of the program that share the database.
//!
//! A signal is sent with `NOTIFY` inside the writing transaction. The writer then waits until every
//! other copy has acknowledged it, so that a revoked session is dead everywhere when the revocation
//! returns. A copy that cannot acknowledge holds a *lease*: it trusts its caches only for [`LEASE`]
//! after its own last heartbeat came back through the channel, and the writer never waits longer than
//! that. PostgreSQL delivers notifications in commit order, so a returned heartbeat proves that every
//! signal committed before it has arrived (Gray and Cheriton, "Leases", SOSP 1989).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use quarterdeck_domain::{Error, Result};
use sea_orm::{DatabaseConnection, DatabaseTransaction, SqlxPostgresConnector, TransactionTrait};
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::news::News;
use crate::signal::Signals;
use crate::sql::{execute, failure};
use crate::{Signal, Tx, event_log, startup};

const CHANNEL: &str = "quarterdeck";
/// How long a copy trusts its caches after its last proof of hearing.
const LEASE: Duration = Duration::from_secs(3);
const HEARTBEAT: Duration = Duration::from_millis(500);
/// A link on which not even one's own heartbeats come back for so long is dead, whatever TCP believes.
const SILENCE: Duration = Duration::from_secs(6);
/// A silence after which a line without heartbeats is tried.
const QUIET: Duration = Duration::from_secs(30);
/// How often a waiting writer looks whether a copy it waits for has died.
const RECHECK: Duration = Duration::from_millis(100);
/// First half of the advisory lock every listening copy holds; the second half is its number.
const COPIES: i32 = 0x5144;
/// `NOTIFY` carries less than 8000 bytes.
const MAX_PAYLOAD: usize = 7500;

#[derive(Serialize, Deserialize)]
enum Message {
    /// Signals of one write, to be acknowledged.
    News { from: i32, number: u64, signals: Vec<Signal> },
    /// `by` has applied news `number` of `from`.
    Heard { from: i32, number: u64, by: i32 },
    /// `by` begins with empty caches, which is as good as having heard everything.
    Joined { by: i32 },
    /// A copy's proof to itself.
    Beat { from: i32, number: u64 },
}

/// The connection that listens, in a pool of its own: what ends with it is its advisory lock too.
struct Ear {
    listener: PgListener,
    pool: PgPool,
}

#[derive(Clone)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
}

struct Shared {
    pool: PgPool,
    options: PgConnectOptions,
    /// A connection of its own for heartbeats, acknowledgements and looking who listens: a pool that is
    /// busy with requests must not hold up the other copies. Empty while in use and after a failure.
    voice: tokio::sync::Mutex<Option<PgConnection>>,
    connection: DatabaseConnection,
    signals: Arc<Signals>,
    news: Arc<News>,
    /// This copy's number among those that listen.
    me: i32,
    numbers: AtomicU64,
    waiting: Mutex<HashMap<u64, HashSet<i32>>>,
    heard: Notify,
    beats: Mutex<HashMap<u64, Instant>>,
    /// Milliseconds since `start` until which caches may be trusted.
    lease_until: AtomicU64,
    start: Instant,
    writes: TaskTracker,
    listeners: TaskTracker,
    listening: CancellationToken,
}

pub(crate) async fn open(
    options: PgConnectOptions,
    min_connections: u32,
    max_connections: u32,
    acquire_timeout: Duration,
    connect_timeout: Duration,
    signals: Arc<Signals>,
    news: Arc<News>,
) -> Result<(DatabaseConnection, Writer)> {
    let server = format!("{}/{}", options.get_host(), options.get_database().unwrap_or_default());
    let connect = async {
        // A pool would try again until its time is up and then not know why; one connection knows.
        let voice = PgConnection::connect_with(&options).await?;
        let pool = PgPoolOptions::new()
            .min_connections(min_connections)
            .max_connections(max_connections)
            .acquire_timeout(acquire_timeout)
            .connect_with(options.clone())
            .await?;
        Ok((pool, voice))
    };
    let (pool, voice) = tokio::time::timeout(connect_timeout, connect)
        .await
        .unwrap_or(Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
        .map_err(|e| {
            startup(format_args!(
                "cannot connect to PostgreSQL at {server} ({e}); check QUARTERDECK_DATABASE_URL and that the \
                 server runs"
            ))
        })?;
    let connection = SqlxPostgresConnector::from_sqlx_postgres_pool(pool.clone());
    let me = i32::from_le_bytes(quarterdeck_domain::clock::random_bytes());
    let shared = Shared {
        pool,
        voice: tokio::sync::Mutex::new(Some(voice)),
        options,
        connection: connection.clone(),
        signals,
        news,
        me,
        numbers: AtomicU64::new(0),
        waiting: Mutex::default(),
        heard: Notify::new(),
        beats: Mutex::default(),
        lease_until: AtomicU64::new(0),
        start: Instant::now(),
        writes: TaskTracker::new(),
        listeners: TaskTracker::new(),
        listening: CancellationToken::new(),
    };
    Ok((connection, Writer { shared: Arc::new(shared) }))
}

impl Writer {
    pub(crate) async fn write<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c Tx) -> BoxFuture<'c, Result<T>> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        // A task of its own: a caller that goes away must not stop between commit and signal.
        let job = async move {
            let tx = Tx::new(shared.connection.begin().await.map_err(failure)?);
            let outcome = match job(&tx).await {
                Ok(value) => shared.news.write(&tx).await.map(|after| (value, after)),
                Err(error) => Err(error),
            };
            let (transaction, signals) = tx.into_parts();
            match outcome {
                Ok((value, after)) => {
                    shared.commit(transaction, signals).await?;
                    shared.news.committed(after);
                    Ok(value)
                }
                Err(error) => transaction.rollback().await.map_err(failure).and(Err(error)),
            }
        };
        let done = self.shared.writes.spawn(job).await;
        done.unwrap_or_else(|e| Err(Error::internal(format_args!("a database job panicked: {e}"))))
    }

    /// Joins the copies that share this database.
    pub(crate) async fn listen(&self) -> Result<()> {
        let ear = self.shared.connect_listener().await?;
        self.shared.listeners.spawn(Arc::clone(&self.shared).hear(ear));
        self.shared.listeners.spawn(Arc::clone(&self.shared).beat());
        Ok(())
    }

    /// Hears what any program tells on this channel, for ever: `heard` is called with each text, and with
    /// `None` whenever a connection is made, before which texts may have been missed.
    pub(crate) async fn follow(&self, channel: &str, pause: Duration, heard: impl Fn(Option<&str>) + Sync) {
        loop {
            if let Err(error) = self.shared.follow_once(channel, &heard).await {
                tracing::warn!(target: "persistence", channel, error = %error, "persistence.notify.disconnected");
            }
            tokio::time::sleep(pause).await;
        }
    }

    pub(crate) fn lease_holds(&self) -> bool {
        let now = self.shared.start.elapsed().as_millis() as u64;
        now < self.shared.lease_until.load(Ordering::Acquire)
    }

    pub(crate) async fn close(&self) {
        // Writes under way still want to hear the acknowledgements of other copies.
        self.shared.pool.close().await;
        self.shared.writes.close();
        self.shared.writes.wait().await;
        self.shared.listening.cancel();
        self.shared.listeners.close();
        self.shared.listeners.wait().await;
        if let Some(voice) = self.shared.voice.lock().await.take() {
            let _ = voice.close().await;
        }
    }
}

impl Shared {
    async fn commit(&self, transaction: DatabaseTransaction, signals: Vec<Signal>) -> Result<()> {
        if signals.is_empty() {
            return transaction.commit().await.map_err(failure);
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.waiting.lock().unwrap_or_else(|e| e.into_inner()).insert(number, HashSet::new());
        let outcome = self.announce(transaction, number, signals).await;
        self.waiting.lock().unwrap_or_else(|e| e.into_inner()).remove(&number);
        outcome
    }

    async fn announce(
        &self,
        transaction: DatabaseTransaction,
        number: u64,
        signals: Vec<Signal>,
    ) -> Result<()> {
        let mut payload = encode(&Message::News { from: self.me, number, signals: signals.clone() });
        if payload.len() > MAX_PAYLOAD {
            payload = encode(&Message::News { from: self.me, number, signals: vec![Signal::Everything] });
        }
        execute(&transaction, "SELECT pg_notify($1, $2)", [CHANNEL.into(), payload.into()]).await?;
        if let Err(error) = transaction.commit().await {
            // The line may have broken after the commit: nobody knows what is true now.
            self.signals.deliver(&[Signal::Everything]);
            return Err(failure(error));
        }
        self.signals.deliver(&signals);
        self.wait_for_others(number).await;
        Ok(())
    }

    /// Waits until every other copy has applied the news, has gone, or has stopped trusting its caches.
    async fn wait_for_others(&self, number: u64) {
        let all_have_heard = async {
            // Without an answer nobody can be ruled out; every lease ends in time.
            while let Ok(others) = self.other_copies().await {
                let recheck = tokio::time::Instant::now() + RECHECK;
                loop {
                    let heard = self.heard.notified();
                    if self.have_heard(number, &others) {
                        return;
                    }
                    if tokio::time::timeout_at(recheck, heard).await.is_err() {
                        break;
                    }
                }
            }
            std::future::pending().await
        };
        let _ = tokio::time::timeout(LEASE, all_have_heard).await;
    }

    fn have_heard(&self, number: u64, copies: &[i32]) -> bool {
        let waiting = self.waiting.lock().unwrap_or_else(|e| e.into_inner());
        waiting.get(&number).is_none_or(|heard| copies.iter().all(|copy| heard.contains(copy)))
    }

    async fn other_copies(&self) -> sqlx::Result<Vec<i32>> {
        let me = self.me;
        self.ask(move |voice| {
            let sql = "SELECT objid::bigint::bit(32)::int FROM pg_locks WHERE locktype = 'advisory' \
                       AND classid::bigint = $1 AND objsubid = 2 AND granted \
                       AND objid::bigint::bit(32)::int <> $2 \
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            Box::pin(sqlx::query_scalar(sql).bind(i64::from(COPIES)).bind(me).fetch_all(voice))
        })
        .await
    }

    /// Says or asks something on the voice, on a new connection if the old one fails.
    async fn ask<T, F>(&self, question: F) -> sqlx::Result<T>
    where
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>>,
    {
        let asked = async {
            let mut voice = self.voice.lock().await;
            // Taken out: whatever interrupts this drops the connection, and the next caller makes another.
            if let Some(mut known) = voice.take()
                && let Ok(answer) = question(&mut known).await
            {
                *voice = Some(known);
                return Ok(answer);
            }
            let mut fresh = PgConnection::connect_with(&self.options).await?;
            let answer = question(&mut fresh).await?;
            *voice = Some(fresh);
            Ok(answer)
        };
        tokio::time::timeout(LEASE, asked).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// A connection that listens first, then is counted, then says so: from here on no signal is missed.
    async fn connect_listener(&self) -> Result<Ear> {
        let failed = |e: sqlx::Error| startup(format_args!("cannot listen for other copies' changes ({e})"));
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .acquire_timeout(SILENCE)
            .connect_lazy_with(self.options.clone());
        let mut listener = PgListener::connect_with(&pool).await.map_err(failed)?;
        // On a lost connection the whole joining must be done again, not only the listening.
        listener.eager_reconnect(false);
        listener.listen_all([CHANNEL, event_log::NOTIFICATION]).await.map_err(failed)?;
        sqlx::query("SELECT pg_advisory_lock_shared($1, $2)")
            .bind(COPIES)
            .bind(self.me)
            .execute(&mut listener)
            .await
            .map_err(failed)?;
        self.notify(&Message::Joined { by: self.me }).await.map_err(failed)?;
        self.signals.deliver(&[Signal::Everything]);
        self.beat_once().await.map_err(failed)?;
        Ok(Ear { listener, pool })
    }

    async fn notify(&self, message: &Message) -> sqlx::Result<()> {
        let payload = encode(message);
        self.ask(move |voice| {
            let sent = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(payload.clone());
            Box::pin(async move { sent.execute(voice).await.map(drop) })
        })
        .await
    }

    async fn hear(self: Arc<Self>, mut ear: Ear) {
        loop {
            let received = tokio::select! {
                () = self.listening.cancelled() => break,
                received = tokio::time::timeout(SILENCE, ear.listener.try_recv()) => received,
            };
            match received {
                Ok(Ok(Some(notification))) if notification.channel() == event_log::NOTIFICATION => {
                    self.news.logged(notification.payload());
                }
                Ok(Ok(Some(notification))) => {
                    if let Ok(message) = serde_json::from_str(notification.payload()) {
                        self.receive(message);
                    }
                }
                _ => {
                    self.lease_until.store(0, Ordering::Release);
                    tracing::warn!(target: "persistence", "persistence.signals.disconnected");
                    ear = tokio::select! {
                        () = self.listening.cancelled() => break,
                        ear = self.join_again() => ear,
                    };
                    tracing::info!(target: "persistence", "persistence.signals.connected");
                }
            }
        }
        // Once this copy is no longer counted, nobody waits for it.
        drop(ear.listener);
        let _ = tokio::time::timeout(LEASE, ear.pool.close()).await;
    }

    async fn follow_once(&self, channel: &str, heard: &(impl Fn(Option<&str>) + Sync)) -> sqlx::Result<()> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .acquire_timeout(SILENCE)
            .connect_lazy_with(self.options.clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        listener.listen(channel).await?;
        heard(None);
        loop {
            match tokio::time::timeout(QUIET, listener.try_recv()).await {
                Ok(received) => match received? {
                    Some(told) => heard(Some(told.payload())),
                    None => return Err(sqlx::Error::PoolClosed),
                },
                // A line on which nobody speaks may be dead without anybody noticing.
                Err(_) => {
                    let alive = sqlx::query("SELECT 1").execute(&mut listener);
                    tokio::time::timeout(SILENCE, alive).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
                }
            }
        }
    }

    async fn join_again(&self) -> Ear {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            if let Ok(Ok(ear)) = tokio::time::timeout(SILENCE, self.connect_listener()).await {
                return ear;
            }
        }
    }

    fn receive(self: &Arc<Self>, message: Message) {
        match message {
            Message::News { from, number, signals } if from != self.me => {
                self.signals.deliver(&signals);
                self.listeners.spawn(Arc::clone(self).acknowledge(from, number, signals));
            }
            Message::Heard { from, number, by } if from == self.me => {
                if let Some(copies) = self.waiting.lock().unwrap_or_else(|e| e.into_inner()).get_mut(&number)
                {
                    copies.insert(by);
                }
                self.heard.notify_waiters();
            }
            Message::Joined { by } => {
                for copies in self.waiting.lock().unwrap_or_else(|e| e.into_inner()).values_mut() {
                    copies.insert(by);
                }
                self.heard.notify_waiters();
            }
            Message::Beat { from, number } if from == self.me => {
                let sent = self.beats.lock().unwrap_or_else(|e| e.into_inner()).remove(&number);
                if let Some(sent) = sent {
                    let until = (sent + LEASE).saturating_duration_since(self.start).as_millis() as u64;
                    self.lease_until.fetch_max(until, Ordering::AcqRel);
                }
            }
            _ => {}
        }
    }

    /// Meanwhile this copy goes on hearing: its lease must not depend on how long catching up takes.
    async fn acknowledge(self: Arc<Self>, from: i32, number: u64, signals: Vec<Signal>) {
        tokio::select! {
            () = self.listening.cancelled() => return,
            // The writer waits no longer either.
            _ = tokio::time::timeout(LEASE, self.signals.caught_up(&signals)) => {}
        }
        if let Err(error) = self.notify(&Message::Heard { from, number, by: self.me }).await {
            tracing::warn!(target: "persistence", error = %error, "persistence.signals.ack_failed");
        }
    }

    async fn beat(self: Arc<Self>) {
        let mut tick = tokio::time::interval(HEARTBEAT);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.listening.cancelled() => return,
                _ = tick.tick() => {}
            }
            // A failure shows itself: the lease runs out.
            let _ = self.beat_once().await;
        }
    }

    async fn beat_once(&self) -> sqlx::Result<()> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        {
            let mut beats = self.beats.lock().unwrap_or_else(|e| e.into_inner());
            beats.retain(|_, sent| sent.elapsed() < LEASE);
            beats.insert(number, Instant::now());
        }
        self.notify(&Message::Beat { from: self.me, number }).await
    }
}

fn encode(message: &Message) -> String {
    serde_json::to_string(message).unwrap_or_default()
}
