//! One-time WebSocket tickets: proof of a caller that may travel in a URL because it works once,
//! for half a minute. Where several copies of the program share a database, any of them takes it back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::identity::{AuthMethod, Identity};
use quarterdeck_domain::user::SYSTEM_USER;
use quarterdeck_domain::{Error, ErrorCode, Result};
use quarterdeck_store::{Store, ws_ticket};
use sha2::{Digest, Sha256};

use crate::Auth;
use crate::identify::identity;
use crate::login::random_token;
use crate::secret::hex;

const LIFETIME: Duration = Duration::from_secs(30);
const MAX_PENDING: usize = 5;

/// A ticket on its way to its owner.
pub struct IssuedTicket {
    /// 43 URL-safe characters.
    pub ticket: String,
    /// Seconds it can be used for, at least 1.
    pub expires_in: u64,
}

struct Pending {
    identity: Identity,
    /// On the monotonic clock; the exact instant still counts.
    deadline: Duration,
}

pub(crate) struct Tickets {
    /// Where copies share them; `None` keeps them in memory.
    shared: Option<Store>,
    clock: SharedClock,
    max_pending: AtomicUsize,
    /// By SHA-256 of the ticket: memory that leaks gives nothing away, and lookup time says nothing
    /// about the value.
    pending: Mutex<HashMap<[u8; 32], Pending>>,
}

impl Tickets {
    pub(crate) fn new(store: &Store, clock: SharedClock) -> Self {
        let shared = (store.backend_name() == "postgres").then(|| store.clone());
        Self { shared, ..Self::in_memory(clock) }
    }

    fn in_memory(clock: SharedClock) -> Self {
        Self { shared: None, clock, max_pending: AtomicUsize::new(MAX_PENDING), pending: Mutex::default() }
    }

    pub(crate) fn set_max_pending(&self, tickets: usize) {
        self.max_pending.store(tickets.max(1), Ordering::Relaxed);
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<[u8; 32], Pending>> {
        self.pending.lock().unwrap_or_else(|e| e.into_inner())
    }

    async fn issue_shared(&self, store: &Store, identity: &Identity) -> Result<Option<IssuedTicket>> {
        let ticket = random_token();
        let (digest, most) = (hex(&digest(&ticket)), self.max_pending.load(Ordering::Relaxed));
        let (user, session) = (Arc::clone(&identity.user_id), identity.session_id.clone());
        let now = self.clock.now();
        let stored = store
            .write(move |tx| {
                Box::pin(async move {
                    let end = now + LIFETIME;
                    ws_ticket::insert(tx, &digest, &user, session.as_deref(), end, now, most).await
                })
            })
            .await?;
        Ok(stored.then(|| IssuedTicket { ticket, expires_in: LIFETIME.as_secs().max(1) }))
    }

    fn issue(&self, identity: Identity) -> Option<IssuedTicket> {
        let ticket = random_token();
        let now = self.clock.monotonic();
        let mut pending = self.pending();
        let held =
            pending.values().filter(|p| p.identity.user_id == identity.user_id && p.deadline >= now).count();
        if held >= self.max_pending.load(Ordering::Relaxed) {
            return None;
        }
        let identity = Identity { auth_method: AuthMethod::WsTicket, ..identity };
        pending.insert(digest(&ticket), Pending { identity, deadline: now + LIFETIME });
        Some(IssuedTicket { ticket, expires_in: LIFETIME.as_secs().max(1) })
    }

    fn consume(&self, ticket: &str) -> Option<Identity> {
        let taken = self.pending().remove(&digest(ticket));
        let Some(taken) = taken else {
            tracing::warn!(target: "auth", "ws.ticket_invalid");
            return None;
        };
        let overdue = self.clock.monotonic().saturating_sub(taken.deadline);
        if !overdue.is_zero() {
            tracing::warn!(target: "auth", user_id = %taken.identity.user_id, overdue = overdue.as_secs_f64(), "ws.ticket_expired");
            return None;
        }
        tracing::info!(target: "auth", user_id = %taken.identity.user_id, "ws.ticket_consumed");
        Some(taken.identity)
    }

    pub(crate) fn purge_user(&self, user_id: &str) {
        self.pending().retain(|_, p| &*p.identity.user_id != user_id);
    }

    pub(crate) fn purge_session(&self, session_id: &str) {
        self.pending().retain(|_, p| p.identity.session_id.as_deref() != Some(session_id));
    }

    /// Drops expired tickets.
    pub(crate) fn sweep(&self) {
        let now = self.clock.monotonic();
        let mut pending = self.pending();
        let before = pending.len();
        pending.retain(|_, p| p.deadline >= now);
        let (removed, remaining) = (before - pending.len(), pending.len());
        drop(pending);
        if removed > 0 {
            tracing::info!(target: "auth", removed, remaining, "ws.ticket_cleanup");
        }
    }
}

fn digest(ticket: &str) -> [u8; 32] {
    Sha256::digest(ticket.as_bytes()).into()
}

impl Auth {
    /// A ticket for the caller.
    ///
    /// # Errors
    /// 403/1001 for the system user, 401/1000 for API keys, 409/4000 with too many unused tickets.
    pub async fn issue_ticket(&self, caller: &Identity) -> Result<IssuedTicket> {
        if &*caller.user_id == SYSTEM_USER {
            return Err(Error::forbidden("System user cannot open WebSocket connections")
                .because("system_user_ws_ticket_blocked"));
        }
        if caller.auth_method != AuthMethod::Jwt {
            return Err(Error::with(ErrorCode::Unauthorized, "WebSocket tickets require JWT authentication")
                .because("ws_ticket_requires_jwt"));
        }
        let issued = match &self.tickets.shared {
            Some(store) => self.tickets.issue_shared(store, caller).await?,
            None => self.tickets.issue(caller.clone()),
        };
        let issued = issued.ok_or_else(|| {
            Error::conflict("Too many unused WebSocket tickets").because("ws_ticket_limit_exceeded")
        })?;
        tracing::info!(target: "auth", user_id = %caller.user_id, ttl = issued.expires_in, "ws.ticket_issued");
        Ok(issued)
    }

