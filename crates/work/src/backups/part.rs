//! The parts of an installation, each with its way to be saved and put back.

use std::io;
use std::path::{Path, PathBuf};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use quarterdeck_domain::backup::Component;
use quarterdeck_domain::{Error, Result};
use quarterdeck_store::Store;

use super::tree;

/// Ending of what a restore puts in the place of what is in use, and of what was in use before.
const NEXT: &str = ".restore-new";
const BEFORE: &str = ".restore-old";
/// Name of the configuration file inside a backup.
const CONFIG: &str = "quarterdeck.toml";

/// A part of an installation.
pub trait Part: Send + Sync {
    /// Which one.
    fn component(&self) -> Component;

    /// Why there is nothing to save, if so.
    fn nothing_to_save(&self) -> Option<String> {
        None
    }

    /// Writes a copy into an empty folder.
    fn save<'a>(&'a self, into: &'a Path) -> BoxFuture<'a, Result<()>>;

    /// How to replace the part by the copy in `saved`; `work` is a folder for passing files.
    fn change(&self, saved: PathBuf, work: PathBuf) -> Box<dyn Change>;
}

/// The steps in which a part is replaced, in this order. Whoever fails leaves the part as it was.
pub trait Change: Send + Sync {
    /// Whether the copy is sound; a sentence for the log when not.
    fn check(&mut self) -> BoxFuture<'_, Result<(), String>>;
    /// Does all that can be done without touching what is in use.
    fn prepare(&mut self) -> BoxFuture<'_, Result<()>>;
    /// Replaces.
    fn swap(&mut self) -> BoxFuture<'_, Result<()>>;
    /// Takes it back; `before` holds a copy of what was in use, as [`Part::save`] wrote it.
    fn undo<'a>(&'a mut self, before: &'a Path) -> BoxFuture<'a, Result<()>>;
    /// Gives up what was in use before.
    fn finish(&mut self);
    /// Whether the store is closed by the swap; then it is opened anew to record what was done.
    fn reopen(&mut self) -> Option<BoxFuture<'_, Result<Store>>> {
        None
    }
}

/// Runs what blocks.
pub(super) async fn blocking<T: Send + 'static>(
    what: &'static str,
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(job).await.unwrap_or_else(|e| Err(io::Error::other(e)));
    done.map_err(|e| Error::internal(format_args!("{what} ({e})")))
}

/// The path beside another with this ending.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// A file or folder that is replaced by renaming.
#[derive(Clone, Debug)]
pub(super) struct Renamed(pub(super) PathBuf);

impl Renamed {
    /// Copies a folder beside the one in use.
    pub(super) fn prepare_folder(&self, saved: &Path) -> io::Result<()> {
        let next = beside(&self.0, NEXT);
        tree::remove(&next)?;
        if saved.is_dir() { tree::copy(saved, &next) } else { tree::make_folder(&next) }
    }

    fn prepare_file(&self, saved: &Path) -> io::Result<()> {
        let next = beside(&self.0, NEXT);
        tree::remove(&next)?;
        tree::copy_file(saved, &next)
    }

    pub(super) fn swap(&self) -> io::Result<()> {
        let before = beside(&self.0, BEFORE);
        tree::remove(&before)?;
        match std::fs::rename(&self.0, &before) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        if let Err(e) = std::fs::rename(beside(&self.0, NEXT), &self.0) {
            self.undo()?;
            return Err(e);
        }
        self.sync()
    }

    pub(super) fn undo(&self) -> io::Result<()> {
        let (before, next) = (beside(&self.0, BEFORE), beside(&self.0, NEXT));
        if std::fs::symlink_metadata(&before).is_ok() {
            tree::remove(&self.0)?;
            std::fs::rename(&before, &self.0)?;
        } else if std::fs::symlink_metadata(&next).is_err() {
            // Something was put where nothing had been.
            tree::remove(&self.0)?;
        }
        tree::remove(&next)?;
        self.sync()
    }

