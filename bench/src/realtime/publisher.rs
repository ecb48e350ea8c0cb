//! Posts events, one request each, at a steady rate. Servers that only pass bytes on are given the whole
//! event, as Quarterdeck writes it, so that everybody delivers the same.

use std::time::{Duration, Instant};

use chrono::Utc;
use quarterdeck_domain::event::{Event, EventType};
use reqwest::Client;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use crate::Failure;

/// What stands before the timestamp in an event.
pub(crate) const MARKER: &[u8] = b"sent_ns=";
/// How many times longer than planned it may take a server that cannot keep up.
const OVERTIME: u32 = 2;

/// Somebody who posts events.
#[derive(Clone)]
pub(crate) struct Publisher {
    client: Client,
    url: String,
    /// Makes the event as long as wanted.
    padding: String,
    /// Whether to write the whole event, and not only its message.
    is_whole: bool,
    /// What timestamps count from.
    epoch: Instant,
}

impl Publisher {
    /// The message of an event has about `size` bytes.
    pub(crate) fn new(url: &str, size: u32, is_whole: bool, epoch: Instant) -> Result<Self, Failure> {
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
        let mut publisher = Self { client, url: url.to_owned(), padding: String::new(), is_whole, epoch };
        publisher.padding = "x".repeat((size as usize).saturating_sub(publisher.message().len()));
        Ok(publisher)
    }

    /// Posts events on one connection, each when the one before was answered and its time has come, and
    /// says how many; fewer than wanted when that takes twice the time it should.
    pub(crate) async fn publish(self, events: u32, rate: u32) -> Result<u32, Failure> {
        let pause = Duration::from_secs(1) / rate;
        let (begun, most) = (Instant::now(), pause * events * OVERTIME);
        let mut ticks = interval(pause);
        // Late events are made up for.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for published in 0..events {
            ticks.tick().await;
            if begun.elapsed() > most {
                return Ok(published);
            }
            self.client.post(&self.url).body(self.event()).send().await?.error_for_status()?.bytes().await?;
        }
        Ok(events)
    }

    fn event(&self) -> String {
        if !self.is_whole {
            return self.message();
        }
        let payload = json!({"message": self.message()});
        match Event::new(EventType::SystemStartup, Utc::now(), payload) {
            Ok(event) => event.into_body(),
            Err(_) => self.message(),
        }
    }

    fn message(&self) -> String {
        let sent = self.epoch.elapsed().as_nanos();
        format!("sent_ns={sent} {}", self.padding)
    }
}
