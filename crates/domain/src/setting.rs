//! Run-time settings: what exists, which values are allowed, where a value came from.
//!
//! A setting is declared once, in [`api`], [`backup`], [`budget`], [`communication`], [`company`], [`engine`],
//! [`observability`] or [`security`]. The declaration is both its wire [`Definition`] and the typed handle that
//! code reads it with.

mod definitions;
mod registry;
mod shape;
mod tag;

use std::marker::PhantomData;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::role::wire_enum;

pub use definitions::{api, backup, budget, communication, company, engine, observability, security};
pub use registry::Registry;
pub use tag::{IfMatch, etag, etag_of_all};

/// What is shown instead of a sensitive value, whatever its length.
pub const MASK: &str = "********";
/// Most characters of a value.
pub const MAX_VALUE_CHARS: usize = 65_536;

wire_enum! {
    /// The subsystem a setting belongs to.
    #[schema(as = SettingNamespace)]
    Namespace {
        /// Agent-to-agent gateway.
        A2a = "a2a",
        /// The HTTP interface.
        Api = "api",
        /// Backups.
        Backup = "backup",
        /// Money.
        Budget = "budget",
        /// Connected client programs.
        Client = "client",
        /// Messages between agents.
        Communication = "communication",
        /// The organisation.
        Company = "company",
        /// Multi-agent coordination.
        Coordination = "coordination",
        /// How the dashboard shows things.
        Display = "display",
        /// The task engine.
        Engine = "engine",
        /// Agents' lives in the organisation.
        Hr = "hr",
        /// The world outside.
        Integrations = "integrations",
        /// Agent memory.
        Memory = "memory",
        /// Self-improvement.
        Meta = "meta",
        /// Notifications.
        Notifications = "notifications",
        /// Logs, metrics and traces.
        Observability = "observability",
        /// Model providers.
        Providers = "providers",
        /// Sign-in and sessions.
        Security = "security",
        /// The settings system itself.
        Settings = "settings",
        /// Simulations.
        Simulations = "simulations",
        /// Opt-in usage reports.
        Telemetry = "telemetry",
        /// Tools of agents.
        Tools = "tools",
        /// Distributed workers.
        Workers = "workers",
    }
}

impl Namespace {
    /// Whether a change here belongs in the security audit trail.
    pub fn audited(self) -> bool {
        ["auth", "security", "autonomy", "encryption", "rbac"].contains(&self.as_str())
    }
}

wire_enum! {
    /// How the text of a value is read.
    SettingType {
        /// Text.
        Str = "str",
        /// 64-bit whole number.
        Int = "int",
        /// Finite number.
        Float = "float",
        /// `true`, `false`, `1` or `0`, in any case.
        Bool = "bool",
        /// One of a fixed set of words.
        Enum = "enum",
        /// A JSON document.
        Json = "json",
    }
}

wire_enum! {
    /// Who is expected to touch a setting.
    SettingLevel {
        /// Everybody.
        Basic = "basic",
        /// Those who know why.
        Advanced = "advanced",
    }
}

wire_enum! {
    /// Where the value in force came from, strongest first.
    SettingSource {
        /// Stored through the API.
        Db = "db",
        /// Environment variable.
        Env = "env",
        /// Configuration file or command line.
        Yaml = "yaml",
        /// The definition.
        Default = "default",
    }
}

/// A further rule for the text or the document of a setting; the error names the rule, never the value.
pub type Shape = fn(&serde_json::Value) -> Result<(), String>;

/// One registered setting, as clients see it.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = SettingDefinition)]
pub struct Definition {
    /// Subsystem.
    pub namespace: Namespace,
    /// Name inside the namespace.
    pub key: &'static str,
    /// How values are read.
    #[serde(rename = "type")]
    pub kind: SettingType,
    /// Value when nothing else is set; `null` reads as empty.
    pub default: Option<&'static str>,
    /// What it does, and the unit of the value.
    pub description: &'static str,
    /// Heading it is shown under.
    pub group: &'static str,
    /// Who is expected to touch it.
    pub level: SettingLevel,
    /// Whether the value is encrypted at rest and never shown.
    pub sensitive: bool,
    /// Whether a change waits for the next start.
    pub restart_required: bool,
    /// Whether it can be set by environment or configuration file only.
    pub read_only_post_init: bool,
    /// Allowed words of an `enum`.
    pub enum_values: &'static [&'static str],
    /// Regular expression the whole value has to match.
    pub validator_pattern: Option<&'static str>,
    /// Smallest number allowed.
    pub min_value: Option<f64>,
    /// Largest number allowed.
    pub max_value: Option<f64>,
    /// Where the configuration file holds it.
    pub yaml_path: Option<&'static str>,
    /// Further rule for a `json` document.
    #[serde(skip)]
    pub shape: Option<Shape>,
}

impl Definition {
    /// The environment variable that sets it: `QUARTERDECK_<NAMESPACE>_<KEY>`.
    pub fn env_name(&self) -> String {
        format!("QUARTERDECK_{}_{}", self.namespace, self.key).to_uppercase()
    }

    /// `namespace/key`: its name in errors and the associated data of its encrypted value.
    pub fn id(&self) -> String {
        format!("{}/{}", self.namespace, self.key)
    }
}

/// A setting with the value in force.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = SettingEntry)]
pub struct Entry {
    /// What it is.
    pub definition: Definition,
    /// The value as text, or [`MASK`].
    pub value: String,
    /// Where the value came from.
    pub source: SettingSource,
    /// When it was stored; `null` unless the source is `db`.
    pub updated_at: Option<DateTime<Utc>>,
}

