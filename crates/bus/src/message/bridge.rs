//! Brings what agents say to people who watch: every message on a shared channel is published as
//! `message.sent` on the channel of the same name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bus::MessageBus;
use super::error::{BusError, Result};
use super::life::Life;
use super::model::Message;

/// As whom the bridge is subscribed.
const SUBSCRIBER: &str = "__api_bridge__";
/// After this time NATS forgets the subscriptions of a copy that was killed.
const IDLE: Duration = Duration::from_secs(60);

/// Most bytes of a message that is told whole; what it says is told twice beside it.
const TOLD_WHOLE: usize = 8192;

/// Where messages go. Every closure of this form is one.
pub trait Publish: Send + Sync + 'static {
    /// Publishes `message.sent` on this channel, at the present time. To be quick: the channel waits.
    fn publish(&self, channel: &str, payload: Map<String, Value>);
}

impl<F: Fn(&str, Map<String, Value>) + Send + Sync + 'static> Publish for F {
    fn publish(&self, channel: &str, payload: Map<String, Value>) {
        self(channel, payload);
    }
}

/// The settings `communication.bus_bridge_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BridgeSettings {
    /// How long one look for a message waits, and how long a channel rests after an error; 0.1 to 10 s.
    pub poll_timeout: Duration,
    /// Errors in a row after which a channel is dead, 5 to 100.
    pub max_consecutive_errors: u32,
    /// How long stopping may take, 1 to 300 s.
    pub drain_timeout: Duration,
}

impl Default for BridgeSettings {
    fn default() -> Self {
        Self {
            poll_timeout: Duration::from_secs(1),
            max_consecutive_errors: 30,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// What only the program decides.
#[derive(Clone)]
pub struct BridgeOptions {
    /// Asked before every look for a message, and at the stop.
    pub settings: Arc<dyn Fn() -> BridgeSettings + Send + Sync>,
    /// Name of this copy of the program; on a shared bus each copy gets every message.
    pub instance: String,
    /// Rest of a dead channel before it is tried again; doubled each time up to the second value.
    pub restart_after: (Duration, Duration),
}

impl Default for BridgeOptions {
    fn default() -> Self {
        Self {
            settings: Arc::new(BridgeSettings::default),
            instance: uuid::Uuid::new_v4().to_string(),
            restart_after: (Duration::from_secs(1), Duration::from_secs(60)),
        }
    }
}

/// How the bridge is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeHealth {
    /// Between a start and the next stop.
    pub running: bool,
    /// Channels whose messages do not come through now, by name; they are tried again.
    pub dead: Vec<String>,
}

/// The bridge between the bus and those who watch. Clones are the same bridge.
#[derive(Clone)]
pub struct Bridge(Arc<Inner>);

struct Inner {
    bus: MessageBus,
    channels: Vec<String>,
    subscriber: String,
    options: BridgeOptions,
    sink: Box<dyn Publish>,
    /// What runs is a task for each channel.
    life: Life<TaskTracker>,
    /// Whether each channel lives.
    alive: Mutex<BTreeMap<String, bool>>,
}

impl Bridge {
    /// A bridge that is not started, for these channels of the bus.
    pub fn new<'a>(
        bus: MessageBus,
        channels: impl IntoIterator<Item = &'a str>,
        options: BridgeOptions,
        sink: impl Publish,
    ) -> Self {
        let subscriber = if bus.is_shared() {
            format!("{SUBSCRIBER}.{}", options.instance)
        } else {
            SUBSCRIBER.to_owned()
        };
        Self(Arc::new(Inner {
            bus,
            channels: channels.into_iter().map(str::to_owned).collect(),
            subscriber,
            options,
            sink: Box::new(sink),
            life: Life::new(),
            alive: Mutex::default(),
        }))
    }

    /// Subscribes to every channel and begins. Channels that cannot be subscribed are logged and tried again
    /// later. A start whose future is dropped undoes itself.
    ///
    /// # Errors
    /// [`BusError::AlreadyStarted`], [`BusError::Unusable`]; [`BusError::NotRunning`] when it was stopped
    /// meanwhile; the last refusal when no channel could be subscribed. Then no subscription is left.
    pub async fn start(&self) -> Result<()> {
        let (inner, undo) = (Arc::clone(&self.0), Arc::clone(&self.0));
        let started = self
            .0
            .life
            .start(|stopping| inner.open(stopping), |tasks| async move { undo.close(&tasks).await });
        let started = started.await;
        if let Err(error) = &started {
            tracing::warn!(target: "api", %error, "api.bus_bridge.start_failed");
        }
        started
    }

    /// Ends every channel's task and removes the subscriptions. Nothing to do for a bridge that is stopped.
    ///
    /// # Errors
    /// [`BusError::Unusable`] when that took longer than [`BridgeSettings::drain_timeout`], now or before: a
    /// task may still run, so this bridge is never started again.
    pub async fn stop(&self) -> Result<()> {
        let (inner, limit) = (Arc::clone(&self.0), (self.0.options.settings)().drain_timeout);
        let stopped = self.0.life.stop(limit, |tasks| async move { inner.close(&tasks).await }).await;
        match stopped {
            Ok(true) => tracing::info!(target: "api", "api.bus_bridge.stopped"),
            Ok(false) => {}
            Err(_) => {
                tracing::error!(target: "api", seconds = limit.as_secs_f64(), "api.bus_bridge.stop_overrun")
            }
        }
        stopped.map(drop)
    }

    /// How the bridge is now.
    pub fn health(&self) -> BridgeHealth {
        let running = self.0.life.running().is_ok();
        let dead =
            self.0.alive().iter().filter(|(_, alive)| !**alive).map(|(name, _)| name.clone()).collect();
        BridgeHealth { running, dead }
    }
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge").field("subscriber", &self.0.subscriber).finish_non_exhaustive()
    }
}

