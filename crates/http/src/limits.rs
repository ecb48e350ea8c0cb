//! How often and how many: the three global tiers, the budget of credential checks, and the limits of
//! single operations, as the front door applies them.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::identity::Identity;
use quarterdeck_domain::{Error, ErrorCode, Result};
use quarterdeck_limits::{Decision, Limiter, OnOutage, Permit, Quota, Scope, Subject, Verdict, Window};
use serde_json::Value;

use crate::edge::ClientAddr;
use crate::endpoint::Docs;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Checks of passwords and refresh tokens per client address.
const CREDENTIAL_CHECKS: Option<Quota> = Quota::new(10, Duration::from_secs(60));
/// Addresses remembered as exhausted; more are asked for every time.
const MAX_BLOCKED: usize = 10_000;

/// The three tiers every request passes.
#[derive(Clone, Debug)]
pub struct Tiers {
    /// Requests per client address, whatever becomes of them.
    pub floor: u32,
    /// Requests per client address without an identity.
    pub anonymous: u32,
    /// Requests per user.
    pub authenticated: u32,
    /// Length of the sliding window.
    pub window: Duration,
    /// Paths no tier counts, compared exactly.
    pub excluded: Vec<String>,
    /// Whether credential checks have a small budget of their own.
    pub credential_checks: bool,
}

/// What the operator changed about single operations, and whether such limits count at all.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    windows: HashMap<String, Option<Quota>>,
    caps: HashMap<String, Option<NonZeroU32>>,
    windows_off: bool,
    caps_off: bool,
}

impl Overrides {
    /// Reads the four settings; values were checked when they were stored. A 0 switches a limit off.
    pub fn new(windows_on: bool, windows: &Value, caps_on: bool, caps: &Value) -> Self {
        let number = |value: &Value| u32::try_from(value.as_u64().unwrap_or_default()).unwrap_or(u32::MAX);
        let pair =
            |limit: &Value| Quota::new(number(&limit[0]), Duration::from_secs(number(&limit[1]).into()));
        let entries = |value: &Value| value.as_object().cloned().into_iter().flatten();
        Self {
            windows: entries(windows).map(|(name, limit)| (name, pair(&limit))).collect(),
            caps: entries(caps).map(|(name, cap)| (name, NonZeroU32::new(number(&cap)))).collect(),
            windows_off: !windows_on,
            caps_off: !caps_on,
        }
    }

    /// Names of operations, for telling those that do not exist.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.windows.keys().chain(self.caps.keys()).map(String::as_str)
    }
}

/// The limits of this server.
pub struct Limits {
    limiter: Limiter,
    clock: SharedClock,
    floor: Tier,
    anonymous: Tier,
    authenticated: Tier,
    credentials: Option<Tier>,
    excluded: HashSet<String>,
    overrides: ArcSwap<Overrides>,
    blocked: Blocked,
    refused_handshakes: Scope,
}

struct Tier {
    scope: Scope,
    quota: Quota,
}

/// The limits of one operation.
#[derive(Clone)]
pub(crate) struct Operation {
    name: &'static str,
    scope: Scope,
    quota: Option<Quota>,
    cap: Option<NonZeroU32>,
    checks_credentials: bool,
}

/// Who a request is charged to.
#[derive(Clone, Copy)]
pub(crate) struct Payer<'a> {
    pub(crate) address: ClientAddr,
    pub(crate) identity: Option<&'a Identity>,
}

/// Which of the global tiers a request is charged to besides the floor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beyond {
    /// None: it was refused before.
    Floor,
    /// The anonymous tier, or the caller's own with an identity.
    Tier,
    /// That one, and the operation's windows.
    Operation,
}

