//! Backups of parts that fail, and of a clock that runs.

mod failures;
mod schedule;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use chrono::DateTime;
use quarterdeck_domain::audit::Actor;
use quarterdeck_domain::clock::{ManualClock, SharedClock};
use quarterdeck_domain::setting::Registry;
use quarterdeck_store::Store;
use quarterdeck_testkit::TestDb;
use quarterdeck_work::backups::{Backups, Part, Places, Restore};
use quarterdeck_work::settings::{Settings, Setup, Sources};

struct House {
    db: TestDb,
    store: Store,
    settings: Settings,
    clock: Arc<ManualClock>,
}

impl House {
    /// With these values from the environment.
    async fn with(environment: &[(&str, &str)]) -> Self {
        let db = TestDb::sqlite();
        let store = db.open().await;
        let clock = ManualClock::at(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        let environment: HashMap<_, _> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let setup = Setup {
            registry: Registry::of_this_program().unwrap(),
            sources: Sources { environment, ..Sources::default() },
            keys: None,
            rules: Vec::new(),
        };
        let shared = Arc::clone(&clock) as SharedClock;
        let settings = Settings::open(store.clone(), shared, setup).await.unwrap();
        Self { db, store, settings, clock }
    }

    fn folder(&self) -> &Path {
        self.db.folder()
    }

    fn places(&self) -> Places {
        let file = self.folder().join("quarterdeck.toml");
        Places::new("", self.folder(), Some(file)).unwrap()
    }

    fn clock(&self) -> SharedClock {
        Arc::clone(&self.clock) as SharedClock
    }

    fn backups(&self) -> Backups {
        Backups::new(self.store.clone(), self.settings.clone(), self.clock(), &self.places(), "1.0.0")
    }

    fn backups_of(&self, parts: Vec<Arc<dyn Part>>) -> Backups {
        Backups::of(self.store.clone(), self.settings.clone(), self.clock(), &self.places(), "1.0.0", parts)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder().join(name)).unwrap_or_default()
    }

    /// What lies in the folder of the backups.
    fn shelf(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder().join("backups"));
        let names = entries.into_iter().flatten().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn actor() -> Actor {
    Actor::system("test")
}

fn all_of(id: &str) -> Restore {
    Restore { backup_id: id.to_owned(), components: None, confirm: true }
}