impl Inner {
    async fn open(self: Arc<Self>, stopping: CancellationToken) -> Result<TaskTracker> {
        let mut failure = BusError::Invalid("the bridge has no channels".to_owned());
        let mut missing = Vec::new();
        for channel in &self.channels {
            // Named before it is there, so that whatever happens it is undone.
            self.alive().insert(channel.clone(), false);
            match stopping.run_until_cancelled(self.subscribe(channel)).await {
                None => {
                    self.unsubscribe().await;
                    return Err(BusError::NotRunning);
                }
                Some(Ok(())) => {
                    self.alive().insert(channel.clone(), true);
                }
                Some(Err(error)) => {
                    tracing::warn!(target: "api", channel, %error, "api.bus_bridge.subscribe_failed");
                    missing.push(channel.as_str());
                    failure = error;
                }
            }
        }
        if missing.len() == self.channels.len() {
            self.unsubscribe().await;
            return Err(failure);
        }
        if !missing.is_empty() {
            tracing::error!(target: "api", missing = missing.join(", "), "api.bus_bridge.partial");
        }
        let tasks = TaskTracker::new();
        for channel in &self.channels {
            tasks.spawn(Arc::clone(&self).carry(channel.clone(), stopping.clone()));
        }
        tracing::info!(target: "api", channels = self.channels.len(), "api.bus_bridge.started");
        Ok(tasks)
    }

    async fn close(&self, tasks: &TaskTracker) {
        tasks.close();
        tasks.wait().await;
        self.unsubscribe().await;
    }

    async fn subscribe(&self, channel: &str) -> Result<()> {
        self.bus.subscribe_for(channel, &self.subscriber, Some(IDLE)).await
    }

    /// As far as it goes: a bus that is away cannot be told, and forgets by itself.
    async fn unsubscribe(&self) {
        let alive = std::mem::take(&mut *self.alive());
        for channel in alive.keys() {
            match self.bus.unsubscribe(channel, &self.subscriber).await {
                Ok(()) | Err(BusError::NotSubscribed { .. } | BusError::UnknownChannel(_)) => {}
                Err(error) => {
                    tracing::debug!(target: "api", channel, %error, "api.bus_bridge.unsubscribe_failed")
                }
            }
        }
    }

    /// The task of one channel: carries until it is dead, rests, and tries again, each time a little later.
    async fn carry(self: Arc<Self>, channel: String, stopping: CancellationToken) {
        let (shortest, longest) = self.options.restart_after;
        let life = async {
            let mut rest = shortest;
            loop {
                if self.alive().get(&channel) == Some(&true) {
                    let error = self.poll(&channel, || rest = shortest).await;
                    self.alive().insert(channel.clone(), false);
                    tracing::error!(target: "api", channel, %error, "api.bus_bridge.channel_dead");
                }
                sleep(rest).await;
                rest = (rest * 2).min(longest);
                if self.subscribe(&channel).await.is_ok() {
                    self.alive().insert(channel.clone(), true);
                    tracing::info!(target: "api", channel, "api.bus_bridge.channel_restarted");
                }
            }
        };
        stopping.run_until_cancelled(life).await;
    }

    /// Carries messages until so many errors come in a row; answers the last.
    async fn poll(&self, channel: &str, mut good: impl FnMut()) -> BusError {
        let mut errors = 0;
        loop {
            let settings = (self.options.settings)();
            let error = match self.bus.receive(channel, &self.subscriber, Some(settings.poll_timeout)).await {
                Ok(message) => {
                    errors = 0;
                    good();
                    if let Some(message) = message {
                        self.sink.publish(channel, payload(&message));
                    }
                    continue;
                }
                Err(error) => error,
            };
            errors += 1;
            tracing::warn!(target: "api", channel, errors, %error, "api.bus_bridge.poll_failed");
            if errors >= settings.max_consecutive_errors {
                return error;
            }
            sleep(settings.poll_timeout).await;
            if matches!(error, BusError::NotSubscribed { .. }) {
                // The server has forgotten it during an outage. A failure shows in the next look.
                let _ = self.subscribe(channel).await;
            }
        }
    }

    fn alive(&self) -> MutexGuard<'_, BTreeMap<String, bool>> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What those who watch get to see of a message.
fn payload(message: &Message) -> Map<String, Value> {
    let mut payload = Map::new();
    payload.insert("message_id".to_owned(), json!(message.id));
    payload.insert("sender".to_owned(), json!(message.sender));
    payload.insert("to".to_owned(), json!(message.to));
    payload.insert("content".to_owned(), json!(message.text()));
    payload.insert("parts".to_owned(), json!(message.parts));
    let whole = json!(message);
    if whole.to_string().len() <= TOLD_WHOLE {
        payload.insert("message".to_owned(), whole);
    }
    payload
}
