//! The security policy as one document that can be carried to another installation.

use chrono::{DateTime, Utc};
use quarterdeck_domain::audit::Actor;
use quarterdeck_domain::error::FieldError;
use quarterdeck_domain::setting::{Entry, IfMatch, Namespace, SettingType, etag_of_all};
use quarterdeck_domain::{Error, ErrorCode, Result};
use serde_json::{Map, Value};

use super::write::{Plan, Step};
use super::{Settings, Snapshot};

/// The security policy at one moment.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Settings of namespace `security` by key, as JSON of their type; sensitive ones are left out.
    pub config: Map<String, Value>,
    /// Keys of the sensitive settings.
    pub left_out: Vec<&'static str>,
    /// When it was read.
    pub exported_at: DateTime<Utc>,
    /// Strong entity tag of the whole policy.
    pub etag: String,
}

impl Settings {
    /// The security policy in force.
    pub fn export_security(&self) -> Policy {
        self.policy(&self.current())
    }

    /// Stores a policy, all of it or nothing. Settings it does not name stay as they are, and those that
    /// have the value already are not touched.
    ///
    /// # Errors
    /// 422/2000 `Invalid security config` with the refused members; 409/4002 when `if_match` does not
    /// hold for the policy's tag.
    pub async fn import_security(
        &self,
        config: Map<String, Value>,
        if_match: IfMatch,
        actor: &Actor,
    ) -> Result<Policy> {
        let mut steps = Vec::with_capacity(config.len());
        let mut refused = Vec::new();
        for (key, value) in config {
            match self.step(&key, value) {
                Ok(step) => steps.push(step),
                Err(rule) => refused.push(FieldError {
                    pointer: format!("/config/{}", key.replace('~', "~0").replace('/', "~1")),
                    detail: rule,
                }),
            }
        }
        if !refused.is_empty() {
            tracing::info!(target: "settings", refused = refused.len(), "settings.validation.import_failed");
            return Err(invalid_config(refused));
        }
        let whole = Some((Namespace::Security, if_match));
        match self.commit(Plan { steps, whole, only_differences: true }, actor).await {
            Ok(after) => Ok(self.policy(&after)),
            Err(broken) if broken.code() == ErrorCode::ValidationError => {
                let rules = broken.field_errors().iter().map(|field| field.detail.clone());
                let pointer = "/config".to_owned();
                Err(invalid_config(
                    rules.map(|detail| FieldError { pointer: pointer.clone(), detail }).collect(),
                ))
            }
            Err(error) => Err(error),
        }
    }

    fn step(&self, key: &str, value: Value) -> Result<Step, String> {
        let position = self
            .writable(Namespace::Security.as_str(), key)
            .map_err(|_| "must be a security setting that can be changed".to_owned())?;
        if self.definitions()[position].sensitive {
            return Err("must be set on its own, for it is secret".to_owned());
        }
        let json = self.definitions()[position].kind == SettingType::Json;
        let text = match value {
            Value::String(text) if !json => text,
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ if json => value.to_string(),
            _ => return Err("must be a string, a number or a boolean".to_owned()),
        };
        self.0.ground.registry.check(position, &text)?;
        Ok(Step { position, text: Some(text), if_match: IfMatch::Unconditional })
    }

    fn policy(&self, snapshot: &Snapshot) -> Policy {
        let entries = snapshot.entries_of(Namespace::Security);
        let (secret, shown): (Vec<&Entry>, Vec<_>) =
            entries.iter().partition(|entry| entry.definition.sensitive);
        Policy {
            config: shown.iter().map(|entry| (entry.definition.key.to_owned(), typed(entry))).collect(),
            left_out: secret.iter().map(|entry| entry.definition.key).collect(),
            exported_at: self.0.clock.now(),
            etag: etag_of_all(&entries),
        }
    }
}

fn invalid_config(fields: Vec<FieldError>) -> Error {
    Error::rule("Invalid security config").fields(fields)
}

/// The value as JSON of its type, such that reading it back gives the same text.
fn typed(entry: &Entry) -> Value {
    let text = || Value::String(entry.value.clone());
    match entry.definition.kind {
        SettingType::Str | SettingType::Enum => text(),
        SettingType::Json => serde_json::from_str(&entry.value).unwrap_or(Value::Null),
        SettingType::Int | SettingType::Float | SettingType::Bool => {
            // What JSON would write otherwise, such as `+5` or `TRUE`, travels as text.
            let same = |value: &Value| serde_json::to_string(value).is_ok_and(|text| text == entry.value);
            serde_json::from_str(&entry.value).ok().filter(same).unwrap_or_else(text)
        }
    }
}
