//! Run-time settings: one place that knows the value in force of every registered setting.
//!
//! A value comes from the database, else the environment, else the configuration file, else the
//! definition. All of them are resolved ahead of time into a [`Snapshot`], so reading one costs a look-up
//! in memory. A write commits first, then replaces the snapshot before it returns, on every copy of the
//! program; the [`Dispatcher`] calls whoever watches a setting.

mod dispatcher;
mod policy;
mod snapshot;
mod write;

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::setting::{Definition, Entry, Namespace, Registry, Sensitive, Setting, SettingValue};
use quarterdeck_domain::{Error, Result};
use quarterdeck_store::seal::Keyring;
use quarterdeck_store::{Signal, Store, setting};
use secrecy::SecretString;
use tokio::sync::{Mutex, Notify, watch};

pub use dispatcher::{Change, Dispatcher};
pub use policy::Policy;
pub use snapshot::{Snapshot, Sources};
pub use write::{Noted, Rule, Write};

use snapshot::{Ground, unsealed};

/// What settings are made of when the program starts.
#[derive(Debug)]
pub struct Setup {
    /// Which settings exist.
    pub registry: Registry,
    /// Values of the environment and the configuration file.
    pub sources: Sources,
    /// Keys for sensitive values; without any, those cannot be written.
    pub keys: Option<Keyring>,
    /// Rules that look at more than one setting.
    pub rules: Vec<Rule>,
}

/// Handle to all settings; clones are one.
#[derive(Clone)]
pub struct Settings(Arc<Inner>);

struct Inner {
    store: Store,
    clock: SharedClock,
    ground: Ground,
    rules: Vec<Rule>,
    /// As it was at start; what needs a restart is read from here.
    boot: Arc<Snapshot>,
    current: ArcSwap<Snapshot>,
    /// Held while the snapshot is rebuilt, so that a slow rebuild never replaces a newer one.
    rebuilding: Mutex<()>,
    /// Rung when a row may have changed.
    bell: Arc<Notify>,
    /// Generation of the snapshot whose changes all subscribers know; `None` while nobody dispatches.
    told: watch::Sender<Option<u64>>,
}

impl Settings {
    /// Resolves all settings and seals anew what an older key sealed.
    ///
    /// # Errors
    /// A sentence for the operator when a value of the environment or the file is refused; the store's
    /// own errors.
    pub async fn open(store: Store, clock: SharedClock, setup: Setup) -> Result<Self> {
        let Setup { registry, sources, keys, rules } = setup;
        let ground = Ground::new(registry, sources, keys).map_err(Error::internal)?;
        let bell = Arc::new(Notify::new());
        let rung = Arc::clone(&bell);
        let concerns = |signal: &Signal| matches!(signal, Signal::Setting { .. } | Signal::Everything);
        // Heard before the first read, so that no change falls between the two.
        store.on_signal(move |signal| {
            if concerns(signal) {
                rung.notify_one();
            }
        });
        let boot = Arc::new(ground.resolve(&setting::all(store.read()).await?));
        let told = watch::Sender::new(None);
        boot.warn_of_faults(None);
        let current = ArcSwap::new(Arc::clone(&boot));
        let settings = Self(Arc::new(Inner {
            store,
            clock,
            ground,
            rules,
            boot,
            current,
            rebuilding: Mutex::default(),
            bell,
            told,
        }));
        let weak = Arc::downgrade(&settings.0);
        settings.0.store.on_news(move |signals| {
            let settings = signals.iter().any(concerns).then(|| weak.upgrade()).flatten().map(Self);
            async move {
                if let Some(settings) = settings {
                    settings.spread().await;
                }
            }
            .boxed()
        });
        settings.seal_anew().await?;
        Ok(settings)
    }

    /// The value in force. A change of a setting that needs a restart is not seen before it.
    pub fn get<T: SettingValue>(&self, setting: &Setting<T>) -> T {
        if setting.definition().restart_required {
            self.0.boot.get(setting)
        } else {
            self.0.current.load().get(setting)
        }
    }

