//! Posts events, one request each, at a steady rate.

use std::time::{Duration, Instant};

use reqwest::Client;
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
    /// What timestamps count from.
    epoch: Instant,
}

impl Publisher {
    /// Events are texts of about `size` bytes.
    pub(crate) fn new(url: &str, size: u32, epoch: Instant) -> Result<Self, Failure> {
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
        let mut publisher = Self { client, url: url.to_owned(), padding: String::new(), epoch };
        publisher.padding = "x".repeat((size as usize).saturating_sub(publisher.event().len()));
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
        let sent = self.epoch.elapsed().as_nanos();
        format!("sent_ns={sent} {}", self.padding)
    }
}
