//! What every request asks, kept in memory: users, API keys, revoked sessions.
//!
//! An entry is valid only in the epoch it was read in; any change of users or keys, on any copy of the
//! program, begins a new epoch. While signals of other copies may be missing, the store is asked.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use foldhash::fast::RandomState;
use quarterdeck_domain::Result;
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::identity::Identity;
use quarterdeck_domain::role::{HumanRole, OrgRole};
use quarterdeck_domain::user::User;
use quarterdeck_store::{Signal, Store, micros, session, user};
use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;

use crate::jwt::password_signature;

/// Users remembered; beyond that the least used are read again.
const CAPACITY: usize = 100_000;
/// Proven tokens, and keys, remembered.
const PROOFS: usize = 20_000;

/// A stored user as the hot path needs it.
pub(crate) struct Account {
    pub(crate) id: Arc<str>,
    pub(crate) username: Arc<str>,
    pub(crate) role: HumanRole,
    pub(crate) must_change_password: bool,
    pub(crate) org_roles: Vec<OrgRole>,
    pub(crate) scoped_departments: Vec<String>,
    pub(crate) password_signature: String,
    pub(crate) is_system: bool,
}

impl From<User> for Account {
    fn from(user: User) -> Self {
        Self {
            is_system: user.is_system(),
            password_signature: password_signature(&user.password_hash),
            id: user.id.into(),
            username: user.username.into(),
            role: user.role,
            must_change_password: user.must_change_password,
            org_roles: user.org_roles,
            scoped_departments: user.scoped_departments,
        }
    }
}

/// A credential that was proven, and who it proves.
pub(crate) struct Proof {
    pub(crate) identity: Arc<Identity>,
    /// First and last instant the credential itself allows, microseconds since 1970 UTC.
    pub(crate) valid: RangeInclusive<i64>,
    /// Minute of an API key's last use that was noted; session tokens do not note any.
    minute: AtomicI64,
}

impl Proof {
    pub(crate) fn new(identity: Arc<Identity>, valid: RangeInclusive<i64>) -> Self {
        Self { identity, valid, minute: AtomicI64::new(0) }
    }
}

/// State of the world before memory was read: what it lets pass may be believed, and what is read
/// from the store meanwhile may be remembered under it.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    epoch: u64,
    trusted: bool,
}

struct Entry<T> {
    epoch: u64,
    value: Arc<T>,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self { epoch: self.epoch, value: Arc::clone(&self.value) }
    }
}

pub(crate) struct Hot {
    store: Store,
    clock: SharedClock,
    epoch: AtomicU64,
    users: Cache<String, Entry<Account>>,
    /// Session tokens by their text: whoever can read this memory can also read the secret that signs.
    tokens: Cache<String, Entry<Proof>, UnitWeighter, RandomState>,
    /// API keys by the keyed hash they are stored under.
    keys: Cache<[u8; 32], Entry<Proof>>,
    /// Session id → microseconds after which its tokens have ended anyway.
    revoked: RwLock<HashMap<String, i64>>,
    /// Reloads of the set that were called for, and the newest that is done: equal when it is complete.
    reloads_wanted: AtomicU64,
    reloads_done: AtomicU64,
    touched: Mutex<HashMap<String, i64>>,
}

impl Hot {
    pub(crate) fn new(store: Store, clock: SharedClock) -> Self {
        Self {
            store,
            clock,
            epoch: AtomicU64::new(0),
            users: Cache::new(CAPACITY),
            tokens: Cache::with(
                PROOFS,
                PROOFS as u64,
                UnitWeighter,
                RandomState::default(),
                Default::default(),
            ),
            keys: Cache::new(PROOFS),
            revoked: RwLock::default(),
            reloads_wanted: AtomicU64::new(1),
            reloads_done: AtomicU64::new(0),
            touched: Mutex::default(),
        }
    }

    pub(crate) fn hear(this: &Arc<Self>, signal: &Signal) {
        match signal {
            Signal::Keys | Signal::User { .. } => {
                this.epoch.fetch_add(1, Ordering::AcqRel);
            }
            Signal::SessionRevoked { session_id, until } => this.mark_revoked(session_id.clone(), *until),
            Signal::Everything => {
                this.epoch.fetch_add(1, Ordering::AcqRel);
                // Counted now: a reload that began before this news must not pass for complete.
                this.reloads_wanted.fetch_add(1, Ordering::AcqRel);
                let this = Arc::clone(this);
                tokio::spawn(async move {
                    // On failure the store is asked for every request until the upkeep has caught up.
                    if let Err(error) = this.load_revoked().await {
                        tracing::warn!(target: "auth", error = %error, "auth.revoked.reload_failed");
                    }
                });
            }
            Signal::Setting { .. }
            | Signal::Interrupt { .. }
            | Signal::Escalation { .. }
            | Signal::Maintenance { .. } => {}
        }
    }

