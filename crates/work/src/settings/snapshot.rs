//! Resolution: which source decides the value of each setting.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use quarterdeck_domain::setting::{
    Definition, Entry, MASK, Namespace, Registry, Setting, SettingSource, SettingValue,
};
use quarterdeck_store::seal::{Keyring, SealError};
use quarterdeck_store::setting::Row;
use secrecy::{ExposeSecret, SecretString};

/// Values that stand below the database.
#[derive(Default)]
pub struct Sources {
    /// Environment variables by name.
    pub environment: HashMap<String, String>,
    /// Values of the configuration file by dotted path, lists and tables as JSON.
    pub file: HashMap<String, String>,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources")
            .field("environment", &self.environment.len())
            .field("file", &self.file.len())
            .finish()
    }
}

/// What does not change while the program runs.
pub(super) struct Ground {
    pub(super) registry: Arc<Registry>,
    pub(super) keys: Option<Keyring>,
    /// The value below the database, per definition.
    base: Vec<Base>,
}

struct Base {
    value: SecretString,
    source: SettingSource,
}

impl Ground {
    /// Checks the values of the environment and the file.
    ///
    /// Values of the file have passed the file's own rules, whose bounds may differ, so only their type
    /// is checked.
    pub(super) fn new(registry: Registry, sources: Sources, keys: Option<Keyring>) -> Result<Self, String> {
        let mut base = Vec::with_capacity(registry.definitions().len());
        for (position, definition) in registry.definitions().iter().enumerate() {
            let name = definition.env_name();
            let environment = sources.environment.get(&name).map(|value| value.trim());
            let file = definition.yaml_path.and_then(|path| sources.file.get(path));
            let (value, source) = match (environment.filter(|value| !value.is_empty()), file) {
                (Some(value), _) => {
                    registry.check(position, value).map_err(|rule| format!("{name} {rule}"))?;
                    (value, SettingSource::Env)
                }
                (None, Some(value)) => {
                    let path = definition.yaml_path.unwrap_or_default();
                    registry
                        .check_type(position, value)
                        .map_err(|rule| format!("{path} in the configuration file {rule}"))?;
                    (value.as_str(), SettingSource::Yaml)
                }
                (None, None) => (definition.default.unwrap_or_default(), SettingSource::Default),
            };
            base.push(Base { value: value.into(), source });
        }
        Ok(Self { registry: Arc::new(registry), keys, base })
    }

    /// The sensitive value below the database.
    pub(super) fn secret(&self, position: usize) -> Option<SecretString> {
        not_empty(self.base[position].value.clone())
    }

    /// Resolves every setting over the stored rows. Rows nobody registered are passed over.
    pub(super) fn resolve(&self, rows: &[Row]) -> Snapshot {
        let mut resolved: Vec<Resolved> = Vec::with_capacity(self.base.len());
        for (definition, base) in self.registry.definitions().iter().zip(&self.base) {
            let shown = if definition.sensitive { MASK } else { base.value.expose_secret() };
            resolved.push(Resolved {
                shown: shown.into(),
                source: base.source,
                updated_at: None,
                fault: None,
            });
        }
        for row in rows {
            let Some(position) = self.registry.position(&row.namespace, &row.key) else { continue };
            let definition = &self.registry.definitions()[position];
            if definition.read_only_post_init {
                continue;
            }
            let resolved = &mut resolved[position];
            let stored = |shown: &str| (shown.into(), SettingSource::Db, Some(row.updated_at));
            if definition.sensitive {
                resolved.fault = unsealed(self, definition, row).err().map(Fault::Unreadable);
                (resolved.shown, resolved.source, resolved.updated_at) = stored(MASK);
            } else if let Err(rule) = self.registry.check(position, &row.value) {
                resolved.fault = Some(Fault::Refused(rule));
            } else {
                (resolved.shown, resolved.source, resolved.updated_at) = stored(&row.value);
            }
        }
        Snapshot { generation: 0, registry: Arc::clone(&self.registry), resolved }
    }
}