impl Entry {
    /// The strong entity tag of what is shown.
    pub fn etag(&self) -> String {
        etag(&self.value, self.updated_at)
    }
}

/// A declared setting whose values read as `T`; made with [`Setting::int`] and its sisters.
#[derive(Clone, Copy, Debug)]
pub struct Setting<T> {
    definition: Definition,
    value: PhantomData<fn() -> T>,
}

/// Marks a sensitive setting: it has no reader but the one that opens the sealed value.
#[derive(Clone, Copy, Debug)]
pub struct Sensitive;

/// A type the text of a setting can be read as.
pub trait SettingValue: Default {
    /// The value, `None` when the text is of another type.
    fn read(text: &str) -> Option<Self>;
}

impl SettingValue for String {
    fn read(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl SettingValue for i64 {
    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl SettingValue for f64 {
    fn read(text: &str) -> Option<Self> {
        text.parse().ok().filter(|number: &f64| number.is_finite())
    }
}

impl SettingValue for bool {
    fn read(text: &str) -> Option<Self> {
        let is = |word: &str| text.eq_ignore_ascii_case(word);
        if is("true") || is("1") { Some(true) } else { (is("false") || is("0")).then_some(false) }
    }
}

impl SettingValue for serde_json::Value {
    fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

impl<T> Setting<T> {
    const fn declare(
        namespace: Namespace,
        key: &'static str,
        kind: SettingType,
        default: Option<&'static str>,
    ) -> Self {
        let definition = Definition {
            namespace,
            key,
            kind,
            default,
            description: "",
            group: "general",
            level: SettingLevel::Basic,
            sensitive: false,
            restart_required: false,
            read_only_post_init: false,
            enum_values: &[],
            validator_pattern: None,
            min_value: None,
            max_value: None,
            yaml_path: None,
            shape: None,
        };
        Self { definition, value: PhantomData }
    }

    /// What clients see.
    pub const fn definition(&self) -> &Definition {
        &self.definition
    }

    /// Says what the setting does.
    pub const fn described(mut self, description: &'static str) -> Self {
        self.definition.description = description;
        self
    }

    /// Puts it under a heading.
    pub const fn group(mut self, group: &'static str) -> Self {
        self.definition.group = group;
        self
    }

    /// For those who know why.
    pub const fn advanced(mut self) -> Self {
        self.definition.level = SettingLevel::Advanced;
        self
    }

    /// A change waits for the next start.
    pub const fn restart(mut self) -> Self {
        self.definition.restart_required = true;
        self
    }

    /// Set by environment or configuration file only.
    pub const fn read_only(mut self) -> Self {
        self.definition.read_only_post_init = true;
        self.restart()
    }

    /// Where the configuration file holds it, levels separated by dots.
    pub const fn file(mut self, path: &'static str) -> Self {
        self.definition.yaml_path = Some(path);
        self
    }

    /// Regular expression the whole value has to match.
    pub const fn pattern(mut self, pattern: &'static str) -> Self {
        self.definition.validator_pattern = Some(pattern);
        self
    }
}

impl Setting<String> {
    /// Text.
    pub const fn text(namespace: Namespace, key: &'static str, default: Option<&'static str>) -> Self {
        Self::declare(namespace, key, SettingType::Str, default)
    }

    /// One of `words`.
    pub const fn word(
        namespace: Namespace,
        key: &'static str,
        words: &'static [&'static str],
        default: &'static str,
    ) -> Self {
        let mut setting = Self::declare(namespace, key, SettingType::Enum, Some(default));
        setting.definition.enum_values = words;
        setting
    }

    /// Further rule for the text, which the rule sees as a JSON string.
    pub const fn shaped(mut self, shape: Shape) -> Self {
        self.definition.shape = Some(shape);
        self
    }
}

impl Setting<Sensitive> {
    /// Text that is encrypted at rest and shown as [`MASK`].
    pub const fn secret(namespace: Namespace, key: &'static str) -> Self {
        let mut setting = Self::declare(namespace, key, SettingType::Str, None);
        setting.definition.sensitive = true;
        setting
    }
}

impl Setting<i64> {
    /// Whole number.
    pub const fn int(namespace: Namespace, key: &'static str, default: &'static str) -> Self {
        Self::declare(namespace, key, SettingType::Int, Some(default))
    }

    /// Allowed numbers, both ends included.
    pub const fn within(mut self, min: i64, max: i64) -> Self {
        self.definition.min_value = Some(min as f64);
        self.definition.max_value = Some(max as f64);
        self
    }
}

impl Setting<f64> {
    /// Finite number.
    pub const fn float(namespace: Namespace, key: &'static str, default: &'static str) -> Self {
        Self::declare(namespace, key, SettingType::Float, Some(default))
    }

    /// Allowed numbers, both ends included.
    pub const fn within(mut self, min: f64, max: f64) -> Self {
        self.definition.min_value = Some(min);
        self.definition.max_value = Some(max);
        self
    }
}

impl Setting<bool> {
    /// Switch.
    pub const fn switch(namespace: Namespace, key: &'static str, default: &'static str) -> Self {
        Self::declare(namespace, key, SettingType::Bool, Some(default))
    }
}

impl Setting<serde_json::Value> {
    /// JSON document.
    pub const fn json(namespace: Namespace, key: &'static str, default: Option<&'static str>) -> Self {
        Self::declare(namespace, key, SettingType::Json, default)
    }

    /// Further rule for the document.
    pub const fn shaped(mut self, shape: Shape) -> Self {
        self.definition.shape = Some(shape);
        self
    }
}
