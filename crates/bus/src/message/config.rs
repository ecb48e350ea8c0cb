//! What an operator may decide about messages between agents: the section `communication.message_bus`.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use quarterdeck_domain::config::{between, not_blank};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use url::Url;

use super::channel::check_open_name;

/// Longest prefix of the names of streams; a bound, since the server has one for the whole name.
const MAX_PREFIX: usize = 64;

/// What carries the messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The memory of this process; empty after a restart.
    #[default]
    Internal,
    /// A NATS server with JetStream, shared by several copies of the program.
    Nats,
}

/// The section `communication.message_bus`; does not change after the start.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MessageBusConfig {
    /// What carries the messages.
    pub backend: Backend,
    /// Topics that exist from the start.
    pub channels: Vec<String>,
    /// How much is kept.
    pub retention: RetentionConfig,
    /// Needed when `backend` is `nats`, ignored otherwise.
    pub nats: Option<NatsConfig>,
}

impl Default for MessageBusConfig {
    fn default() -> Self {
        let channels =
            ["all-hands", "engineering", "product", "design", "incidents", "code-review", "watercooler"];
        Self {
            backend: Backend::default(),
            channels: channels.map(|name| format!("#{name}")).into(),
            retention: RetentionConfig::default(),
            nats: None,
        }
    }
}

/// The section `communication.message_bus.retention`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// Messages a channel's history keeps; the oldest go first.
    pub max_messages_per_channel: u32,
    /// Messages that wait for one subscriber of a channel. In memory the newest is dropped when there is no
    /// room; NATS pauses and keeps them within the history.
    pub max_subscriber_queue_size: u32,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { max_messages_per_channel: 1000, max_subscriber_queue_size: 1024 }
    }
}

/// The section `communication.message_bus.nats`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NatsConfig {
    /// `nats://user:password@host:port`, or `nats://token@host:port`; `tls` or `nats+tls` for TLS. Masked
    /// where it is shown.
    #[serde(serialize_with = "without_credentials")]
    pub url: SecretString,
    /// File with the credentials of a NATS account (`.creds`).
    pub credentials_path: Option<PathBuf>,
    /// What the names of streams and buckets begin with, and in lower case those of subjects.
    pub stream_name_prefix: String,
    /// Longest wait for a connection.
    pub connect_timeout_seconds: f64,
    /// Wait between two attempts to connect again; the first comes at once.
    pub reconnect_time_wait_seconds: f64,
    /// Attempts to connect again before giving up; -1 = never give up.
    pub max_reconnect_attempts: i64,
    /// Longest wait for the server to say that it has a message.
    pub publish_ack_wait_seconds: f64,
    /// Time in which a healthy server answers.
    pub health_flush_timeout_seconds: f64,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            url: "nats://localhost:4222".into(),
            credentials_path: None,
            stream_name_prefix: "QUARTERDECK".to_owned(),
            connect_timeout_seconds: 5.0,
            reconnect_time_wait_seconds: 2.0,
            max_reconnect_attempts: -1,
            publish_ack_wait_seconds: 5.0,
            health_flush_timeout_seconds: 2.0,
        }
    }
}

impl MessageBusConfig {
    /// Adds the channels of the program that the operator did not name.
    pub fn with_channels<'a>(mut self, shared: impl IntoIterator<Item = &'a str>) -> Self {
        for name in shared {
            if !self.channels.iter().any(|channel| channel == name) {
                self.channels.push(name.to_owned());
            }
        }
        self
    }

    /// Checks every bound and rule.
    ///
    /// # Errors
    /// A sentence with the dotted field and the broken rule.
    pub fn validate(&self) -> Result<(), String> {
        let mut seen = HashSet::new();
        for name in &self.channels {
            check_open_name("communication.message_bus.channels: a name", name)
                .map_err(|rule| rule.to_string())?;
            if !seen.insert(name) {
                return Err("communication.message_bus.channels must not hold a name twice".to_owned());
            }
        }
        let RetentionConfig { max_messages_per_channel, max_subscriber_queue_size } = self.retention;
        let retention = |field: &str| format!("communication.message_bus.retention.{field}");
        between(&retention("max_messages_per_channel"), max_messages_per_channel, 1, u32::MAX)?;
        between(&retention("max_subscriber_queue_size"), max_subscriber_queue_size, 1, 65_535)?;
        match (self.backend, &self.nats) {
            (Backend::Internal, _) => Ok(()),
            (Backend::Nats, Some(nats)) => nats.validate(),
            (Backend::Nats, None) => {
                Err("communication.message_bus.nats is required when the backend is nats".to_owned())
            }
        }
    }
}

