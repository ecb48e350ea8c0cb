//! The handle of the bus.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::channel::{ChannelInfo, ChannelType, check_name, check_open_name, direct_name, parties};
use super::config::{Backend, MessageBusConfig};
use super::error::{BusError, Result};
use super::life::Life;
use super::memory::Memory;
use super::model::{Message, Name};
use super::nats::Nats;

/// Most bytes of a message as JSON.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// What only the program decides.
#[derive(Clone)]
pub struct BusOptions {
    /// How histories are read from NATS; asked before each reading.
    pub history: Arc<dyn Fn() -> HistorySettings + Send + Sync>,
    /// How long stopping may take before the bus counts as unusable.
    pub drain_timeout: Duration,
}

impl Default for BusOptions {
    fn default() -> Self {
        Self { history: Arc::new(HistorySettings::default), drain_timeout: Duration::from_secs(10) }
    }
}

/// The settings `communication.nats_history_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistorySettings {
    /// Messages asked for at once, 10 to 1000.
    pub batch_size: usize,
    /// Silence after which what has come so far is all, 0.1 to 5 seconds.
    pub fetch_timeout: Duration,
}

impl Default for HistorySettings {
    fn default() -> Self {
        Self { batch_size: 100, fetch_timeout: Duration::from_millis(500) }
    }
}

/// The message bus. Clones are the same bus.
///
/// A message that was received is gone: at most one of those who wait for one subscriber on one channel
/// gets it, and none after a crash. Dropping the future of [`receive`](Self::receive) loses nothing.
/// Messages on one channel come in the order of publishing.
#[derive(Clone)]
pub struct MessageBus(Arc<Inner>);

struct Inner {
    config: MessageBusConfig,
    options: BusOptions,
    life: Life<Run>,
}

/// The time between a start and the next stop. Operations and waiters stay with the run they began in.
struct Run {
    back: Back,
    /// What stopping waits for.
    work: TaskTracker,
}

enum Back {
    Memory(Memory),
    Nats(Box<Nats>),
}

impl MessageBus {
    /// A bus that is not started.
    ///
    /// # Errors
    /// The sentence of [`MessageBusConfig::validate`].
    pub fn new(config: MessageBusConfig, options: BusOptions) -> std::result::Result<Self, String> {
        config.validate()?;
        Ok(Self(Arc::new(Inner { config, options, life: Life::new() })))
    }

    /// Whether several copies of the program talk over this bus.
    pub fn is_shared(&self) -> bool {
        self.0.config.backend == Backend::Nats
    }

    /// Makes the bus ready. In memory it begins empty; on NATS it finds what is there. A start whose future
    /// is dropped undoes itself.
    ///
    /// # Errors
    /// [`BusError::AlreadyStarted`], [`BusError::Unusable`]; [`BusError::NotRunning`] when it was stopped
    /// meanwhile; [`BusError::Unavailable`] when the server cannot be used, after which it is stopped.
    pub async fn start(&self) -> Result<()> {
        let inner = Arc::clone(&self.0);
        let started =
            self.0.life.start(|stopping| async move { inner.open(stopping).await }, |_| async {}).await;
        match &started {
            Ok(()) => {
                tracing::info!(target: "communication", backend = ?self.0.config.backend, "communication.bus.started");
            }
            Err(error) => tracing::warn!(target: "communication", %error, "communication.bus.start_failed"),
        }
        started
    }

    /// Wakes everyone who waits, lets what is under way end, and leaves the server. Nothing to do for a bus
    /// that is stopped; a start that is under way is given up.
    ///
    /// # Errors
    /// [`BusError::Unusable`] when that took longer than [`BusOptions::drain_timeout`], now or before.
    pub async fn stop(&self) -> Result<()> {
        let limit = self.0.options.drain_timeout;
        let stopped = self.0.life.stop(limit, |run| async move { run.close().await }).await;
        match stopped {
            Ok(true) => tracing::info!(target: "communication", "communication.bus.stopped"),
            Ok(false) => {}
            Err(_) => {
                tracing::error!(
                    target: "communication", seconds = limit.as_secs_f64(), "communication.bus.stop_overrun"
                );
            }
        }
        stopped.map(drop)
    }

