//! Backups: made by people, by the clock, by starts and stops; listed, removed, put back.
//!
//! One thing is done at a time, on all copies of the program together; whoever comes meanwhile is refused.
//! What is being made has a name that no reader takes for a backup, and gets its own when it is whole and on
//! the disk. A restore is told in `restore`.

mod archive;
mod database;
mod make;
mod part;
mod restore;
mod schedule;
mod shelf;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use quarterdeck_domain::approval::RiskLevel;
use quarterdeck_domain::audit::{Actor, Entry, Verdict};
use quarterdeck_domain::backup::{BackupId, Kept, Manifest, Trigger, busy, unknown};
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::{Error, Result};
use quarterdeck_store::backup::Held;
use quarterdeck_store::idempotency::{self, IdempotencyKey, Seen};
use quarterdeck_store::{Database, Store};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedMutexGuard;

use crate::settings::Settings;
use part::{ConfigFile, Memory, Renamed, blocking};
use shelf::Shelf;

pub use part::{Change, Part};
pub use restore::{Restore, Restored, inspect};
pub use schedule::Schedule;

/// Name of the file in which a backup tells of itself.
const MANIFEST: &str = "manifest.json";
/// The place in the database that only one operation has.
const TURN: &str = "quarterdeck.backup";
/// Exists while what was in use before a restore is still the truth.
const UNDO: &str = "restore.undo";

/// Where things are.
#[derive(Clone, Debug)]
pub struct Places {
    /// Folder of the backups.
    pub backups: PathBuf,
    /// Folder with what is saved beside the database.
    pub data_dir: PathBuf,
    /// Folder with the contents of artifacts.
    pub artifacts: PathBuf,
    /// The configuration file, if there may be one.
    pub config_file: Option<PathBuf>,
}

impl Places {
    /// As the setting says: a folder of its own, or the usual one below the data folder.
    ///
    /// # Errors
    /// The broken rule, when the path climbs.
    pub fn new(chosen: &str, data_dir: &Path, config_file: Option<PathBuf>) -> Result<Self, String> {
        let backups = match chosen.trim() {
            "" => data_dir.join("backups"),
            path if path.split(['/', '\\']).any(|part| part == "..") => {
                return Err("backup.path must not contain ..".to_owned());
            }
            path => data_dir.join(path),
        };
        let artifacts = data_dir.join("artifacts");
        Ok(Self { backups, data_dir: data_dir.to_owned(), artifacts, config_file })
    }

    /// The same, but for the contents of artifacts.
    pub fn with_artifacts(self, artifacts: PathBuf) -> Self {
        Self { artifacts, ..self }
    }

    fn artifacts(&self) -> Renamed {
        Renamed(self.artifacts.clone())
    }

    fn memory(&self) -> Renamed {
        Renamed(self.data_dir.join("memory"))
    }

    /// Puts right what a process that ended in the middle of a restore has left: what was in use before it is in
    /// use again, unless the restore was complete. To be called before the database is opened.
    pub fn recover(&self, database: &Database) {
        let marker = self.data_dir.join(UNDO);
        let undo = marker.exists();
        let config = self.config_file.clone().map(Renamed);
        for place in [Some(self.artifacts()), Some(self.memory()), config].into_iter().flatten() {
            place.recover(undo);
        }
        quarterdeck_store::backup::recover(database, undo);
        if undo {
            tracing::warn!(target: "backup", "backup.restore.undone");
            let _ = std::fs::remove_file(marker);
        }
    }
}

/// All backups of this installation. Cheap to clone.
#[derive(Clone)]
pub struct Backups(Arc<Inner>);

struct Inner {
    store: Store,
    settings: Settings,
    clock: SharedClock,
    version: &'static str,
    shelf: Shelf,
    data_dir: PathBuf,
    parts: Vec<Arc<dyn Part>>,
    turn: Arc<tokio::sync::Mutex<()>>,
    /// A backup that is being put back, which must not make way meanwhile.
    pinned: Mutex<Option<BackupId>>,
    /// What keeps other servers away from a database that was put back, until this process ends.
    claims: Mutex<Vec<Box<dyn Change>>>,
}