impl Limits {
    /// Limits over a limiter.
    ///
    /// # Errors
    /// A sentence when a tier lets nothing pass.
    pub fn new(limiter: Limiter, clock: SharedClock, tiers: Tiers) -> Result<Self, String> {
        let tier = |name: &'static str, max| {
            let quota = Quota::new(max, tiers.window)
                .ok_or_else(|| format!("the {name} tier must let something pass"))?;
            Ok::<_, String>(Tier { scope: limiter.scope(name, OnOutage::LocalWindow), quota })
        };
        let (floor, anonymous, authenticated) = (
            tier("floor", tiers.floor)?,
            tier("anonymous", tiers.anonymous)?,
            tier("authenticated", tiers.authenticated)?,
        );
        let quota = CREDENTIAL_CHECKS.filter(|_| tiers.credential_checks);
        let credentials =
            quota.map(|quota| Tier { scope: limiter.scope("credentials", OnOutage::Refuse), quota });
        let refused_handshakes = limiter.scope("ws.refused", OnOutage::LocalWindow);
        Ok(Self {
            refused_handshakes,
            limiter,
            clock,
            floor,
            anonymous,
            authenticated,
            credentials,
            excluded: tiers.excluded.into_iter().collect(),
            overrides: ArcSwap::default(),
            blocked: Blocked::default(),
        })
    }

    /// The limiter below.
    pub fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    /// Puts the operator's changes in force from the next request on.
    pub fn set_overrides(&self, overrides: Overrides) {
        self.overrides.store(Arc::new(overrides));
    }

    /// Whether no tier counts requests to this path.
    pub(crate) fn excludes(&self, path: &str) -> bool {
        self.excluded.contains(path)
    }

    pub(crate) fn operation(&self, docs: &Docs) -> Operation {
        Operation {
            name: docs.operation,
            scope: self.limiter.scope(docs.operation, OnOutage::LocalWindow),
            quota: docs.rate.and_then(|rate| Quota::new(rate.max, Duration::from_secs(rate.seconds.into()))),
            cap: docs.in_flight,
            checks_credentials: docs.checks_credentials,
        }
    }

    /// Counts a refused WebSocket handshake; whether its address has had no more than allowed.
    pub(crate) async fn allows_refused_handshake(&self, address: ClientAddr, per_minute: u32) -> bool {
        let Some(quota) = Quota::new(per_minute, Duration::from_secs(60)) else { return true };
        let window = Window { scope: &self.refused_handshakes, subject: subject(address), quota };
        self.limiter.check(&[window]).await.refused().is_none()
    }

    /// Refuses an address whose floor is known to be exhausted, before anything is done for it.
    ///
    /// # Errors
    /// 429/5000.
    pub(crate) fn refuse_blocked(&self, address: ClientAddr, standing: &mut Option<Standing>) -> Result<()> {
        let Some(remaining) = self.blocked.remaining(address, self.clock.monotonic()) else { return Ok(()) };
        let seconds = u32::try_from(remaining.as_micros().div_ceil(1_000_000)).unwrap_or(u32::MAX).max(1);
        let Tier { scope, quota } = &self.floor;
        *standing = Some(Standing {
            name: scope.name(),
            admitted: false,
            quota: *quota,
            remaining: 0,
            reset: seconds,
        });
        Err(Error::new(ErrorCode::RateLimited).retry_after(seconds))
    }

    /// Charges a request to the tiers, and to the operation when it gets that far, all in one question.
    ///
    /// # Errors
    /// 429/5000 from a tier, 429/5001 from the operation; 503/8001 when a credential check cannot be
    /// counted.
    pub(crate) async fn charge(
        &self,
        payer: Payer<'_>,
        beyond: Beyond,
        operation: Option<&Operation>,
        standing: &mut Option<Standing>,
    ) -> Result<()> {
        let address = subject(payer.address);
        let mut windows = Vec::with_capacity(4);
        windows.push(self.floor.window(address));
        if beyond != Beyond::Floor {
            windows.push(match payer.identity {
                Some(identity) => self.authenticated.window(Subject::User(&identity.user_id)),
                None => self.anonymous.window(address),
            });
        }
        let overrides = self.overrides.load();
        let before = windows.len();
        if let (Beyond::Operation, Some(operation)) = (beyond, operation) {
            self.operation_windows(payer, operation, &overrides, &mut windows);
        }
        let verdict = self.limiter.check(&windows).await;
        Standing::update(standing, &windows, &verdict);
        self.outcome(&windows, &verdict, before, payer)
    }

    /// As [`charge`](Self::charge), for the operation's windows alone.
    pub(crate) async fn charge_operation(
        &self,
        payer: Payer<'_>,
        operation: &Operation,
        standing: &mut Option<Standing>,
    ) -> Result<()> {
        let mut windows = Vec::with_capacity(2);
        self.operation_windows(payer, operation, &self.overrides.load(), &mut windows);
        if windows.is_empty() {
            return Ok(());
        }
        let verdict = self.limiter.check(&windows).await;
        Standing::update(standing, &windows, &verdict);
        self.outcome(&windows, &verdict, 0, payer)
    }

    fn operation_windows<'a>(
        &'a self,
        payer: Payer<'a>,
        operation: &'a Operation,
        overrides: &Overrides,
        windows: &mut Vec<Window<'a>>,
    ) {
        if let (true, Some(tier)) = (operation.checks_credentials, &self.credentials) {
            windows.push(tier.window(subject(payer.address)));
        }
        if overrides.windows_off {
            return;
        }
        let quota = overrides.windows.get(operation.name).copied().unwrap_or(operation.quota);
        if let Some(quota) = quota {
            windows.push(Window { scope: &operation.scope, subject: payer.subject(), quota });
        }
    }

    fn outcome(
        &self,
        windows: &[Window<'_>],
        verdict: &Verdict,
        tiers: usize,
        payer: Payer<'_>,
    ) -> Result<()> {
        let Some((at, outcome)) = verdict.refused() else { return Ok(()) };
        let scope = windows[at].scope;
        let of_operation =
            at >= tiers && self.credentials.as_ref().is_none_or(|tier| tier.scope.name() != scope.name());
        if at == 0 && tiers > 0 && outcome.decision == Decision::Exhausted {
            self.blocked.add(payer.address, self.clock.monotonic() + outcome.reset());
        }
        if !of_operation {
            return Err(outcome
                .error(ErrorCode::RateLimited)
                .unwrap_or_else(|| ErrorCode::RateLimited.into()));
        }
        let retry_after = outcome.reset_seconds();
        tracing::warn!(
            target: "api", guard = "rate_limit", operation = scope.name(), max_requests = outcome.quota.max(),
            window_seconds = outcome.quota.window().as_secs(), retry_after, "api.guard.denied"
        );
        let text =
            format!("Rate limit exceeded for operation '{}'. Retry after {retry_after}s.", scope.name());
        Err(Error::with(ErrorCode::PerOperationRateLimited, text).retry_after(retry_after))
    }

    /// Takes a place among the calls of an operation that are under way; `None` without a cap.
    ///
    /// # Errors
    /// 429/5002.
    pub(crate) async fn enter(&self, payer: Payer<'_>, operation: &Operation) -> Result<Option<Permit>> {
        let Some(cap) = self.cap(operation) else { return Ok(None) };
        self.limiter.enter(&operation.scope, payer.subject(), cap).await.map(Some)
    }

    /// The cap of an operation now.
    pub(crate) fn cap(&self, operation: &Operation) -> Option<NonZeroU32> {
        let overrides = self.overrides.load();
        if overrides.caps_off {
            return None;
        }
        overrides.caps.get(operation.name).copied().unwrap_or(operation.cap)
    }
}

