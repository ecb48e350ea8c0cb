//! Every socket of this copy of the program: how many, of whom, and how all of them are stopped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::{DateTime, Utc};
use metrics::Recorder;
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_store::{Store, micros, presence};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::metrics::Metrics;
use super::peer::{Peer, STOP};
use crate::rights::Patience;

/// How long somebody whose last socket has ended still counts as present: who comes back meanwhile was
/// never away.
const DEBOUNCE: Duration = Duration::from_secs(5);
/// How long the other copies believe what this one has said of itself.
const LEASE: Duration = Duration::from_secs(60);
/// Longest wait for sockets to say goodbye when the server stops.
const GOODBYE: Duration = Duration::from_secs(5);

/// What an operator may set about sockets.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    /// Time between pings; `None` for none.
    pub ping_interval: Option<Duration>,
    /// Longest wait for the answer to a ping; `None` for ever.
    pub ping_timeout: Option<Duration>,
    /// Whether a ticket may come in the first message.
    pub first_message_auth: bool,
    /// Longest wait for that message.
    pub auth_timeout: Duration,
    /// Longest silence of a client; `None` for any.
    pub frame_timeout: Option<Duration>,
    /// How patiently rights that cannot be read are waited for.
    pub patience: Patience,
    /// Whether refusals are HTTP answers instead of close frames.
    pub deny_by_http: bool,
    /// Most sockets of one user; 0 for any number.
    pub max_per_user: u32,
    /// Most refused handshakes of one address in a minute; 0 for any number.
    pub refused_per_minute: u32,
    /// Commands a client may send each second; 0 for any number.
    pub command_rate: u32,
    /// Longest life of a socket; `None` for that of a session's token.
    pub max_lifetime: Option<Duration>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            ping_interval: Some(Duration::from_secs(20)),
            ping_timeout: Some(Duration::from_secs(20)),
            first_message_auth: false,
            auth_timeout: Duration::from_secs(10),
            frame_timeout: None,
            patience: Patience::default(),
            deny_by_http: false,
            max_per_user: 1000,
            refused_per_minute: 1000,
            command_rate: 200,
            max_lifetime: None,
        }
    }
}

/// The sockets of this copy.
pub struct Sockets {
    options: SocketOptions,
    metrics: Arc<Metrics>,
    clock: SharedClock,
    seats: Mutex<Seats>,
    next: AtomicU64,
    stopping: AtomicBool,
    tasks: TaskTracker,
    instance: String,
}

#[derive(Default)]
struct Seats {
    peers: HashMap<u64, Arc<Peer>>,
    users: HashMap<Arc<str>, Present>,
}

/// Somebody who is connected, or was a moment ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present {
    /// Sockets.
    pub connections: u32,
    /// Since when there was always one, moments aside.
    pub since: DateTime<Utc>,
    /// When the last one ended, on the monotonic clock.
    left: Option<Duration>,
}

impl Sockets {
    /// No sockets yet.
    pub fn new(options: SocketOptions, recorder: &impl Recorder, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self {
            options,
            metrics: Arc::new(Metrics::new(recorder)),
            clock,
            seats: Mutex::default(),
            next: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            tasks: TaskTracker::new(),
            instance: uuid::Uuid::new_v4().simple().to_string(),
        })
    }

    /// What was set.
    pub fn options(&self) -> &SocketOptions {
        &self.options
    }

    /// The name of this copy among those that share a database.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Counts a socket in, unless its user has as many as allowed or the server stops.
    pub(super) fn seat(self: &Arc<Self>, peer: &Arc<Peer>) -> Option<Seat> {
        let mut seats = self.seats();
        if self.is_stopping() {
            return None;
        }
        let fresh = Present { connections: 0, since: self.clock.now(), left: None };
        let present = seats.users.entry(Arc::clone(&peer.user_id)).or_insert(fresh);
        let most = self.options.max_per_user;
        if most > 0 && present.connections >= most {
            return None;
        }
        if present.left.is_some_and(|left| self.clock.monotonic().saturating_sub(left) >= DEBOUNCE) {
            *present = fresh;
        }
        present.connections += 1;
        present.left = None;
        seats.peers.insert(peer.id, Arc::clone(peer));
        self.metrics.connected();
        Some(Seat { sockets: Arc::clone(self), peer: Arc::clone(peer), _task: self.tasks.token() })
    }

    /// Who is connected, by user id.
    pub fn present(&self) -> HashMap<Arc<str>, Present> {
        let now = self.clock.monotonic();
        let mut seats = self.seats();
        seats.users.retain(|_, p| p.left.is_none_or(|left| now.saturating_sub(left) < DEBOUNCE));
        seats.users.clone()
    }

    /// Tells the other copies who is connected here, whenever that has changed and before the last word
    /// is forgotten. Ends with `stopping`; nothing to do where there are no others.
    pub async fn report(self: Arc<Self>, store: Store, stopping: CancellationToken) {
        if store.backend_name() != "postgres" {
            return;
        }
        let (mut last, mut at) = (Vec::new(), None::<Duration>);
        loop {
            let is_over = tokio::select! {
                () = stopping.cancelled() => true,
                () = tokio::time::sleep(DEBOUNCE) => false,
            };
            let present = if is_over { Vec::new() } else { self.rows() };
            let monotonic = self.clock.monotonic();
            let is_due = at.is_none_or(|at| monotonic.saturating_sub(at) >= LEASE / 3);
            if is_over || present != last || (is_due && !present.is_empty()) {
                let now = self.clock.now();
                let (instance, rows) = (self.instance.clone(), present.clone());
                let told = store.write(move |tx| {
                    Box::pin(async move { presence::report(tx, &instance, &rows, now + LEASE, now).await })
                });
                match told.await {
                    Ok(()) => (last, at) = (present, Some(monotonic)),
                    Err(error) => {
                        tracing::warn!(target: "api", error = %error, cause = error.cause(), "api.ws.presence_failed");
                    }
                }
            }
            if is_over {
                return;
            }
        }
    }

    fn rows(&self) -> Vec<presence::Present> {
        let row = |(user_id, present): (Arc<str>, Present)| presence::Present {
            user_id: user_id.to_string(),
            connections: present.connections.into(),
            since: micros(present.since),
        };
        let mut rows: Vec<_> = self.present().into_iter().map(row).collect();
        rows.sort_by(|a, b| a.user_id.cmp(&b.user_id));
        rows
    }

    /// How many sockets there are.
    pub fn count(&self) -> usize {
        self.seats().peers.len()
    }

    /// Refuses new sockets, says goodbye to all and waits a little for them to go.
    pub async fn stop(&self) {
        let peers: Vec<_> = {
            let seats = self.seats();
            self.stopping.store(true, Ordering::Release);
            seats.peers.values().cloned().collect()
        };
        for peer in peers {
            peer.call(STOP);
        }
        self.tasks.close();
        let _ = tokio::time::timeout(GOODBYE, self.tasks.wait()).await;
    }
}

/// A socket's place among the others.
pub(super) struct Seat {
    sockets: Arc<Sockets>,
    peer: Arc<Peer>,
    _task: TaskTrackerToken,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.sockets.seats();
        seats.peers.remove(&self.peer.id);
        if let Some(present) = seats.users.get_mut(&self.peer.user_id) {
            present.connections = present.connections.saturating_sub(1);
            if present.connections == 0 {
                present.left = Some(self.sockets.clock.monotonic());
            }
        }
        drop(seats);
        self.sockets.metrics.disconnected();
    }
}
