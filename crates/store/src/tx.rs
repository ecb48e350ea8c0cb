//! One transaction, whichever database it runs on.

use std::ops::Deref;
use std::sync::Mutex;

use quarterdeck_domain::Result;
use quarterdeck_domain::audit::Entry;
use quarterdeck_domain::event::Event;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend};

use crate::Signal;
use crate::sql::{failure, statement};

/// An open transaction; dereferences to the connection that queries take.
pub struct Tx {
    connection: DatabaseTransaction,
    signals: Mutex<Vec<Signal>>,
    events: Mutex<Vec<Event>>,
    entries: Mutex<Vec<Entry>>,
    after: Mutex<Vec<Done>>,
}

/// What somebody wants to do once a transaction has committed.
pub(crate) type Done = Box<dyn FnOnce() + Send>;

impl Tx {
    pub(crate) fn new(connection: DatabaseTransaction) -> Self {
        Self {
            connection,
            signals: Mutex::default(),
            events: Mutex::default(),
            entries: Mutex::default(),
            after: Mutex::default(),
        }
    }

    /// Announces a change once this transaction has committed; a rolled-back one announces nothing.
    pub fn signal(&self, signal: Signal) {
        let mut signals = self.signals.lock().unwrap_or_else(|e| e.into_inner());
        if !signals.contains(&signal) {
            signals.push(signal);
        }
    }

    /// Tells everyone who may know, once this transaction has committed; a rolled-back one tells nobody.
    /// An event that breaks the rules of its type is a fault of this program for the log, and no reason
    /// to fail the change.
    pub fn publish(&self, event: Result<Event>) {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::error!(target: "persistence", error = error.cause(), "persistence.event.refused");
                return;
            }
        };
        self.events.lock().unwrap_or_else(|e| e.into_inner()).push(event);
    }

    /// Records what was done, in the same transaction.
    pub fn audit(&self, entry: Entry) {
        self.entries.lock().unwrap_or_else(|e| e.into_inner()).push(entry);
    }

    /// Calls `done` once this transaction has committed, in the order of commits on SQLite. It must be quick
    /// and must not block; a crash may come between.
    pub fn after_commit(&self, done: impl FnOnce() + Send + 'static) {
        self.after.lock().unwrap_or_else(|e| e.into_inner()).push(Box::new(done));
    }

    pub(crate) fn take_after(&self) -> Vec<Done> {
        std::mem::take(&mut *self.after.lock().unwrap_or_else(|e| e.into_inner()))
    }

    pub(crate) fn take_entries(&self) -> Vec<Entry> {
        std::mem::take(&mut *self.entries.lock().unwrap_or_else(|e| e.into_inner()))
    }

    pub(crate) fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// Serialises all transactions that take the same name until this one ends. SQLite has one writer
    /// and needs nothing.
    pub async fn lock(&self, name: &str) -> Result<()> {
        if self.connection.get_database_backend() == DbBackend::Postgres {
            let statement = statement(
                &self.connection,
                "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))",
                [name.into()],
            );
            self.connection.query_one_raw(statement).await.map_err(failure)?;
        }
        Ok(())
    }

    pub(crate) fn into_parts(self) -> (DatabaseTransaction, Vec<Signal>) {
        (self.connection, self.signals.into_inner().unwrap_or_else(|e| e.into_inner()))
    }
}

impl Deref for Tx {
    type Target = DatabaseTransaction;

    fn deref(&self) -> &DatabaseTransaction {
        &self.connection
    }
}
