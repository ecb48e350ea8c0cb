//! One publisher, many subscribers: what a delivery costs and how long it takes.

use std::time::{Duration, Instant};

use super::Options;
use super::contestant::Contestant;
use super::processes::Processes;
use super::publisher::Publisher;
use super::swarm::{Swarm, Tally};
use crate::Failure;

/// How long nothing may come after the last event was published, before the rest counts as lost.
const GRACE: Duration = Duration::from_secs(2);

/// What one run measured.
pub(crate) struct FanOut {
    /// Events published, as many as were wanted unless the server was too slow.
    pub(crate) published: u64,
    /// Events received, all subscribers together.
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    /// Connections the server ended.
    pub(crate) closed: u64,
    /// Events a subscriber got with one read: above 1 when the server or the load fell behind.
    pub(crate) per_read: f64,
    /// Bytes of a delivered frame.
    pub(crate) frame_bytes: f64,
    /// Events delivered per second of the server's CPU time.
    pub(crate) per_cpu_second: f64,
    /// Part of its core the server used.
    pub(crate) server_busy: f64,
    /// Part of its core the load generator used.
    pub(crate) load_busy: f64,
    /// Median delay of a delivery, milliseconds.
    pub(crate) p50: f64,
    /// 99th percentile of the delay, milliseconds.
    pub(crate) p99: f64,
}

/// Connects, warms up, and measures.
pub(crate) async fn run(contestant: &Contestant, options: &Options) -> Result<FanOut, Failure> {
    let epoch = Instant::now();
    let publisher =
        Publisher::new(&contestant.publish_url, options.payload, contestant.account.is_none(), epoch)?;
    let mut swarm = Swarm::connect(contestant, options.subscribers, epoch).await?;
    // Warms up, and proves that all are subscribed.
    burst(&mut swarm, &publisher, options.rate, options).await?;
    if swarm.deaf() > 0 {
        return Err(format!("{} of {} subscribers hear nothing", swarm.deaf(), options.subscribers).into());
    }
    let own = Processes::own()?;
    let (begun, server_before, own_before) = (Instant::now(), contestant.processes.cpu()?, own.cpu()?);
    let (published, mut tally) =
        burst(&mut swarm, &publisher, options.rate * options.seconds, options).await?;
    let server = (contestant.processes.cpu()? - server_before).as_secs_f64();
    let load = (own.cpu()? - own_before).as_secs_f64();
    let took = (tally.last - begun).as_secs_f64();
    swarm.close()?;
    let delivered = tally.delivered as f64;
    Ok(FanOut {
        published: published.into(),
        delivered: tally.delivered,
        lost: (u64::from(published) * u64::from(options.subscribers)).saturating_sub(tally.delivered),
        repeated: tally.repeated,
        closed: tally.closed,
        per_read: delivered / tally.reads as f64,
        frame_bytes: tally.bytes as f64 / delivered,
        per_cpu_second: delivered / server,
        server_busy: server / took,
        load_busy: load / took,
        p50: percentile(&mut tally.delays, 50)?,
        p99: percentile(&mut tally.delays, 99)?,
    })
}

/// Publishes and receives this many events.
pub(crate) async fn burst(
    swarm: &mut Swarm,
    publisher: &Publisher,
    events: u32,
    options: &Options,
) -> Result<(u32, Tally), Failure> {
    let publishing = tokio::spawn(publisher.clone().publish(events, options.rate));
    let wanted = u64::from(events) * swarm.len() as u64;
    let tally = tokio::task::block_in_place(|| {
        swarm.receive(|tally| {
            tally.delivered >= wanted || (publishing.is_finished() && tally.last.elapsed() > GRACE)
        })
    })?;
    Ok((publishing.await??, tally))
}

/// A percentile of microseconds, as milliseconds.
fn percentile(delays: &mut [u32], percent: usize) -> Result<f64, Failure> {
    let at = (delays.len() * percent / 100).min(delays.len().saturating_sub(1));
    if delays.is_empty() {
        return Err("nothing was delivered".into());
    }
    let (_, delay, _) = delays.select_nth_unstable(at);
    Ok(f64::from(*delay) / 1000.0)
}
