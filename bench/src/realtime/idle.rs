//! What a connection costs that is open and subscribed, and on which nothing happens.

use std::time::Instant;

use super::Options;
use super::contestant::Contestant;
use super::fanout::burst;
use super::publisher::Publisher;
use super::swarm::Swarm;
use crate::Failure;

/// Connections before those that are measured, so that memory of the first ones does not count.
const WARM_UP: u32 = 100;

/// What one run measured.
pub(crate) struct Idle {
    /// Bytes per connection while all are open.
    pub(crate) open: f64,
    /// Bytes per connection that are still held after all have closed.
    pub(crate) closed: f64,
    /// Connections that did not get the event after the measurement.
    pub(crate) deaf: usize,
}

/// Opens, measures, makes sure that each connection was subscribed, closes and measures again.
pub(crate) async fn run(contestant: &Contestant, options: &Options) -> Result<Idle, Failure> {
    let epoch = Instant::now();
    let publisher =
        Publisher::new(&contestant.publish_url, options.payload, contestant.account.is_none(), epoch)?;
    let mut first = Swarm::connect(contestant, WARM_UP, epoch).await?;
    burst(&mut first, &publisher, 1, options).await?;
    first.close()?;

    let before = contestant.processes.memory()?;
    let mut swarm = Swarm::connect(contestant, options.connections, epoch).await?;
    let open = contestant.processes.memory()?;
    burst(&mut swarm, &publisher, 1, options).await?;
    let deaf = swarm.deaf();
    swarm.close()?;
    let closed = contestant.processes.memory()?;
    let each = |now: u64| (now as f64 - before as f64) / f64::from(options.connections);
    Ok(Idle { open: each(open), closed: each(closed), deaf })
}
