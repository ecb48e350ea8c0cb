//! The settings service on a fresh store.

mod dispatch;
mod secrets;
mod values;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use chrono::DateTime;
use quarterdeck_domain::audit::Actor;
use quarterdeck_domain::clock::ManualClock;
use quarterdeck_domain::setting::{Definition, Entry, IfMatch, Namespace, Registry, Sensitive, Setting};
use quarterdeck_domain::{Error, Result};
use quarterdeck_store::seal::Keyring;
use quarterdeck_store::{Database, Store};
use quarterdeck_testkit::TestDb;
use quarterdeck_work::settings::{Rule, Settings, Setup, Sources, Write};

const TOKEN: Setting<Sensitive> = Setting::secret(Namespace::Providers, "token").described("A secret.");
const OTHER_TOKEN: Setting<Sensitive> =
    Setting::secret(Namespace::Providers, "other_token").described("Another secret.");
const KEY_1: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const KEY_2: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";
static ACTOR: LazyLock<Actor> = LazyLock::new(|| Actor::system("tests"));

/// A store of its own, and a clock that stands still.
struct House {
    db: TestDb,
    store: Store,
    clock: Arc<ManualClock>,
}

impl House {
    /// On SQLite.
    async fn new() -> Self {
        Self::on(&TestDb::sqlite()).await
    }

    async fn on(db: &TestDb) -> Self {
        Self { db: db.clone(), store: db.open().await, clock: ManualClock::at(DateTime::UNIX_EPOCH) }
    }

    /// Another copy of the program on the same database; on SQLite, which serves one program, another
    /// handle on the same store.
    async fn another(&self) -> Self {
        let store = if self.db.is_shared() { self.db.open().await } else { self.store.clone() };
        Self { db: self.db.clone(), store, clock: Arc::clone(&self.clock) }
    }

    async fn settings(&self) -> Settings {
        self.open(Some(KEY_1), &[], &[]).await.unwrap()
    }

    async fn open(
        &self,
        keys: Option<&str>,
        environment: &[(&str, &str)],
        file: &[(&str, &str)],
    ) -> Result<Settings> {
        let sources = Sources { environment: map(environment), file: map(file) };
        self.open_with(keys, sources, Vec::new()).await
    }

    async fn open_with(&self, keys: Option<&str>, sources: Sources, rules: Vec<Rule>) -> Result<Settings> {
        let setup = Setup {
            registry: registry(),
            sources,
            keys: keys.map(|keys| Keyring::parse(&keys.to_owned().into()).unwrap()),
            rules,
        };
        Settings::open(self.store.clone(), self.clock.clone(), setup).await
    }

    /// Counts what is announced from now on.
    fn count_signals(&self) -> Arc<Mutex<usize>> {
        let count = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&count);
        self.store.on_signal(move |_| *counted.lock().unwrap() += 1);
        count
    }
}

fn registry() -> Registry {
    let mut definitions: Vec<Definition> = Registry::of_this_program().unwrap().definitions().to_vec();
    definitions.extend([*TOKEN.definition(), *OTHER_TOKEN.definition()]);
    Registry::new(definitions).unwrap()
}

fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn write_if(id: &str, value: &str, if_match: IfMatch) -> Write {
    let (namespace, key) = id.split_once('/').unwrap();
    Write { namespace: namespace.to_owned(), key: key.to_owned(), value: value.to_owned(), if_match }
}

async fn set(settings: &Settings, id: &str, value: &str) -> Result<Entry> {
    settings.set(write_if(id, value, IfMatch::Unconditional), &ACTOR).await
}

async fn reset(settings: &Settings, id: &str) -> Result<()> {
    let (namespace, key) = id.split_once('/').unwrap();
    settings.reset(namespace, key, IfMatch::Unconditional, &ACTOR).await
}

fn entry(settings: &Settings, id: &str) -> Entry {
    let (namespace, key) = id.split_once('/').unwrap();
    settings.entry(namespace, key).unwrap()
}

fn failure(error: &Error) -> (u16, u16) {
    (error.status(), error.code().number())
}

/// Everything logged on this thread while the guard lives.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let sink = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || sink.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
