//! What an operator decides before the start: defaults, then `quarterdeck.toml`, then the environment,
//! then flags. Every later source wins over the earlier ones, value by value.

mod artifacts;
mod data_dir;
mod environment;
mod load;
mod tree;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use quarterdeck_bus::message::MessageBusConfig;
use quarterdeck_domain::sink::LogLevel;
use quarterdeck_http::config::ApiConfig;
use quarterdeck_store::config::StoreConfig;
use quarterdeck_work::escalations::EscalationConfig;
use quarterdeck_work::meetings::MeetingsConfig;
use quarterdeck_work::notifications::NotificationsConfig;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use artifacts::{ArtifactsConfig, S3Config};
pub use data_dir::create as create_data_dir;
pub use environment::Environment;
pub use load::{Flags, load, named_data_dir};

/// Dotted names of the values that are never shown.
pub const SECRETS: [&str; 6] = [
    "api.auth.jwt_secret",
    "artifacts.s3.secret_access_key",
    "database.url",
    "nats_url",
    "redis_url",
    "settings_key",
];

/// Dotted names of values with secrets inside, which mask those by themselves.
const WITH_SECRETS: [&str; 1] = ["notifications.sinks"];

/// The whole configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where this program keeps its files; absolute once loaded.
    pub data_dir: PathBuf,
    /// Keys that seal secrets in the database, the current one first.
    #[serde(serialize_with = "masked")]
    pub settings_key: Option<SecretString>,
    /// `redis://host:port`, or `rediss://` over TLS: where copies of the program share their limits.
    /// Absent or blank = each copy counts for itself.
    #[serde(serialize_with = "masked")]
    pub redis_url: Option<SecretString>,
    /// `nats://host:port`, or `tls://`: the broker that carries news between copies of the program.
    /// Absent or blank = the database does.
    #[serde(serialize_with = "masked")]
    pub nats_url: Option<SecretString>,
    /// How copies of the program, and agents, talk.
    pub communication: CommunicationConfig,
    /// Meetings of agents.
    pub meetings: MeetingsConfig,
    /// The front door.
    pub api: ApiConfig,
    /// Contents of artifacts.
    pub artifacts: ArtifactsConfig,
    /// The database.
    pub database: StoreConfig,
    /// The log.
    pub log: LogConfig,
    /// Who is told what.
    pub notifications: NotificationsConfig,
}

/// The section `communication`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CommunicationConfig {
    /// Messages between agents, and the broker.
    pub message_bus: MessageBusConfig,
    /// What becomes of conflicts between agents.
    pub conflict_resolution: ConflictResolutionConfig,
}

/// The section `communication.conflict_resolution`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConflictResolutionConfig {
    /// How they are put before people.
    pub escalation: EscalationConfig,
}

/// The section `log`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Folder of the log files; absent = no files, the console alone.
    pub dir: Option<PathBuf>,
    /// Least level of the events on the console; absent = as the console's sink says.
    #[serde(deserialize_with = "level")]
    pub level: Option<LogLevel>,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Built in.
    Default,
    /// The configuration file.
    File,
    /// The environment variable of this name.
    Environment(String),
    /// The flag of this name.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File => f.write_str("file"),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A configuration that passed every check, and how it came about.
#[derive(Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Run-time settings from the environment: variable name to text. May hold secrets.
    pub setting_environment: BTreeMap<String, String>,
    /// Texts of the values that somebody set, by dotted name, secrets left out: what run-time settings
    /// fall back to. Lists and tables are JSON.
    pub chosen: BTreeMap<String, String>,
    /// Variables that look meant for this program but are unknown to it, one sentence each.
    pub unknown_variables: Vec<String>,
    /// All variables, for what names one of them. They may hold secrets.
    pub(crate) environment: Environment,
    origins: BTreeMap<String, Source>,
}

impl Loaded {
    /// Where the value of this dotted name came from.
    pub fn source(&self, path: &str) -> &Source {
        self.origins.get(path).unwrap_or(&Source::Default)
    }

    /// Every value in force with its dotted name, secrets masked, in the order of the names.
    pub fn shown(&self) -> Vec<(String, serde_json::Value)> {
        tree::leaves(&self.config).into_iter().collect()
    }
}

impl Config {
    fn validate(&mut self) -> Result<(), String> {
        self.api.resolve()?;
        self.artifacts.validate()?;
        self.database.validate()?;
        self.log.validate()?;
        self.redis_url = self.redis_url.take().filter(|url| !url.expose_secret().trim().is_empty());
        if let Some(url) = &self.redis_url {
            quarterdeck_limits::check_redis_url(url).map_err(|rule| format!("redis_url {rule}"))?;
        }
        self.nats_url = self.nats_url.take().filter(|url| !url.expose_secret().trim().is_empty());
        if let Some(url) = &self.nats_url {
            let nats = self.communication.message_bus.nats.get_or_insert_default();
            nats.url = url.clone();
            nats.validate().map_err(|why| why.replace("communication.message_bus.nats.url", "nats_url"))?;
        }
        self.communication.message_bus.validate()?;
        self.communication.conflict_resolution.escalation.validate(self.database.url.is_some())?;
        self.meetings.validate()?;
        self.notifications.validate()?;
        match &self.settings_key {
            Some(keys) => quarterdeck_store::seal::Keyring::parse(keys)
                .map(drop)
                .map_err(|rule| format!("settings_key: {rule}")),
            None => Ok(()),
        }
    }
}

impl LogConfig {
    fn validate(&self) -> Result<(), String> {
        if self.dir.as_deref().is_some_and(climbs) {
            return Err("log.dir must not contain ..".to_owned());
        }
        Ok(())
    }
}

fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<LogLevel>, D::Error> {
    let refuse = |_| serde::de::Error::custom("must be DEBUG, INFO, WARNING, ERROR or CRITICAL");
    String::deserialize(deserializer)?.parse().map(Some).map_err(refuse)
}

fn climbs(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}

fn masked<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|_| "********").serialize(serializer)
}

#[cfg(test)]
mod tests;