fn field(name: &str) -> String {
    format!("communication.message_bus.nats.{name}")
}

impl NatsConfig {
    /// Checks every bound and rule.
    ///
    /// # Errors
    /// A sentence with the dotted field and the broken rule.
    pub fn validate(&self) -> Result<(), String> {
        self.address()?;
        if let Some(path) = &self.credentials_path {
            not_blank(&field("credentials_path"), &path.to_string_lossy())?;
        }
        let prefix = &self.stream_name_prefix;
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if prefix.is_empty() || prefix.len() > MAX_PREFIX || !prefix.bytes().all(fits) {
            let field = field("stream_name_prefix");
            return Err(format!("{field} must have 1 to {MAX_PREFIX} letters, digits, _ and -"));
        }
        between(&field("connect_timeout_seconds"), self.connect_timeout_seconds, 0.1, 300.0)?;
        between(&field("reconnect_time_wait_seconds"), self.reconnect_time_wait_seconds, 0.01, 300.0)?;
        between(&field("publish_ack_wait_seconds"), self.publish_ack_wait_seconds, 0.1, 300.0)?;
        between(&field("health_flush_timeout_seconds"), self.health_flush_timeout_seconds, 0.1, 30.0)?;
        match self.max_reconnect_attempts {
            -1 | 1..=0xFFFF_FFFF => Ok(()),
            _ => Err(format!("{} must be -1 or between 1 and {}", field("max_reconnect_attempts"), u32::MAX)),
        }
    }

    /// The URL, taken apart.
    pub(super) fn address(&self) -> Result<Address, String> {
        Address::parse(self.url.expose_secret()).map_err(|rule| format!("{} {rule}", field("url")))
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.connect_timeout_seconds)
    }

    pub(super) fn reconnect_wait(&self) -> Duration {
        Duration::from_secs_f64(self.reconnect_time_wait_seconds)
    }

    pub(super) fn ack_wait(&self) -> Duration {
        Duration::from_secs_f64(self.publish_ack_wait_seconds)
    }

    /// How long an answer may take once it is due.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs_f64(self.health_flush_timeout_seconds)
    }
}

/// Where a NATS server is and who calls. Shown without the latter.
pub(super) struct Address {
    /// What the client takes, without credentials, so that it cannot log them.
    pub(super) server: String,
    pub(super) login: Option<Login>,
}

/// How a URL says who calls.
pub(super) enum Login {
    Token(SecretString),
    Password(String, SecretString),
}

impl Address {
    /// Takes a URL apart; the error is the broken rule, without any part of the URL.
    fn parse(text: &str) -> Result<Self, &'static str> {
        // The URL parser drops tabs and line breaks without a word.
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("must not hold white space or control characters");
        }
        let url =
            Url::parse(text).map_err(|_| "must read nats://host:port with a port between 1 and 65535")?;
        let scheme = match url.scheme() {
            "nats" => "nats",
            "tls" | "nats+tls" => "tls",
            _ => return Err("must begin with nats://, tls:// or nats+tls://"),
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err("must end after the port");
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or("must name a host")?;
        let port = url.port().unwrap_or(4222);
        if port == 0 {
            return Err("must have a port between 1 and 65535");
        }
        let part = |text: &str| {
            let decoded = percent_decode_str(text).decode_utf8();
            decoded.map(|text| text.into_owned()).map_err(|_| "must have user and password in UTF-8")
        };
        let login = match (url.username(), url.password()) {
            ("", None) => None,
            (token, None) => Some(Login::Token(part(token)?.into())),
            (user, Some(password)) => Some(Login::Password(part(user)?, part(password)?.into())),
        };
        Ok(Self { server: format!("{scheme}://{host}:{port}"), login })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.login, self.server.split_once("://")) {
            (Some(_), Some((scheme, place))) => write!(f, "{scheme}://********@{place}"),
            _ => f.write_str(&self.server),
        }
    }
}

fn without_credentials<S: Serializer>(url: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    match Address::parse(url.expose_secret()) {
        Ok(address) => serializer.collect_str(&address),
        Err(_) => serializer.serialize_str("********"),
    }
}

#[cfg(test)]
mod tests;
