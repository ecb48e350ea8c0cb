//! The channels of this copy, kept in step with the shared log of PostgreSQL.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quarterdeck_domain::channel::{Channel, Shared};
use quarterdeck_domain::{Error, Result};
use quarterdeck_store::event_log::{self, Head, Logged, Place};
use quarterdeck_store::{Store, from_micros};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{Hub, PATIENCE, Position, Topic, USER_HISTORY};

/// How often the log is read without being called: a lost connection loses calls.
const LOOK: Duration = Duration::from_secs(1);
/// Pause after a failure.
const PAUSE: Duration = Duration::from_millis(250);
/// How often old events are dropped from the log.
const PRUNE: Duration = Duration::from_secs(15);
/// Events read in one go.
const BATCH: u32 = 1000;

pub(crate) struct LogReader {
    hub: Arc<Hub>,
    store: Store,
    /// Names of channels that have grown.
    grown: Mutex<HashSet<String>>,
    called: Notify,
    reading: AtomicBool,
}

impl LogReader {
    /// Reads what there is, then goes on reading.
    pub(crate) async fn start(
        hub: &Arc<Hub>,
        store: &Store,
        stopping: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<Arc<Self>> {
        let reader = Arc::new(Self {
            hub: Arc::clone(hub),
            store: store.clone(),
            grown: Mutex::default(),
            called: Notify::new(),
            reading: AtomicBool::new(true),
        });
        let logged = Arc::clone(&reader);
        // Before the first look, so that nothing falls in between.
        store.on_logged(move |channel| logged.look_at(channel));
        let now = from_micros(hub.now());
        for shared in Shared::ALL {
            let head = event_log::ensure(store, shared.as_str(), now).await?;
            hub.shared()[*shared as usize].restart(head.epoch.as_str().into(), number(head.floor));
        }
        reader.read(Shared::ALL.iter().map(|shared| shared.as_str().to_owned()).collect()).await?;
        tasks.spawn(Arc::clone(&reader).run(stopping.clone()));
        tasks.spawn(Arc::clone(&reader).prune(stopping.clone()));
        Ok(reader)
    }

    /// Whether the last look at the log succeeded.
    pub(crate) fn is_reading(&self) -> bool {
        self.reading.load(Ordering::Relaxed)
    }

    /// Has a channel read soon.
    pub(crate) fn look_at(&self, channel: &str) {
        self.grown.lock().unwrap_or_else(|e| e.into_inner()).insert(channel.to_owned());
        self.called.notify_one();
    }

    /// A user's channel with its history.
    pub(crate) async fn own(&self, user_id: &str) -> Result<Arc<Topic>> {
        let channel = Channel::User(user_id.into());
        if let Some(topic) = self.hub.known(&channel) {
            return Ok(topic);
        }
        let name = channel.to_string();
        let head = event_log::ensure(&self.store, &name, from_micros(self.hub.now())).await?;
        let oldest = number(head.floor).max(number(head.top).saturating_sub(USER_HISTORY as u64));
        let topic = self.hub.own_from(user_id, head.epoch.as_str().into(), oldest);
        let top = Position { epoch: head.epoch.as_str().into(), seq: number(head.top) };
        self.look_at(&name);
        // One task alone appends, in order; here it is only waited for.
        match tokio::time::timeout(PATIENCE, topic.reached(&top)).await {
            Ok(()) => Ok(topic),
            Err(_) => Err(Error::unavailable("the event log cannot be read", 1)),
        }
    }

    async fn run(self: Arc<Self>, stopping: CancellationToken) {
        loop {
            let timed_out = tokio::select! {
                () = stopping.cancelled() => return,
                () = self.called.notified() => false,
                () = tokio::time::sleep(LOOK) => true,
            };
            let grown = std::mem::take(&mut *self.grown.lock().unwrap_or_else(|e| e.into_inner()));
            let done = match timed_out {
                true => self.look_at_all(grown.clone()).await,
                false => self.read(grown.clone()).await,
            };
            let was_reading = self.reading.swap(done.is_ok(), Ordering::Relaxed);
            if let Err(error) = done {
                if was_reading {
                    tracing::warn!(target: "bus", error = %error, cause = error.cause(), "bus.log.unreadable");
                }
                self.grown.lock().unwrap_or_else(|e| e.into_inner()).extend(grown);
                self.called.notify_one();
                tokio::select! {
                    () = stopping.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            } else if !was_reading {
                tracing::info!(target: "bus", "bus.log.readable");
            }
        }
    }

    async fn look_at_all(&self, mut grown: HashSet<String>) -> Result<()> {
        for Head { channel, epoch, top, .. } in event_log::heads(&self.store).await? {
            let known = Channel::parse(&channel).and_then(|channel| self.hub.known(&channel));
            let here = known.map(|topic| topic.top());
            if here.is_some_and(|here| *here.epoch != *epoch || here.seq < number(top)) {
                grown.insert(channel);
            }
        }
        self.read(grown).await
    }

    /// Appends what these channels have grown by; names of channels nobody here listens to are fine.
    async fn read(&self, names: HashSet<String>) -> Result<()> {
        let channels = names.iter().filter_map(|name| Channel::parse(name));
        let topics: Vec<_> = channels.filter_map(|channel| self.hub.known(&channel)).collect();
        if topics.is_empty() {
            return Ok(());
        }
        loop {
            let places: Vec<_> = topics.iter().map(|topic| place(topic)).collect();
            let rows = event_log::after(&self.store, &places, BATCH).await?;
            let all = rows.len() < BATCH as usize;
            for Logged { channel, epoch, seq, body, created_at } in rows {
                let Some(topic) = Channel::parse(&channel).and_then(|channel| self.hub.known(&channel))
                else {
                    continue;
                };
                let position = Position { epoch: epoch.into(), seq: number(seq) };
                let here = topic.top();
                if here.epoch == position.epoch && here.seq + 1 < position.seq {
                    // The log keeps so much, and this copy has been away for longer.
                    topic.restart(here.epoch, position.seq - 1);
                }
                self.hub.append(&topic, Some(position), body.into(), created_at);
            }
            if all {
                return Ok(());
            }
        }
    }

    async fn prune(self: Arc<Self>, stopping: CancellationToken) {
        let history = self.hub.history;
        let ttl = i64::try_from(history.ttl.as_micros()).unwrap_or(i64::MAX);
        // Copies need time to read, whatever history clients get.
        let of_user = USER_HISTORY as u32;
        let most = u32::try_from(history.size).unwrap_or(u32::MAX).max(of_user);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(PRUNE) => {}
            }
            let before = from_micros(self.hub.now().saturating_sub(ttl));
            if let Err(error) = event_log::prune(&self.store, before, most, of_user).await {
                tracing::warn!(target: "bus", error = %error, cause = error.cause(), "bus.log.prune_failed");
            }
        }
    }
}

fn place(topic: &Topic) -> Place {
    let Position { epoch, seq } = topic.top();
    Place {
        channel: topic.channel().to_string(),
        epoch: epoch.to_string(),
        seq: i64::try_from(seq).unwrap_or(i64::MAX),
    }
}

fn number(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or_default()
}
