//! How often and how many at once.
//!
//! A [`Limiter`] answers two questions about a request: does it fit the sliding [`Window`]s of its
//! subject, and is there a place among the requests under way. It answers from the memory of one
//! process, or from Redis when several copies of the program share their limits.
//!
//! A window of `max` requests in a time `w` is exact: in no stretch of length `w`, wherever it starts,
//! are more than `max` admitted, and nobody is refused while fewer than `max` lie within the last `w`.
//!
//! ```
//! use std::time::Duration;
//! use quarterdeck_domain::clock::SystemClock;
//! use quarterdeck_limits::{DEFAULT_MAX_KEYS, Limiter, OnOutage, Quota, Subject, Window};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let limiter = Limiter::memory(SystemClock::shared(), DEFAULT_MAX_KEYS);
//! let create = limiter.scope("tasks.create", OnOutage::LocalWindow);
//! let quota = Quota::new(1, Duration::from_secs(60)).unwrap();
//! let window = Window { scope: &create, subject: Subject::User("u1"), quota };
//! assert!(limiter.check(&[window]).await.refused().is_none());
//! let verdict = limiter.check(&[window]).await;
//! let (_, refusal) = verdict.refused().unwrap();
//! assert_eq!(refusal.reset_seconds(), 60);
//! # });
//! ```

mod bucket;
mod flight;
mod key;
mod limiter;
mod memory;
mod redis;
mod scope;
mod stamps;
mod stats;
mod window;

use std::future::Future;
use std::time::Duration;

use quarterdeck_domain::Result;

pub use flight::Permit;
pub use limiter::{DEFAULT_MAX_KEYS, Limiter};
pub use redis::{RedisOptions, Time, check_redis_url};
pub use scope::{OnOutage, Scope};
pub use stats::{ScopeStats, Stats, StoreStats};
pub use window::{Decision, MAX_WINDOWS, Outcome, Quota, Subject, Verdict, Window};

/// Where stamps and counts are kept.
pub(crate) trait Store {
    /// Decides windows in their order up to the first refusal, charging those that admit.
    fn check(&self, windows: &[Window<'_>]) -> impl Future<Output = Verdict> + Send;

    /// Takes one of `max` places among the requests under way, or says why not.
    fn enter(
        &self,
        scope: &Scope,
        subject: Subject<'_>,
        max: u32,
    ) -> impl Future<Output = Result<Permit, Decision>> + Send;

    /// Whether the store works.
    fn ping(&self) -> impl Future<Output = Result<()>> + Send;
}

/// Whole microseconds, the unit of every stamp.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