impl Tier {
    fn window<'a>(&'a self, subject: Subject<'a>) -> Window<'a> {
        Window { scope: &self.scope, subject, quota: self.quota }
    }
}

impl<'a> Payer<'a> {
    fn subject(self) -> Subject<'a> {
        match self.identity {
            Some(identity) => Subject::User(&identity.user_id),
            None => subject(self.address),
        }
    }
}

fn subject(address: ClientAddr) -> Subject<'static> {
    match address.bucket() {
        ClientAddr::Ip(ip) => Subject::Address(ip),
        ClientAddr::Unknown => Subject::Name("unknown"),
    }
}

/// How a request stands with the tightest of its limits; for the response headers.
#[derive(Clone, Copy)]
pub(crate) struct Standing {
    name: &'static str,
    admitted: bool,
    quota: Quota,
    remaining: u32,
    /// Seconds.
    reset: u32,
}

impl Standing {
    /// Keeps the tightest of what was known before and what these windows say.
    fn update(standing: &mut Option<Self>, windows: &[Window<'_>], verdict: &Verdict) {
        let now = windows.iter().zip(verdict.iter()).map(|(window, outcome)| Self {
            name: window.scope.name(),
            admitted: outcome.admitted(),
            quota: outcome.quota,
            remaining: outcome.remaining,
            reset: outcome.reset_seconds(),
        });
        *standing =
            standing.take().into_iter().chain(now).min_by_key(|s| (s.admitted, s.remaining, s.quota.max()));
    }

    /// Sets the headers of draft-ietf-httpapi-ratelimit-headers and the older ones beside them.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        let Self { name, remaining, reset, .. } = *self;
        let (max, window) = (self.quota.max(), self.quota.window().as_secs().max(1));
        // Room for these and for what the edge adds.
        headers.reserve(20);
        let mut set = |header: HeaderName, [first, second]: [(&str, u64); 2]| {
            let mut text = Vec::with_capacity(48);
            text.push(b'"');
            text.extend_from_slice(name.as_bytes());
            text.push(b'"');
            for (label, number) in [first, second] {
                text.extend_from_slice(label.as_bytes());
                // Formats integers without the machinery of `fmt`.
                text.extend_from_slice(HeaderValue::from(number).as_bytes());
            }
            // Names of scopes are plain ASCII.
            if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(text)) {
                headers.insert(header, value);
            }
        };
        set(RATE_LIMIT, [(";r=", remaining.into()), (";t=", reset.into())]);
        set(POLICY, [(";q=", max.into()), (";w=", window)]);
        headers.insert(LIMIT, HeaderValue::from(max));
        headers.insert(REMAINING, HeaderValue::from(remaining));
        headers.insert(RESET, HeaderValue::from(reset));
    }
}

/// Addresses whose floor is exhausted, until when on the monotonic clock: a flood is turned away
/// before its credentials are looked at.
#[derive(Default)]
struct Blocked {
    /// Spares everybody the lock while nobody is blocked.
    count: AtomicUsize,
    until: std::sync::Mutex<HashMap<Option<IpAddr>, Duration>>,
}

impl Blocked {
    fn key(address: ClientAddr) -> Option<IpAddr> {
        match address.bucket() {
            ClientAddr::Ip(ip) => Some(ip),
            ClientAddr::Unknown => None,
        }
    }

    fn add(&self, address: ClientAddr, until: Duration) {
        let mut map = self.until.lock().unwrap_or_else(|e| e.into_inner());
        if map.len() < MAX_BLOCKED {
            map.insert(Self::key(address), until);
        }
        self.count.store(map.len(), Ordering::Relaxed);
    }

    fn remaining(&self, address: ClientAddr, now: Duration) -> Option<Duration> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut map = self.until.lock().unwrap_or_else(|e| e.into_inner());
        let until = *map.get(&Self::key(address))?;
        if until > now {
            return Some(until - now);
        }
        map.retain(|_, until| *until > now);
        self.count.store(map.len(), Ordering::Relaxed);
        None
    }
}
