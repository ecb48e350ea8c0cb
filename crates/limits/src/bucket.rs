//! The rule of the sliding window, for one key.

use crate::stamps::Stamps;
use crate::window::Quota;

/// Shortest time a bucket is remembered after its newest stamp, in microseconds.
const SHORTEST_MEMORY: u64 = 60_000_000;

/// Shortest wait ever named, in microseconds.
pub(crate) const SHORTEST_WAIT: u64 = 1_000;

/// What is remembered of one key. Times are microseconds of the monotonic clock.
#[derive(Debug)]
pub(crate) struct Bucket {
    stamps: Stamps,
    /// The largest window ever asked for; what is younger is kept, so that a window that shrinks and
    /// grows again finds its stamps.
    widest: u64,
    /// The limit last asked for; how full the bucket is.
    max: u32,
}

/// What the rule says about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ruling {
    pub(crate) admitted: bool,
    /// How many more would be admitted now.
    pub(crate) remaining: u32,
    /// Until the next slot frees, in microseconds.
    pub(crate) wait: u64,
}

impl Bucket {
    /// A bucket for its first request, which is always admitted.
    pub(crate) fn first(quota: Quota, now: u64) -> (Self, Ruling) {
        let bucket = Self { stamps: Stamps::one(now), widest: quota.micros(), max: quota.max() };
        (bucket, Ruling { admitted: true, remaining: quota.max() - 1, wait: quota.micros() })
    }

    /// Decides about a request and charges it if it is admitted.
    ///
    /// A stamp counts while it is strictly younger than the window. Callers read the clock before they
    /// hold the bucket, so `now` may lie behind the newest stamp; the decision then happens at that
    /// stamp's time, which both callers have lived to see.
    pub(crate) fn rule(&mut self, quota: Quota, now: u64) -> Ruling {
        let now = now.max(self.stamps.newest());
        if self.forgotten(now) {
            let (fresh, ruling) = Self::first(quota, now);
            *self = fresh;
            return ruling;
        }
        let (max, window) = (quota.max(), quota.micros());
        self.max = max;
        self.widest = self.widest.max(window);
        self.stamps.expire(now, self.widest);
        let outside = if window == self.widest {
            0
        } else {
            self.stamps.iter().take_while(|at| now - at >= window).count()
        };
        let inside = self.stamps.len() - outside as u32;
        let frees = |skip: usize| self.stamps.iter().nth(skip).map_or(window, |at| at + window - now);
        if inside >= max {
            // After a lowered limit several must go before one may come.
            let wait = frees(outside + (inside - max) as usize).max(SHORTEST_WAIT);
            return Ruling { admitted: false, remaining: 0, wait };
        }
        let wait = frees(outside);
        self.stamps.push(now);
        Ruling { admitted: true, remaining: max - inside - 1, wait }
    }

    /// Whether the bucket is as good as gone: its newest stamp is older than any window cares for.
    pub(crate) fn forgotten(&self, now: u64) -> bool {
        now.saturating_sub(self.stamps.newest()) >= self.widest.saturating_mul(2).max(SHORTEST_MEMORY)
    }

    /// How much would be lost with this bucket: the share of its budget that is used, then its age.
    /// The least of these goes first when there is no room.
    pub(crate) fn weight(&mut self, now: u64) -> (u64, u64) {
        self.stamps.expire(now.max(self.stamps.newest()), self.widest);
        ((u64::from(self.stamps.len()) << 32) / u64::from(self.max), self.stamps.newest())
    }
}
