//! Time and randomness as things that are handed in, so that tests can hold them still.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

/// Source of both clocks a server needs.
pub trait Clock: Send + Sync + 'static {
    /// Wall clock, for what is stored or shown.
    fn now(&self) -> DateTime<Utc>;
    /// Time since an arbitrary start that never steps back, for lifetimes held in memory.
    fn monotonic(&self) -> Duration;
}

/// Shared handle to a clock.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl SystemClock {
    /// A handle whose monotonic time starts at zero.
    pub fn shared() -> SharedClock {
        Arc::new(Self(Instant::now()))
    }
}

impl Clock for SystemClock {
    /// In whole microseconds, as databases keep it: what is answered now and read later is the same.
    fn now(&self) -> DateTime<Utc> {
        Utc::now().trunc_subsecs(6)
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A clock that moves only when told to; wall and monotonic time move separately.
#[derive(Debug)]
pub struct ManualClock {
    start: DateTime<Utc>,
    wall_micros: AtomicI64,
    monotonic_micros: AtomicI64,
}

impl ManualClock {
    /// A clock that stands at `start`, with monotonic time zero.
    pub fn at(start: DateTime<Utc>) -> Arc<Self> {
        Arc::new(Self { start, wall_micros: AtomicI64::new(0), monotonic_micros: AtomicI64::new(0) })
    }

    /// Lets time pass on both clocks.
    pub fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.wall_micros.fetch_add(micros, Ordering::SeqCst);
        self.monotonic_micros.fetch_add(micros, Ordering::SeqCst);
    }

    /// Steps the wall clock alone, as NTP or an operator would.
    pub fn step_wall(&self, by: TimeDelta) {
        self.wall_micros.fetch_add(by.num_microseconds().unwrap_or(0), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        self.start + TimeDelta::microseconds(self.wall_micros.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.monotonic_micros.load(Ordering::SeqCst).unsigned_abs())
    }
}

/// Fills `N` bytes from the operating system's generator.
///
/// # Panics
/// When the operating system has no randomness to give; nothing secure can go on then.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system provides randomness");
    bytes
}
