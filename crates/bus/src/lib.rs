//! News: what has happened, told to everyone who may know.
//!
//! A change publishes its event inside its own transaction ([`Tx::publish`](quarterdeck_store::Tx::publish)),
//! so there is no event without its change and no change without its event. After the commit the event
//! gets a place in its channel and comes to the listeners of every copy of the program. How it travels
//! follows the configuration:
//!
//! | Back end | Places are given by | Copies hear through |
//! |---|---|---|
//! | memory | this process | nothing, there is one |
//! | PostgreSQL | the shared log, in commit order | `NOTIFY`, and a look each second |
//! | NATS | a JetStream stream | an ordered consumer each |
//!
//! [`message`] is another subject: mail between agents.

mod fan_out;
mod log_reader;
pub mod message;
mod nats;
mod published;
mod relay;
mod topic;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use quarterdeck_domain::Result;
use quarterdeck_domain::channel::{Channel, Shared};
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::event::Event;
use quarterdeck_store::event_log::new_epoch;
use quarterdeck_store::{Store, micros};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use published::{Form, Parsed, Position, Published};
pub use topic::{History, Listener, Lost, Read, Topic};

use fan_out::FanOut;

/// Events a user's own channel keeps at most.
const USER_HISTORY: usize = 64;
/// How often idle channels and old events are looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// Longest wait for a copy that lags behind the shared log.
const PATIENCE: Duration = Duration::from_secs(1);

/// How news travels.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bounds of the history of each channel.
    pub history: History,
    /// The broker between copies, if there is one.
    pub nats: Option<message::NatsConfig>,
}

impl Default for Options {
    fn default() -> Self {
        let history = History { size: 512, ttl: Duration::from_secs(600), max_bytes: 4 << 20 };
        Self { history, nats: None }
    }
}

/// All channels, as this copy of the program knows them. Cheap to clone.
#[derive(Clone)]
pub struct Bus(Arc<Inner>);

struct Inner {
    hub: Arc<Hub>,
    store: Store,
    back_end: BackEnd,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

enum BackEnd {
    Memory,
    Postgres(Arc<log_reader::LogReader>),
    Nats(Arc<nats::Link>),
}

/// The channels, and the one way events come into them.
pub(crate) struct Hub {
    clock: SharedClock,
    history: History,
    shared: Vec<Arc<Topic>>,
    users: Mutex<Users>,
    fan_out: Arc<FanOut>,
    published: AtomicU64,
}

/// Users' own channels, made when somebody asks for them.
struct Users {
    topics: HashMap<Arc<str>, Arc<Topic>>,
    /// Epoch and place in which a channel nobody has seen begins. Without an epoch, each has its own.
    origin: (Option<Arc<str>>, u64),
}

impl Bus {
    /// Starts to carry news.
    ///
    /// # Errors
    /// When the shared log or the broker cannot be reached; a sentence for the operator.
    pub async fn start(store: Store, clock: SharedClock, options: Options) -> Result<Self> {
        let hub = Arc::new(Hub::new(clock, options.history));
        let stopping = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(Arc::clone(&hub.fan_out).run(stopping.clone()));
        let back_end = match options.nats {
            Some(nats) => {
                let link = nats::Link::start(&hub, &nats, &stopping, &tasks).await?;
                relay::start(&store, relay::Sink::Nats(Arc::clone(&link)), &stopping, &tasks);
                BackEnd::Nats(link)
            }
            None if store.backend_name() == "postgres" => {
                BackEnd::Postgres(log_reader::LogReader::start(&hub, &store, &stopping, &tasks).await?)
            }
            None => {
                let direct = Arc::clone(&hub);
                store.on_events(move |events| direct.take(events));
                relay::start(&store, relay::Sink::Local(Arc::clone(&hub)), &stopping, &tasks);
                BackEnd::Memory
            }
        };
        let bus = Self(Arc::new(Inner { hub, store, back_end, stopping, tasks }));
        bus.0.tasks.spawn(sweep(Arc::clone(&bus.0.hub), bus.0.stopping.clone()));
        Ok(bus)
    }

