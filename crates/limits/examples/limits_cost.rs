//! What a decision costs: `cargo run --release -p quarterdeck-limits --example limits_cost`.
//!
//! With `QUARTERDECK_REDIS_URL` set, also what one costs with that Redis; keys are left to expire.

#![allow(clippy::print_stdout, reason = "figures are what this program is for")]

use std::error::Error;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::DateTime;
use quarterdeck_domain::clock::{ManualClock, SharedClock, SystemClock};
use quarterdeck_limits::{DEFAULT_MAX_KEYS, Limiter, OnOutage, Quota, RedisOptions, Scope, Subject, Window};

type Failure = Box<dyn Error + Send + Sync>;

/// Short rounds and many, so that on a busy machine some are left alone.
const DECISIONS: u32 = 10_000;
const ROUNDS: usize = 1_000;

fn main() -> Result<(), Failure> {
    for threads in [1, 2] {
        hits(threads, true)?;
        hits(threads, false)?;
    }
    request()?;
    now(keys())??;
    if let Ok(url) = std::env::var("QUARTERDECK_REDIS_URL") {
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(redis(url))?;
    }
    Ok(())
}

/// In memory nothing is ever waited for, so no runtime is needed.
fn now<T>(decision: impl Future<Output = T>) -> Result<T, Failure> {
    futures_util::FutureExt::now_or_never(decision).ok_or_else(|| "memory does not wait".into())
}

/// The best of several rounds: the others were somebody else's.
fn best(mut round: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        round()?;
        best = best.min(began.elapsed());
    }
    Ok(per_decision(best, DECISIONS))
}

fn limiter() -> Limiter {
    Limiter::memory(SystemClock::shared(), DEFAULT_MAX_KEYS)
}

fn quota(max: u32, seconds: u64) -> Result<Quota, Failure> {
    Quota::new(max, Duration::from_secs(seconds)).ok_or_else(|| "a quota is not zero".into())
}

fn address(i: u32) -> Subject<'static> {
    Subject::Address(Ipv4Addr::from(i).into())
}

fn per_decision(took: Duration, decisions: u32) -> f64 {
    took.as_nanos() as f64 / f64::from(decisions)
}

/// The tiers of an ordinary request: floor, user and operation.
fn request() -> Result<(), Failure> {
    let limiter = limiter();
    let scopes = ["floor", "auth", "tasks.update"].map(|name| limiter.scope(name, OnOutage::LocalWindow));
    let user = Subject::User("8d3c5a7e-3f0a-4f43-9f3e-0c5d3a1b2c4d");
    let subjects = [address(1), user, user];
    let quota = Quota::new(u32::MAX, Duration::from_millis(10)).ok_or("a quota is not zero")?;
    let windows = [0, 1, 2].map(|i: usize| Window { scope: &scopes[i], subject: subjects[i], quota });
    let took = best(|| {
        for _ in 0..DECISIONS {
            now(limiter.check(black_box(&windows)))?;
        }
        Ok(())
    })?;
    println!("memory, the three windows of a request, admitted: {took:.0} ns");
    Ok(())
}

/// One window a decision, admitted or refused, on keys of each thread's own.
fn hits(threads: u32, admitted: bool) -> Result<(), Failure> {
    let limiter = limiter();
    let scope = limiter.scope("floor", OnOutage::LocalWindow);
    let quota =
        if admitted { Quota::new(u32::MAX, Duration::from_millis(10)) } else { Quota::new(1, Duration::MAX) };
    let quota = quota.ok_or("a quota is not zero")?;
    let took = best(|| {
        std::thread::scope(|running| {
            let work = |thread: u32| -> Result<(), Failure> {
                for i in 0..DECISIONS {
                    let subject = address((thread << 16) + i % 1_000);
                    now(limiter.check(black_box(&[Window { scope: &scope, subject, quota }])))?;
                }
                Ok(())
            };
            let threads: Vec<_> = (0..threads).map(|thread| running.spawn(move || work(thread))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread failed")?)
        })
    })?;
    let outcome = if admitted { "admitted" } else { "refused" };
    println!("memory, one window, {outcome}, {threads} thread(s): {took:.0} ns a decision and thread");
    Ok(())
}

/// Resident memory of this process, in bytes.
fn resident() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1_024)
}

async fn keys() -> Result<(), Failure> {
    const KEYS: u32 = 1_000_000;
    let clock = ManualClock::at(DateTime::UNIX_EPOCH);
    let limiter = Limiter::memory(Arc::clone(&clock) as SharedClock, DEFAULT_MAX_KEYS);
    let scope = limiter.scope("floor", OnOutage::LocalWindow);
    let quota = quota(10_000, 60)?;
    let mut times = vec![u32::MAX; KEYS as usize];
    let before = resident()?;
    let began = Instant::now();
    for (i, time) in (0..KEYS).zip(&mut times) {
        let one = Instant::now();
        limiter.check(&[Window { scope: &scope, subject: address(i), quota }]).await;
        *time = one.elapsed().as_nanos() as u32;
    }
    let took = began.elapsed();
    let held = resident()? - before;
    times.sort_unstable();
    println!(
        "memory, {} keys seen once: {} MB, {} bytes a key; {:.0} ns a decision, 99.99 % of them under {} µs",
        limiter.stats().keys,
        held / 1_000_000,
        held / u64::from(KEYS),
        per_decision(took, KEYS),
        times[KEYS as usize / 10_000 * 9_999].div_ceil(1_000)
    );
    for i in 0..KEYS {
        for _ in 0..4 {
            clock.advance(Duration::from_micros(1));
            limiter.check(&[Window { scope: &scope, subject: address(i), quota }]).await;
        }
    }
    println!("memory, the same keys seen five times: {} MB", (resident()? - before) / 1_000_000);
    clock.advance(Duration::from_secs(120));
    let began = Instant::now();
    limiter.sweep();
    println!(
        "memory, all of them swept in {} ms: {} keys left",
        began.elapsed().as_millis(),
        limiter.stats().keys
    );
    Ok(())
}

async fn redis(url: String) -> Result<(), Failure> {
    const REQUESTS: u32 = 20_000;
    let options = RedisOptions { timeout: Duration::from_secs(5), ..RedisOptions::default() };
    let limiter = Limiter::redis(&url.into(), options, SystemClock::shared()).await?;
    limiter.ping().await?;
    let names = ["floor", "auth", "tasks.update"];
    let scopes: Vec<Scope> = names.map(|name| limiter.scope(name, OnOutage::LocalWindow)).into();
    for tiers in [1, 3] {
        for at_once in [1, 16] {
            let began = Instant::now();
            let mut callers = tokio::task::JoinSet::new();
            for caller in 0..at_once {
                let (limiter, scopes) = (limiter.clone(), scopes.clone());
                callers.spawn(async move {
                    let quota = quota(10_000, 60)?;
                    for i in 0..REQUESTS / at_once {
                        let subject = address(caller * 1_000 + i % 1_000);
                        let windows: Vec<_> =
                            scopes[..tiers].iter().map(|scope| Window { scope, subject, quota }).collect();
                        limiter.check(&windows).await;
                    }
                    Ok::<_, Failure>(())
                });
            }
            callers.join_all().await.into_iter().collect::<Result<(), _>>()?;
            println!(
                "redis, {tiers} window(s) in one round trip, {at_once} at once: {:.1} µs a request",
                per_decision(began.elapsed(), REQUESTS) / 1_000.0
            );
        }
    }
    let store = limiter.stats().store.ok_or("no store")?;
    println!("redis, decided without it: {}", store.local_decisions);
    Ok(())
}
