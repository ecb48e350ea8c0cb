//! Load runs of the real program next to a peer, in one go on one machine.
//!
//! The server under load has one core, the load generator (`wrk`) another. Peers take turns, several
//! rounds each, so that a slow moment of the machine hits all of them; medians are compared.
//! Absolute figures are this machine's; the ratios are the result.

mod flood;
mod limits;
mod peer;
mod program;
mod realtime;
mod tasks;
mod wrk;

use std::error::Error;
use std::process::{Command, Stdio};

use clap::Parser;
use program::Program;
use wrk::{Load, Sample};

/// The program's own, so that its socket is measured as it is shipped.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 5;
const SECONDS: u32 = 3;

type Failure = Box<dyn Error + Send + Sync>;

/// Somebody `GET /auth/me` is asked as.
struct Contestant {
    name: &'static str,
    url: String,
    header: Option<String>,
    samples: Vec<Sample>,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    match std::env::args().nth(1).as_deref() {
        None => me().await,
        Some("flood") => flood::run().await,
        Some("limits") => limits::run().await,
        Some("realtime") => realtime::run(&realtime::Options::parse_from(std::env::args().skip(2))).await,
        Some("tasks") => tasks::run(&tasks::Options::parse_from(std::env::args().skip(2))).await,
        Some("raw") => tasks::raw::serve(std::env::args().skip(2)).await,
        Some("hub") => realtime::hub::serve().await,
        Some("bare") => peer::serve().await,
        Some(other) => {
            Err(format!("there is no run '{other}': none, flood, limits, realtime or tasks").into())
        }
    }
}

/// Moves this process to the core of load generators.
fn on_load_core() -> Result<(), Failure> {
    let own = std::process::id().to_string();
    let moved = Command::new("taskset").args(["-acp", "1", &own]).stdout(Stdio::null()).status()?;
    if moved.success() { Ok(()) } else { Err("taskset could not move the load generator".into()) }
}

/// `GET /api/v1/auth/me` by session cookie, bearer JWT and API key, next to a bare axum handler that
/// returns the same bytes.
#[allow(clippy::print_stdout, reason = "figures are what this program is for")]
async fn me() -> Result<(), Failure> {
    let program = Program::start()?;
    println!(
        "quarterdeck: ready after {} ms, {} MB resident when idle",
        program.ready_ms,
        program.memory_mb()?
    );
    let account = program.first_account().await?;
    let body = account.me().await?;
    let bare = peer::Bare::start(&body)?;
    let url = format!("{}/api/v1/auth/me", program.url);
    let contestant = |name, url: &str, header: Option<String>| Contestant {
        name,
        url: url.to_owned(),
        header,
        samples: Vec::new(),
    };
    let mut field = [
        contestant("bare axum handler", &bare.url, None),
        contestant("session cookie", &url, Some(format!("Cookie: session={}", account.session))),
        contestant("bearer JWT", &url, Some(format!("Authorization: Bearer {}", account.session))),
        contestant("API key", &url, Some(format!("Authorization: Bearer {}", account.api_key))),
    ];
    for round in 0..=ROUNDS {
        for contestant in &mut field {
            let load = Load::get(&contestant.url, contestant.header.as_deref(), SECONDS);
            let sample = load.run()?;
            // The first round warms up.
            if round > 0 {
                contestant.samples.push(sample);
            }
        }
    }
    println!("\nGET /api/v1/auth/me, {} connections, one core, median of {ROUNDS} rounds", wrk::CONNECTIONS);
    println!("{:<20} {:>10} {:>9} {:>9} {:>7}", "", "req/s", "p50 us", "p99 us", "ratio");
    let base = Sample::median(&field[0].samples).rate;
    for contestant in &field {
        let Sample { rate, p50, p99 } = Sample::median(&contestant.samples);
        println!("{:<20} {rate:>10.0} {p50:>9.0} {p99:>9.0} {:>7.2}", contestant.name, rate / base);
    }
    println!("quarterdeck: {} MB resident after the load", program.memory_mb()?);
    Ok(())
}
