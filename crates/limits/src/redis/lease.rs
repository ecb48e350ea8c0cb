//! Places among the requests under way that other copies of the program see.
//!
//! Every place is an entry in Redis that ends by itself unless it is renewed, so that a killed process
//! holds nothing for long. What is given back is told in the background; until that is done, the next
//! request for the same places tells it along with its own question.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use quarterdeck_domain::clock::random_bytes;
use redis::pipe;
use tokio::sync::Notify;

use super::Shared;
use crate::memory::lock;
use crate::micros;

/// Places told of in one call.
const BATCH: usize = 500;

/// Places of this process.
pub(super) struct Leases {
    state: Mutex<State>,
    given_back: Notify,
    process: u64,
    next: AtomicU64,
}

#[derive(Default)]
struct State {
    held: HashMap<u64, Arc<str>>,
    /// Given back, and Redis may not know yet.
    leaving: HashMap<Arc<str>, Vec<(u64, Instant)>>,
}

impl Default for Leases {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            given_back: Notify::new(),
            process: u64::from_ne_bytes(random_bytes()),
            next: AtomicU64::new(0),
        }
    }
}

impl Leases {
    /// The id of a place for all copies of the program.
    pub(super) fn name(&self, id: u64) -> String {
        format!("{:016x}.{id}", self.process)
    }

    /// Places of this key that Redis may not know to be free.
    pub(super) fn leaving(&self, key: &Arc<str>) -> Vec<u64> {
        lock(&self.state).leaving.get(key).into_iter().flatten().map(|(id, _)| *id).collect()
    }

    /// Resolves when a place was given back.
    pub(super) async fn given_back(&self) {
        self.given_back.notified().await;
    }
}

/// One place; gives it back on drop if Redis may know of it.
pub(crate) struct Lease {
    shared: Arc<Shared>,
    key: Arc<str>,
    id: u64,
    known: bool,
}

impl Lease {
    pub(super) fn key(&self) -> &Arc<str> {
        &self.key
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Redis is being asked.
    pub(super) fn ask(&mut self) {
        self.known = true;
    }

    /// Redis does not know of it.
    pub(super) fn forget(&mut self) {
        self.known = false;
    }

    /// The place is taken, and renewed from now on.
    pub(super) fn hold(&mut self) {
        self.known = true;
        lock(&self.shared.leases.state).held.insert(self.id, Arc::clone(&self.key));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.known {
            return;
        }
        let mut state = lock(&self.shared.leases.state);
        state.held.remove(&self.id);
        state.leaving.entry(Arc::clone(&self.key)).or_default().push((self.id, Instant::now()));
        drop(state);
        self.shared.leases.given_back.notify_one();
    }
}

impl Shared {
    /// A place nobody knows of yet.
    pub(super) fn lease(shared: &Arc<Self>, key: Arc<str>) -> Lease {
        let id = shared.leases.next.fetch_add(1, Ordering::Relaxed);
        Lease { shared: Arc::clone(shared), key, id, known: false }
    }

    /// Forgets places given back so long ago that their leases have ended.
    pub(super) fn expire_leaving(&self) {
        lock(&self.leases.state).leaving.retain(|_, ids| {
            ids.retain(|(_, since)| since.elapsed() < self.lease);
            !ids.is_empty()
        });
    }

    /// Tells Redis of the places given back. What it cannot be told ends by itself after a lease.
    pub(super) async fn flush(&self) {
        self.expire_leaving();
        let leaving: Vec<_> = lock(&self.leases.state)
            .leaving
            .iter()
            .flat_map(|(key, ids)| ids.iter().map(|(id, _)| (Arc::clone(key), *id)))
            .collect();
        for batch in leaving.chunks(BATCH) {
            let mut commands = pipe();
            for (key, id) in batch {
                commands.zrem(&**key, self.leases.name(*id)).ignore();
            }
            let told = self
                .link
                .call(|mut connection| async move { commands.query_async::<()>(&mut connection).await });
            if told.await.is_err() {
                return;
            }
            let mut state = lock(&self.leases.state);
            for (key, told) in batch {
                if let Some(ids) = state.leaving.get_mut(key) {
                    ids.retain(|(id, _)| id != told);
                    if ids.is_empty() {
                        state.leaving.remove(key);
                    }
                }
            }
        }
    }

    /// Renews every place held.
    pub(super) async fn renew(&self) {
        let held: Vec<_> =
            lock(&self.leases.state).held.iter().map(|(id, key)| (*id, Arc::clone(key))).collect();
        for batch in held.chunks(BATCH) {
            let mut invocation = self.invoke(&self.scripts.renew);
            invocation.arg(micros(self.lease));
            for (id, key) in batch {
                invocation.key(&**key).arg(self.leases.name(*id));
            }
            let told = self
                .link
                .call(|mut connection| async move { invocation.invoke_async::<u64>(&mut connection).await });
            if told.await.is_err() {
                return;
            }
        }
    }
}
