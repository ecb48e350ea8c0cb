//! Rights of callers that stay: sockets and streams outlive the request that proved who they are, so
//! whoever holds one is called when the rights behind it may have changed, and asks again now and then.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quarterdeck_auth::Auth;
use quarterdeck_domain::identity::Identity;
use quarterdeck_store::{Signal, Store};
use tokio::time::Instant;

/// How often rights are asked for without a reason.
const EVERY: Duration = Duration::from_secs(600);
/// Pause before rights that could not be read are asked for again, when there was a reason to ask.
const SOON: Duration = Duration::from_secs(1);

/// Somebody to call.
pub(crate) trait Called: Send + Sync {
    /// Rights may have changed. Must not block.
    fn called(&self);
}

struct Watched {
    user_id: Arc<str>,
    session_id: Option<Arc<str>>,
    by_key: bool,
    called: Arc<dyn Called>,
}

/// Everyone who stays.
#[derive(Default)]
pub struct Rights {
    watched: Mutex<HashMap<u64, Watched>>,
    next: AtomicU64,
}

impl Rights {
    /// Hears of changes from this store, whichever copy of the program made them.
    pub fn of(store: &Store) -> Arc<Self> {
        let rights = Arc::new(Self::default());
        let heard = Arc::downgrade(&rights);
        store.on_signal(move |signal| {
            if let Some(rights) = heard.upgrade() {
                rights.hear(signal);
            }
        });
        rights
    }

    fn hear(&self, signal: &Signal) {
        let concerns = |watched: &Watched| match signal {
            Signal::User { user_id } => *watched.user_id == **user_id,
            Signal::SessionRevoked { session_id, .. } => {
                watched.session_id.as_deref() == Some(session_id.as_str())
            }
            Signal::Keys => watched.by_key,
            Signal::Everything => true,
            Signal::Setting { .. }
            | Signal::Interrupt { .. }
            | Signal::Escalation { .. }
            | Signal::Maintenance { .. } => false,
        };
        let watched = self.watched.lock().unwrap_or_else(|e| e.into_inner());
        for watched in watched.values().filter(|watched| concerns(watched)) {
            watched.called.called();
        }
    }

    /// Calls from now on, until what is given back is dropped.
    pub(crate) fn watch(self: &Arc<Self>, identity: &Identity, called: Arc<dyn Called>) -> Watching {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let watched = Watched {
            user_id: Arc::clone(&identity.user_id),
            session_id: identity.session_id.clone(),
            by_key: identity.api_key_id.is_some(),
            called,
        };
        self.watched.lock().unwrap_or_else(|e| e.into_inner()).insert(id, watched);
        Watching { rights: Arc::clone(self), id }
    }

    /// How many stay.
    pub fn count(&self) -> usize {
        self.watched.lock().unwrap_or_else(|e| e.into_inner()).len()
    }
}

/// A place among those who are called.
pub(crate) struct Watching {
    rights: Arc<Rights>,
    id: u64,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.rights.watched.lock().unwrap_or_else(|e| e.into_inner()).remove(&self.id);
    }
}

/// How patiently rights that cannot be read are waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Failures that end it.
    pub failures: usize,
    /// Time in which they are counted; at least so long that they fit into it.
    pub window: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { failures: 5, window: Duration::from_secs(60) }
    }
}

/// What asking again found.
pub(crate) enum Verdict {
    /// The caller as they are now.
    Stays(Box<Identity>),
    /// Why the caller must go, in the words of the wire.
    Goes(&'static str),
    /// It could not be read; the caller stays until the next time.
    Unknown,
    /// It could not be read too often.
    Exhausted,
}

/// The questions asked about one caller.
pub(crate) struct Revalidation {
    patience: Patience,
    next: Instant,
    failed: VecDeque<Instant>,
}

impl Revalidation {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, next: Instant::now() + EVERY, failed: VecDeque::new() }
    }

    /// When to ask next.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Asks. `is_due` says that its time has come; otherwise there was a reason.
    pub(crate) async fn ask(&mut self, auth: &Auth, before: &Identity, is_due: bool) -> Verdict {
        let now = Instant::now();
        match auth.recheck(before).await {
            Ok(identity) => {
                if is_due {
                    self.next = now + EVERY;
                }
                if identity.role.reads() {
                    Verdict::Stays(Box::new(identity))
                } else {
                    Verdict::Goes("role_demoted")
                }
            }
            Err(error) if error.status() == 401 => Verdict::Goes(match error.reason() {
                Some("jwt_user_not_found") => "user_deleted",
                Some("api_key_revoked") => "api_key_revoked",
                Some("api_key_expired") => "api_key_expired",
                _ => "session_revoked",
            }),
            Err(error) => {
                tracing::warn!(target: "api", error = %error, cause = error.cause(), "api.ws.revalidation_failed");
                if !is_due {
                    self.next = self.next.min(now + SOON);
                    return Verdict::Unknown;
                }
                self.next = now + EVERY;
                self.fail(now)
            }
        }
    }

    fn fail(&mut self, now: Instant) -> Verdict {
        let most = self.patience.failures;
        // A tick every ten minutes could never fill a shorter window.
        let needed = EVERY * u32::try_from(most).unwrap_or(u32::MAX);
        let window = self.patience.window.max(needed);
        self.failed.push_back(now);
        while self.failed.front().is_some_and(|first| now.duration_since(*first) > window) {
            self.failed.pop_front();
        }
        if self.failed.len() >= most { Verdict::Exhausted } else { Verdict::Unknown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn five_failing_ticks_end_it_and_four_do_not_also_with_successes_between() {
        let mut asked = Revalidation::new(Patience::default());
        for tick in 1..=5 {
            tokio::time::advance(EVERY).await;
            let exhausted = matches!(asked.fail(Instant::now()), Verdict::Exhausted);
            assert_eq!(exhausted, tick == 5, "tick {tick}");
        }
        let mut asked = Revalidation::new(Patience::default());
        for _ in 0..20 {
            tokio::time::advance(EVERY * 2).await;
            assert!(matches!(asked.fail(Instant::now()), Verdict::Unknown), "too far apart to count");
        }
    }
}
