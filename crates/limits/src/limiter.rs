//! The room's one entrance.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use metrics::Recorder;
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::{Error, ErrorCode, Result};
use secrecy::SecretString;
use tokio::sync::watch;

use crate::Store;
use crate::flight::Permit;
use crate::key::Keys;
use crate::memory::{Memory, lock};
use crate::redis::{Redis, RedisOptions};
use crate::scope::{OnOutage, Scope};
use crate::stats::{self, ScopeStats, Stats};
use crate::window::{Decision, MAX_WINDOWS, Subject, Verdict, Window, missing_store};

/// Keys held in memory before some have to go: about 100 MB when most are seen once or a few times.
pub const DEFAULT_MAX_KEYS: usize = 1 << 20;

/// Sliding windows and in-flight caps. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Limiter(Arc<Inner>);

struct Inner {
    back: Back,
    keys: Arc<Keys>,
    scopes: Mutex<BTreeMap<&'static str, Scope>>,
}

#[allow(clippy::large_enum_variant, reason = "there is one of them")]
enum Back {
    Memory(Memory),
    Redis(Redis),
}

impl Limiter {
    /// Limits of this process alone, for at most about `max_keys` keys at a time. When there is no room,
    /// the key that used the smallest share of its budget is forgotten.
    pub fn memory(clock: SharedClock, max_keys: usize) -> Self {
        let keys = Arc::<Keys>::default();
        Self::over(Back::Memory(Memory::new(clock, Arc::clone(&keys), max_keys)), keys)
    }

    /// Limits shared by every copy of the program that names the same Redis (5 or newer, or Valkey).
    /// Tries to connect once; a Redis that is away is waited for in the background, and until it comes
    /// each scope does what its [`OnOutage`] says. To be called within a Tokio runtime.
    ///
    /// # Errors
    /// When the URL is not one of a Redis; the text does not repeat it.
    pub async fn redis(url: &SecretString, options: RedisOptions, clock: SharedClock) -> Result<Self> {
        let keys = Arc::<Keys>::default();
        let local = Memory::new(clock, Arc::clone(&keys), options.max_local_keys);
        Ok(Self::over(Back::Redis(Redis::connect(url, options, local).await?), keys))
    }

    fn over(back: Back, keys: Arc<Keys>) -> Self {
        Self(Arc::new(Inner { back, keys, scopes: Mutex::default() }))
    }

    /// The tier or operation of this name, declared on first use.
    ///
    /// # Panics
    /// When the name is empty or holds a colon or white space, or was declared with another policy:
    /// names and policies are constants of the program.
    pub fn scope(&self, name: &'static str, on_outage: OnOutage) -> Scope {
        assert!(
            !name.is_empty() && !name.contains(|c: char| c == ':' || c.is_whitespace()),
            "{name:?} is no name of a scope"
        );
        let mut scopes = lock(&self.0.scopes);
        let scope = scopes.entry(name).or_insert_with(|| Scope::new(name, on_outage, &self.0.keys)).clone();
        drop(scopes);
        assert!(scope.on_outage() == on_outage, "{name} was declared with another outage policy");
        scope
    }

    /// Decides the windows of one request in their order, up to the first that refuses; with Redis in
    /// one round trip.
    ///
    /// Every window charges for itself: one that refuses charges nothing, those before it keep their
    /// charge, and those after it are not asked. So an outer tier counts all requests, also those an
    /// inner one turns away. Dropping the future before it ends may or may not have charged.
    ///
    /// # Panics
    /// With more than [`MAX_WINDOWS`] windows.
    pub async fn check(&self, windows: &[Window<'_>]) -> Verdict {
        assert!(windows.len() <= MAX_WINDOWS, "one request has at most {MAX_WINDOWS} windows");
        let verdict = match &self.0.back {
            Back::Memory(store) => store.check(windows).await,
            Back::Redis(store) => store.check(windows).await,
        };
        for (window, outcome) in windows.iter().zip(verdict.iter()) {
            window.scope.windows().add(outcome.decision);
        }
        verdict
    }

    /// Takes one of `max` places among the requests under way of this scope and subject.
    ///
    /// # Errors
    /// 429/5002 when all are taken; 503/8001 when the shared store is away and the scope needs it.
    /// Both name a second to wait.
    pub async fn enter(&self, scope: &Scope, subject: Subject<'_>, max: NonZeroU32) -> Result<Permit> {
        let entered = match &self.0.back {
            Back::Memory(store) => store.enter(scope, subject, max.get()).await,
            Back::Redis(store) => store.enter(scope, subject, max.get()).await,
        };
        scope.flights().add(entered.as_ref().err().copied().unwrap_or(Decision::Admitted));
        entered.map_err(|decision| match decision {
            Decision::Unavailable => missing_store(),
            _ => Error::new(ErrorCode::ConcurrencyLimitExceeded).retry_after(1),
        })
    }

    /// Whether the store works, tried on a connection of its own. Memory always does.
    ///
    /// # Errors
    /// 503/8001; the cause says what failed, without the URL.
    pub async fn ping(&self) -> Result<()> {
        match &self.0.back {
            Back::Memory(store) => store.ping().await,
            Back::Redis(store) => store.ping().await,
        }
    }

    /// Whether the shared store answers, and when that changes. `None` for memory.
    pub fn store_up(&self) -> Option<watch::Receiver<bool>> {
        match &self.0.back {
            Back::Memory(_) => None,
            Back::Redis(store) => Some(store.up()),
        }
    }

    /// Drops buckets nobody has used for long. Decisions do this a little each; to be called now and
    /// then, so that memory comes back also when no more requests do.
    pub fn sweep(&self) {
        self.local().sweep();
    }

    /// Tells Redis of the places given back last; to be called when the last request has ended.
    pub async fn close(&self) {
        if let Back::Redis(store) = &self.0.back {
            store.flush().await;
        }
    }

    /// What was decided and is held.
    pub fn stats(&self) -> Stats {
        let scopes = lock(&self.0.scopes).values().map(ScopeStats::of).collect();
        let local = self.local();
        Stats {
            scopes,
            keys: local.held(),
            evicted: local.evicted(),
            in_flight: local.in_flight(),
            store: match &self.0.back {
                Back::Memory(_) => None,
                Back::Redis(store) => Some(store.stats()),
            },
        }
    }

    /// Writes the figures into a metrics registry; to be called before each scrape or every few
    /// seconds, always with the same one.
    pub fn publish(&self, recorder: &dyn Recorder) {
        stats::publish(&self.stats(), recorder);
        if let Back::Redis(store) = &self.0.back {
            store.measure(recorder);
        }
    }

    fn local(&self) -> &Memory {
        match &self.0.back {
            Back::Memory(store) => store,
            Back::Redis(store) => store.local(),
        }
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let back = match self.0.back {
            Back::Memory(_) => "memory",
            Back::Redis(_) => "redis",
        };
        f.debug_struct("Limiter").field("store", &back).finish_non_exhaustive()
    }
}
