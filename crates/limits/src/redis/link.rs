//! The connection, and the breaker around it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use metrics::{Histogram, Recorder};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisResult, ScriptInvocation};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::memory::lock;
use crate::stats;

/// Longest time to connect, sign in and try out.
const CONNECT: Duration = Duration::from_secs(1);

/// One connection all requests share. The first failure takes it away: who comes then learns at once
/// that Redis is away, and only the keeper tries again.
pub(super) struct Link {
    client: Client,
    timeout: Duration,
    connection: ArcSwapOption<MultiplexedConnection>,
    up: watch::Sender<bool>,
    lost: Notify,
    since: Mutex<Option<Instant>>,
    outages: AtomicU64,
    latency: OnceLock<Histogram>,
}

/// Redis is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Down {
    /// That was known; nothing was sent.
    Known,
    /// This call found out; what it sent may have been carried out.
    Found,
}

impl Link {
    pub(super) fn new(client: Client, timeout: Duration) -> Self {
        Self {
            client,
            timeout,
            connection: ArcSwapOption::empty(),
            up: watch::Sender::new(false),
            lost: Notify::new(),
            since: Mutex::new(None),
            outages: AtomicU64::new(0),
            latency: OnceLock::new(),
        }
    }

    /// Sends what `ask` makes, unless Redis is known to be away.
    pub(super) async fn call<T, F>(&self, ask: impl FnOnce(MultiplexedConnection) -> F) -> Result<T, Down>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let Some(connection) = self.connection.load_full() else { return Err(Down::Known) };
        let began = Instant::now();
        let answer = timeout(self.timeout, ask(MultiplexedConnection::clone(&connection))).await;
        let failure = match answer {
            Ok(Ok(answer)) => {
                if let Some(latency) = self.latency.get() {
                    latency.record(began.elapsed());
                }
                return Ok(answer);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} ms", self.timeout.as_millis()),
        };
        let before = self.connection.compare_and_swap(&connection, None);
        // Of all who fail on one connection, one reports.
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, &connection)) {
            self.missed(&failure);
        }
        Err(Down::Found)
    }

    /// A connection on which `probe` works.
    pub(super) async fn connect(
        &self,
        probe: &ScriptInvocation<'_>,
    ) -> Result<MultiplexedConnection, String> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(self.timeout));
        let attempt = async {
            let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
            probe.invoke_async::<Vec<u64>>(&mut connection).await?;
            RedisResult::Ok(connection)
        };
        match timeout(CONNECT, attempt).await {
            Ok(attempt) => attempt.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no connection within {} ms", CONNECT.as_millis())),
        }
    }

    /// An outage begins.
    pub(super) fn missed(&self, cause: &str) {
        let mut since = lock(&self.since);
        if since.is_none() {
            *since = Some(Instant::now());
            self.outages.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(target: "limits", error = cause, "limits.store.lost");
        }
        self.up.send_replace(false);
        drop(since);
        self.lost.notify_one();
    }

    /// Calls go out on this connection from now on.
    pub(super) fn restored(&self, connection: MultiplexedConnection) {
        self.connection.store(Some(Arc::new(connection)));
    }

    /// Ends the outage, unless the connection is lost again already, and says whether it did.
    pub(super) fn announce(&self) -> bool {
        // Under the lock, so that a loss right now is told after this.
        let mut since = lock(&self.since);
        if !self.is_up() {
            return false;
        }
        if let Some(since) = since.take() {
            let millis = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(target: "limits", down_ms = millis, "limits.store.recovered");
        }
        self.up.send_replace(true);
        true
    }

    pub(super) fn is_up(&self) -> bool {
        self.connection.load().is_some()
    }

    /// Resolves when a connection was lost.
    pub(super) async fn lost(&self) {
        self.lost.notified().await;
    }

    pub(super) fn up(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    pub(super) fn outages(&self) -> u64 {
        self.outages.load(Ordering::Relaxed)
    }

    pub(super) fn measure(&self, recorder: &dyn Recorder) {
        self.latency.get_or_init(|| stats::latency(recorder));
    }
}