    /// Publishes on the message's channel. `ttl` asks for the message to be forgotten after that time; only
    /// NATS from 2.11 on does it, in whole seconds.
    ///
    /// # Errors
    /// [`BusError::UnknownChannel`], [`BusError::TooLarge`], [`BusError::NotAParty`] on a direct line that
    /// the recipient is not at. After [`BusError::Unavailable`] it is open whether it was published.
    pub async fn publish(&self, message: Message, ttl: Option<Duration>) -> Result<()> {
        let run = self.0.life.running()?;
        let json = encode(&message)?;
        match &run.back {
            Back::Memory(memory) => memory.publish(message),
            Back::Nats(nats) => run.work.track_future(nats.publish(&message, json, ttl)).await,
        }
    }

    /// Publishes one after the other.
    ///
    /// # Errors
    /// That of the first that fails; those before it are published, those after it are not.
    pub async fn publish_batch(&self, messages: impl IntoIterator<Item = Message>) -> Result<()> {
        for message in messages {
            self.publish(message, None).await?;
        }
        Ok(())
    }

    /// Sends to one agent, on the direct line of the two, which is made and to which both are subscribed if
    /// need be. The message's channel is set to that line.
    ///
    /// # Errors
    /// [`BusError::Invalid`] when `recipient` is not whom the message is for or an id holds a colon; else as
    /// [`publish`](Self::publish).
    pub async fn send_direct(&self, mut message: Message, recipient: &str) -> Result<()> {
        if message.to.as_str() != recipient {
            return Err(BusError::Invalid("the recipient must be whom the message is for".to_owned()));
        }
        let line = direct_name(&message.sender, recipient)?;
        match self.create_channel(&line, ChannelType::Direct).await {
            Ok(()) | Err(BusError::ChannelExists(_)) => {}
            Err(error) => return Err(error),
        }
        self.subscribe(&line, recipient).await?;
        self.subscribe(&line, &message.sender).await?;
        message.channel = Name::new(line).map_err(BusError::Invalid)?;
        self.publish(message, None).await
    }

    /// Has what is published from now on kept for this subscriber. Nothing to do for one who is subscribed.
    ///
    /// # Errors
    /// [`BusError::UnknownChannel`]; [`BusError::NotAParty`] on a direct line of others;
    /// [`BusError::Invalid`] for a name, also when channel and subscriber are together too long for NATS.
    pub async fn subscribe(&self, channel: &str, subscriber: &str) -> Result<()> {
        self.subscribe_for(channel, subscriber, None).await
    }

