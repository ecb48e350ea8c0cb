//! The section `notifications` of the configuration.

use std::collections::BTreeMap;
use std::fmt;

use quarterdeck_domain::notification::Severity;
use secrecy::{ExposeSecret, SecretString};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::target::Target;

/// What is shown in the place of a parameter that may be a secret.
const MASK: &str = "********";

/// Who is told what.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NotificationsConfig {
    /// The least severity that is told.
    #[serde(deserialize_with = "severity")]
    pub min_severity: Severity,
    /// Whether sinks may be at addresses of private networks.
    pub allow_private_addresses: bool,
    /// Where notifications go; the console when nobody is named.
    pub sinks: Vec<SinkConfig>,
}

impl Default for NotificationsConfig {
    fn default() -> Self {
        Self { min_severity: Severity::Info, allow_private_addresses: false, sinks: Vec::new() }
    }
}

/// One of the places notifications go to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkConfig {
    /// What it is.
    #[serde(rename = "type", deserialize_with = "kind")]
    pub kind: SinkKind,
    /// Whether it is used.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// What it needs, by name.
    #[serde(default)]
    pub params: Params,
}

/// The kinds of sinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkKind {
    /// The log.
    Console,
    /// A signed POST.
    Webhook,
    /// A topic of ntfy.
    Ntfy,
    /// An incoming webhook of Slack, or of what understands its messages.
    Slack,
    /// Mail.
    Email,
}

/// Names a kind of sink knows, the required ones first.
pub(super) struct Names {
    pub(super) required: &'static [&'static str],
    pub(super) optional: &'static [&'static str],
}

impl SinkKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Console, Self::Webhook, Self::Ntfy, Self::Slack, Self::Email];

    /// Name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::Webhook => "webhook",
            Self::Ntfy => "ntfy",
            Self::Slack => "slack",
            Self::Email => "email",
        }
    }

    const fn names(self) -> Names {
        let (required, optional): (&[_], &[_]) = match self {
            Self::Console => (&[], &[]),
            Self::Webhook => (&["url", "secret"], &[]),
            Self::Ntfy => (&["topic"], &["server_url", "token"]),
            Self::Slack => (&["url"], &[]),
            Self::Email => {
                (&["host", "to_addrs"], &["port", "username", "password", "from_addr", "use_tls", "ca_file"])
            }
        };
        Names { required, optional }
    }
}

/// Parameters of a sink as text. Any of them may hold `${VARIABLE}`, and most may be secret.
#[derive(Clone, Default)]
pub struct Params(BTreeMap<String, SecretString>);

/// Parameters that are no secrets.
const OPEN: [&str; 7] = ["host", "port", "username", "from_addr", "to_addrs", "use_tls", "ca_file"];

impl Params {
    fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| {
            let open = OPEN.contains(&name.as_str()) || is_placeholder(value.expose_secret());
            (name.as_str(), if open { value.expose_secret() } else { MASK })
        })
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The parameters with their placeholders filled in.
    ///
    /// # Errors
    /// The rule, with the name of the variable that is not set.
    pub(super) fn resolve(&self, variable: Variables<'_>) -> Result<Given, String> {
        let filled = self.0.iter().map(|(name, text)| {
            let text = fill(text.expose_secret(), variable).map_err(|why| format!("params.{name} {why}"))?;
            Ok((name.clone(), SecretString::from(text)))
        });
        filled.collect::<Result<_, String>>().map(Given)
    }
}

/// Reads a variable of the environment.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Parameters as a sink takes them.
pub(super) struct Given(BTreeMap<String, SecretString>);

impl Given {
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(ExposeSecret::expose_secret).filter(|text| !text.trim().is_empty())
    }

    pub(super) fn secret(&self, name: &str) -> Option<SecretString> {
        self.text(name).map(SecretString::from)
    }

    pub(super) fn required(&self, name: &str) -> Result<&str, String> {
        self.text(name).ok_or_else(|| format!("params.{name} must not be blank"))
    }
}

