//! Parts that fail, wherever they fail.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use quarterdeck_domain::backup::{Component, Trigger};
use quarterdeck_domain::{Error, ErrorCode, Result};
use quarterdeck_work::backups::{Change, Part};

use crate::{House, actor, all_of};

#[derive(Clone, Copy, PartialEq)]
enum At {
    Save,
    Prepare,
    Swap,
}

/// A folder that is replaced file by file, and fails when told to.
struct Fragile {
    component: Component,
    folder: PathBuf,
    fails: Arc<AtomicBool>,
    at: At,
}

fn failure() -> Error {
    Error::internal("it breaks here")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from.join("x"), to.join("x")).map(drop).map_err(Error::internal)
}

impl Fragile {
    fn breaks(&self, at: At) -> bool {
        self.at == at && self.fails.load(Ordering::Relaxed)
    }
}

impl Part for Fragile {
    fn component(&self) -> Component {
        self.component
    }

    fn save<'a>(&'a self, into: &'a Path) -> BoxFuture<'a, Result<()>> {
        async move {
            copy(&self.folder, into)?;
            if self.breaks(At::Save) { Err(failure()) } else { Ok(()) }
        }
        .boxed()
    }

    fn change(&self, saved: PathBuf, _: PathBuf) -> Box<dyn Change> {
        let Self { folder, at, .. } = self;
        let fails = self.fails.load(Ordering::Relaxed).then_some(*at);
        Box::new(Changing { saved, folder: folder.clone(), fails })
    }
}

struct Changing {
    saved: PathBuf,
    folder: PathBuf,
    fails: Option<At>,
}

impl Changing {
    fn step(&self, at: At) -> Result<()> {
        if self.fails == Some(at) { Err(failure()) } else { Ok(()) }
    }
}

impl Change for Changing {
    fn check(&mut self) -> BoxFuture<'_, Result<(), String>> {
        async { Ok(()) }.boxed()
    }

    fn prepare(&mut self) -> BoxFuture<'_, Result<()>> {
        async { self.step(At::Prepare) }.boxed()
    }

    fn swap(&mut self) -> BoxFuture<'_, Result<()>> {
        async {
            self.step(At::Swap)?;
            copy(&self.saved, &self.folder)
        }
        .boxed()
    }

    fn undo<'a>(&'a mut self, before: &'a Path) -> BoxFuture<'a, Result<()>> {
        async move { copy(before, &self.folder) }.boxed()
    }

    fn finish(&mut self) {}
}

#[tokio::test]
async fn a_failure_in_the_second_of_three_parts_takes_the_first_back() {
    for at in [At::Prepare, At::Swap] {
        let house = House::with(&[]).await;
        let fails = Arc::new(AtomicBool::new(false));
        let part = |component, folder: &str, at| -> Arc<dyn Part> {
            let fails = if folder == "second" { Arc::clone(&fails) } else { Arc::default() };
            Arc::new(Fragile { component, folder: house.folder().join(folder), fails, at })
        };
        let backups = house.backups_of(vec![
            part(Component::Memory, "first", at),
            part(Component::Config, "second", at),
            part(Component::Persistence, "third", at),
        ]);
        let all = ["first/x", "second/x", "third/x"];
        all.iter().for_each(|name| house.write(name, "old"));
        let made = backups.create(&actor(), Trigger::Manual, None).await.unwrap();
        all.iter().for_each(|name| house.write(name, "new"));
        fails.store(true, Ordering::Relaxed);
        let error = backups.restore(&actor(), all_of(made.backup_id.as_str()), None).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::InternalError);
        assert_eq!(all.map(|name| house.read(name)), ["new", "new", "new"]);
        assert!(!house.folder().join("restore.undo").exists());
        let record = house.db.dump().await;
        assert!(record.contains(&format!("Restoring the backup {} failed", made.backup_id)));
        fails.store(false, Ordering::Relaxed);
        backups.restore(&actor(), all_of(made.backup_id.as_str()), None).await.unwrap();
        assert_eq!(all.map(|name| house.read(name)), ["old", "old", "old"]);
    }
}

#[tokio::test]
async fn a_backup_that_fails_leaves_nothing_behind() {
    let house = House::with(&[]).await;
    house.write("folder/x", "x");
    let fails = Arc::new(AtomicBool::new(true));
    let folder = house.folder().join("folder");
    let part = Fragile { component: Component::Memory, folder, fails: Arc::clone(&fails), at: At::Save };
    let backups = house.backups_of(vec![Arc::new(part)]);
    let error = backups.create(&actor(), Trigger::Manual, None).await.unwrap_err();
    assert_eq!((error.code(), error.detail()), (ErrorCode::InternalError, "Internal server error"));
    assert!(house.shelf().is_empty());
    assert!(house.db.dump().await.contains("Making a backup failed"));
    fails.store(false, Ordering::Relaxed);
    backups.create(&actor(), Trigger::Manual, None).await.unwrap();
}

#[tokio::test]
async fn when_no_safety_backup_can_be_made_nothing_is_changed() {
    let house = House::with(&[]).await;
    house.write("folder/x", "old");
    let fails = Arc::new(AtomicBool::new(false));
    let folder = house.folder().join("folder");
    let part = Fragile { component: Component::Memory, folder, fails: Arc::clone(&fails), at: At::Save };
    let backups = house.backups_of(vec![Arc::new(part)]);
    let made = backups.create(&actor(), Trigger::Manual, None).await.unwrap();
    house.write("folder/x", "new");
    fails.store(true, Ordering::Relaxed);
    let error = backups.restore(&actor(), all_of(made.backup_id.as_str()), None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InternalError);
    assert_eq!(house.read("folder/x"), "new");
    assert_eq!(house.shelf().len(), 1);
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_is_taken_back_with_everything_else() {
    let house = House::with(&[("QUARTERDECK_BACKUP_COMPRESSION", "false")]).await;
    house.write("memory/x", "old");
    house.write("quarterdeck.toml", "# old\n");
    let backups = house.backups();
    let made = backups.create(&actor(), Trigger::Manual, None).await.unwrap();
    house.write("memory/x", "new");
    house.write("quarterdeck.toml", "# new\n");
    // Nothing can be put in the place of a folder that is not empty.
    let in_the_way = house.folder().join("quarterdeck.db.restore-old");
    std::fs::create_dir_all(in_the_way.join("x")).unwrap();
    let error = backups.restore(&actor(), all_of(made.backup_id.as_str()), None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InternalError);
    assert_eq!((house.read("memory/x"), house.read("quarterdeck.toml")), ("new".into(), "# new\n".into()));
    std::fs::remove_dir_all(in_the_way).unwrap();
    drop(backups);
    house.store.close().await;
    house.db.open().await.ping().await.unwrap();
}

#[tokio::test]
async fn a_restore_cut_short_is_taken_back_at_the_next_start_and_a_whole_one_is_not() {
    for whole in [false, true] {
        let house = House::with(&[]).await;
        house.store.close().await;
        house.write("memory/x", "restored");
        house.write("memory.restore-old/x", "before");
        house.write("artifacts.restore-new/x", "half");
        if !whole {
            house.write("restore.undo", "0123456789ab");
        }
        house.places().recover(&house.db.database);
        assert_eq!(house.read("memory/x"), if whole { "restored" } else { "before" });
        let left: Vec<_> = std::fs::read_dir(house.folder())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains("restore"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        house.db.open().await.ping().await.unwrap();
    }
}
