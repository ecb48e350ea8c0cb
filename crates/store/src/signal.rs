//! News of committed changes, for caches: delivered to this copy of the program by a call, to other
//! copies by the database.

use std::sync::RwLock;

use futures_util::future::{BoxFuture, join_all};
use serde::{Deserialize, Serialize};

/// What changed. Carries names, never values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signal {
    /// API keys.
    Keys,
    /// One user: role, password, deletion.
    User {
        /// The user's id.
        user_id: String,
    },
    /// One session ended before its time.
    SessionRevoked {
        /// The session id (`jti`).
        session_id: String,
        /// Microseconds since 1970 UTC after which the fact may be forgotten.
        until: i64,
    },
    /// One setting.
    Setting {
        /// Its namespace.
        namespace: String,
        /// Its key.
        key: String,
    },
    /// One interrupt no longer waits.
    Interrupt {
        /// Its id.
        id: String,
    },
    /// The database is about to be replaced as a whole, or is not after all.
    Maintenance {
        /// Whether it begins.
        begins: bool,
    },
    /// One escalation no longer waits.
    Escalation {
        /// Its id.
        id: String,
    },
    /// News may have been missed: drop what is cached.
    Everything,
}

type Listener = Box<dyn Fn(&Signal) + Send + Sync>;
type Follower = Box<dyn Fn(&[Signal]) -> BoxFuture<'static, ()> + Send + Sync>;

#[derive(Default)]
pub(crate) struct Signals {
    listeners: RwLock<Vec<Listener>>,
    followers: RwLock<Vec<Follower>>,
}

impl Signals {
    pub(crate) fn subscribe(&self, listener: Listener) {
        self.listeners.write().unwrap_or_else(|e| e.into_inner()).push(listener);
    }

    pub(crate) fn follow(&self, follower: Follower) {
        self.followers.write().unwrap_or_else(|e| e.into_inner()).push(follower);
    }

    /// Done when everybody who follows has caught up with signals that were delivered.
    pub(crate) fn caught_up(&self, signals: &[Signal]) -> impl Future<Output = ()> + Send + use<> {
        let followers = self.followers.read().unwrap_or_else(|e| e.into_inner());
        let all: Vec<_> = followers.iter().map(|follower| follower(signals)).collect();
        async move { drop(join_all(all).await) }
    }

    pub(crate) fn deliver(&self, signals: &[Signal]) {
        let listeners = self.listeners.read().unwrap_or_else(|e| e.into_inner());
        for signal in signals {
            for listener in listeners.iter() {
                listener(signal);
            }
        }
    }
}
