//! Saving the whole database, and replacing it by what was saved.

mod postgres;
mod sqlite;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use quarterdeck_domain::{Error, Result};
use sqlx::{Connection, PgConnection};

use crate::{Database, Store, sqlite as file};

pub use postgres::missing_tool;

/// A place among all copies of the program that only one has; given back when dropped.
pub struct Held(Option<PgConnection>);

impl Held {
    /// Gives the place back before this returns.
    pub async fn release(self) {
        if let Some(connection) = self.0 {
            let _ = connection.close().await;
        }
    }
}

impl Store {
    /// Takes the place of this name if nobody has it, without waiting. SQLite has one server, so there it is
    /// always free.
    pub async fn try_hold(&self, name: &str) -> Result<Option<Held>> {
        let Database::Postgres { options, .. } = &*self.database else { return Ok(Some(Held(None))) };
        let failed = |e: sqlx::Error| Error::unavailable(format_args!("no database connection: {e}"), 1);
        let mut connection = PgConnection::connect_with(options).await.map_err(failed)?;
        let sql = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))";
        let is_free = sqlx::query_scalar(sql).bind(name).fetch_one(&mut connection).await.map_err(failed)?;
        Ok(if is_free { Some(Held(Some(connection))) } else { None })
    }

    /// Writes a copy of the whole database, true at one moment, into an empty folder. Writers go on meanwhile.
    ///
    /// # Errors
    /// 500 with a sentence for the log; what was written by then is the caller's to remove.
    pub async fn save(&self, folder: &Path) -> Result<()> {
        match &*self.database {
            Database::Sqlite { path, .. } => sqlite::save(path, &saved_file(folder, "sqlite")).await,
            Database::Postgres { options, .. } => {
                postgres::save(options, &saved_file(folder, "postgres")).await
            }
        }
    }

    /// How to replace this database; `work` is a folder for passing files.
    pub fn replacement(&self, work: PathBuf) -> Replacement {
        Replacement { store: self.clone(), work, claim: None }
    }
}

/// The file of a saved database in its folder, by kind of database.
pub fn saved_file(folder: &Path, kind: &str) -> PathBuf {
    folder.join(if kind == "postgres" { "quarterdeck.dump" } else { "quarterdeck.db" })
}

/// Whether what was saved is a sound database of this kind, of a version this program knows.
///
/// # Errors
/// A sentence for the log.
pub async fn check(folder: &Path, kind: &str) -> Result<(), String> {
    let saved = saved_file(folder, kind);
    if !saved.is_file() {
        return Err(format!("it holds no {kind} database"));
    }
    match kind {
        "postgres" => postgres::check(&saved).await,
        _ => sqlite::check(&saved).await,
    }
}

/// A server that has a database file open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process, where it can be known.
    pub process: Option<u32>,
}

/// Who serves this database file; `None` when nobody does, and for PostgreSQL, which many may serve.
pub fn holder(database: &Database) -> Option<Holder> {
    let Database::Sqlite { path, .. } = database else { return None };
    let mut lock = File::options().read(true).write(true).open(file::lock_of(path)).ok()?;
    if fs4::FileExt::try_lock(&lock).is_ok() {
        return None;
    }
    let mut text = String::new();
    // A process id is short; anything longer is none.
    let _ = Read::by_ref(&mut lock).take(16).read_to_string(&mut text);
    Some(Holder { process: text.trim().parse().ok() })
}

/// The steps in which a database is replaced; the caller decides whether to go on or back after each.
pub struct Replacement {
    store: Store,
    work: PathBuf,
    /// Keeps other servers away from the file between two states of it.
    claim: Option<File>,
}

impl Replacement {
    /// As [`check`], for the kind of database in use.
    ///
    /// # Errors
    /// A sentence for the log.
    pub async fn check(&self, folder: &Path) -> Result<(), String> {
        check(folder, self.store.backend_name()).await
    }

    /// Prepares the change next to what is in use, which stays as it is.
    ///
    /// # Errors
    /// 500 with a sentence for the log.
    pub async fn prepare(&self, folder: &Path) -> Result<()> {
        let saved = saved_file(folder, self.store.backend_name());
        match &*self.store.database {
            Database::Sqlite { path, .. } => sqlite::prepare(&saved, path).await,
            Database::Postgres { .. } => postgres::prepare(&saved, &self.work).await,
        }
    }

    /// Closes the store and puts what was saved in the place of what was in use. When it fails, everything is
    /// as before, but the store stays closed.
    ///
    /// # Errors
    /// 500 with a sentence for the log.
    pub async fn swap(&mut self) -> Result<()> {
        self.store.close().await;
        match &*self.store.database {
            Database::Sqlite { path, .. } => {
                self.claim = Some(file::claim_file(path)?);
                sqlite::swap(path).await
            }
            Database::Postgres { options, .. } => postgres::replace(options, &self.work).await,
        }
    }

    /// Takes a swap back; `before` is the folder of a copy saved just before it.
    ///
    /// # Errors
    /// 500 with a sentence for the log.
    pub async fn undo(&mut self, before: &Path) -> Result<()> {
        match &*self.store.database {
            Database::Sqlite { path, .. } => sqlite::undo(path),
            Database::Postgres { options, .. } => {
                postgres::prepare(&saved_file(before, "postgres"), &self.work).await?;
                postgres::replace(options, &self.work).await
            }
        }
    }

    /// Opens what is in use now, once, so that something can be recorded in it.
    ///
    /// # Errors
    /// As [`Store::open`]: it cannot be used.
    pub async fn open(&mut self) -> Result<Store> {
        self.claim = None;
        self.store.reopen().await
    }

    /// Forgets what was in use before, and keeps other servers away until this process ends.
    pub fn finish(&mut self) {
        if let Database::Sqlite { path, .. } = &*self.store.database {
            sqlite::finish(path);
            self.claim = self.claim.take().or_else(|| file::claim_file(path).ok());
        }
    }
}

/// Clears up what a process that ended during a replacement left beside a database file. With `undo`, what was
/// in use before is put back first.
pub fn recover(database: &Database, undo: bool) {
    let Database::Sqlite { path, .. } = database else { return };
    if undo && let Err(error) = sqlite::undo(path) {
        tracing::error!(target: "backup", error = %error, "backup.restore.undo_failed");
        return;
    }
    sqlite::finish(path);
}

/// A failure whose sentence is for the log.
fn failed(sentence: impl std::fmt::Display) -> Error {
    Error::internal(sentence)
}
