//! Putting a backup back.
//!
//! Everything that can fail is done first: unpacking, checking, a backup of what is about to be replaced, copies
//! beside what is in use. Then renames, the database last. What was in use stays beside until the change is
//! recorded; up to then every failure takes all of it back, and so does the next start if the process ends.

use std::path::{Path, PathBuf};

use quarterdeck_domain::audit::{Actor, Verdict};
use quarterdeck_domain::backup::{BackupId, Component, Manifest, Trigger, invalid, unknown};
use quarterdeck_domain::{Error, Result};
use quarterdeck_store::idempotency::IdempotencyKey;
use quarterdeck_store::{Signal, Store, latest_version};
use serde::{Deserialize, Serialize};

use super::make::about;
use super::part::blocking;
use super::shelf::Place;
use super::{Backups, Change, Inner, MANIFEST, UNDO, archive, database, shelf, tree};

/// What is to be put back.
#[derive(Clone, Debug)]
pub struct Restore {
    /// Names the backup.
    pub backup_id: String,
    /// Some of its parts; `None` for all.
    pub components: Option<Vec<Component>>,
    /// Without it nothing is done.
    pub confirm: bool,
}

/// What was put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The backup.
    pub manifest: Manifest,
    /// Its parts that are in use now.
    pub restored_components: Vec<Component>,
    /// A backup of what they replaced.
    pub safety_backup_id: BackupId,
}

impl Restore {
    /// What is asked for, in one form: a key used for one restore is none for another.
    pub fn intent(&self) -> (String, Vec<&'static str>) {
        let named = self.components.as_deref();
        let mut names: Vec<_> = named.map_or(vec!["*"], |all| all.iter().map(|one| one.as_str()).collect());
        names.sort_unstable();
        names.dedup();
        (self.backup_id.clone(), names)
    }
}

/// One part on its way back.
struct Step {
    component: Component,
    change: Box<dyn Change>,
}

impl Backups {
    /// Puts a backup back, or parts of it. From then on until it is started anew, the server does nothing else.
    ///
    /// # Errors
    /// 422/2000 when it is not confirmed or the backup is not sound; 404/3001; 409/4000 while another operation
    /// runs; 500/8000 when it fails half way, which takes everything back.
    pub async fn restore(
        &self,
        actor: &Actor,
        request: Restore,
        key: Option<IdempotencyKey>,
    ) -> Result<Restored> {
        if !request.confirm {
            return Err(Error::rule("confirm must be true"));
        }
        let id = BackupId::parse(&request.backup_id)?;
        if let Some(known) = self.known(key.as_ref()).await? {
            return Ok(known);
        }
        let (this, actor) = (self.clone(), actor.clone());
        self.in_turn(move |inner| async move {
            if let Some(known) = this.known(key.as_ref()).await? {
                return Ok(known);
            }
            let place = inner.shelf.find(&id).ok_or_else(unknown)?;
            inner.pin(Some(&id));
            let work = inner.shelf.work_folder(&id).map_err(Error::internal);
            let outcome = match &work {
                Ok(work) => inner.put_back(&place, request.components.as_deref(), work, &actor, key).await,
                Err(error) => Err(error.clone()),
            };
            inner.pin(None);
            if let Ok(work) = work {
                let _ = blocking("a folder cannot be removed", move || tree::remove(&work)).await;
            }
            if let Err(error) = &outcome {
                tracing::error!(
                    target: "backup", backup_id = %id, error = %error, cause = error.cause(),
                    "backup.restore.failed"
                );
            }
            outcome
        })
        .await
    }
}

impl Inner {
    fn pin(&self, id: Option<&BackupId>) {
        *self.pinned.lock().unwrap_or_else(|e| e.into_inner()) = id.cloned();
    }