    /// Tells of something that is no change of the database.
    ///
    /// # Errors
    /// Those of the database; nobody is told then.
    pub async fn publish(&self, event: Event) -> Result<()> {
        self.0
            .store
            .write(move |tx| {
                Box::pin(async move {
                    tx.publish(Ok(event));
                    Ok(())
                })
            })
            .await
    }

    /// A channel everybody shares.
    pub fn shared(&self, channel: Shared) -> &Arc<Topic> {
        &self.0.hub.shared[channel as usize]
    }

    /// A user's own channel, with its history.
    ///
    /// # Errors
    /// When the shared log cannot be read.
    pub async fn own(&self, user_id: &str) -> Result<Arc<Topic>> {
        match &self.0.back_end {
            BackEnd::Postgres(reader) => reader.own(user_id).await,
            BackEnd::Memory | BackEnd::Nats(_) => Ok(self.0.hub.own(user_id)),
        }
    }

    /// As [`Topic::recover`]; a copy that lags behind the others gets a second to catch up.
    pub async fn recover(
        &self,
        topic: &Arc<Topic>,
        from: &Position,
    ) -> (Position, Result<Vec<Arc<Published>>, Lost>) {
        let now = self.now_micros();
        let found = topic.recover(from, now);
        if !matches!(found.1, Err(Lost::Ahead)) || matches!(self.0.back_end, BackEnd::Memory) {
            return found;
        }
        if let BackEnd::Postgres(reader) = &self.0.back_end {
            reader.look_at(&topic.channel().to_string());
        }
        let _ = tokio::time::timeout(PATIENCE, topic.reached(from)).await;
        topic.recover(from, now)
    }

    /// The wall clock events are dated by, microseconds since 1970 UTC.
    pub fn now_micros(&self) -> i64 {
        self.0.hub.now()
    }

    /// `memory`, `postgres` or `nats`.
    pub fn backend_name(&self) -> &'static str {
        match &self.0.back_end {
            BackEnd::Memory => "memory",
            BackEnd::Postgres(_) => "postgres",
            BackEnd::Nats(_) => "nats",
        }
    }

    /// Whether it carries news; not any more once it was stopped.
    pub fn is_running(&self) -> bool {
        !self.0.stopping.is_cancelled()
    }

    /// Whether news of other copies arrives right now; `None` when there are none.
    pub fn is_linked(&self) -> Option<bool> {
        match &self.0.back_end {
            BackEnd::Memory => None,
            BackEnd::Postgres(reader) => Some(reader.is_reading()),
            BackEnd::Nats(link) => Some(link.is_up()),
        }
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        let hub = &self.0.hub;
        Stats {
            published: hub.published.load(Ordering::Relaxed),
            handed: hub.fan_out.handed(),
            user_channels: hub.users().topics.len(),
        }
    }