    /// As [`subscribe`](Self::subscribe); on NATS the subscription ends when nobody has received on it for
    /// `idle`, so that a copy that was killed leaves nothing. In memory it ends with the process anyway.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    pub async fn subscribe_for(&self, channel: &str, subscriber: &str, idle: Option<Duration>) -> Result<()> {
        check_name("the name of a subscriber", subscriber)?;
        match &self.0.life.running()?.back {
            Back::Memory(memory) => memory.subscribe(channel, subscriber),
            Back::Nats(nats) => nats.subscribe(channel, subscriber, idle).await,
        }
    }

    /// Ends a subscription with all that waits in it, and wakes everyone who receives on it.
    ///
    /// # Errors
    /// [`BusError::UnknownChannel`], [`BusError::NotSubscribed`].
    pub async fn unsubscribe(&self, channel: &str, subscriber: &str) -> Result<()> {
        match &self.0.life.running()?.back {
            Back::Memory(memory) => memory.unsubscribe(channel, subscriber),
            Back::Nats(nats) => nats.unsubscribe(channel, subscriber).await,
        }
    }

    /// The next message for this subscriber; waits at most `timeout`, or for ever. `None` when the time is
    /// up, the bus stops, or the subscription is removed meanwhile. On a direct line one's own messages are
    /// left out.
    ///
    /// # Errors
    /// [`BusError::UnknownChannel`]; [`BusError::NotSubscribed`] unless the channel is a broadcast, on which
    /// receiving is enough; [`BusError::Unavailable`] as soon as the server is lost.
    pub async fn receive(
        &self,
        channel: &str,
        subscriber: &str,
        timeout: Option<Duration>,
    ) -> Result<Option<Arc<Message>>> {
        check_name("the name of a subscriber", subscriber)?;
        match &self.0.life.running()?.back {
            Back::Memory(memory) => memory.receive(channel, subscriber, timeout).await,
            Back::Nats(nats) => nats.receive(channel, subscriber, timeout).await,
        }
    }

    /// Makes a channel; of several who try at once, on any copy, one succeeds.
    ///
    /// # Errors
    /// [`BusError::ChannelExists`]; [`BusError::Invalid`] for a name that is none, or of another type.
    pub async fn create_channel(&self, name: &str, kind: ChannelType) -> Result<()> {
        if kind == ChannelType::Direct {
            let [first, second] = parties(name).unwrap_or_default();
            if direct_name(first, second)? != name {
                return Err(BusError::Invalid("a direct line must have its parties in order".to_owned()));
            }
        } else {
            check_open_name("the name of a channel", name)?;
        }
        match &self.0.life.running()?.back {
            Back::Memory(memory) => memory.create(name, kind),
            Back::Nats(nats) => nats.create(name, kind).await,
        }
    }

    /// A channel as it is now.
    ///
    /// # Errors
    /// [`BusError::UnknownChannel`].
    pub async fn channel(&self, name: &str) -> Result<ChannelInfo> {
        match &self.0.life.running()?.back {
            Back::Memory(memory) => memory.channel(name),
            Back::Nats(nats) => nats.channel(name).await,
        }
    }

    /// All channels, by name.
    ///
    /// # Errors
    /// [`BusError::NotRunning`], [`BusError::Unavailable`].
    pub async fn channels(&self) -> Result<Vec<ChannelInfo>> {
        match &self.0.life.running()?.back {
            Back::Memory(memory) => Ok(memory.all()),
            Back::Nats(nats) => nats.all().await,
        }
    }

    /// The last `limit` messages of a channel, the oldest first; none when `limit` is not above 0.
    ///
    /// # Errors
    /// [`BusError::UnknownChannel`], [`BusError::Unavailable`].
    pub async fn history(&self, channel: &str, limit: i64) -> Result<Vec<Arc<Message>>> {
        let limit = usize::try_from(limit).unwrap_or(0);
        match &self.0.life.running()?.back {
            Back::Memory(memory) => memory.history(channel, limit),
            Back::Nats(nats) => nats.history(channel, limit, (self.0.options.history)()).await,
        }
    }

    /// Whether the bus can be used. Asks the server, which has `health_flush_timeout_seconds` to answer.
    ///
    /// # Errors
    /// [`BusError::NotRunning`], [`BusError::Unusable`], [`BusError::Unavailable`].
    pub async fn health_check(&self) -> Result<()> {
        match &self.0.life.running()?.back {
            Back::Memory(_) => Ok(()),
            Back::Nats(nats) => nats.health_check().await,
        }
    }
}

impl fmt::Debug for MessageBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageBus").field("backend", &self.0.config.backend).finish_non_exhaustive()
    }
}

impl Inner {
    async fn open(&self, stopping: CancellationToken) -> Result<Run> {
        let work = TaskTracker::new();
        let back = match (&self.config.nats, self.config.backend) {
            (Some(nats), Backend::Nats) => {
                let connecting = Nats::connect(nats, &self.config, stopping.clone(), work.clone());
                let connected = stopping.run_until_cancelled(connecting).await;
                Back::Nats(Box::new(connected.ok_or(BusError::NotRunning)??))
            }
            _ => Back::Memory(Memory::new(&self.config, stopping)),
        };
        Ok(Run { back, work })
    }
}

impl Run {
    async fn close(&self) {
        self.work.close();
        self.work.wait().await;
        if let Back::Nats(nats) = &self.back {
            nats.close().await;
        }
    }
}

/// The message as it is sent and measured.
fn encode(message: &Message) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(message).map_err(|error| BusError::Invalid(error.to_string()))?;
    if json.len() > MAX_MESSAGE_BYTES {
        return Err(BusError::TooLarge { bytes: json.len(), most: MAX_MESSAGE_BYTES });
    }
    Ok(json)
}