fn is_placeholder(text: &str) -> bool {
    text.strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'))
        .is_some_and(|name| !name.contains(['$', '{', '}']))
}

/// Puts the values of variables where `${NAME}` stands.
fn fill(text: &str, variable: Variables<'_>) -> Result<String, String> {
    let mut parts = text.split("${");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}').ok_or("has a ${ without its }")?;
        let value = variable(name).ok_or_else(|| format!("names the variable {name}, which is not set"))?;
        filled.push_str(value.trim());
        filled.push_str(rest);
    }
    Ok(filled)
}

impl NotificationsConfig {
    /// Checks what can be checked before the start.
    ///
    /// # Errors
    /// The dotted name and the broken rule, never a value.
    pub fn validate(&self) -> Result<(), String> {
        for (number, sink) in self.sinks.iter().enumerate() {
            sink.validate(self.allow_private_addresses)
                .map_err(|why| format!("notifications.sinks[{number}] {why}"))?;
        }
        Ok(())
    }

    /// Whether a secret stands here itself, not the name of a variable that holds it.
    pub fn holds_secrets(&self) -> bool {
        self.sinks.iter().any(SinkConfig::holds_secrets)
    }
}

impl SinkConfig {
    /// Whoever has one of these can speak for this program. The rest is masked as well when it is shown,
    /// for an address or a topic may be as good as a secret.
    fn holds_secrets(&self) -> bool {
        let is_secret = |name: &str| match self.kind {
            SinkKind::Slack => name == "url",
            _ => ["password", "secret", "token"].contains(&name),
        };
        self.params.shown().any(|(name, text)| is_secret(name) && text == MASK)
    }

    fn validate(&self, allow_private: bool) -> Result<(), String> {
        let Names { required, optional } = self.kind.names();
        let kind = self.kind.as_str();
        if let Some(name) = required.iter().find(|name| !self.params.has(name)) {
            return Err(format!("needs params.{name}, for it is of type {kind}"));
        }
        let known = |name: &str| required.contains(&name) || optional.contains(&name);
        if self.params.0.keys().any(|name| !known(name)) {
            let names = [required, optional].concat().join(", ");
            let allowed = if names.is_empty() { "none".to_owned() } else { names };
            return Err(format!("has a parameter that type {kind} does not know; those are: {allowed}"));
        }
        if self.params.has("username") != self.params.has("password") {
            return Err("must have params.username and params.password, or neither".to_owned());
        }
        if self.params.0.values().any(|text| text.expose_secret().contains("${")) {
            return Ok(());
        }
        Target::new(self.kind, &self.params.resolve(&|_| None)?, allow_private).map(drop)
    }
}

fn yes() -> bool {
    true
}

fn severity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Severity, D::Error> {
    Severity::parse(&String::deserialize(deserializer)?)
        .ok_or_else(|| D::Error::custom("must be info, warning, error or critical"))
}

fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SinkKind, D::Error> {
    let text = String::deserialize(deserializer)?;
    SinkKind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or_else(|| D::Error::custom("must be console, webhook, ntfy, slack or email"))
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.shown()).finish()
    }
}

impl Serialize for Params {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.shown())
    }
}

impl<'de> Deserialize<'de> for Params {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table;

        impl<'de> Visitor<'de> for Table {
            type Value = Params;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a section")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Params, A::Error> {
                let mut params = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    params.insert(name, SecretString::from(value.text()));
                }
                Ok(Params(params))
            }
        }

        deserializer.deserialize_map(Table)
    }
}

/// Numbers and switches may be written without quotes.
#[derive(Deserialize)]
#[serde(untagged, expecting = "must be text, a number, true or false")]
enum Value {
    Text(String),
    Number(i64),
    Switch(bool),
}

impl Value {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
            Self::Switch(switch) => switch.to_string(),
        }
    }
}