    /// The owner of a ticket, which is used up by the question; `None` for unknown, used and expired
    /// ones alike. The caller rechecks the identity with [`Auth::recheck`].
    ///
    /// # Errors
    /// Those of the store, where tickets are shared.
    pub async fn consume_ticket(&self, ticket: &str) -> Result<Option<Identity>> {
        let Some(store) = &self.tickets.shared else { return Ok(self.tickets.consume(ticket)) };
        let Some(owner) = ws_ticket::take(store, &hex(&digest(ticket))).await? else {
            tracing::warn!(target: "auth", "ws.ticket_invalid");
            return Ok(None);
        };
        if !owner.is_good_at(self.clock.now()) {
            tracing::warn!(target: "auth", user_id = owner.user_id, "ws.ticket_expired");
            return Ok(None);
        }
        let Some(account) = self.hot.account(&owner.user_id).await? else { return Ok(None) };
        let mut found = identity(&account, AuthMethod::WsTicket);
        found.session_id = owner.session_id.map(Into::into);
        tracing::info!(target: "auth", user_id = %found.user_id, "ws.ticket_consumed");
        Ok(Some(found))
    }

    /// Drops expired tickets.
    pub(crate) async fn sweep_tickets(&self) -> Result<()> {
        self.tickets.sweep();
        if let Some(store) = &self.tickets.shared {
            let now = self.clock.now();
            store.write(move |tx| Box::pin(async move { ws_ticket::sweep(tx, now).await })).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use chrono::DateTime;
    use quarterdeck_domain::clock::ManualClock;
    use quarterdeck_domain::role::HumanRole;

    fn tickets() -> (Arc<ManualClock>, Arc<Tickets>) {
        let clock = ManualClock::at(DateTime::UNIX_EPOCH);
        (Arc::clone(&clock), Arc::new(Tickets::in_memory(clock)))
    }

    fn caller(id: &str) -> Identity {
        Identity {
            user_id: id.into(),
            username: id.into(),
            role: HumanRole::Observer,
            auth_method: AuthMethod::Jwt,
            must_change_password: false,
            org_roles: Vec::new(),
            scoped_departments: Vec::new(),
            session_id: Some("s".into()),
            api_key_id: None,
        }
    }

    #[test]
    fn a_ticket_works_once_and_up_to_its_last_instant() {
        let (clock, tickets) = tickets();
        let issued = tickets.issue(caller("a")).unwrap();
        assert_eq!((issued.ticket.len(), issued.expires_in), (43, 30));
        clock.advance(Duration::from_secs(30));
        clock.step_wall(chrono::TimeDelta::days(1));
        let identity = tickets.consume(&issued.ticket).unwrap();
        assert_eq!(identity.auth_method, AuthMethod::WsTicket);
        assert!(tickets.consume(&issued.ticket).is_none());
        assert!(tickets.consume("").is_none());

        let late = tickets.issue(caller("a")).unwrap();
        clock.advance(Duration::from_millis(30_001));
        assert!(tickets.consume(&late.ticket).is_none());
    }

    #[test]
    fn a_sixth_unused_ticket_is_refused_until_one_is_used_or_expires() {
        let (clock, tickets) = tickets();
        let held: Vec<_> = (0..5).map(|_| tickets.issue(caller("a")).unwrap()).collect();
        assert!(tickets.issue(caller("a")).is_none());
        assert!(tickets.issue(caller("b")).is_some(), "another user's cap is their own");
        tickets.consume(&held[0].ticket).unwrap();
        assert!(tickets.issue(caller("a")).is_some());
        assert!(tickets.issue(caller("a")).is_none());
        clock.advance(Duration::from_millis(30_001));
        assert!(tickets.issue(caller("a")).is_some(), "expired tickets do not count, swept or not");
        tickets.sweep();
        assert_eq!(tickets.pending().len(), 1);
    }

    #[test]
    fn tickets_end_with_their_session_or_user() {
        let (_, tickets) = tickets();
        let first = tickets.issue(caller("a")).unwrap();
        tickets.purge_session("s");
        assert!(tickets.consume(&first.ticket).is_none());
        let second = tickets.issue(caller("a")).unwrap();
        tickets.purge_user("a");
        assert!(tickets.consume(&second.ticket).is_none());
    }

    #[test]
    fn of_racing_consumers_exactly_one_wins_and_of_racing_issuers_five() {
        let (_, tickets) = tickets();
        let race = |n: usize, job: &(dyn Fn() -> bool + Sync)| {
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..n).map(|_| scope.spawn(job)).collect();
                threads.into_iter().filter_map(|t| t.join().ok()).filter(|won| *won).count()
            })
        };
        assert_eq!(race(16, &|| tickets.issue(caller("a")).is_some()), 5);
        tickets.purge_user("a");
        let ticket = tickets.issue(caller("a")).unwrap().ticket;
        assert_eq!(race(16, &|| tickets.consume(&ticket).is_some()), 1);
    }

    #[test]
    fn a_hundred_tickets_are_all_distinct() {
        let (_, tickets) = tickets();
        let all: std::collections::HashSet<_> =
            (0..100).map(|i| tickets.issue(caller(&i.to_string())).unwrap().ticket).collect();
        assert_eq!(all.len(), 100);
        assert!(all.iter().all(|t| t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')));
    }
}