/// The right to do something now.
struct Turn {
    held: Held,
    _here: OwnedMutexGuard<()>,
}

impl Backups {
    /// Backups in these places; `version` is the program's.
    pub fn new(
        store: Store,
        settings: Settings,
        clock: SharedClock,
        places: &Places,
        version: &'static str,
    ) -> Self {
        let database = database::Persistence { store: store.clone(), artifacts: places.artifacts() };
        let mut parts: Vec<Arc<dyn Part>> = vec![Arc::new(database), Arc::new(Memory(places.memory()))];
        if let Some(file) = &places.config_file {
            parts.push(Arc::new(ConfigFile(Renamed(file.clone()))));
        }
        Self::of(store, settings, clock, places, version, parts)
    }

    /// Backups of these parts.
    pub fn of(
        store: Store,
        settings: Settings,
        clock: SharedClock,
        places: &Places,
        version: &'static str,
        parts: Vec<Arc<dyn Part>>,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            settings,
            clock,
            version,
            shelf: Shelf::new(places.backups.clone()),
            data_dir: places.data_dir.clone(),
            parts,
            turn: Arc::default(),
            pinned: Mutex::default(),
            claims: Mutex::default(),
        }))
    }

    /// Removes what processes that ended half way have left, unless something is under way.
    pub async fn sweep(&self) {
        let swept = self.in_turn(move |inner| async move {
            let shelf = inner.shelf.clone();
            blocking("leftovers of backups cannot be removed", move || shelf.sweep()).await
        });
        match swept.await {
            Ok(0) => {}
            Ok(swept) => tracing::info!(target: "backup", swept, "backup.leftovers.swept"),
            Err(error) => {
                tracing::warn!(target: "backup", error = %error, "backup.leftovers.not_swept");
            }
        }
    }

    /// Makes a backup. A repeated request with the same key is answered with the first one's manifest.
    ///
    /// # Errors
    /// 409/4000 while another operation runs; 500 when something cannot be saved, which leaves nothing behind.
    pub async fn create(
        &self,
        actor: &Actor,
        trigger: Trigger,
        key: Option<IdempotencyKey>,
    ) -> Result<Manifest> {
        if let Some(known) = self.known(key.as_ref()).await? {
            return Ok(known);
        }
        let (this, actor) = (self.clone(), actor.clone());
        self.in_turn(move |inner| async move {
            // Whoever had the turn before may have had the same key.
            if let Some(known) = this.known(key.as_ref()).await? {
                return Ok(known);
            }
            let made = inner.make(trigger, None).await;
            let entry = match &made {
                Ok(manifest) => inner
                    .entry(&actor, "backup:create", format!("Made the backup {}", manifest.backup_id))
                    .arguments(&manifest.backup_id),
                Err(_) => {
                    inner.entry(&actor, "backup:create", "Making a backup failed").verdict(Verdict::Deny)
                }
            };
            let kept = made.as_ref().ok().zip(key);
            let recorded = inner.record(&inner.store, entry, kept).await;
            match (made, recorded) {
                (Ok(manifest), Err(error)) => {
                    inner.remove(&manifest.backup_id).await?;
                    Err(error)
                }
                (made, _) => made,
            }
        })
        .await
    }

    /// A page of the backups, the newest first, and how many there are.
    ///
    /// # Errors
    /// 500 when the folder cannot be read.
    pub async fn list(&self, offset: u64, limit: u64) -> Result<(Vec<Kept>, u64)> {
        let all = self.0.all().await?;
        let total = all.len() as u64;
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        let page = all.into_iter().skip(skip).take(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok((page.collect(), total))
    }

    /// What a backup says of itself.
    ///
    /// # Errors
    /// 404/3001.
    pub async fn get(&self, id: &str) -> Result<Manifest> {
        let (id, shelf) = (BackupId::parse(id)?, self.0.shelf.clone());
        let found = blocking("a backup cannot be read", move || {
            Ok(shelf.find(&id).and_then(|place| place.manifest().ok()))
        });
        found.await?.ok_or_else(unknown)
    }

    /// Removes a backup.
    ///
    /// # Errors
    /// 404/3001; 409/4000 while another operation runs.
    pub async fn delete(&self, actor: &Actor, id: &str) -> Result<()> {
        let (id, actor) = (BackupId::parse(id)?, actor.clone());
        self.in_turn(move |inner| async move {
            inner.remove(&id).await?;
            let entry = inner.entry(&actor, "backup:delete", format!("Removed the backup {id}"));
            inner.record::<()>(&inner.store, entry.arguments(&id), None).await
        })
        .await
    }

    /// What was answered to this key before.
    async fn known<T: DeserializeOwned>(&self, key: Option<&IdempotencyKey>) -> Result<Option<T>> {
        let Some(key) = key else { return Ok(None) };
        match idempotency::find(self.0.store.read(), key, self.0.clock.now()).await? {
            None => Ok(None),
            Some(Seen::Same { body, .. }) => serde_json::from_str(&body).map(Some).map_err(Error::internal),
            Some(Seen::Other) => Err(Error::rule("Idempotency-Key was used for another request")),
        }
    }

    /// Does something while nobody else does anything, to its end even if the caller goes away.
    async fn in_turn<T, F>(&self, job: impl FnOnce(Arc<Inner>) -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let inner = Arc::clone(&self.0);
        let done = tokio::spawn(async move {
            let turn = inner.turn().await?;
            let outcome = job(inner).await;
            turn.held.release().await;
            outcome
        });
        done.await.unwrap_or_else(|e| Err(Error::internal(format_args!("a backup operation panicked: {e}"))))
    }
}

