//! What a flood of logins does to somebody else: `GET /auth/me` of one user, quiet and while sixteen
//! connections guess passwords.
//!
//! The server has one core, for hashing and everything else: the hardest case. An address may check ten
//! credentials in a minute, so the guessers leave theirs after ten tries for a new one of 127.0.0.0/8;
//! that is Linux's to give.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use serde_json::json;
use tokio::task::JoinSet;

use crate::program::{Account, Program};
use crate::{Failure, ROUNDS, on_load_core};

const GUESSERS: u32 = 16;
/// What an address may try before it is refused.
const TRIES: u32 = 10;
const PROBE: Duration = Duration::from_secs(6);
const PAUSE: Duration = Duration::from_millis(2);

/// What became of the guesses.
#[derive(Default)]
struct Guesses {
    /// Passwords that were checked and found wrong.
    checked: AtomicU64,
    /// Answers that hashing has too much to do.
    busy: AtomicU64,
    /// Anything else.
    other: AtomicU64,
}

#[allow(clippy::print_stdout, reason = "figures are what this program is for")]
pub(crate) async fn run() -> Result<(), Failure> {
    on_load_core()?;
    let program = Program::start()?;
    let account = program.first_account().await?;
    let guesses = Arc::<Guesses>::default();
    let (mut quiet, mut flooded, mut took) = (Vec::new(), Vec::new(), Duration::ZERO);
    let client = Client::builder().no_proxy().build()?;
    // Warms up.
    probe(&client, &program, &account).await?;
    for round in 0..ROUNDS as u32 {
        quiet.push(probe(&client, &program, &account).await?);
        let mut flood = JoinSet::new();
        for guesser in 0..GUESSERS {
            flood.spawn(guess(program.url.clone(), round * GUESSERS + guesser, Arc::clone(&guesses)));
        }
        // Full swing before the measuring begins.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let begun = Instant::now();
        flooded.push(probe(&client, &program, &account).await?);
        took += begun.elapsed() + Duration::from_secs(1);
        if let Some(ended) = flood.try_join_next() {
            ended??;
            return Err("a guesser stopped".into());
        }
        flood.shutdown().await;
    }
    let [quiet, flooded] = [quiet, flooded].map(median);
    let rate = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64 / took.as_secs_f64();
    println!("GET /api/v1/auth/me of one user, one core, median of {ROUNDS} rounds");
    println!("quiet              p95 {quiet:>8.0} us");
    println!("{GUESSERS} guessers        p95 {flooded:>8.0} us");
    println!("factor             {:.2}", flooded / quiet);
    println!(
        "guesses: {:.1}/s checked, {:.1}/s told to come back, {:.1}/s otherwise refused",
        rate(&guesses.checked),
        rate(&guesses.busy),
        rate(&guesses.other)
    );
    println!("quarterdeck: {} MB resident after the flood", program.memory_mb()?);
    if guesses.checked.load(Ordering::Relaxed) == 0 {
        return Err("no password was ever checked: that was no flood".into());
    }
    Ok(())
}

/// The 95th percentile of latency, microseconds, of a user who asks again shortly after each answer.
async fn probe(client: &Client, program: &Program, account: &Account) -> Result<f64, Failure> {
    let url = format!("{}/api/v1/auth/me", program.url);
    let (begun, mut taken) = (Instant::now(), Vec::new());
    while begun.elapsed() < PROBE {
        let asked = Instant::now();
        let answer = client.get(&url).bearer_auth(&account.session).send().await?;
        answer.error_for_status()?.bytes().await?;
        taken.push(asked.elapsed().as_secs_f64() * 1e6);
        tokio::time::sleep(PAUSE).await;
    }
    taken.sort_by(f64::total_cmp);
    taken.get(taken.len() * 95 / 100).copied().ok_or_else(|| "nobody answered".into())
}

/// Guesses until stopped. No two guessers ever share an address.
async fn guess(url: String, guesser: u32, guesses: Arc<Guesses>) -> Result<(), Failure> {
    let url = format!("{url}/api/v1/auth/login");
    for turn in 0.. {
        let [_, _, high, low] = (turn % 62_500 / 250 * 256 + turn % 250 + 1_u32).to_be_bytes();
        let second = u8::try_from(1 + guesser % 250)?;
        let address = Ipv4Addr::new(127, second, high, low);
        let client = Client::builder().no_proxy().local_address(Some(address.into())).build()?;
        for try_ in 0..TRIES {
            // A name of its own, so that no lock answers.
            let name = format!("guess-{guesser}-{turn}-{try_}");
            let body = json!({"username": name, "password": "not the right password"});
            let counter = match client.post(&url).json(&body).send().await?.status() {
                StatusCode::UNAUTHORIZED => &guesses.checked,
                StatusCode::SERVICE_UNAVAILABLE => &guesses.busy,
                _ => &guesses.other,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
