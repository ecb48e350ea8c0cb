//! Channels carried by NATS: one JetStream stream, one subject per channel, and for every copy of the
//! program a consumer that reads all of it in order. The sequence of the stream is the sequence of every
//! channel, with holes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::stream::{self, Stream};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, HeaderMap};
use data_encoding::BASE32_NOPAD;
use futures_util::StreamExt;
use quarterdeck_domain::channel::Channel;
use quarterdeck_domain::{Error, ErrorCode, Result};
use quarterdeck_store::outbox::Waiting;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::message::NatsConfig;
use crate::{Hub, PATIENCE, Position};

/// Events a subject keeps at the least: copies need time to read, whatever history clients get.
const LEAST: usize = 64;
/// Pause before reading is tried again.
const PAUSE: Duration = Duration::from_millis(250);
/// Longest wait for the broker to have stored an event.
const ACK_WAIT: Duration = Duration::from_secs(5);

/// The way to the broker.
pub(crate) struct Link {
    client: Client,
    context: Context,
    config: stream::Config,
    subjects: String,
    up: AtomicBool,
    /// Sequence of the last event read.
    read: AtomicU64,
}

impl Link {
    /// Connects and reads what the stream holds, then goes on reading.
    pub(crate) async fn start(
        hub: &Arc<Hub>,
        config: &NatsConfig,
        stopping: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<Arc<Self>> {
        let client = crate::message::connect(config, stopping.clone()).await.map_err(unusable)?;
        let context = jetstream::new(client.clone());
        let subjects = format!("{}.ws.", config.stream_name_prefix.to_lowercase());
        let history = hub.history;
        let stream_config = stream::Config {
            name: format!("{}_WS", config.stream_name_prefix),
            subjects: vec![format!("{subjects}>")],
            max_messages_per_subject: i64::try_from(history.size.max(LEAST)).unwrap_or(i64::MAX),
            max_age: history.ttl,
            // Where copies disagree on the bounds, the one that started last decides.
            ..stream::Config::default()
        };
        let link = Arc::new(Self {
            client,
            context,
            config: stream_config,
            subjects,
            up: AtomicBool::new(true),
            read: AtomicU64::new(0),
        });
        let stream = link.stream().await.map_err(unusable)?;
        let reading = Reading::begin(&link, hub, &stream).await.map_err(unusable)?;
        tasks.spawn(Arc::clone(&link).follow(Arc::clone(hub), reading, stopping.clone()));
        Ok(link)
    }

    /// Whether the stream is being read.
    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Stores events in the stream, one after the other: their order is the order of the stream. One that
    /// it has already is left out.
    pub(crate) async fn publish(&self, waiting: &[Waiting]) -> Result<()> {
        for Waiting { event_id, channel, body, .. } in waiting {
            let mut headers = HeaderMap::new();
            headers.insert(async_nats::header::NATS_MESSAGE_ID, event_id.as_str());
            let subject = format!("{}{}", self.subjects, token(channel));
            let stored = async {
                let sent = self.context.publish_with_headers(subject, headers, body.clone().into()).await?;
                sent.await
            };
            match tokio::time::timeout(ACK_WAIT, stored).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(Error::unavailable(error, 1)),
                Err(_) => return Err(Error::unavailable("NATS does not answer", 1)),
            }
        }
        Ok(())
    }

    /// How often the connection was made.
    fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    async fn stream(&self) -> std::result::Result<Stream, async_nats::Error> {
        let mut stream = self.context.get_or_create_stream(self.config.clone()).await?;
        stream.info().await?;
        Ok(stream)
    }

