//! Log sinks as data: what the defaults are, how an operator may change them, and what is refused.
//!
//! Two settings describe the difference from the defaults: `sink_overrides`, an object from the
//! identifier of a default sink to the fields that change, and `custom_sinks`, an array of further
//! sinks. [`resolve`] merges and checks both as a whole; its sentence is what the operator reads.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;
use utoipa::ToSchema;

mod custom;

/// Identifier of the console, the one sink that is always there.
pub const CONSOLE: &str = "console";
/// Rotation size of the default files in bytes (10 MiB).
pub const DEFAULT_MAX_BYTES: u64 = 10 * 1024 * 1024;
/// Rotated files kept next to each default file.
pub const DEFAULT_BACKUP_COUNT: u32 = 5;
/// Most custom sinks one installation may declare.
pub const MAX_CUSTOM_SINKS: usize = 16;

/// How much a log line matters, ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum LogLevel {
    /// For whoever is looking for a fault.
    Debug,
    /// What happened.
    Info,
    /// Something is off, the work goes on.
    Warning,
    /// Something failed.
    Error,
    /// The program itself is in danger.
    Critical,
}

impl LogLevel {
    /// The word on the wire and in every line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for LogLevel {
    type Err = String;

    /// Any letter case; `warn` is accepted for `WARNING`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().to_ascii_uppercase().as_str() {
            "DEBUG" => Ok(Self::Debug),
            "INFO" => Ok(Self::Info),
            "WARNING" | "WARN" => Ok(Self::Warning),
            "ERROR" => Ok(Self::Error),
            "CRITICAL" => Ok(Self::Critical),
            _ => {
                Err(format!("unknown log level {}: use DEBUG, INFO, WARNING, ERROR or CRITICAL", quote(text)))
            }
        }
    }
}

impl<'de> Deserialize<'de> for LogLevel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Where a sink's lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SinkType {
    /// Standard error.
    Console,
    /// A file in the log directory.
    File,
    /// A syslog daemon.
    Syslog,
    /// A collector that takes JSON arrays by POST.
    Http,
    /// An OpenTelemetry collector, logs as JSON over HTTP.
    Otlp,
}

/// Who starts a new file when one is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RotationStrategy {
    /// The program renames the file once it reaches `max_bytes`.
    Builtin,
    /// Another program moves the file; it is reopened when its inode changes.
    External,
}

/// How a file sink is kept from growing without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Rotation {
    /// Who rotates.
    pub strategy: RotationStrategy,
    /// Size in bytes that no file exceeds, unless a single line does; unused when rotation is external.
    pub max_bytes: u64,
    /// Rotated files kept; 0 empties the file instead. Unused when rotation is external.
    pub backup_count: u32,
    /// Whether rotated files are compressed with gzip.
    #[serde(skip)]
    pub compress_rotated: bool,
}

impl Default for Rotation {
    fn default() -> Self {
        Self {
            strategy: RotationStrategy::Builtin,
            max_bytes: DEFAULT_MAX_BYTES,
            backup_count: DEFAULT_BACKUP_COUNT,
            compress_rotated: false,
        }
    }
}

/// One sink, checked and complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SinkConfig {
    /// Unique name: `console`, the file's path inside the log directory, or `type:address`.
    pub identifier: String,
    /// Where the lines go.
    pub sink_type: SinkType,
    /// Lines below this level are left out.
    pub level: LogLevel,
    /// JSON lines; `false` means lines for people (the console uses them on a terminal only).
    pub json_format: bool,
    /// Rotation of a file; `null` for everything else.
    pub rotation: Option<Rotation>,
    /// Whether the sink ships with the program.
    pub is_default: bool,
    /// Whether the sink receives lines at all.
    pub enabled: bool,
    /// Lines whose event name or logger starts with one of these; empty takes every line.
    pub routing_prefixes: Vec<String>,
    /// The address, never shown: it may carry credentials.
    #[serde(skip)]
    pub destination: Destination,
}