    /// The sensitive value stored now, or the environment's or the file's; `None` when nobody set it or
    /// it is empty. Asks the database, for secrets are not kept in memory.
    ///
    /// # Errors
    /// 500/8000 when the stored value cannot be opened; the store's own errors.
    pub async fn secret(&self, setting: &Setting<Sensitive>) -> Result<Option<SecretString>> {
        let definition = setting.definition();
        let position = self.position(definition.namespace.as_str(), definition.key)?;
        if !definition.read_only_post_init {
            let row =
                setting::get(self.0.store.read(), definition.namespace.as_str(), definition.key).await?;
            if let Some(row) = row {
                let secret = unsealed(&self.0.ground, definition, &row)
                    .map_err(|why| failed_encryption(definition, "settings.encryption.open_failed", why))?;
                return Ok(snapshot::not_empty(secret));
            }
        }
        Ok(self.0.ground.secret(position))
    }

    /// Every definition, sorted by namespace and key.
    pub fn definitions(&self) -> &[Definition] {
        self.0.ground.registry.definitions()
    }

    /// The definitions of one namespace.
    ///
    /// # Errors
    /// 404/3000 when there is no such namespace.
    pub fn definitions_of(&self, namespace: &str) -> Result<Vec<Definition>> {
        let namespace = known(namespace)?;
        Ok(self.definitions().iter().filter(|d| d.namespace == namespace).copied().collect())
    }

    /// Every setting with its value, sorted by namespace and key; sensitive values masked.
    pub fn entries(&self) -> Vec<Entry> {
        self.current().entries()
    }

    /// The settings of one namespace.
    ///
    /// # Errors
    /// 404/3000 when there is no such namespace.
    pub fn entries_of(&self, namespace: &str) -> Result<Vec<Entry>> {
        Ok(self.current().entries_of(known(namespace)?))
    }

    /// One setting.
    ///
    /// # Errors
    /// 404/3000 when it is not registered; 500/8000 when its sensitive value cannot be opened.
    pub fn entry(&self, namespace: &str, key: &str) -> Result<Entry> {
        let current = self.current();
        let position = self.position(namespace, key)?;
        match current.unreadable(position) {
            Some(why) => {
                let definition = &self.definitions()[position];
                Err(failed_encryption(definition, "settings.encryption.open_failed", why))
            }
            None => Ok(current.entry(position)),
        }
    }

    /// All values in force now, consistent with each other.
    pub fn current(&self) -> Arc<Snapshot> {
        self.0.current.load_full()
    }

    fn position(&self, namespace: &str, key: &str) -> Result<usize> {
        let position = self.0.ground.registry.position(namespace, key);
        position.ok_or_else(|| Error::missing("Setting", &format!("{namespace}/{key}")))
    }

    /// Reads the rows again.
    async fn rebuild(&self) -> Result<Arc<Snapshot>> {
        let _turn = self.0.rebuilding.lock().await;
        let rows = setting::all(self.0.store.read()).await?;
        let mut next = self.0.ground.resolve(&rows);
        next.generation = self.current().generation + 1;
        let next = Arc::new(next);
        next.warn_of_faults(Some(&self.current()));
        self.0.current.store(Arc::clone(&next));
        Ok(next)
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("registered", &self.definitions().len()).finish_non_exhaustive()
    }
}

fn known(namespace: &str) -> Result<Namespace> {
    Namespace::parse(namespace).ok_or_else(|| Error::missing("Settings namespace", namespace))
}

fn failed_encryption(definition: &Definition, event: &'static str, why: impl std::fmt::Display) -> Error {
    let (namespace, key) = (definition.namespace.as_str(), definition.key);
    tracing::error!(target: "settings", namespace, key, error = %why, "{event}");
    Error::internal(format_args!("{event}: {}: {why}", definition.id()))
}