    /// Stops hearing and telling. Listeners stay where they are and hear no more.
    pub async fn stop(&self) {
        self.0.stopping.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

/// Figures of a bus since its start.
#[derive(Clone, Copy, Debug)]
pub struct Stats {
    /// Events that came into a channel of this copy.
    pub published: u64,
    /// Events times listeners they were handed to.
    pub handed: u64,
    /// Users' own channels in memory.
    pub user_channels: usize,
}

impl Hub {
    fn new(clock: SharedClock, history: History) -> Self {
        let now = micros(clock.now());
        let topic = |&shared: &Shared| {
            Arc::new(Topic::new(Channel::Shared(shared), history, new_epoch().into(), 0, now))
        };
        Self {
            history,
            shared: Shared::ALL.iter().map(topic).collect(),
            users: Mutex::new(Users { topics: HashMap::new(), origin: (None, 0) }),
            fan_out: Arc::default(),
            published: AtomicU64::new(0),
            clock,
        }
    }

    pub(crate) fn now(&self) -> i64 {
        micros(self.clock.now())
    }

    fn users(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(crate) fn shared(&self) -> &[Arc<Topic>] {
        &self.shared
    }

    /// The user's channel, made here if it is not known.
    pub(crate) fn own(&self, user_id: &str) -> Arc<Topic> {
        let mut users = self.users();
        self.own_of(&mut users, user_id)
    }

    fn own_of(&self, users: &mut Users, user_id: &str) -> Arc<Topic> {
        if let Some(topic) = users.topics.get(user_id) {
            return Arc::clone(topic);
        }
        let (epoch, start) = &users.origin;
        let epoch = epoch.clone().unwrap_or_else(|| new_epoch().into());
        self.open(users, user_id, epoch, *start)
    }

    fn open(&self, users: &mut Users, user_id: &str, epoch: Arc<str>, start: u64) -> Arc<Topic> {
        let history = History { size: self.history.size.min(USER_HISTORY), ..self.history };
        let name: Arc<str> = user_id.into();
        let topic = Topic::new(Channel::User(Arc::clone(&name)), history, epoch, start, self.now());
        let topic = Arc::new(topic);
        users.topics.insert(name, Arc::clone(&topic));
        topic
    }

    /// The user's channel if it is known here, else one that begins at this place.
    pub(crate) fn own_from(&self, user_id: &str, epoch: Arc<str>, start: u64) -> Arc<Topic> {
        let mut users = self.users();
        match users.topics.get(user_id) {
            Some(topic) => Arc::clone(topic),
            None => self.open(&mut users, user_id, epoch, start),
        }
    }

    /// The channel of this name, if it is known here.
    pub(crate) fn known(&self, channel: &Channel) -> Option<Arc<Topic>> {
        match channel {
            Channel::Shared(shared) => Some(Arc::clone(&self.shared[*shared as usize])),
            Channel::User(id) => self.users().topics.get(id).cloned(),
        }
    }

    /// The channel, made here if it is not known.
    pub(crate) fn topic(&self, channel: &Channel) -> Arc<Topic> {
        match channel {
            Channel::Shared(shared) => Arc::clone(&self.shared[*shared as usize]),
            Channel::User(id) => self.own(id),
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        self.shared.iter().chain(self.users().topics.values()).cloned().collect()
    }

    /// Adds an event to a channel and has it handed to whoever listens there.
    pub(crate) fn append(&self, topic: &Arc<Topic>, position: Option<Position>, body: Bytes, at_micros: i64) {
        topic.append(position, body, at_micros, self.now());
        self.published.fetch_add(1, Ordering::Relaxed);
        self.fan_out.stir(topic);
    }

    /// Adds the event with this place in a stream that all channels share.
    pub(crate) fn append_from_stream(
        &self,
        channel: &Channel,
        position: Position,
        body: Bytes,
        at_micros: i64,
    ) {
        // Users' channels under one lock: one that is made meanwhile begins before this event or after it.
        let mut users = self.users();
        let topic = match channel {
            Channel::Shared(shared) => Arc::clone(&self.shared[*shared as usize]),
            Channel::User(id) => self.own_of(&mut users, id),
        };
        users.origin = (Some(Arc::clone(&position.epoch)), position.seq);
        self.append(&topic, Some(position), body, at_micros);
    }

    /// History begins anew here, for every channel.
    pub(crate) fn restart(&self, epoch: &Arc<str>, start: u64) {
        self.users().origin = (Some(Arc::clone(epoch)), start);
        for topic in self.all() {
            topic.restart(Arc::clone(epoch), start);
            self.fan_out.stir(&topic);
        }
    }

    /// Channels that have nothing begin at this place.
    pub(crate) fn settle(&self, epoch: &Arc<str>, start: u64) {
        self.users().origin = (Some(Arc::clone(epoch)), start);
        for topic in self.all() {
            topic.settle(start);
        }
    }

    /// Events of a commit of this process, which alone gives out places.
    fn take(&self, events: Vec<Event>) {
        for event in events {
            let at = micros(event.timestamp);
            let topic = self.topic(&event.channel);
            self.append(&topic, None, event.into_body().into(), at);
        }
    }

    fn sweep(&self) {
        let ttl = i64::try_from(self.history.ttl.as_micros()).unwrap_or(i64::MAX);
        let oldest = self.now().saturating_sub(ttl);
        self.users().topics.retain(|_, topic| {
            // Whoever has been given it and does not listen yet holds a reference.
            Arc::strong_count(topic) > 1 || topic.idle_since().is_none_or(|since| since >= oldest)
        });
    }
}

async fn sweep(hub: Arc<Hub>, stopping: CancellationToken) {
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(SWEEP) => hub.sweep(),
        }
    }
}
