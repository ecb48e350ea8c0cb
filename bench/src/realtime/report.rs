//! The figures as tables.

use super::Options;
use super::contestant::Kind;
use super::fanout::FanOut;
use super::idle::Idle;

/// Part of its core above which somebody is held up by themselves and not by the machine.
const TOO_BUSY: f64 = 0.9;

/// Events per read above which events shared the cost of being written or read.
const COALESCED: f64 = 1.1;

/// A contestant and what was measured of it.
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) fan_outs: Vec<FanOut>,
    pub(crate) idles: Vec<Idle>,
}

impl Entry {
    /// Nothing measured yet.
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, fan_outs: Vec::new(), idles: Vec::new() }
    }

    fn fan_out(&self, figure: fn(&FanOut) -> f64) -> f64 {
        median(self.fan_outs.iter().map(figure))
    }

    fn idle(&self, figure: fn(&Idle) -> f64) -> f64 {
        median(self.idles.iter().map(figure))
    }
}

/// Prints medians, everything that went wrong, and the ratios.
pub(crate) fn print(field: &[Entry], options: &Options) {
    fan_outs(field, options);
    idles(field, options);
    ratios(field);
    caveats(field, options);
}

#[allow(clippy::print_stdout, reason = "figures are what this program is for")]
fn fan_outs(field: &[Entry], options: &Options) {
    let Options { seconds, rate, payload, subscribers, .. } = options;
    let rounds = field.iter().map(|entry| entry.fan_outs.len()).max().unwrap_or_default();
    let asked = options.rounds as usize;
    if rounds < asked {
        println!("only {rounds} of {asked} rounds: more would have taken too long");
    }
    let wanted = u64::from(rate * seconds) * u64::from(*subscribers);
    println!(
        "fan-out: {rate} events/s of {payload} bytes for {seconds} s to {subscribers} WebSockets, so {wanted} \
         deliveries;\nserver on one core, load on the other, every frame timed, median of {rounds} rounds"
    );
    println!(
        "{:<20} {:>10} {:>9} {:>10} {:>8} {:>8} {:>8} {:>8} {:>7} {:>7}",
        "", "delivered", "lost", "per CPU-s", "p50 ms", "p99 ms", "ev/read", "B/frame", "server", "load"
    );
    for entry in field {
        println!(
            "{:<20} {:>10.0} {:>9.0} {:>10.0} {:>8.2} {:>8.2} {:>8.2} {:>8.0} {:>5.0} % {:>5.0} %",
            entry.kind.name(),
            entry.fan_out(|run| run.delivered as f64),
            entry.fan_out(|run| run.lost as f64),
            entry.fan_out(|run| run.per_cpu_second),
            entry.fan_out(|run| run.p50),
            entry.fan_out(|run| run.p99),
            entry.fan_out(|run| run.per_read),
            entry.fan_out(|run| run.frame_bytes),
            entry.fan_out(|run| run.server_busy) * 100.0,
            entry.fan_out(|run| run.load_busy) * 100.0,
        );
    }
    for entry in field {
        let name = entry.kind.name();
        for (round, run) in (1..).zip(&entry.fan_outs) {
            let FanOut { published, lost, repeated, closed, server_busy, .. } = *run;
            if lost + repeated + closed > 0 {
                println!(
                    "{name}, round {round}: {lost} lost, {repeated} repeated, {closed} connections closed"
                );
            }
            if published < u64::from(rate * seconds) {
                let why = if server_busy > TOO_BUSY { "its core was full" } else { "the machine was busy" };
                println!("{name}, round {round}: took only {published} events in twice the time, {why}");
            }
            if run.load_busy > TOO_BUSY {
                println!("{name}, round {round}: the load generator was too busy, try a lower --rate");
            }
        }
    }
}

#[allow(clippy::print_stdout, reason = "figures are what this program is for")]
fn idles(field: &[Entry], options: &Options) {
    let connections = options.connections;
    println!(
        "\nidle: memory per connection of {connections}, bytes (Pss_Anon and Pss_Shmem of all processes)"
    );
    println!("{:<20} {:>10} {:>14}", "", "open", "after closing");
    for entry in field {
        let (open, closed) = (entry.idle(|run| run.open), entry.idle(|run| run.closed));
        println!("{:<20} {open:>10.0} {closed:>14.0}", entry.kind.name());
        let deaf: usize = entry.idles.iter().map(|run| run.deaf).sum();
        if deaf > 0 {
            println!("{:<20} {deaf} connections were not subscribed", "");
        }
    }
}

#[allow(clippy::print_stdout, reason = "figures are what this program is for")]
fn ratios(field: &[Entry]) {
    println!(
        "\n{:<40} {:>10} {:>8} {:>8} {:>8} {:>14}",
        "ratio", "per CPU-s", "p50", "p99", "open", "after closing"
    );
    for ours in field.iter().filter(|entry| !entry.kind.is_peer()) {
        for peer in field.iter().filter(|entry| entry.kind.is_peer()) {
            let of = |figure| ours.fan_out(figure) / peer.fan_out(figure);
            println!(
                "{:<40} {:>10.2} {:>8.2} {:>8.2} {:>8.2} {:>14.2}",
                format!("{} / {}", ours.kind.name(), peer.kind.name()),
                of(|run| run.per_cpu_second),
                of(|run| run.p50),
                of(|run| run.p99),
                ours.idle(|run| run.open) / peer.idle(|run| run.open),
                ours.idle(|run| run.closed) / peer.idle(|run| run.closed),
            );
        }
    }
}

/// Says when the ratios of the fan-out are not those of equals. Peers answer the publisher when all is
/// written, Quarterdeck when the event is safe: so only Quarterdeck can be given more than it has written,
/// and then it sends several events with one write.
#[allow(clippy::print_stdout, reason = "figures are what this program is for")]
fn caveats(field: &[Entry], options: &Options) {
    let runs = || field.iter().flat_map(|entry| &entry.fan_outs);
    if runs().any(|run| run.published < u64::from(options.rate * options.seconds)) {
        println!("not everybody was given the same load: the ratios of the fan-out compare different things");
    }
    if runs().any(|run| run.per_read > COALESCED) {
        println!("events came several at a time (ev/read): per CPU-s is higher than with each by itself");
    }
}

/// The middle one, or the larger of two.
fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<_> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
