//! The database and the content of artifacts, saved together because one names the other.

use std::path::{Path, PathBuf};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use quarterdeck_domain::backup::Component;
use quarterdeck_domain::{Error, Result};
use quarterdeck_store::Store;
use quarterdeck_store::backup::Replacement;

use super::part::{Change, Part, Renamed, blocking};
use super::tree;

/// Folders inside the saved part.
const DATABASE: &str = "database";
const ARTIFACTS: &str = "artifacts";

/// The database and the content of artifacts.
pub(super) struct Persistence {
    pub(super) store: Store,
    pub(super) artifacts: Renamed,
}

impl Part for Persistence {
    fn component(&self) -> Component {
        Component::Persistence
    }

    fn save<'a>(&'a self, into: &'a Path) -> BoxFuture<'a, Result<()>> {
        async move {
            // Before and after the moment of the database: whatever it names then is in one of the two.
            self.save_artifacts(into).await?;
            let folder = into.join(DATABASE);
            let made = folder.clone();
            blocking("a folder cannot be made", move || tree::make_folder(&made)).await?;
            self.store.save(&folder).await?;
            self.save_artifacts(into).await
        }
        .boxed()
    }

    fn change(&self, saved: PathBuf, work: PathBuf) -> Box<dyn Change> {
        let database = self.store.replacement(work);
        Box::new(Both { database, artifacts: self.artifacts.clone(), saved })
    }
}

impl Persistence {
    async fn save_artifacts(&self, into: &Path) -> Result<()> {
        let (from, to) = (self.artifacts.0.clone(), into.join(ARTIFACTS));
        blocking(
            "artifacts cannot be copied",
            move || {
                if from.is_dir() { tree::copy(&from, &to) } else { Ok(()) }
            },
        )
        .await
    }
}

/// Whether the saved database of a backup is sound.
pub(super) async fn check(backup: &Path, kind: &str) -> Result<(), String> {
    let folder = backup.join(Component::Persistence.as_str()).join(DATABASE);
    quarterdeck_store::backup::check(&folder, kind).await
}

struct Both {
    database: Replacement,
    artifacts: Renamed,
    saved: PathBuf,
}

impl Both {
    async fn of_artifacts(
        &self,
        what: &'static str,
        step: impl FnOnce(&Renamed, &Path) -> std::io::Result<()> + Send + 'static,
    ) -> Result<()> {
        let (live, saved) = (self.artifacts.clone(), self.saved.join(ARTIFACTS));
        blocking(what, move || step(&live, &saved)).await
    }
}

impl Change for Both {
    fn check(&mut self) -> BoxFuture<'_, Result<(), String>> {
        async move { self.database.check(&self.saved.join(DATABASE)).await }.boxed()
    }

    fn prepare(&mut self) -> BoxFuture<'_, Result<()>> {
        async move {
            self.of_artifacts("artifacts cannot be put beside those in use", Renamed::prepare_folder).await?;
            self.database.prepare(&self.saved.join(DATABASE)).await
        }
        .boxed()
    }

    fn swap(&mut self) -> BoxFuture<'_, Result<()>> {
        async move {
            self.of_artifacts("artifacts cannot be replaced", |live, _| live.swap()).await?;
            let Err(error) = self.database.swap().await else { return Ok(()) };
            let put_back = self.of_artifacts("artifacts cannot be put back", |live, _| live.undo()).await;
            Err(match put_back {
                Ok(()) => error,
                Err(worse) => Error::internal(format_args!("{error}; {worse}")),
            })
        }
        .boxed()
    }

    fn undo<'a>(&'a mut self, before: &'a Path) -> BoxFuture<'a, Result<()>> {
        async move {
            self.of_artifacts("artifacts cannot be put back", |live, _| live.undo()).await?;
            self.database.undo(&before.join(DATABASE)).await
        }
        .boxed()
    }

    fn finish(&mut self) {
        self.artifacts.finish();
        self.database.finish();
    }

    fn reopen(&mut self) -> Option<BoxFuture<'_, Result<Store>>> {
        Some(self.database.open().boxed())
    }
}