/// Opens the sealed value of a row.
pub(super) fn unsealed(
    ground: &Ground,
    definition: &Definition,
    row: &Row,
) -> Result<SecretString, SealError> {
    match &ground.keys {
        Some(keys) => keys.open(&definition.id(), &row.value),
        None => Err(SealError::NoKey),
    }
}

pub(super) fn not_empty(secret: SecretString) -> Option<SecretString> {
    Some(secret).filter(|secret| !secret.expose_secret().is_empty())
}

#[derive(Clone, Debug, PartialEq)]
enum Fault {
    /// The sealed value does not open.
    Unreadable(SealError),
    /// The stored value breaks a rule it was not under when it was stored; the next source decides.
    Refused(String),
}

#[derive(Clone, Debug, PartialEq)]
struct Resolved {
    shown: Arc<str>,
    source: SettingSource,
    updated_at: Option<DateTime<Utc>>,
    fault: Option<Fault>,
}

/// The value in force of every setting at one moment. Holds no sensitive value.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts the snapshots that have been in force; the one of the start is 0.
    pub(super) generation: u64,
    registry: Arc<Registry>,
    resolved: Vec<Resolved>,
}

impl Snapshot {
    /// The value of a setting; the declared default if it is not registered.
    pub fn get<T: SettingValue>(&self, setting: &Setting<T>) -> T {
        let definition = setting.definition();
        let position = self.registry.position(definition.namespace.as_str(), definition.key);
        let text = position.map(|position| &*self.resolved[position].shown).or(definition.default);
        text.and_then(T::read).unwrap_or_default()
    }

    /// Every setting, sorted by namespace and key.
    pub fn entries(&self) -> Vec<Entry> {
        (0..self.resolved.len()).map(|position| self.entry(position)).collect()
    }

    /// The settings of one namespace, sorted by key.
    pub fn entries_of(&self, namespace: Namespace) -> Vec<Entry> {
        let definitions = self.registry.definitions().iter().enumerate();
        definitions
            .filter(|(_, d)| d.namespace == namespace)
            .map(|(position, _)| self.entry(position))
            .collect()
    }

    pub(super) fn entry(&self, position: usize) -> Entry {
        let Resolved { shown, source, updated_at, .. } = &self.resolved[position];
        Entry {
            definition: self.registry.definitions()[position],
            value: shown.to_string(),
            source: *source,
            updated_at: *updated_at,
        }
    }

    pub(super) fn unreadable(&self, position: usize) -> Option<&SealError> {
        match &self.resolved[position].fault {
            Some(Fault::Unreadable(why)) => Some(why),
            _ => None,
        }
    }

    /// Definitions whose value, source or time differ.
    pub(super) fn differences<'a>(&'a self, other: &'a Snapshot) -> impl Iterator<Item = &'a Definition> {
        let pairs = self.resolved.iter().zip(&other.resolved);
        self.registry
            .definitions()
            .iter()
            .zip(pairs)
            .filter(|(_, (here, there))| here != there)
            .map(|(d, _)| d)
    }

    /// Logs stored values that cannot be used, unless `known` had the same ones.
    pub(super) fn warn_of_faults(&self, known: Option<&Snapshot>) {
        for (position, resolved) in self.resolved.iter().enumerate() {
            let Some(fault) = &resolved.fault else { continue };
            if known.is_some_and(|known| known.resolved[position].fault.as_ref() == Some(fault)) {
                continue;
            }
            let Definition { namespace, key, .. } = self.registry.definitions()[position];
            match fault {
                Fault::Unreadable(why) => {
                    tracing::error!(target: "settings", %namespace, key, error = %why, "settings.encryption.open_failed");
                }
                Fault::Refused(rule) => {
                    tracing::warn!(target: "settings", %namespace, key, rule, "settings.validation.stored_value_ignored");
                }
            }
        }
    }
}