impl SinkConfig {
    /// Whether a line with this event name and logger belongs here, its level aside.
    pub fn routes(&self, event: &str, logger: &str) -> bool {
        self.routing_prefixes.is_empty()
            || self
                .routing_prefixes
                .iter()
                .any(|prefix| event.starts_with(prefix.as_str()) || logger.starts_with(prefix.as_str()))
    }
}

/// Everything needed to reach a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard error.
    Console,
    /// Path relative to the log directory, free of `..`.
    File(String),
    /// RFC 5424 messages.
    Syslog(Syslog),
    /// Batched JSON arrays.
    Http(Collector),
    /// Batched OTLP/JSON log records.
    Otlp(Collector),
}

/// A syslog daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syslog {
    /// Name or address.
    pub host: String,
    /// Port, 514 unless said otherwise.
    pub port: u16,
    /// One datagram per line, or octet-counted frames on one connection.
    pub protocol: SyslogProtocol,
    /// RFC 5424 facility number, 0–23.
    pub facility: u8,
}

/// Transport of [`Syslog`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyslogProtocol {
    /// RFC 5426.
    Udp,
    /// RFC 6587, octet counting.
    Tcp,
}

/// An HTTP collector.
#[derive(Clone, PartialEq, Eq)]
pub struct Collector {
    /// `http` or `https` address without user information.
    pub url: String,
    /// Extra request headers; values may be credentials.
    pub headers: Vec<(String, String)>,
    /// Most lines in one request.
    pub batch_size: usize,
    /// Longest time a line waits for company, in milliseconds.
    pub flush_interval_ms: u64,
    /// Time one request may take, in milliseconds.
    pub timeout_ms: u64,
    /// Further attempts after a failure that may pass.
    pub max_retries: u32,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").field("batch_size", &self.batch_size).finish_non_exhaustive()
    }
}

/// The sinks a fresh installation has. Files are written only where a log directory is known.
pub fn default_sinks() -> Vec<SinkConfig> {
    use LogLevel::{Debug, Error, Info};
    let console = SinkConfig {
        identifier: CONSOLE.to_owned(),
        sink_type: SinkType::Console,
        level: Info,
        json_format: false,
        rotation: None,
        is_default: true,
        enabled: true,
        routing_prefixes: Vec::new(),
        destination: Destination::Console,
    };
    let file = |name: &str, level: LogLevel, prefixes: &[&str]| SinkConfig {
        identifier: name.to_owned(),
        sink_type: SinkType::File,
        level,
        json_format: true,
        rotation: Some(Rotation::default()),
        is_default: true,
        enabled: true,
        routing_prefixes: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(),
        destination: Destination::File(name.to_owned()),
    };
    // Who signed in, with what, and what they were refused belongs to the audit trail too.
    let audit = [
        "security.",
        "hr.",
        "observability.",
        "auth.",
        "session.",
        "csrf.",
        "guard.",
        "user.",
        "api_key.",
        "ws.ticket",
    ];
    vec![
        console,
        file("quarterdeck.log", Info, &[]),
        file("audit.log", Info, &audit),
        file("errors.log", Error, &[]),
        file("agent_activity.log", Debug, &["engine.", "core.", "communication.", "tools.", "memory."]),
        file("cost_usage.log", Info, &["budget.", "providers."]),
        file("debug.log", Debug, &[]),
        file("access.log", Info, &["api."]),
        file("persistence.log", Info, &["persistence.", "sqlx::", "sea_orm"]),
        file("configuration.log", Info, &["settings.", "config."]),
        file("backup.log", Info, &["backup."]),
    ]
}

/// The default sinks with the operator's changes, or the sentence that says what is wrong.
///
/// `root_level` is the level of custom sinks that name none.
pub fn resolve(root_level: &str, overrides_json: &str, custom_json: &str) -> Result<Vec<SinkConfig>, String> {
    resolve_with(default_sinks(), root_level, overrides_json, custom_json)
}