    /// Opens a backup and looks at all of it; what it says of itself, and how its parts are put back.
    async fn checked(
        &self,
        place: &Place,
        only: Option<&[Component]>,
        work: &Path,
    ) -> Result<(Manifest, Vec<Step>)> {
        let (opened, into) = (place.clone(), work.join("unpacked"));
        let opened = tokio::task::spawn_blocking(move || open(&opened, into));
        let (manifest, folder) = opened.await.map_err(Error::internal)?.map_err(invalid)?;
        if manifest.schema_version > latest_version() {
            return Err(invalid("it was made by a newer version of the program"));
        }
        let mut steps = Vec::new();
        for component in &manifest.components {
            if only.is_some_and(|only| !only.contains(component)) {
                continue;
            }
            let Some(part) = self.part(*component) else {
                return Err(Error::rule("This installation has no place for a component of the backup"));
            };
            let saved = folder.join(component.as_str());
            steps.push(Step { component: *component, change: part.change(saved, work.to_owned()) });
        }
        if let Some(only) = only
            && only.iter().any(|wanted| !manifest.components.contains(wanted))
        {
            return Err(invalid("it does not hold what is asked for"));
        }
        for step in &mut steps {
            step.change.check().await.map_err(invalid)?;
        }
        Ok((manifest, steps))
    }

    async fn put_back(
        &self,
        place: &Place,
        only: Option<&[Component]>,
        work: &Path,
        actor: &Actor,
        key: Option<IdempotencyKey>,
    ) -> Result<Restored> {
        let refuse = |error: Error| async {
            let entry =
                self.entry(actor, "backup:restore", format!("Restoring the backup {} failed", place.id));
            let _ =
                self.record::<()>(&self.store, entry.arguments(&place.id).verdict(Verdict::Deny), None).await;
            Err(error)
        };
        let (manifest, mut steps) = match self.checked(place, only, work).await {
            Ok(checked) => checked,
            Err(error) => return refuse(error).await,
        };
        let components: Vec<_> = steps.iter().map(|step| step.component).collect();
        let safety = match self.make(Trigger::PreMigration, Some(&components)).await {
            Ok(safety) => safety,
            Err(error) => return refuse(error).await,
        };
        for at in 0..steps.len() {
            if let Err(error) = steps[at].change.prepare().await {
                steps.iter_mut().for_each(|step| step.change.finish());
                return refuse(error).await;
            }
        }
        // The database last: what fails before it leaves a server that goes on.
        steps.sort_by_key(|step| step.component == Component::Persistence);
        let restored =
            Restored { manifest, restored_components: components, safety_backup_id: safety.backup_id };
        self.swap(steps, &restored, actor, key).await?;
        tracing::warn!(
            target: "backup", backup_id = %place.id, safety_backup_id = %restored.safety_backup_id,
            "backup.restored"
        );
        Ok(restored)
    }

    async fn swap(
        &self,
        mut steps: Vec<Step>,
        restored: &Restored,
        actor: &Actor,
        key: Option<IdempotencyKey>,
    ) -> Result<()> {
        let marker = self.data_dir.join(UNDO);
        let _ = std::fs::remove_file(&marker);
        let marked = tree::write(&marker, restored.safety_backup_id.as_str().as_bytes())
            .and_then(|()| tree::sync_folder(&self.data_dir));
        if let Err(e) = marked {
            steps.iter_mut().for_each(|step| step.change.finish());
            return Err(Error::internal(format_args!("the data folder cannot be written to ({e})")));
        }
        let before =
            self.shelf.root().join(format!("{}_{}", restored.safety_backup_id, Trigger::PreMigration));
        let mut swapped = 0;
        let outcome = async {
            maintenance(&self.store, true).await?;
            for step in &mut steps {
                step.change.swap().await?;
                swapped += 1;
            }
            Ok(())
        }
        .await;
        let outcome = match outcome {
            Ok(()) => self.record_restore(&mut steps, restored, actor, key).await,
            Err(error) => Err(error),
        };
        let Err(error) = outcome else {
            // From here on what was put back is the truth.
            let _ = std::fs::remove_file(&marker);
            steps.iter_mut().for_each(|step| step.change.finish());
            let done = steps.into_iter().map(|step| step.change);
            self.claims.lock().unwrap_or_else(|e| e.into_inner()).extend(done);
            return Ok(());
        };
        let mut whole = true;
        for step in steps[..swapped].iter_mut().rev() {
            if let Err(worse) = step.change.undo(&before.join(step.component.as_str())).await {
                whole = false;
                tracing::error!(
                    target: "backup", component = %step.component, error = %worse, cause = worse.cause(),
                    safety_backup_id = %restored.safety_backup_id, "backup.restore.undo_failed"
                );
            }
        }
        if whole {
            let _ = std::fs::remove_file(&marker);
            steps.iter_mut().for_each(|step| step.change.finish());
        }
        self.record_failure(&mut steps, restored, actor).await;
        Err(Error::internal(error))
    }

