//! What is asked and what is answered.

use std::net::IpAddr;
use std::ops::Deref;
use std::time::Duration;

use quarterdeck_domain::{Error, ErrorCode};

use crate::scope::Scope;

/// Windows that may be asked about in one call.
pub const MAX_WINDOWS: usize = 4;

/// Longest window, ten years; longer ones are cut to it.
const LONGEST: u64 = 10 * 365 * 86_400 * 1_000_000;

/// So many requests in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    max: u32,
    micros: u64,
}

impl Quota {
    /// At most `max` requests in any `window`, kept in whole microseconds.
    /// `None` when either is zero: nothing is limited.
    pub const fn new(max: u32, window: Duration) -> Option<Self> {
        let micros = window.as_micros();
        if max == 0 || micros == 0 {
            return None;
        }
        Some(Self { max, micros: if micros < LONGEST as u128 { micros as u64 } else { LONGEST } })
    }

    /// How many.
    pub const fn max(self) -> u32 {
        self.max
    }

    /// In what time.
    pub const fn window(self) -> Duration {
        Duration::from_micros(self.micros)
    }

    pub(crate) const fn micros(self) -> u64 {
        self.micros
    }
}

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// A network address. Fold mapped addresses and cut IPv6 to its bucket before.
    Address(IpAddr),
    /// The id of a known user.
    User(&'a str),
    /// Anything a caller names before being known, such as a login name. Leaves the process only as a digest.
    Name(&'a str),
}

/// One limit a request has to pass.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    /// Tier or operation; budgets of different scopes never touch.
    pub scope: &'a Scope,
    /// Who pays.
    pub subject: Subject<'a>,
    /// How much there is.
    pub quota: Quota,
}

/// What one window said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Room was left, and one slot of it is taken now.
    Admitted,
    /// The budget is used up; nothing was charged.
    Exhausted,
    /// The shared store does not answer and the scope does not decide without it.
    Unavailable,
}

/// Decision of one window with the figures of its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What was decided.
    pub decision: Decision,
    /// What was asked.
    pub quota: Quota,
    /// Requests still admitted now.
    pub remaining: u32,
    /// Microseconds; a duration would make every verdict a third larger.
    pub(crate) reset: u64,
}

impl Outcome {
    /// Whether the request may go on.
    pub fn admitted(&self) -> bool {
        self.decision == Decision::Admitted
    }

    /// Until the next used slot is free again; for a refusal, until a repetition is worth it.
    pub fn reset(&self) -> Duration {
        Duration::from_micros(self.reset)
    }

    /// [`reset`](Self::reset) in whole seconds slot is free, rounded up; at least 1 for a refusal, so that nobody
    /// is told to repeat at once. Having waited that long, the next request finds a slot unless
    /// somebody else of the same subject took it.
    pub fn reset_seconds(&self) -> u32 {
        let seconds = u32::try_from(self.reset.div_ceil(1_000_000)).unwrap_or(u32::MAX);
        seconds.max(u32::from(!self.admitted()))
    }

    /// The refusal as a failure of `code`, or 503/8001 when the store was missing.
    /// `None` when the request was admitted.
    pub fn error(&self, code: ErrorCode) -> Option<Error> {
        match self.decision {
            Decision::Admitted => None,
            Decision::Exhausted => Some(Error::new(code).retry_after(self.reset_seconds())),
            Decision::Unavailable => Some(missing_store()),
        }
    }
}

/// The failure of a scope that does not decide without the shared store.
pub(crate) fn missing_store() -> Error {
    Error::unavailable("the store of the limits does not answer", 1)
}

/// Outcomes in the order of the windows; the last one is the refusal, if there is one.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    outcomes: [Outcome; MAX_WINDOWS],
    len: usize,
}

impl Verdict {
    pub(crate) fn new() -> Self {
        let quota = Quota { max: 1, micros: 1 };
        let unused = Outcome { decision: Decision::Unavailable, quota, remaining: 0, reset: 0 };
        Self { outcomes: [unused; MAX_WINDOWS], len: 0 }
    }

    /// Adds an outcome and says whether to go on to the next window.
    pub(crate) fn push(&mut self, outcome: Outcome) -> bool {
        self.outcomes[self.len] = outcome;
        self.len += 1;
        outcome.admitted()
    }

    /// Position and outcome of the window that refused.
    pub fn refused(&self) -> Option<(usize, &Outcome)> {
        self.iter().enumerate().find(|(_, outcome)| !outcome.admitted())
    }

    /// The outcome a client should heed: the refusal, or else the one with the fewest requests left.
    pub fn tightest(&self) -> Option<&Outcome> {
        self.iter().min_by_key(|outcome| (outcome.admitted(), outcome.remaining, outcome.quota.max))
    }
}

impl Deref for Verdict {
    type Target = [Outcome];

    fn deref(&self) -> &[Outcome] {
        &self.outcomes[..self.len]
    }
}
