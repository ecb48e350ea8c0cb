//! Limits shared through Redis, one script call per decision.

mod lease;
mod link;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::redis::{Client, Script, ScriptInvocation};
use metrics::Recorder;
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::{Error, Result};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::flight::Permit;
use crate::key;
use crate::memory::Memory;
use crate::scope::{OnOutage, Scope};
use crate::stats::StoreStats;
use crate::window::{Decision, Outcome, Subject, Verdict, Window};
use crate::{DEFAULT_MAX_KEYS, Store, micros};

use lease::Leases;
use link::{Down, Link};

pub(crate) use lease::Lease;

/// Start of every key. The braces put all of them on one node of a cluster, so that one script may
/// touch several.
const PREFIX: &str = "quarterdeck:{limits}:";

/// Pauses between attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// How long a connection must have held for the next loss to be answered at once.
const STEADY: Duration = Duration::from_secs(10);

/// How a limiter uses Redis.
#[derive(Clone)]
pub struct RedisOptions {
    /// Longest wait for an answer; after that Redis counts as away. 100 ms.
    pub timeout: Duration,
    /// How long the places of a copy of the program outlive it when it is killed. Renewed every third
    /// of it. 30 s.
    pub lease: Duration,
    /// Keys held in memory while Redis is away.
    pub max_local_keys: usize,
    /// Whose time counts. [`Time::Server`].
    pub time: Time,
}

/// Whose time a shared window goes by.
#[derive(Clone)]
pub enum Time {
    /// That of the Redis server: one clock for all copies.
    Server,
    /// A clock that tests hold; its monotonic time counts.
    Given(SharedClock),
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_millis(100),
            lease: Duration::from_secs(30),
            max_local_keys: DEFAULT_MAX_KEYS,
            time: Time::Server,
        }
    }
}

/// Limits in Redis, with those of this process to fall back on.
pub(crate) struct Redis {
    shared: Arc<Shared>,
    local: Memory,
    local_decisions: AtomicU64,
    keeper: JoinHandle<()>,
}

/// What outlives the limiter in the leases of requests still under way.
pub(crate) struct Shared {
    link: Link,
    scripts: Scripts,
    leases: Leases,
    lease: Duration,
    time: Time,
}

struct Scripts {
    window: Script,
    enter: Script,
    renew: Script,
}

/// Whether a URL is one that [`Limiter::redis`](crate::Limiter::redis) takes; nothing is asked.
///
/// # Errors
/// The rule it breaks, which begins with "must" and does not repeat it.
pub fn check_redis_url(url: &SecretString) -> std::result::Result<(), &'static str> {
    client(url).map(drop)
}

fn client(url: &SecretString) -> std::result::Result<Client, &'static str> {
    // Its error could repeat the URL, which may hold a password.
    Client::open(url.expose_secret()).map_err(
        |_| "must be redis://user:password@host:port/number, rediss:// for TLS, or redis+unix:///path",
    )
}

impl Redis {
    pub(crate) async fn connect(url: &SecretString, options: RedisOptions, local: Memory) -> Result<Self> {
        let client =
            client(url).map_err(|rule| Error::internal(format!("the URL of the store of limits {rule}")))?;
        let shared = Arc::new(Shared {
            link: Link::new(client, options.timeout),
            scripts: Scripts {
                window: Script::new(include_str!("window.lua")),
                enter: Script::new(include_str!("enter.lua")),
                renew: Script::new(include_str!("renew.lua")),
            },
            leases: Leases::default(),
            lease: options.lease,
            time: options.time,
        });
        if let Err(cause) = shared.restore_once().await {
            shared.link.missed(&cause);
        }
        let keeper = tokio::spawn(Arc::clone(&shared).keep());
        Ok(Self { shared, local, local_decisions: AtomicU64::new(0), keeper })
    }

    pub(crate) fn local(&self) -> &Memory {
        &self.local
    }

    pub(crate) fn up(&self) -> watch::Receiver<bool> {
        self.shared.link.up()
    }

    pub(crate) async fn flush(&self) {
        self.shared.flush().await;
    }

