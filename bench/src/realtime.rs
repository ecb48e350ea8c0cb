//! What WebSocket deliveries and idle connections cost, next to two peers.
//!
//! Quarterdeck takes part twice: as plain clients see it and as those that recover do. Every contestant is
//! started afresh for every measurement, and they take turns. A server has one core, publisher and
//! subscribers the other.

mod contestant;
mod fanout;
mod frame;
pub(crate) mod hub;
mod idle;
mod processes;
mod publisher;
mod report;
mod swarm;

use std::time::{Duration, Instant};

use clap::{Parser, value_parser};

use self::contestant::Kind;
use self::report::Entry;
use crate::{Failure, on_load_core};

/// No round begins that would probably end later; the medians are of those before.
const BUDGET: Duration = Duration::from_secs(220);

/// Measures WebSocket fan-out and idle connections next to peers.
#[derive(Parser)]
#[command(no_binary_name = true, bin_name = "quarterdeck-bench realtime")]
pub(crate) struct Options {
    /// Times each contestant is measured.
    #[arg(long, default_value = "3", value_parser = value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Seconds of publishing in a round.
    #[arg(long, default_value = "10", value_parser = value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Events published per second; the default leaves every contestant and the load generator some air.
    #[arg(long, default_value = "50", value_parser = value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Bytes of an event.
    #[arg(long, default_value = "300", value_parser = value_parser!(u32).range(1..=8_000))]
    payload: u32,
    /// Connections an event is delivered to.
    #[arg(long, default_value = "1000", value_parser = value_parser!(u32).range(1..=10_000))]
    subscribers: u32,
    /// Idle connections.
    #[arg(long, default_value = "5000", value_parser = value_parser!(u32).range(1..=10_000))]
    connections: u32,
}

pub(crate) async fn run(options: &Options) -> Result<(), Failure> {
    on_load_core()?;
    processes::allow_sockets(options.subscribers.max(options.connections))?;
    let mut field = Kind::ALL.map(Entry::new);
    let (begun, mut longest) = (Instant::now(), Duration::ZERO);
    for _ in 0..options.rounds {
        let round = Instant::now();
        if begun.elapsed() + longest > BUDGET {
            break;
        }
        for entry in &mut field {
            let failed = |error: Failure| format!("{}: {error}", entry.kind.name());
            let contestant = entry.kind.start().await.map_err(failed)?;
            entry.fan_outs.push(fanout::run(&contestant, options).await.map_err(failed)?);
            drop(contestant);
            let contestant = entry.kind.start().await.map_err(failed)?;
            entry.idles.push(idle::run(&contestant, options).await.map_err(failed)?);
        }
        longest = longest.max(round.elapsed());
    }
    report::print(&field, options);
    Ok(())
}