    /// Clears up what a process that ended half way has left; with `undo`, puts back what was in use first.
    pub(super) fn recover(&self, undo: bool) {
        let is_left = |ending| std::fs::symlink_metadata(beside(&self.0, ending)).is_ok();
        if undo
            && is_left(BEFORE)
            && let Err(e) = self.undo()
        {
            tracing::error!(target: "backup", error = %e, "backup.restore.undo_failed");
            return;
        }
        self.finish();
    }

    pub(super) fn finish(&self) {
        for ending in [BEFORE, NEXT] {
            if let Err(e) = tree::remove(&beside(&self.0, ending)) {
                tracing::warn!(target: "backup", error = %e, "backup.restore.leftover");
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.0.parent().map_or(Ok(()), tree::sync_folder)
    }
}

/// What agents remember: a folder.
pub(super) struct Memory(pub(super) Renamed);

impl Part for Memory {
    fn component(&self) -> Component {
        Component::Memory
    }

    fn nothing_to_save(&self) -> Option<String> {
        (!self.0.0.is_dir()).then(|| "there is no folder memory in the data folder".to_owned())
    }

    fn save<'a>(&'a self, into: &'a Path) -> BoxFuture<'a, Result<()>> {
        let (from, into) = (self.0.0.clone(), into.to_owned());
        blocking(
            "memory cannot be copied",
            move || if from.is_dir() { tree::copy(&from, &into) } else { Ok(()) },
        )
        .boxed()
    }

    fn change(&self, saved: PathBuf, _: PathBuf) -> Box<dyn Change> {
        Box::new(Rename { live: self.0.clone(), saved, is_folder: true })
    }
}

/// The configuration file.
pub(super) struct ConfigFile(pub(super) Renamed);

impl Part for ConfigFile {
    fn component(&self) -> Component {
        Component::Config
    }

    fn nothing_to_save(&self) -> Option<String> {
        (!self.0.0.is_file()).then(|| "there is no configuration file".to_owned())
    }

    fn save<'a>(&'a self, into: &'a Path) -> BoxFuture<'a, Result<()>> {
        let (from, to) = (self.0.0.clone(), into.join(CONFIG));
        blocking("the configuration file cannot be copied", move || {
            if from.is_file() { tree::copy_file(&from, &to) } else { Ok(()) }
        })
        .boxed()
    }

    fn change(&self, saved: PathBuf, _: PathBuf) -> Box<dyn Change> {
        Box::new(Rename { live: self.0.clone(), saved: saved.join(CONFIG), is_folder: false })
    }
}

struct Rename {
    live: Renamed,
    saved: PathBuf,
    is_folder: bool,
}

impl Change for Rename {
    fn check(&mut self) -> BoxFuture<'_, Result<(), String>> {
        let (saved, is_folder) = (self.saved.clone(), self.is_folder);
        async move {
            if is_folder {
                return if saved.is_dir() { Ok(()) } else { Err("it holds no memory".to_owned()) };
            }
            let text =
                std::fs::read_to_string(&saved).map_err(|e| format!("it holds no configuration ({e})"))?;
            // What the parser says quotes the file, which may hold secrets.
            text.parse::<toml::Table>().map(drop).map_err(|_| "its configuration is no TOML".to_owned())
        }
        .boxed()
    }

    fn prepare(&mut self) -> BoxFuture<'_, Result<()>> {
        let (live, saved, is_folder) = (self.live.clone(), self.saved.clone(), self.is_folder);
        blocking("what was saved cannot be put beside what is in use", move || {
            if is_folder { live.prepare_folder(&saved) } else { live.prepare_file(&saved) }
        })
        .boxed()
    }

    fn swap(&mut self) -> BoxFuture<'_, Result<()>> {
        let live = self.live.clone();
        blocking("what is in use cannot be replaced", move || live.swap()).boxed()
    }

    fn undo<'a>(&'a mut self, _: &'a Path) -> BoxFuture<'a, Result<()>> {
        let live = self.live.clone();
        blocking("what was in use cannot be put back", move || live.undo()).boxed()
    }

    fn finish(&mut self) {
        self.live.finish();
    }
}