    /// Reads the revoked sessions, unless they are all known.
    pub(crate) async fn load_revoked(&self) -> Result<()> {
        if self.knows_all_revoked() {
            return Ok(());
        }
        let wanted = self.reloads_wanted.load(Ordering::Acquire);
        let rows = session::revoked(self.store.read(), self.clock.now()).await?;
        self.revoked.write().unwrap_or_else(|e| e.into_inner()).extend(rows);
        self.reloads_done.fetch_max(wanted, Ordering::AcqRel);
        Ok(())
    }

    fn knows_all_revoked(&self) -> bool {
        self.reloads_done.load(Ordering::Acquire) == self.reloads_wanted.load(Ordering::Acquire)
    }

    fn mark_revoked(&self, session_id: String, until: i64) {
        self.revoked.write().unwrap_or_else(|e| e.into_inner()).insert(session_id, until);
    }

    /// Whether what is remembered may be believed. Must be asked before memory is read: what is
    /// remembered now may be older than the news that makes it trusted a moment later.
    fn trusted(&self) -> bool {
        self.store.signals_are_live()
    }

    pub(crate) async fn is_revoked(&self, session_id: &str) -> Result<bool> {
        let complete = self.trusted() && self.knows_all_revoked();
        if self.revoked.read().unwrap_or_else(|e| e.into_inner()).contains_key(session_id) {
            return Ok(true);
        }
        if complete {
            return Ok(false);
        }
        session::is_revoked(self.store.read(), session_id).await
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark { trusted: self.trusted(), epoch: self.epoch.load(Ordering::Acquire) }
    }

    pub(crate) fn proven_token(&self, token: &str, mark: Mark) -> Option<Arc<Proof>> {
        current(self.tokens.get(token), mark)
    }

    pub(crate) fn proven_key(&self, hash: &[u8; 32], mark: Mark) -> Option<Arc<Proof>> {
        current(self.keys.get(hash), mark)
    }

    pub(crate) fn remember_token(&self, token: &str, mark: Mark, proof: Proof) {
        self.tokens.insert(token.to_owned(), Entry { epoch: mark.epoch, value: Arc::new(proof) });
    }

    pub(crate) fn remember_key(&self, hash: [u8; 32], mark: Mark, proof: Arc<Proof>) {
        self.keys.insert(hash, Entry { epoch: mark.epoch, value: proof });
    }

    pub(crate) async fn account(&self, id: &str) -> Result<Option<Arc<Account>>> {
        let mark = self.mark();
        if let Some(known) = current(self.users.get(id), mark) {
            return Ok(Some(known));
        }
        let Some(user) = user::by_id(self.store.read(), id).await? else { return Ok(None) };
        let value = Arc::new(Account::from(user));
        // The mark was made first: a change during the read leaves an entry that is already stale.
        self.users.insert(id.to_owned(), Entry { epoch: mark.epoch, value: Arc::clone(&value) });
        Ok(Some(value))
    }

    /// Notes that a key was used, once a minute.
    pub(crate) fn touch(&self, proof: &Proof, now: i64) {
        let minute = now / 60_000_000;
        if let Some(id) = &proof.identity.api_key_id
            && proof.minute.swap(minute, Ordering::Relaxed) != minute
        {
            self.touched.lock().unwrap_or_else(|e| e.into_inner()).insert(id.to_string(), now);
        }
    }

    pub(crate) fn take_touched(&self) -> HashMap<String, i64> {
        std::mem::take(&mut *self.touched.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// Forgets revocations whose tokens have ended.
    pub(crate) fn prune(&self) {
        let now = micros(self.clock.now());
        self.revoked.write().unwrap_or_else(|e| e.into_inner()).retain(|_, until| *until > now);
    }
}

/// What was remembered in the epoch that is still going on.
fn current<T>(entry: Option<Entry<T>>, mark: Mark) -> Option<Arc<T>> {
    entry.filter(|entry| mark.trusted && entry.epoch == mark.epoch).map(|entry| entry.value)
}