    async fn follow(self: Arc<Self>, hub: Arc<Hub>, first: Reading, stopping: CancellationToken) {
        let mut reading = Some(first);
        loop {
            if let Some(now) = reading.take() {
                let was_up = self.up.swap(true, Ordering::Relaxed);
                if !was_up {
                    tracing::info!(target: "bus", "bus.nats.recovered");
                }
                let ended = tokio::select! {
                    () = stopping.cancelled() => return,
                    ended = now.read(&self, &hub) => ended,
                };
                if self.up.swap(false, Ordering::Relaxed) {
                    tracing::warn!(target: "bus", error = %ended, "bus.nats.lost");
                }
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
            let again = async {
                let stream = self.stream().await?;
                Reading::begin(&self, &hub, &stream).await
            };
            reading = tokio::select! {
                () = stopping.cancelled() => return,
                again = tokio::time::timeout(ACK_WAIT, again) => again.ok().and_then(std::result::Result::ok),
            };
        }
    }
}

/// One consumer, from its start to its end.
struct Reading {
    messages: pull::Ordered,
    epoch: Arc<str>,
    /// Whether no sequence is missing from here on: all that was there at the start has been read.
    complete: bool,
    /// Messages that are there and still to be read.
    pending: u64,
}

impl Reading {
    /// Goes on where this copy stopped, or from the beginning of a stream it does not know.
    async fn begin(link: &Link, hub: &Hub, stream: &Stream) -> std::result::Result<Self, async_nats::Error> {
        let info = stream.cached_info();
        let epoch: Arc<str> = format!("{:x}", info.created.unix_timestamp_nanos()).into();
        let last = info.state.last_sequence;
        // From a stream this copy has read before it misses nothing, or notices.
        let same = hub.shared().first().is_some_and(|topic| topic.top().epoch == epoch);
        let read = link.read.load(Ordering::Acquire);
        let known = same && read <= last;
        let from = if known { read + 1 } else { info.state.first_sequence.max(1) };
        if !known {
            // Whatever a channel does not hold any more may have been missed by anybody.
            hub.restart(&epoch, from - 1);
            link.read.store(from - 1, Ordering::Release);
        }
        let consumer = stream
            .create_consumer(pull::OrderedConfig {
                deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from },
                ..pull::OrderedConfig::default()
            })
            .await?;
        let mut reading = Self { messages: consumer.messages().await?, epoch, complete: known, pending: 1 };
        let catching_up = async {
            while reading.pending > 0 && link.read.load(Ordering::Acquire) < last {
                if !reading.next(link, hub).await? {
                    break;
                }
            }
            Ok::<_, async_nats::Error>(())
        };
        // What was there may have been dropped since, and then nothing comes that says so.
        if let Ok(done) = tokio::time::timeout(PATIENCE, catching_up).await {
            done?;
        }
        if !known {
            // Channels that hold nothing begin where the stream is: what they held is gone.
            hub.settle(&reading.epoch, link.read.load(Ordering::Acquire));
        }
        reading.complete = true;
        Ok(reading)
    }

    async fn read(mut self, link: &Link, hub: &Hub) -> async_nats::Error {
        let connects = link.connects();
        let mut look = tokio::time::interval(PAUSE);
        loop {
            tokio::select! {
                // A server that comes back may not know the consumer any more, and says so late.
                _ = look.tick() => {
                    if link.connects() != connects {
                        return "the connection was made anew".into();
                    }
                }
                next = self.next(link, hub) => match next {
                    Ok(true) => {}
                    Ok(false) => return "the consumer ended".into(),
                    Err(error) => return error,
                },
            }
        }
    }

    /// Takes one message; `false` when there will be no more.
    async fn next(&mut self, link: &Link, hub: &Hub) -> std::result::Result<bool, async_nats::Error> {
        let Some(message) = self.messages.next().await else { return Ok(false) };
        let message = message?;
        let info = message.info()?;
        let seq = info.stream_sequence;
        let before = link.read.load(Ordering::Acquire);
        self.pending = info.pending;
        if seq <= before {
            return Ok(true);
        }
        if self.complete && seq > before + 1 {
            // The stream keeps so much, and this copy has been away for longer.
            hub.restart(&self.epoch, seq - 1);
        }
        if let Some(channel) = message.subject.strip_prefix(&*link.subjects).and_then(channel) {
            let position = Position { epoch: Arc::clone(&self.epoch), seq };
            if !self.complete {
                // What came before the first event a subject still holds may have been dropped.
                hub.topic(&channel).settle(seq - 1);
            }
            // Kept from now on: the stream itself drops what is too old, by its own clock.
            hub.append_from_stream(&channel, position, message.payload.clone(), hub.now());
        }
        link.read.store(seq, Ordering::Release);
        Ok(true)
    }
}

fn unusable(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::CommunicationError).caused_by(format_args!(
        "NATS cannot be used ({error}); check QUARTERDECK_NATS_URL, and that the server runs with JetStream"
    ))
}

/// A channel's name as one token of a subject, which may hold neither dots nor spaces.
fn token(channel: &str) -> String {
    BASE32_NOPAD.encode(channel.as_bytes()).to_lowercase()
}

fn channel(token: &str) -> Option<Channel> {
    let name = BASE32_NOPAD.decode(token.to_uppercase().as_bytes()).ok()?;
    Channel::parse(std::str::from_utf8(&name).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_survives_the_way_through_a_subject() {
        for name in ["tasks", "#dissent", "user:a.b *>é"] {
            let token = token(name);
            assert!(token.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{token}");
            assert_eq!(channel(&token).unwrap().to_string(), name);
        }
        assert!(channel("!").is_none());
    }
}
