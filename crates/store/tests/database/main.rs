//! What the database promises, proved on the real ones.

mod audit;
mod batches;
mod failures;
mod files;
mod invariants;
mod migrations;
mod signals;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::DateTime;
use quarterdeck_domain::Result;
use quarterdeck_domain::role::HumanRole;
use quarterdeck_domain::user::User;
use quarterdeck_store::{Signal, Store, setting, user};

/// A person whose id is also their name.
fn person(id: &str, role: HumanRole) -> User {
    User {
        id: id.to_owned(),
        username: id.to_owned(),
        password_hash: "none".to_owned(),
        role,
        must_change_password: false,
        org_roles: Vec::new(),
        scoped_departments: Vec::new(),
        created_at: DateTime::UNIX_EPOCH,
        updated_at: DateTime::UNIX_EPOCH,
    }
}

async fn add(store: &Store, user: User) -> Result<()> {
    store.write(move |tx| Box::pin(async move { user::insert(tx, &user).await })).await
}

/// A write that leaves a trace and announces it.
async fn put(store: &Store, key: &str) -> Result<()> {
    let key = key.to_owned();
    store
        .write(move |tx| {
            Box::pin(async move { setting::put(tx, "test", &key, "x", DateTime::UNIX_EPOCH).await })
        })
        .await
}

async fn has(store: &Store, key: &str) -> bool {
    setting::get(store.read(), "test", key).await.expect("a read").is_some()
}

/// What [`put`] announces.
fn news_of(key: &str) -> Signal {
    Signal::Setting { namespace: "test".to_owned(), key: key.to_owned() }
}

/// Everything a store hears from now on.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Signal>>>);

impl Heard {
    fn by(store: &Store) -> Self {
        let heard = Self::default();
        let log = heard.clone();
        store.on_signal(move |signal| log.0.lock().expect("no panic").push(signal.clone()));
        heard
    }

    fn holds(&self, signal: &Signal) -> bool {
        self.0.lock().expect("no panic").contains(signal)
    }

    fn forget(&self) {
        self.0.lock().expect("no panic").clear();
    }
}

/// Waits for something that announces itself in no other way; the runner ends a wait without end.
async fn eventually(mut happened: impl AsyncFnMut() -> bool) {
    while !happened().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
