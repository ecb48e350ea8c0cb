//! Backups that are made by themselves.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use quarterdeck_domain::backup::{Component, Trigger};
use quarterdeck_domain::setting::IfMatch;
use quarterdeck_domain::{ErrorCode, Result};
use quarterdeck_work::backups::{Backups, Change, Part, Schedule};
use quarterdeck_work::settings::Write;

use crate::House;

const PATIENCE: Duration = Duration::from_secs(10);
/// An hour of these tests.
const HOUR: Duration = Duration::from_millis(10);

async fn count(backups: &Backups) -> u64 {
    backups.list(0, 1).await.unwrap().1
}

/// Waits until this holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_first_backup_comes_one_interval_after_the_start() {
    let house = House::with(&[("QUARTERDECK_BACKUP_ENABLED", "true")]).await;
    let backups = house.backups();
    let schedule = Schedule::with_hours_of(HOUR, backups.clone());
    let begun = Instant::now();
    schedule.follow(PATIENCE).await.unwrap();
    schedule.start().unwrap();
    until("a backup", async || count(&backups).await == 1).await;
    assert!(begun.elapsed() >= 6 * HOUR);
    let (kept, _) = backups.list(0, 1).await.unwrap();
    assert_eq!(kept[0].manifest.trigger, Trigger::Scheduled);
    until("another backup", async || count(&backups).await == 2).await;
    assert!(begun.elapsed() >= 12 * HOUR);
    schedule.stop(PATIENCE).await.unwrap();
    schedule.stop(PATIENCE).await.unwrap();
    schedule.start().unwrap();
    schedule.stop(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn it_follows_the_settings() {
    let house = House::with(&[]).await;
    let backups = house.backups();
    let slow = Schedule::new(backups.clone());
    let quick = Schedule::with_hours_of(HOUR, backups.clone());
    let set = async |schedule: &Schedule, key: &str, value: &str| {
        let write = Write {
            namespace: "backup".to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
            if_match: IfMatch::Unconditional,
        };
        house.settings.set(write, "test").await.unwrap();
        schedule.follow(PATIENCE).await.unwrap();
    };
    quick.follow(PATIENCE).await.unwrap();
    set(&slow, "enabled", "true").await;
    assert_eq!(count(&backups).await, 0, "it is off unless switched on, and then waits");
    slow.stop(PATIENCE).await.unwrap();
    set(&quick, "schedule_hours", "168").await;
    set(&quick, "schedule_hours", "1").await;
    until("a backup", async || count(&backups).await >= 1).await;
    set(&quick, "enabled", "false").await;
    let after = count(&backups).await;
    quick.follow(PATIENCE).await.unwrap();
    assert_eq!(count(&backups).await, after);
}

#[tokio::test]
async fn starts_and_stops_make_backups_as_the_settings_say() {
    let house = House::with(&[("QUARTERDECK_BACKUP_ON_STARTUP", "true")]).await;
    let backups = house.backups();
    let schedule = Schedule::new(backups.clone());
    schedule.make_if_wanted(Trigger::Startup).await;
    schedule.make_if_wanted(Trigger::Shutdown).await;
    let names = house.shelf();
    assert_eq!(names.len(), 2);
    assert!(names.iter().any(|name| name.ends_with("_startup.tar.gz")), "{names:?}");
    assert!(
        names.iter().any(|name| name.ends_with("_shutdown")),
        "one made by a stop is not packed: {names:?}"
    );
    let quiet = House::with(&[("QUARTERDECK_BACKUP_ON_SHUTDOWN", "false")]).await;
    let schedule = Schedule::new(quiet.backups());
    schedule.make_if_wanted(Trigger::Startup).await;
    schedule.make_if_wanted(Trigger::Shutdown).await;
    assert!(quiet.shelf().is_empty());
}

/// A part that is never saved to its end.
struct Endless;

impl Part for Endless {
    fn component(&self) -> Component {
        Component::Memory
    }

    fn save<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, Result<()>> {
        std::future::pending().boxed()
    }

    fn change(&self, _: PathBuf, _: PathBuf) -> Box<dyn Change> {
        unreachable!("nothing is put back here")
    }
}

#[tokio::test]
async fn after_a_stop_that_took_too_long_it_cannot_be_started() {
    let house = House::with(&[("QUARTERDECK_BACKUP_ENABLED", "true")]).await;
    let schedule = Schedule::with_hours_of(HOUR, house.backups_of(vec![Arc::new(Endless)]));
    schedule.start().unwrap();
    until("a backup that has begun", async || house.shelf().iter().any(|name| name.ends_with(".partial")))
        .await;
    schedule.stop(Duration::from_millis(20)).await.unwrap_err();
    let refused = schedule.start().unwrap_err();
    assert_eq!(refused.code(), ErrorCode::ResourceConflict);
}
