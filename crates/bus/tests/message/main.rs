//! What the message bus and its bridge promise, in memory and on NATS.

mod bridge;
mod contract;
mod lifecycle;
mod nats;
mod outage;
mod races;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::Utc;
use quarterdeck_bus::message::{
    Backend, BusOptions, Message, MessageBus, MessageBusConfig, MessageType, Metadata, Name, NatsConfig,
    Parts, Priority, RetentionConfig,
};
use quarterdeck_testkit::NatsServer;
use uuid::Uuid;

/// Longer than anything takes: a wait that ends by it has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// Short, for what must not come.
const SILENCE: Duration = Duration::from_millis(150);

/// A bus of one test.
struct Test {
    bus: MessageBus,
    config: MessageBusConfig,
    server: Option<NatsServer>,
}

impl Test {
    fn memory() -> Self {
        Self::on(None, |_| {})
    }

    fn nats() -> Option<Self> {
        Self::nats_with(|_| {})
    }

    fn nats_with(change: impl FnOnce(&mut MessageBusConfig)) -> Option<Self> {
        Some(Self::on(Some(NatsServer::start()?), change))
    }

    fn on(server: Option<NatsServer>, change: impl FnOnce(&mut MessageBusConfig)) -> Self {
        let mut config = MessageBusConfig {
            channels: vec!["tasks".to_owned(), "agents".to_owned()],
            retention: RetentionConfig { max_messages_per_channel: 5, max_subscriber_queue_size: 3 },
            ..MessageBusConfig::default()
        };
        if let Some(server) = &server {
            config.backend = Backend::Nats;
            config.nats = Some(NatsConfig {
                url: server.url().into(),
                reconnect_time_wait_seconds: 0.01,
                ..NatsConfig::default()
            });
        }
        change(&mut config);
        Self { bus: bus(&config), config, server }
    }

    async fn started(self) -> Self {
        self.bus.start().await.unwrap();
        self
    }

    /// Another copy of the program on the same server; in memory there is only this one.
    async fn copy(&self) -> MessageBus {
        if self.server.is_none() {
            return self.bus.clone();
        }
        let copy = bus(&self.config);
        copy.start().await.unwrap();
        copy
    }
}

fn bus(config: &MessageBusConfig) -> MessageBus {
    MessageBus::new(config.clone(), BusOptions::default()).unwrap()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn message(channel: &str, sender: &str, to: &str, text: &str) -> Message {
    Message {
        id: Uuid::new_v4(),
        timestamp: Utc::now(),
        sender: name(sender),
        to: name(to),
        r#type: MessageType::Announcement,
        priority: Priority::default(),
        channel: name(channel),
        parts: Parts::text(text),
        metadata: Metadata::default(),
    }
}

async fn say(bus: &MessageBus, channel: &str, text: &str) {
    bus.publish(message(channel, "ada", channel, text), None).await.unwrap();
}

/// The next message, which has to come.
async fn hear(bus: &MessageBus, channel: &str, who: &str) -> Arc<Message> {
    let heard = bus.receive(channel, who, Some(PATIENCE)).await.unwrap();
    heard.unwrap_or_else(|| panic!("{who} hears something on {channel}"))
}

/// Everything that has come, up to the first silence.
async fn hear_all(bus: &MessageBus, channel: &str, who: &str) -> Vec<String> {
    let mut heard = Vec::new();
    while let Some(message) = bus.receive(channel, who, Some(SILENCE)).await.unwrap() {
        heard.push(message.text().to_owned());
    }
    heard
}

/// Asks again and again until it holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// The log of everything on this thread, as long as the guard lives.
fn record() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    (log, tracing::subscriber::set_default(subscriber))
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self, event: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(event)).map(str::to_owned).collect()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// One test in memory and one on NATS out of a body.
macro_rules! on_both_buses {
    ($($(#[$meta:meta])* async fn $name:ident($test:ident: Test) $body:block)+) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            async fn proof($test: $crate::Test) $body

            $(#[$meta])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn memory() {
                proof($crate::Test::memory().started().await).await;
            }

            $(#[$meta])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn nats() {
                if let Some(test) = $crate::Test::nats() {
                    proof(test.started().await).await;
                }
            }
        }
    )+};
}
use on_both_buses;