/// [`resolve`] over defaults a running program has adapted to its console level and log directory.
pub fn resolve_with(
    defaults: Vec<SinkConfig>,
    root_level: &str,
    overrides_json: &str,
    custom_json: &str,
) -> Result<Vec<SinkConfig>, String> {
    let root = root_level.parse().map_err(|why| format!("root_level: {why}"))?;
    let mut sinks = defaults;
    override_defaults(&mut sinks, overrides_json).map_err(|why| format!("sink_overrides: {why}"))?;
    custom::append(&mut sinks, root, custom_json).map_err(|why| format!("custom_sinks: {why}"))?;
    Ok(sinks)
}

/// Levels by logger (the module a line comes from), from an object of names to levels.
pub fn logger_levels(json: &str) -> Result<BTreeMap<String, LogLevel>, String> {
    let levels: BTreeMap<String, LogLevel> =
        serde_json::from_str(json).map_err(|why| format!("per_logger_levels: {why}"))?;
    let proper = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.' | '-');
    match levels.keys().find(|name| name.is_empty() || name.len() > 128 || !name.chars().all(proper)) {
        Some(name) => Err(format!("per_logger_levels: {} is not a logger name", quote(name))),
        None => Ok(levels),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Override {
    level: Option<LogLevel>,
    enabled: Option<bool>,
    json_format: Option<bool>,
    rotation: Option<RotationChange>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RotationChange {
    strategy: Option<RotationStrategy>,
    max_bytes: Option<u64>,
    backup_count: Option<u32>,
    compress_rotated: Option<bool>,
}

impl RotationChange {
    fn over(self, base: Rotation) -> Result<Rotation, String> {
        let rotation = Rotation {
            strategy: self.strategy.unwrap_or(base.strategy),
            max_bytes: self.max_bytes.unwrap_or(base.max_bytes),
            backup_count: self.backup_count.unwrap_or(base.backup_count),
            compress_rotated: self.compress_rotated.unwrap_or(base.compress_rotated),
        };
        within("rotation.max_bytes", rotation.max_bytes, 1024, 1 << 40)?;
        within("rotation.backup_count", u64::from(rotation.backup_count), 0, 100)?;
        if rotation.compress_rotated && rotation.strategy == RotationStrategy::External {
            return Err("compress_rotated cannot be used with the external strategy: \
                        the program that rotates the file compresses it"
                .to_owned());
        }
        if rotation.compress_rotated && rotation.backup_count == 0 {
            return Err("compress_rotated needs a backup_count of at least 1".to_owned());
        }
        Ok(rotation)
    }
}

fn override_defaults(sinks: &mut [SinkConfig], json: &str) -> Result<(), String> {
    let changes: serde_json::Map<String, Value> =
        serde_json::from_str(json).map_err(|why| format!("not a JSON object of sinks: {why}"))?;
    for (name, change) in changes {
        let Some(sink) = sinks.iter_mut().find(|sink| sink.identifier == name) else {
            let known: Vec<_> = sinks.iter().map(|sink| sink.identifier.as_str()).collect();
            return Err(format!(
                "no default sink is called {}; there are {}",
                quote(&name),
                known.join(", ")
            ));
        };
        Override::deserialize(change)
            .map_err(|why| why.to_string())
            .and_then(|change| apply(sink, change))
            .map_err(|why| format!("{name}: {why}"))?;
    }
    Ok(())
}

fn apply(sink: &mut SinkConfig, change: Override) -> Result<(), String> {
    if sink.sink_type == SinkType::Console && change.enabled == Some(false) {
        return Err("the console sink cannot be disabled".to_owned());
    }
    if let Some(rotation) = change.rotation {
        let Some(base) = sink.rotation else { return Err("only files are rotated".to_owned()) };
        sink.rotation = Some(rotation.over(base)?);
    }
    sink.level = change.level.unwrap_or(sink.level);
    sink.enabled = change.enabled.unwrap_or(sink.enabled);
    sink.json_format = change.json_format.unwrap_or(sink.json_format);
    Ok(())
}

fn within(what: &str, value: u64, min: u64, max: u64) -> Result<(), String> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(format!("{what} must be between {min} and {max}"))
}

/// Input as it may be repeated in a sentence: quoted, escaped and short.
fn quote(text: &str) -> String {
    let short: String = text.chars().take(64).collect();
    format!("{short:?}")
}

#[cfg(test)]
mod tests;
