//! The bus in the memory of one process. A value is one run of the bus: whoever waits on it stays with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::channel::{ChannelInfo, ChannelType, check_party, parties};
use super::config::{MessageBusConfig, RetentionConfig};
use super::error::{BusError, Result};
use super::model::Message;

pub(super) struct Memory {
    retention: RetentionConfig,
    channels: Mutex<BTreeMap<String, Channel>>,
    stopping: CancellationToken,
}

struct Channel {
    kind: ChannelType,
    queues: BTreeMap<String, Queue>,
    history: VecDeque<Arc<Message>>,
}

/// What waits for one subscriber. When the sender goes, everyone who waits wakes.
struct Queue {
    sender: mpsc::Sender<Arc<Message>>,
    /// Fair, so that each message goes to whoever waits longest.
    receiver: Arc<tokio::sync::Mutex<mpsc::Receiver<Arc<Message>>>>,
}

impl Memory {
    pub(super) fn new(config: &MessageBusConfig, stopping: CancellationToken) -> Self {
        let topic = |name: &String| (name.clone(), Channel::new(ChannelType::Topic));
        Self {
            retention: config.retention,
            channels: Mutex::new(config.channels.iter().map(topic).collect()),
            stopping,
        }
    }

    pub(super) fn publish(&self, message: Message) -> Result<()> {
        let mut channels = self.channels();
        let name = message.channel.as_str();
        let kind = channel(&mut channels, name)?.kind;
        if kind == ChannelType::Direct {
            check_party(name, &message.to)?;
        }
        let known = if kind == ChannelType::Broadcast { known(&channels) } else { BTreeSet::new() };
        let channel = channel(&mut channels, name)?;
        for agent in known {
            self.queue(channel, &agent);
        }
        let message = Arc::new(message);
        for (subscriber, queue) in &channel.queues {
            if kind == ChannelType::Direct && subscriber != message.to.as_str() {
                continue;
            }
            if queue.sender.try_send(Arc::clone(&message)).is_err() {
                tracing::warn!(
                    target: "communication", channel = message.channel.as_str(), subscriber, drop_policy = "newest",
                    message_id = %message.id, "communication.bus.message_dropped"
                );
            }
        }
        if channel.history.len() >= self.retention.max_messages_per_channel as usize {
            channel.history.pop_front();
        }
        channel.history.push_back(message);
        Ok(())
    }

    pub(super) fn create(&self, name: &str, kind: ChannelType) -> Result<()> {
        let mut channels = self.channels();
        if channels.contains_key(name) {
            return Err(BusError::ChannelExists(name.to_owned()));
        }
        channels.insert(name.to_owned(), Channel::new(kind));
        Ok(())
    }

    pub(super) fn channel(&self, name: &str) -> Result<ChannelInfo> {
        let channels = self.channels();
        let channel = channels.get(name).ok_or_else(|| BusError::UnknownChannel(name.to_owned()))?;
        Ok(channel.info(name, &channels))
    }

    pub(super) fn all(&self) -> Vec<ChannelInfo> {
        let channels = self.channels();
        channels.iter().map(|(name, channel)| channel.info(name, &channels)).collect()
    }

    pub(super) fn subscribe(&self, name: &str, subscriber: &str) -> Result<()> {
        let mut channels = self.channels();
        let channel = channel(&mut channels, name)?;
        if channel.kind == ChannelType::Direct {
            check_party(name, subscriber)?;
        }
        self.queue(channel, subscriber);
        Ok(())
    }

    pub(super) fn unsubscribe(&self, name: &str, subscriber: &str) -> Result<()> {
        let mut channels = self.channels();
        let found = channel(&mut channels, name)?;
        found.queues.remove(subscriber).ok_or_else(|| not_subscribed(name, subscriber))?;
        // Who is known by something else goes on getting broadcasts, from now on.
        if found.kind == ChannelType::Broadcast && known(&channels).contains(subscriber) {
            self.queue(channel(&mut channels, name)?, subscriber);
        }
        Ok(())
    }

    pub(super) async fn receive(
        &self,
        name: &str,
        subscriber: &str,
        timeout: Option<Duration>,
    ) -> Result<Option<Arc<Message>>> {
        let receiver = {
            let mut channels = self.channels();
            let channel = channel(&mut channels, name)?;
            if channel.kind == ChannelType::Broadcast {
                self.queue(channel, subscriber);
            }
            let queue = channel.queues.get(subscriber).ok_or_else(|| not_subscribed(name, subscriber))?;
            Arc::clone(&queue.receiver)
        };
        let next = async { receiver.lock().await.recv().await };
        let next = async {
            match timeout {
                Some(timeout) => tokio::time::timeout(timeout, next).await.unwrap_or(None),
                None => next.await,
            }
        };
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => Ok(None),
            message = next => Ok(message),
        }
    }

    pub(super) fn history(&self, name: &str, limit: usize) -> Result<Vec<Arc<Message>>> {
        let mut channels = self.channels();
        let history = &channel(&mut channels, name)?.history;
        Ok(history.iter().skip(history.len().saturating_sub(limit)).cloned().collect())
    }

    fn queue(&self, channel: &mut Channel, subscriber: &str) {
        if !channel.queues.contains_key(subscriber) {
            let (sender, receiver) = mpsc::channel(self.retention.max_subscriber_queue_size as usize);
            let queue = Queue { sender, receiver: Arc::new(tokio::sync::Mutex::new(receiver)) };
            channel.queues.insert(subscriber.to_owned(), queue);
        }
    }

    fn channels(&self) -> MutexGuard<'_, BTreeMap<String, Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Channel {
    fn new(kind: ChannelType) -> Self {
        Self { kind, queues: BTreeMap::new(), history: VecDeque::new() }
    }

    fn info(&self, name: &str, channels: &BTreeMap<String, Self>) -> ChannelInfo {
        let subscribers = match self.kind {
            ChannelType::Topic => self.queues.keys().cloned().collect(),
            ChannelType::Direct => parties(name).into_iter().flatten().map(str::to_owned).collect(),
            ChannelType::Broadcast => known(channels).into_iter().collect(),
        };
        ChannelInfo { name: name.to_owned(), r#type: self.kind, subscribers }
    }
}

fn channel<'a>(channels: &'a mut BTreeMap<String, Channel>, name: &str) -> Result<&'a mut Channel> {
    channels.get_mut(name).ok_or_else(|| BusError::UnknownChannel(name.to_owned()))
}

/// Every agent that has a queue anywhere.
fn known(channels: &BTreeMap<String, Channel>) -> BTreeSet<String> {
    channels.values().flat_map(|channel| channel.queues.keys().cloned()).collect()
}

pub(super) fn not_subscribed(channel: &str, subscriber: &str) -> BusError {
    BusError::NotSubscribed { channel: channel.to_owned(), subscriber: subscriber.to_owned() }
}
