//! The folder of the backups: one entry per backup, under a name that says which it is, and under no such name
//! before it is whole. Everything here blocks.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use quarterdeck_domain::backup::{BackupId, Kept, MAX_MANIFEST, Manifest, Trigger, sort_newest_first};

use super::{MANIFEST, archive, tree};

/// Ending of the name of what is not whole.
const PARTIAL: &str = ".partial";
const PACKED: &str = ".tar.gz";
/// Beginning of the name of a folder a restore works in.
const WORK: &str = "_restore_";

/// The folder of the backups.
#[derive(Clone)]
pub(super) struct Shelf(PathBuf);

/// Where a backup is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) id: BackupId,
    pub(super) trigger: Trigger,
    pub(super) path: PathBuf,
    pub(super) packed: bool,
}

impl Shelf {
    pub(super) fn new(root: PathBuf) -> Self {
        Self(root)
    }

    pub(super) fn root(&self) -> &Path {
        &self.0
    }

    fn places(&self) -> io::Result<Vec<Place>> {
        let entries = match fs::read_dir(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        Ok(entries.flatten().filter_map(|entry| place(&entry.path())).collect())
    }

    /// Every whole backup, the newest first. What only looks like one is passed over.
    pub(super) fn all(&self) -> io::Result<Vec<Kept>> {
        let mut all = Vec::new();
        for place in self.places()? {
            match place.manifest() {
                Ok(manifest) => all.push(Kept { manifest, compressed: place.packed }),
                Err(why) => tracing::warn!(
                    target: "backup", backup_id = %place.id, why, "backup.manifest.unreadable"
                ),
            }
        }
        sort_newest_first(&mut all);
        Ok(all)
    }

    /// What lies under this name, whole or not.
    pub(super) fn find(&self, id: &BackupId) -> Option<Place> {
        let names = Trigger::ALL.iter().flat_map(|trigger| {
            let name = format!("{id}_{trigger}");
            [format!("{name}{PACKED}"), name]
        });
        names.filter_map(|name| place(&self.0.join(name))).next()
    }

    /// A folder to collect a backup in.
    pub(super) fn begin(&self, id: &BackupId, trigger: Trigger) -> io::Result<PathBuf> {
        let folder = self.0.join(format!("{id}_{trigger}{PARTIAL}"));
        tree::make_folder(&folder)?;
        Ok(folder)
    }

    /// Gives what was collected its name, packed if so wished. A loss of power leaves all of it or nothing.
    pub(super) fn keep(&self, folder: &Path, pack: bool) -> io::Result<PathBuf> {
        let unfinished = folder.to_string_lossy();
        let whole = unfinished.strip_suffix(PARTIAL).unwrap_or(&unfinished);
        let (from, to) = if pack {
            let packed = PathBuf::from(format!("{whole}{PACKED}{PARTIAL}"));
            archive::pack(folder, &packed)?;
            tree::remove(folder)?;
            (packed, format!("{whole}{PACKED}").into())
        } else {
            tree::sync_folder(folder)?;
            (folder.to_owned(), PathBuf::from(whole))
        };
        fs::rename(from, &to)?;
        tree::sync_folder(&self.0)?;
        Ok(to)
    }

    /// Removes what a failed attempt has left under these names.
    pub(super) fn discard(&self, id: &BackupId, trigger: Trigger) {
        for ending in [PARTIAL.to_owned(), format!("{PACKED}{PARTIAL}")] {
            if let Err(e) = tree::remove(&self.0.join(format!("{id}_{trigger}{ending}"))) {
                tracing::warn!(target: "backup", backup_id = %id, error = %e, "backup.leftover.stays");
            }
        }
    }

    /// Removes a backup; from the first moment on it is none any more.
    pub(super) fn remove(&self, place: &Place) -> io::Result<()> {
        let mut name = place.path.as_os_str().to_owned();
        name.push(PARTIAL);
        fs::rename(&place.path, &name)?;
        tree::remove(Path::new(&name))?;
        tree::sync_folder(&self.0)
    }

    /// A folder to work in while a backup is put back.
    pub(super) fn work_folder(&self, id: &BackupId) -> io::Result<PathBuf> {
        let folder = self.0.join(format!("{WORK}{id}"));
        tree::remove(&folder)?;
        tree::make_folder(&folder)?;
        Ok(folder)
    }

    /// Removes what processes that ended half way have left; how many things.
    pub(super) fn sweep(&self) -> io::Result<usize> {
        let entries = match fs::read_dir(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
            other => other?,
        };
        let mut swept = 0;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let unfinished = name.strip_suffix(PARTIAL).is_some_and(|whole| named(whole).is_some());
            let work = name.strip_prefix(WORK).is_some_and(|id| BackupId::parse(id).is_ok());
            if unfinished || work {
                tree::remove(&entry.path())?;
                swept += 1;
            }
        }
        Ok(swept)
    }
}

/// Reads what a name says: which backup, why it was made, whether it is packed.
fn named(name: &str) -> Option<(BackupId, Trigger, bool)> {
    let bare = name.strip_suffix(PACKED);
    let (id, trigger) = bare.unwrap_or(name).split_once('_')?;
    Some((BackupId::parse(id).ok()?, Trigger::parse(trigger)?, bare.is_some()))
}

fn place(path: &Path) -> Option<Place> {
    let (id, trigger, packed) = named(path.file_name()?.to_str()?)?;
    let metadata = fs::symlink_metadata(path).ok()?;
    let fits = if packed { metadata.is_file() } else { metadata.is_dir() };
    fits.then(|| Place { id, trigger, path: path.to_owned(), packed })
}

impl Place {
    /// What the backup says of itself, checked.
    ///
    /// # Errors
    /// A sentence for the log.
    pub(super) fn manifest(&self) -> Result<Manifest, String> {
        let manifest = manifest_of(&self.path, self.packed)?;
        if manifest.backup_id != self.id || manifest.trigger != self.trigger {
            return Err("its manifest is another backup's".to_owned());
        }
        Ok(manifest)
    }
}

/// What the backup at this path says of itself, checked.
pub(super) fn manifest_of(path: &Path, packed: bool) -> Result<Manifest, String> {
    let bytes = if packed { archive::manifest(path)? } else { read_manifest(&path.join(MANIFEST))? };
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|e| format!("its manifest cannot be read ({e})"))?;
    manifest.check()?;
    Ok(manifest)
}

fn read_manifest(path: &Path) -> Result<Vec<u8>, String> {
    let metadata = fs::symlink_metadata(path).map_err(|e| format!("it has no manifest ({e})"))?;
    if !metadata.is_file() || metadata.len() > MAX_MANIFEST {
        return Err("its manifest is no file, or too large".to_owned());
    }
    fs::read(path).map_err(|e| format!("its manifest cannot be read ({e})"))
}
