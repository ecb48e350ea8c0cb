//! What an agent says: a message that is valid as soon as it exists.

use std::ops::Deref;

use chrono::{DateTime, Utc};
use quarterdeck_domain::text::NotBlank;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use super::channel::MAX_NAME;

/// Name of an agent, a channel, a task or a project.
pub type Name = NotBlank<MAX_NAME>;

/// A message between agents. On the wire it also shows `text`, its first text part; unknown members are
/// ignored when it is read, so that a newer copy of the program may say more.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Message {
    /// Stays with the message for ever.
    pub id: Uuid,
    /// When it was written; read with any zone, which has to be given.
    pub timestamp: DateTime<Utc>,
    /// Who says it.
    pub sender: Name,
    /// Whom it is for: an agent, or the channel's name.
    pub to: Name,
    /// What kind of message it is.
    pub r#type: MessageType,
    /// How urgent it is; the bus itself keeps to the order of publishing.
    #[serde(default)]
    pub priority: Priority,
    /// Where it is published.
    pub channel: Name,
    /// What it says.
    pub parts: Parts,
    /// What it is about.
    #[serde(default)]
    pub metadata: Metadata,
}

/// Kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the words are plain")]
pub enum MessageType {
    TaskUpdate,
    Question,
    Announcement,
    ReviewRequest,
    Approval,
    Delegation,
    StatusReport,
    Escalation,
    MeetingContribution,
    HrNotification,
    Dissent,
    ContextInjection,
}

/// How urgent a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = MessagePriority)]
#[allow(missing_docs, reason = "the words are plain")]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
    Urgent,
}

/// A piece of what a message says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[schema(as = MessagePart)]
pub enum Part {
    /// For readers.
    Text {
        /// The words.
        text: String,
    },
    /// For programs.
    Data {
        /// Named values.
        data: Map<String, Value>,
    },
    /// A file, kept elsewhere.
    File {
        /// Where it is.
        #[schema(value_type = String, min_length = 1, max_length = 2048)]
        uri: NotBlank<2048>,
        /// What it is, such as `image/png`.
        #[serde(default)]
        #[schema(value_type = Option<String>, min_length = 1, max_length = 255)]
        mime_type: Option<NotBlank<255>>,
    },
    /// A link.
    Uri {
        /// Where it leads.
        #[schema(value_type = String, min_length = 1, max_length = 2048)]
        uri: NotBlank<2048>,
    },
}

/// The pieces of a message, one or more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Part>")]
pub struct Parts(Vec<Part>);

impl Parts {
    /// One piece of text.
    pub fn text(text: impl Into<String>) -> Self {
        Self(vec![Part::Text { text: text.into() }])
    }
}

impl TryFrom<Vec<Part>> for Parts {
    type Error = &'static str;

    fn try_from(parts: Vec<Part>) -> Result<Self, Self::Error> {
        if parts.is_empty() { Err("a message must have at least one part") } else { Ok(Self(parts)) }
    }
}

impl Deref for Parts {
    type Target = [Part];

    fn deref(&self) -> &[Part] {
        &self.0
    }
}

/// What a message is about and what it cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = MessageMetadata)]
pub struct Metadata {
    /// The task it belongs to.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128)]
    pub task_id: Option<Name>,
    /// The project it belongs to.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128)]
    pub project_id: Option<Name>,
    /// Tokens a model used for it.
    pub tokens_used: Option<u64>,
    /// What a model charged for it.
    #[schema(value_type = Option<f64>, minimum = 0)]
    pub cost: Option<Cost>,
    /// Anything else.
    #[schema(value_type = Vec<Vec<String>>)]
    pub extra: Extra,
}

/// An amount of money: finite and not below zero.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64")]
pub struct Cost(f64);