    /// Records a restore in the database that is in use now.
    async fn record_restore(
        &self,
        steps: &mut [Step],
        restored: &Restored,
        actor: &Actor,
        key: Option<IdempotencyKey>,
    ) -> Result<()> {
        let id = &restored.manifest.backup_id;
        let entry = self.entry(actor, "backup:restore", format!("Restored the backup {id}"));
        let entry = entry.arguments(&(id, &restored.restored_components));
        let answer = key.map(|key| (restored, key));
        match steps.last_mut().and_then(|step| step.change.reopen()) {
            None => self.record(&self.store, entry, answer).await,
            Some(opening) => {
                let fresh = opening.await?;
                let recorded = self.record(&fresh, entry, answer).await;
                fresh.close().await;
                recorded
            }
        }
    }

    /// Records a restore that was taken back, and lets the other copies go on.
    async fn record_failure(&self, steps: &mut [Step], restored: &Restored, actor: &Actor) {
        let id = &restored.manifest.backup_id;
        let entry = self.entry(actor, "backup:restore", format!("Restoring the backup {id} failed"));
        let entry = entry.arguments(&(id, &restored.restored_components)).verdict(Verdict::Deny);
        if self.store.ping().await.is_ok() {
            let _ = self.record::<()>(&self.store, entry, None).await;
            let _ = maintenance(&self.store, false).await;
            return;
        }
        let opening = steps.last_mut().and_then(|step| step.change.reopen());
        match opening {
            Some(opening) => match opening.await {
                Ok(fresh) => {
                    let _ = self.record::<()>(&fresh, entry, None).await;
                    let _ = maintenance(&fresh, false).await;
                    fresh.close().await;
                }
                Err(error) => {
                    tracing::error!(target: "backup", error = %error, cause = error.cause(), "backup.record.failed");
                }
            },
            None => tracing::error!(target: "backup", "backup.record.failed"),
        }
    }
}

/// Tells every copy of the program, this one included, that a change of the whole begins or is over.
async fn maintenance(store: &Store, begins: bool) -> Result<()> {
    let told = store.write(move |tx| {
        Box::pin(async move {
            tx.signal(Signal::Maintenance { begins });
            Ok(())
        })
    });
    told.await
}

/// Looks at all of a backup, wherever it lies; what it says of itself. `work` is a new folder to unpack it in,
/// which is removed again.
///
/// # Errors
/// 422/2000 with the cause.
pub async fn inspect(path: &Path, work: &Path) -> Result<Manifest> {
    let (path, into) = (path.to_owned(), work.join("unpacked"));
    let opened = tokio::task::spawn_blocking(move || {
        let packed = path.is_file();
        shelf::manifest_of(&path, packed).and_then(|manifest| unpacked(manifest, &path, packed, into))
    });
    let outcome = match opened.await.map_err(Error::internal)? {
        Ok((manifest, folder)) => match &manifest.database {
            Some(kind) => database::check(&folder, kind).await.map(|()| manifest),
            None => Ok(manifest),
        },
        Err(why) => Err(why),
    };
    let work = work.to_owned();
    let _ = blocking("a folder cannot be removed", move || tree::remove(&work)).await;
    outcome.map_err(invalid)
}

/// What a backup says of itself, and its files, unpacked where need be and compared with its checksum.
fn open(place: &Place, into: PathBuf) -> Result<(Manifest, PathBuf), String> {
    unpacked(place.manifest()?, &place.path, place.packed, into)
}

fn unpacked(
    manifest: Manifest,
    path: &Path,
    packed: bool,
    into: PathBuf,
) -> Result<(Manifest, PathBuf), String> {
    let folder = if packed {
        archive::unpack(path, &into, manifest.size_bytes)?;
        into
    } else {
        path.to_owned()
    };
    let found = tree::checksum(&folder, MANIFEST, &about(&manifest));
    match found {
        Ok(found) if found == manifest.checksum => Ok((manifest, folder)),
        Ok(_) => Err("its checksum is another one".to_owned()),
        Err(e) => Err(format!("its checksum cannot be computed ({e})")),
    }
}
