//! Tiers and operations: what budgets are named after, and what is counted of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::key::{Key, Keys};
use crate::window::{Decision, Subject};

/// What a scope does while the shared store does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOutage {
    /// Decides by a window of this process alone. For generous tiers and ordinary operations: no one
    /// is turned away, and each copy of the program lets through at most what all of them together did.
    LocalWindow,
    /// Refuses with 503/8001. For checks of credentials, where several budgets are several times the guesses.
    Refuse,
}

/// A tier or an operation. Made once by [`Limiter::scope`](crate::Limiter::scope), cheap to clone.
#[derive(Clone)]
pub struct Scope(Arc<Inner>);

struct Inner {
    name: &'static str,
    id: u64,
    on_outage: OnOutage,
    windows: Counts,
    flights: Counts,
}

/// Decisions by outcome, since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts([AtomicU64; 3]);

impl Counts {
    pub(crate) const OUTCOMES: [&'static str; 3] = ["admitted", "exhausted", "unavailable"];

    pub(crate) fn add(&self, decision: Decision) {
        self.0[decision as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> [u64; 3] {
        [0, 1, 2].map(|i: usize| self.0[i].load(Ordering::Relaxed))
    }
}

impl Scope {
    pub(crate) fn new(name: &'static str, on_outage: OnOutage, keys: &Keys) -> Self {
        let (windows, flights) = Default::default();
        Self(Arc::new(Inner { name, id: keys.scope(name), on_outage, windows, flights }))
    }

    /// The name it was declared with; the label of its metrics.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// What it does while the shared store is away.
    pub fn on_outage(&self) -> OnOutage {
        self.0.on_outage
    }

    pub(crate) fn windows(&self) -> &Counts {
        &self.0.windows
    }

    pub(crate) fn flights(&self) -> &Counts {
        &self.0.flights
    }

    pub(crate) fn key(&self, subject: Subject<'_>, keys: &Keys) -> Key {
        keys.key(self.0.id, subject)
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("name", &self.0.name).field("on_outage", &self.0.on_outage).finish()
    }
}