impl Cost {
    /// The amount.
    pub const fn amount(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Cost {
    type Error = &'static str;

    fn try_from(amount: f64) -> Result<Self, Self::Error> {
        if amount.is_finite() && amount >= 0.0 {
            Ok(Self(amount))
        } else {
            Err("cost must be finite and not below 0")
        }
    }
}

/// Pairs of key and value; keys are not blank, and each stands once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(String, String)>")]
pub struct Extra(Vec<(String, String)>);

impl TryFrom<Vec<(String, String)>> for Extra {
    type Error = &'static str;

    fn try_from(pairs: Vec<(String, String)>) -> Result<Self, Self::Error> {
        let mut keys = std::collections::HashSet::with_capacity(pairs.len());
        for (key, _) in &pairs {
            if key.trim().is_empty() {
                return Err("a key of extra must not be blank");
            }
            if !keys.insert(key.as_str()) {
                return Err("a key of extra must not stand twice");
            }
        }
        Ok(Self(pairs))
    }
}

impl Deref for Extra {
    type Target = [(String, String)];

    fn deref(&self) -> &[(String, String)] {
        &self.0
    }
}

impl Message {
    /// The first text part, or nothing.
    pub fn text(&self) -> &str {
        let text = |part: &Part| matches!(part, Part::Text { .. });
        match self.parts.iter().find(|part| text(part)) {
            Some(Part::Text { text }) => text,
            _ => "",
        }
    }
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Message", 10)?;
        fields.serialize_field("id", &self.id)?;
        fields.serialize_field("timestamp", &self.timestamp)?;
        fields.serialize_field("sender", &self.sender)?;
        fields.serialize_field("to", &self.to)?;
        fields.serialize_field("type", &self.r#type)?;
        fields.serialize_field("priority", &self.priority)?;
        fields.serialize_field("channel", &self.channel)?;
        fields.serialize_field("parts", &self.parts)?;
        fields.serialize_field("metadata", &self.metadata)?;
        fields.serialize_field("text", self.text())?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn full() -> Value {
        json!({
            "id": "7f0c1f0e-3d3b-4d7e-9a39-5a1c8f6f0001", "timestamp": "2026-05-01T10:00:00.500Z",
            "sender": "ada", "to": "grace", "type": "review_request", "priority": "high",
            "channel": "#engineering",
            "parts": [
                {"type": "data", "data": {"lines": 3}}, {"type": "text", "text": "Please look."},
                {"type": "file", "uri": "artifact:1", "mime_type": null}, {"type": "uri", "uri": "https://x"},
            ],
            "metadata": {
                "task_id": "t", "project_id": null, "tokens_used": 5, "cost": 0.25, "extra": [["k", "v"]],
            },
            "text": "Please look.",
        })
    }

    fn read(value: Value) -> Result<Message, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    fn with(path: &str, value: Value) -> Result<Message, String> {
        let mut message = full();
        *message.pointer_mut(path).unwrap_or_else(|| panic!("{path} is there")) = value;
        read(message)
    }

    #[test]
    fn a_message_reads_back_as_it_was_written() {
        assert_eq!(serde_json::to_value(read(full()).unwrap()).unwrap(), full());
    }

    #[test]
    fn text_is_computed_and_what_a_sender_claims_does_not_matter() {
        assert_eq!(with("/text", json!("lies")).unwrap().text(), "Please look.");
        assert_eq!(with("/parts", json!([{"type": "data", "data": {}}])).unwrap().text(), "");
    }

    #[test]
    fn priority_and_metadata_may_be_left_out() {
        let mut message = full();
        let members = message.as_object_mut().unwrap();
        members.retain(|name, _| !["priority", "metadata", "text"].contains(&name.as_str()));
        let message = read(message).unwrap();
        assert_eq!((message.priority, message.metadata), (Priority::Normal, Metadata::default()));
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        for (path, value) in [
            ("/id", json!("no-uuid")),
            ("/timestamp", json!("2026-05-01T10:00:00")),
            ("/sender", json!(" ")),
            ("/to", json!("")),
            ("/type", json!("gossip")),
            ("/priority", json!("immediate")),
            ("/channel", json!("c".repeat(MAX_NAME + 1))),
            ("/parts", json!([])),
            ("/parts/0", json!({"type": "picture"})),
            ("/parts/0", json!({"type": "data", "data": [1]})),
            ("/parts/1", json!({"type": "text", "text": "a", "data": {}})),
            ("/parts/2", json!({"type": "file", "uri": ""})),
            ("/metadata/tokens_used", json!(-1)),
            ("/metadata/cost", json!(-0.1)),
            ("/metadata/extra", json!([["k", "1"], ["k", "2"]])),
            ("/metadata/extra", json!([[" ", "1"]])),
            ("/metadata/extra", json!([["k"]])),
        ] {
            assert!(with(path, value.clone()).is_err(), "{path}: {value}");
        }
        assert!(Cost::try_from(f64::NAN).is_err());
    }
}
