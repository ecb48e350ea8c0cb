//! The bus on a NATS server with JetStream, where every copy of the program finds the same channels.
//!
//! One stream holds all messages, with a subject for each channel. A subscription is a durable consumer,
//! so it waits while nobody receives. Channels made at run time stand in a key-value bucket, whose create
//! decides races.

mod consumers;
mod history;
mod link;
mod mailbox;
mod names;
mod setup;

pub(crate) use link::connect;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::context::{ContextBuilder, PublishErrorKind, RequestErrorKind};
use async_nats::jetstream::kv::{self, CreateErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{self, InfoError, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::link::Link;
use self::mailbox::Mailbox;
use self::names::{consumer_name, name_of, parse_consumer, token};
use self::setup::{ensure_bucket, ensure_stream};
use super::bus::{HistorySettings, MAX_MESSAGE_BYTES};
use super::channel::{ChannelInfo, ChannelType, check_party, parties};
use super::config::{MessageBusConfig, NatsConfig};
use super::error::{BusError, Result};
use super::memory::not_subscribed;
use super::model::Message;

/// First version of the server that forgets single messages after a time.
const TTL_SINCE: (i64, i64, i64) = (2, 11, 0);

pub(super) struct Nats {
    link: Arc<Link>,
    jetstream: Context,
    stream: Stream<()>,
    bucket: kv::Store,
    /// Beginning of every subject.
    subjects: String,
    ack_wait: Duration,
    patience: Duration,
    queue_size: u32,
    forgets: bool,
    /// Channels seen so far; none ever goes or changes.
    channels: Mutex<HashMap<String, ChannelType>>,
    mailboxes: Mutex<HashMap<(String, String), Arc<Mailbox>>>,
    stopping: CancellationToken,
    work: TaskTracker,
}

/// What the bucket says about a channel, under the token of its name.
#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    r#type: ChannelType,
}

impl Nats {
    pub(super) async fn connect(
        config: &NatsConfig,
        bus: &MessageBusConfig,
        stopping: CancellationToken,
        work: TaskTracker,
    ) -> Result<Self> {
        let link = Link::connect(config, stopping.clone()).await?;
        let jetstream = ContextBuilder::new()
            .timeout(config.ack_wait())
            .ack_timeout(config.ack_wait())
            .build(link.client.clone());
        let prefix = &config.stream_name_prefix;
        let (name, subjects) = (format!("{prefix}_BUS"), format!("{}.bus", prefix.to_lowercase()));
        let forgets = link.client.is_server_compatible(TTL_SINCE.0, TTL_SINCE.1, TTL_SINCE.2);
        let new = stream::Config { name: name.clone(), ..stream::Config::default() };
        ensure_stream(&jetstream, new, |stream| {
            stream.subjects = vec![format!("{subjects}.channel.*"), format!("{subjects}.direct.*")];
            stream.max_messages_per_subject = bus.retention.max_messages_per_channel.into();
            stream.allow_message_ttl |= forgets;
        })
        .await?;
        let stream = jetstream.get_stream_no_info(&name).await;
        let stream = stream.map_err(|error| BusError::server("find the stream", error))?;
        let bucket = ensure_bucket(&jetstream, format!("{prefix}_BUS_CHANNELS")).await?;
        if link.client.max_payload() < MAX_MESSAGE_BYTES {
            tracing::warn!(
                target: "communication", max_payload = link.client.max_payload(), wanted = MAX_MESSAGE_BYTES,
                "communication.nats.small_payload"
            );
        }
        let configured = bus.channels.iter().map(|name| (name.clone(), ChannelType::Topic));
        Ok(Self {
            link: Arc::new(link),
            jetstream,
            stream,
            bucket,
            subjects,
            ack_wait: config.ack_wait(),
            patience: config.patience(),
            queue_size: bus.retention.max_subscriber_queue_size,
            forgets,
            channels: Mutex::new(configured.collect()),
            mailboxes: Mutex::default(),
            stopping,
            work,
        })
    }

    pub(super) async fn publish(
        &self,
        message: &Message,
        json: Vec<u8>,
        ttl: Option<Duration>,
    ) -> Result<()> {
        let kind = self.kind(&message.channel).await?;
        if kind == ChannelType::Direct {
            check_party(&message.channel, &message.to)?;
        }
        let (bytes, most) = (json.len(), self.link.client.max_payload());
        if bytes > most {
            return Err(BusError::TooLarge { bytes, most });
        }
        self.link.check()?;
        let mut letter = PublishMessage::build().payload(json.into());
        if let Some(ttl) = ttl.filter(|_| self.forgets) {
            letter = letter.ttl(Duration::from_secs(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)));
        }
        let failed = |error: async_nats::jetstream::context::PublishError| match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => BusError::TooLarge { bytes, most },
            _ => BusError::server("publish", error),
        };
        let acknowledged = self.jetstream.send_publish(self.subject(&message.channel, kind), letter).await;
        acknowledged.map_err(failed)?.await.map_err(failed)?;
        Ok(())
    }

    pub(super) async fn create(&self, name: &str, kind: ChannelType) -> Result<()> {
        let exists = || BusError::ChannelExists(name.to_owned());
        if self.channels().contains_key(name) {
            return Err(exists());
        }
        self.link.check()?;
        let entry = serde_json::to_vec(&Entry { name: name.to_owned(), r#type: kind });
        let entry = entry.map_err(|error| BusError::Invalid(error.to_string()))?;
        match self.bucket.create(token(name), entry.into()).await {
            Ok(_) => {
                self.channels().insert(name.to_owned(), kind);
                Ok(())
            }
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Err(exists()),
            Err(error) => Err(BusError::server("create a channel", error)),
        }
    }

    /// Type of a channel; asks the bucket for one that was not seen yet.
    async fn kind(&self, name: &str) -> Result<ChannelType> {
        if let Some(kind) = self.channels().get(name) {
            return Ok(*kind);
        }
        self.link.check()?;
        let entry = self.bucket.get(token(name)).await;
        let entry = entry.map_err(|error| BusError::server("look for a channel", error))?;
        let entry = entry.ok_or_else(|| BusError::UnknownChannel(name.to_owned()))?;
        let entry: Entry = serde_json::from_slice(&entry)
            .map_err(|error| BusError::server("read what is stored about a channel", error))?;
        self.channels().insert(name.to_owned(), entry.r#type);
        Ok(entry.r#type)
    }

    pub(super) async fn channel(&self, name: &str) -> Result<ChannelInfo> {
        let kind = self.kind(name).await?;
        Ok(info(name, kind, &self.subscriptions().await?))
    }

    pub(super) async fn all(&self) -> Result<Vec<ChannelInfo>> {
        self.link.check()?;
        let failed = |error| BusError::server("list channels", error);
        let keys = self.bucket.keys().await.map_err(|error| failed(error.to_string()))?;
        let keys: Vec<String> = keys.try_collect().await.map_err(|error| failed(error.to_string()))?;
        for name in keys.iter().filter_map(|key| name_of(key)) {
            self.kind(&name).await?;
        }
        let subscriptions = self.subscriptions().await?;
        let channels = self.channels();
        let mut all: Vec<_> = channels.iter().map(|(name, kind)| info(name, *kind, &subscriptions)).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// Who is subscribed to what, by channel, on all copies.
    async fn subscriptions(&self) -> Result<BTreeSet<(String, String)>> {
        self.link.check()?;
        let names: Vec<String> = self
            .stream
            .consumer_names()
            .try_collect()
            .await
            .map_err(|error| BusError::server("list subscriptions", error))?;
        Ok(names.iter().filter_map(|name| parse_consumer(name)).collect())
    }

    pub(super) async fn subscribe(&self, name: &str, subscriber: &str, idle: Option<Duration>) -> Result<()> {
        let kind = self.kind(name).await?;
        if kind == ChannelType::Direct {
            check_party(name, subscriber)?;
        }
        // Asked even when there is a mailbox: the server may have forgotten what it is for.
        self.join(name, kind, subscriber, idle).await.map(drop)
    }

    pub(super) async fn unsubscribe(&self, name: &str, subscriber: &str) -> Result<()> {
        let kind = self.kind(name).await?;
        self.link.check()?;
        match self.stream.delete_consumer(&consumer_name(name, subscriber)?).await {
            Ok(_) => {}
            Err(error) if is(&error, ErrorCode::CONSUMER_NOT_FOUND) => {
                return Err(not_subscribed(name, subscriber));
            }
            Err(error) => return Err(BusError::server("unsubscribe", error)),
        }
        if let Some(mailbox) = self.mailboxes().remove(&key(name, subscriber)) {
            mailbox.close();
        }
        // Who is known by something else goes on getting broadcasts, from now on.
        if kind == ChannelType::Broadcast && self.known_since(subscriber).await?.is_some() {
            self.create_consumer(name, kind, subscriber, DeliverPolicy::New, None).await?;
        }
        Ok(())
    }

    pub(super) async fn receive(
        &self,
        name: &str,
        subscriber: &str,
        timeout: Option<Duration>,
    ) -> Result<Option<Arc<Message>>> {
        let kind = self.kind(name).await?;
        let mailbox = match self.mailbox(name, subscriber) {
            Some(mailbox) => mailbox,
            None if kind == ChannelType::Broadcast => self.join(name, kind, subscriber, None).await?,
            None => {
                let consumer = self.find(name, subscriber).await?;
                self.keep(name, kind, subscriber, consumer.ok_or_else(|| not_subscribed(name, subscriber))?)
            }
        };
        let received = tokio::select! {
            biased;
            () = self.stopping.cancelled() => Ok(None),
            received = mailbox.receive(timeout) => received,
        };
        if mailbox.is_closed() {
            let mut mailboxes = self.mailboxes();
            let key = key(name, subscriber);
            if mailboxes.get(&key).is_some_and(|held| Arc::ptr_eq(held, &mailbox)) {
                mailboxes.remove(&key);
            }
        }
        received
    }

    pub(super) async fn history(
        &self,
        name: &str,
        limit: usize,
        settings: HistorySettings,
    ) -> Result<Vec<Arc<Message>>> {
        let kind = self.kind(name).await?;
        self.link.check()?;
        history::read(&self.stream, self.subject(name, kind), limit, settings).await
    }

    pub(super) async fn health_check(&self) -> Result<()> {
        self.link.check()?;
        match tokio::time::timeout(self.patience, self.stream.get_info()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(BusError::server("check the stream", error)),
            Err(_) => Err(BusError::server("check the stream", "no answer in time")),
        }
    }

    pub(super) async fn close(&self) {
        // An answer, whatever it says, means that the server has seen what came before, such as
        // acknowledgements. The client's own way to drain does not wait for one.
        let unanswered = |error: InfoError| error.kind() == RequestErrorKind::TimedOut;
        while self.link.check().is_ok() && self.stream.get_info().await.is_err_and(unanswered) {}
        self.link.close().await;
    }

    fn subject(&self, channel: &str, kind: ChannelType) -> String {
        let family = if kind == ChannelType::Direct { "direct" } else { "channel" };
        format!("{}.{family}.{}", self.subjects, token(channel))
    }

    fn mailbox(&self, channel: &str, subscriber: &str) -> Option<Arc<Mailbox>> {
        self.mailboxes().get(&key(channel, subscriber)).cloned()
    }

    fn mailboxes(&self) -> MutexGuard<'_, HashMap<(String, String), Arc<Mailbox>>> {
        self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn channels(&self) -> MutexGuard<'_, HashMap<String, ChannelType>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is(error: &async_nats::jetstream::stream::ConsumerError, code: ErrorCode) -> bool {
    use async_nats::jetstream::stream::ConsumerErrorKind::JetStream;
    matches!(error.kind(), JetStream(cause) if cause.error_code() == code)
}

fn key(channel: &str, subscriber: &str) -> (String, String) {
    (channel.to_owned(), subscriber.to_owned())
}

fn info(name: &str, kind: ChannelType, subscriptions: &BTreeSet<(String, String)>) -> ChannelInfo {
    let subscribers: BTreeSet<_> = match kind {
        ChannelType::Direct => parties(name).into_iter().flatten().map(str::to_owned).collect(),
        ChannelType::Topic => {
            let here = subscriptions.iter().filter(|(channel, _)| channel == name);
            here.map(|(_, subscriber)| subscriber.clone()).collect()
        }
        ChannelType::Broadcast => subscriptions.iter().map(|(_, subscriber)| subscriber.clone()).collect(),
    };
    ChannelInfo { name: name.to_owned(), r#type: kind, subscribers: subscribers.into_iter().collect() }
}