    pub(crate) fn stats(&self) -> StoreStats {
        StoreStats {
            up: *self.shared.link.up().borrow(),
            outages: self.shared.link.outages(),
            local_decisions: self.local_decisions.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn measure(&self, recorder: &dyn Recorder) {
        self.shared.link.measure(recorder);
    }

    async fn ask(&self, windows: &[Window<'_>]) -> Option<Verdict> {
        let mut invocation = self.shared.invoke(&self.shared.scripts.window);
        for Window { scope, subject, quota } in windows {
            invocation.key(key::text(PREFIX, 'w', scope, *subject)).arg(quota.max()).arg(quota.micros());
        }
        let answer = self
            .shared
            .link
            .call(|mut connection| async move { invocation.invoke_async::<Vec<u64>>(&mut connection).await });
        let answer = answer.await.ok()?;
        let mut verdict = Verdict::new();
        for (window, figures) in windows.iter().zip(answer.chunks_exact(3)) {
            let outcome = Outcome {
                decision: if figures[0] == 1 { Decision::Admitted } else { Decision::Exhausted },
                quota: window.quota,
                remaining: u32::try_from(figures[1]).unwrap_or(u32::MAX),
                reset: figures[2],
            };
            if !verdict.push(outcome) {
                return Some(verdict);
            }
        }
        (verdict.len() == windows.len()).then_some(verdict)
    }

    /// Decides without Redis, each scope after its policy.
    fn manage(&self, windows: &[Window<'_>]) -> Verdict {
        let (mut verdict, now) = (Verdict::new(), self.local.now());
        for window in windows {
            let outcome = match window.scope.on_outage() {
                OnOutage::LocalWindow => {
                    self.local_decisions.fetch_add(1, Ordering::Relaxed);
                    self.local.decide(window, now)
                }
                OnOutage::Refuse => Outcome {
                    decision: Decision::Unavailable,
                    quota: window.quota,
                    remaining: 0,
                    reset: 1_000_000,
                },
            };
            if !verdict.push(outcome) {
                break;
            }
        }
        verdict
    }
}

impl Store for Redis {
    async fn check(&self, windows: &[Window<'_>]) -> Verdict {
        if windows.is_empty() {
            return Verdict::new();
        }
        if !self.shared.link.is_up() {
            return self.manage(windows);
        }
        match self.ask(windows).await {
            Some(verdict) => verdict,
            None => self.manage(windows),
        }
    }

    /// A place is taken in this process first. What it holds, Redis holds too, so a refusal here is
    /// one there and costs no round trip; and an outage changes nothing for this process's own places.
    async fn enter(&self, scope: &Scope, subject: Subject<'_>, max: u32) -> Result<Permit, Decision> {
        let place = self.local.board(scope, subject, max).ok_or(Decision::Exhausted)?;
        let mut lease = Shared::lease(&self.shared, key::text(PREFIX, 'f', scope, subject).into());
        match self.shared.take(&mut lease, max).await {
            Ok(true) => Ok(Permit::shared(place, lease)),
            Ok(false) => Err(Decision::Exhausted),
            Err(_) if scope.on_outage() == OnOutage::Refuse => Err(Decision::Unavailable),
            Err(_) => {
                self.local_decisions.fetch_add(1, Ordering::Relaxed);
                // Redis hears of it with the next renewal.
                lease.hold();
                Ok(Permit::shared(place, lease))
            }
        }
    }

    async fn ping(&self) -> Result<()> {
        let tried = self.shared.link.connect(&self.shared.probe()).await;
        tried.map(drop).map_err(|cause| Error::unavailable(cause, 1))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Shared {
    fn invoke<'a>(&self, script: &'a Script) -> ScriptInvocation<'a> {
        let mut invocation = script.prepare_invoke();
        match &self.time {
            Time::Server => invocation.arg(""),
            Time::Given(clock) => invocation.arg(micros(clock.monotonic())),
        };
        invocation
    }

    /// A decision nobody asked for: shows that scripts run and may write.
    fn probe(&self) -> ScriptInvocation<'_> {
        let mut invocation = self.invoke(&self.scripts.window);
        invocation.key(format!("{PREFIX}probe")).arg(1).arg(1_000);
        invocation
    }

    /// Asks Redis for a place.
    async fn take(&self, lease: &mut Lease, max: u32) -> Result<bool, Down> {
        let mut invocation = self.invoke(&self.scripts.enter);
        invocation.key(&**lease.key()).arg(max).arg(micros(self.lease)).arg(self.leases.name(lease.id()));
        for id in self.leases.leaving(lease.key()) {
            invocation.arg(self.leases.name(id));
        }
        // From here on Redis may know of the place, even if this future is dropped.
        lease.ask();
        let taken = self
            .link
            .call(|mut connection| async move { invocation.invoke_async::<bool>(&mut connection).await });
        let taken = taken.await;
        match taken {
            Ok(true) => lease.hold(),
            Ok(false) | Err(Down::Known) => lease.forget(),
            Err(Down::Found) => {}
        }
        taken
    }

    /// Renews leases, tells of places given back, and brings the connection back, for as long as the
    /// limiter lives.
    async fn keep(self: Arc<Self>) {
        let third = self.lease / 3;
        let mut renewal = tokio::time::interval_at(tokio::time::Instant::now() + third, third);
        renewal.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut pause = Duration::ZERO;
        let mut restored = Instant::now();
        loop {
            if !self.link.is_up() {
                if restored.elapsed() >= STEADY {
                    pause = Duration::ZERO;
                }
                pause = self.restore(pause).await;
                restored = Instant::now();
            }
            tokio::select! {
                () = self.link.lost() => {}
                () = self.leases.given_back() => self.flush().await,
                _ = renewal.tick() => self.renew().await,
            }
        }
    }

    /// Tries until Redis works again, the first time after `pause`, then ever more seldom, at least
    /// once a second. Answers the pause to begin with should it soon be lost again: a Redis that comes
    /// and goes makes one episode a second at most.
    async fn restore(&self, mut pause: Duration) -> Duration {
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).clamp(FIRST_PAUSE, LAST_PAUSE);
            if self.restore_once().await.is_ok() {
                return pause;
            }
            self.expire_leaving();
        }
    }

    async fn restore_once(&self) -> Result<(), String> {
        let connection = self.link.connect(&self.probe()).await?;
        self.link.restored(connection);
        // A server that was restarted has forgotten the places, one that was cut off has kept those
        // given back since.
        self.renew().await;
        self.flush().await;
        if self.link.announce() { Ok(()) } else { Err("lost at once".to_owned()) }
    }
}
