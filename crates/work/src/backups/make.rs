//! Making a backup, and making way for it.

use std::path::Path;
use std::sync::Arc;

use quarterdeck_domain::backup::{
    BackupId, CHECKSUM_VERSION, Component, Manifest, Retention, Trigger, timestamp,
};
use quarterdeck_domain::setting::backup as setting;
use quarterdeck_domain::{Error, Result};
use quarterdeck_store::latest_version;

use super::part::{Part, blocking};
use super::{Inner, MANIFEST, tree};

impl Inner {
    /// Makes a backup of these parts, or of what the setting names; then makes way.
    pub(super) async fn make(&self, trigger: Trigger, only: Option<&[Component]>) -> Result<Manifest> {
        let id = BackupId::fresh();
        let made = self.collect(&id, trigger, only).await;
        match &made {
            Ok(manifest) => {
                tracing::info!(
                    target: "backup", backup_id = %id, trigger = %trigger, size_bytes = manifest.size_bytes,
                    "backup.created"
                );
                if let Err(error) = self.prune().await {
                    tracing::error!(
                        target: "backup", error = %error, cause = error.cause(), "backup.retention.failed"
                    );
                }
            }
            Err(error) => {
                let (shelf, id) = (self.shelf.clone(), id.clone());
                let _ = tokio::task::spawn_blocking(move || shelf.discard(&id, trigger)).await;
                tracing::error!(
                    target: "backup", trigger = %trigger, error = %error, cause = error.cause(), "backup.failed"
                );
            }
        }
        made
    }

    async fn collect(&self, id: &BackupId, trigger: Trigger, only: Option<&[Component]>) -> Result<Manifest> {
        let made_at = self.clock.now();
        let (shelf, begun) = (self.shelf.clone(), id.clone());
        let begin = move || {
            tree::make_folder(shelf.root())?;
            shelf.begin(&begun, trigger)
        };
        let folder = blocking("the folder of the backups cannot be written to", begin).await?;
        let components = self.save(&folder, only).await?;
        if components.is_empty() {
            return Err(Error::internal("there is nothing that could be saved"));
        }
        let has_database = components.contains(&Component::Persistence);
        let mut manifest = Manifest {
            synthorg_version: self.version.to_owned(),
            timestamp: timestamp(made_at),
            trigger,
            components,
            size_bytes: 0,
            checksum: String::new(),
            backup_id: id.clone(),
            checksum_version: CHECKSUM_VERSION,
            schema_version: if has_database { latest_version() } else { 0 },
            database: has_database.then(|| self.store.backend_name().to_owned()),
        };
        // A stop has no time to pack, and what comes before a restore is for a hurry.
        let pack = self.settings.get(&setting::COMPRESSION)
            && !matches!(trigger, Trigger::Shutdown | Trigger::PreMigration);
        let shelf = self.shelf.clone();
        blocking("a backup cannot be written", move || {
            tree::restrict(&folder)?;
            manifest.size_bytes = tree::size(&folder)?;
            manifest.checksum = tree::checksum(&folder, MANIFEST, &about(&manifest))?;
            tree::write(&folder.join(MANIFEST), &serde_json::to_vec_pretty(&manifest)?)?;
            shelf.keep(&folder, pack)?;
            Ok(manifest)
        })
        .await
    }

    /// Saves parts one after the other; which ones.
    async fn save(&self, folder: &Path, only: Option<&[Component]>) -> Result<Vec<Component>> {
        let wanted = only.map_or_else(|| self.include(), <[Component]>::to_vec);
        let mut saved = Vec::new();
        for component in wanted {
            let part = self.part(component);
            let lacking = match &part {
                None => Some("this installation has none".to_owned()),
                // Before a restore, nothing is worth saving too.
                Some(part) => part.nothing_to_save().filter(|_| only.is_none()),
            };
            let (Some(part), None) = (part, &lacking) else {
                let why = lacking.unwrap_or_default();
                tracing::warn!(target: "backup", component = %component, why, "backup.component.omitted");
                continue;
            };
            let into = folder.join(component.as_str());
            let made = into.clone();
            blocking("a folder cannot be made", move || tree::make_folder(&made)).await?;
            part.save(&into).await?;
            saved.push(component);
        }
        Ok(saved)
    }

    fn include(&self) -> Vec<Component> {
        let named = self.settings.get(&setting::INCLUDE);
        let names = named.as_array().into_iter().flatten().filter_map(|name| name.as_str());
        names.filter_map(Component::parse).collect()
    }

    pub(super) fn part(&self, component: Component) -> Option<&Arc<dyn Part>> {
        self.parts.iter().find(|part| part.component() == component)
    }

    /// Removes what makes way; one that stays does not keep the others.
    async fn prune(&self) -> Result<()> {
        let number = |value: i64| usize::try_from(value).unwrap_or(usize::MAX);
        let retention = Retention {
            max_count: number(self.settings.get(&setting::RETENTION_MAX_COUNT)),
            max_age_days: self.settings.get(&setting::RETENTION_MAX_AGE_DAYS),
            max_pre_migration: number(self.settings.get(&setting::RETENTION_MAX_PRE_MIGRATION)),
        };
        let pinned = self.pinned.lock().unwrap_or_else(|e| e.into_inner()).clone();
        for id in retention.outdated(&self.all().await?, self.clock.now()) {
            if pinned.as_ref() == Some(&id) {
                continue;
            }
            match self.remove(&id).await {
                Ok(()) => tracing::info!(target: "backup", backup_id = %id, "backup.pruned"),
                Err(error) => tracing::error!(
                    target: "backup", backup_id = %id, error = %error, cause = error.cause(), "backup.prune.failed"
                ),
            }
        }
        Ok(())
    }
}

/// What the checksum covers of a manifest: all but the checksum.
pub(super) fn about(manifest: &Manifest) -> Vec<u8> {
    let bare = Manifest { checksum: String::new(), ..manifest.clone() };
    serde_json::to_vec(&bare).unwrap_or_default()
}