impl Inner {
    async fn turn(&self) -> Result<Turn> {
        let here = Arc::clone(&self.turn).try_lock_owned().map_err(|_| busy())?;
        let held = self.store.try_hold(TURN).await?.ok_or_else(busy)?;
        Ok(Turn { held, _here: here })
    }

    async fn all(&self) -> Result<Vec<Kept>> {
        let shelf = self.shelf.clone();
        blocking("the folder of the backups cannot be read", move || shelf.all()).await
    }

    async fn remove(&self, id: &BackupId) -> Result<()> {
        let (shelf, id) = (self.shelf.clone(), id.clone());
        let removed = blocking("a backup cannot be removed", move || match shelf.find(&id) {
            Some(place) => shelf.remove(&place).map(|()| true),
            None => Ok(false),
        });
        if removed.await? { Ok(()) } else { Err(unknown()) }
    }

    fn entry(&self, actor: &Actor, action: &str, reason: impl Into<String>) -> Entry {
        Entry::new(actor, action, self.clock.now(), reason).risk(RiskLevel::High)
    }

    /// Writes what was done into a database, with the answer to keep for its key.
    async fn record<T: Serialize>(
        &self,
        store: &Store,
        entry: Entry,
        answer: Option<(&T, IdempotencyKey)>,
    ) -> Result<()> {
        let answer = match answer {
            Some((body, key)) => Some((serde_json::to_string(body).map_err(Error::internal)?, key)),
            None => None,
        };
        let now = self.clock.now();
        let written = store.write(move |tx| {
            Box::pin(async move {
                tx.audit(entry);
                if let Some((body, key)) = answer
                    && !idempotency::keep(tx, &key, 201, &body, now).await?
                {
                    return Err(busy());
                }
                Ok(())
            })
        });
        written.await.inspect_err(|error| {
            tracing::error!(target: "backup", error = %error, cause = error.cause(), "backup.record.failed");
        })
    }
}

/// Where the backup of this name lies in a folder of backups.
///
/// # Errors
/// 404/3001.
pub fn find(root: &Path, id: &BackupId) -> Result<PathBuf> {
    Shelf::new(root.to_owned()).find(id).map(|place| place.path).ok_or_else(unknown)
}

/// Copies a backup out of its folder, as one packed file.
///
/// # Errors
/// 404/3001; 500 with a sentence when the file exists or cannot be written.
pub async fn export(root: &Path, id: &BackupId, to: &Path) -> Result<()> {
    let (from, to) = (find(root, id)?, to.to_owned());
    blocking("the backup cannot be copied", move || {
        if from.is_file() { tree::copy_file(&from, &to) } else { archive::pack(&from, &to) }
    })
    .await
}
