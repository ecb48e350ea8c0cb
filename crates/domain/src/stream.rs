//! Session events: what an agent does while it works, as whoever watches its session is told.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::role::wire_enum;
use crate::setting::MASK;

/// Most characters of the id of a session.
const MAX_ID: usize = 128;

/// The id of a session of an agent: 1 to 128 letters, digits, `_` or `-`, all ASCII.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// What every id matches.
    pub const PATTERN: &str = "^[a-zA-Z0-9_-]{1,128}$";

    /// Checks the pattern; the error names the rule, not the text.
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self, String> {
        let text = text.into();
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if (1..=MAX_ID).contains(&text.len()) && text.bytes().all(fits) {
            Ok(Self(text))
        } else {
            Err(format!("must have 1 to {MAX_ID} letters, digits, '_' or '-'"))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for SessionId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

wire_enum! {
    /// What happened in a session.
    SessionEventType {
        /// A run began.
        RunStarted = "run_started",
        /// A run ended well.
        RunFinished = "run_finished",
        /// A run failed.
        RunError = "run_error",
        /// A step of a plan began.
        StepStarted = "step_started",
        /// A step of a plan ended well.
        StepFinished = "step_finished",
        /// A step of a plan failed.
        StepFailed = "step_failed",
        /// A model begins to speak.
        TextMessageStart = "text_message_start",
        /// A piece of what it says.
        TextMessageContent = "text_message_content",
        /// It has spoken.
        TextMessageEnd = "text_message_end",
        /// A tool is called.
        ToolCallStart = "tool_call_start",
        /// With these arguments.
        ToolCallArgs = "tool_call_args",
        /// It has returned.
        ToolCallEnd = "tool_call_end",
        /// A tool waits for approval.
        ApprovalInterrupt = "approval_interrupt",
        /// Somebody has decided.
        ApprovalResumed = "approval_resumed",
        /// An agent waits for information.
        InfoRequestInterrupt = "info_request_interrupt",
        /// Somebody has answered.
        InfoRequestResumed = "info_request_resumed",
        /// An agent disagrees; the name is older than this program.
        Dissent = "synthorg:dissent",
    }
}

impl SessionEventType {
    /// The type that an event inside the execution engine is shown as; `None` for those that are not
    /// shown.
    pub fn projected(internal: &str) -> Option<Self> {
        Some(match internal {
            "execution.engine.start" => Self::RunStarted,
            "execution.engine.complete" => Self::RunFinished,
            "execution.engine.error" => Self::RunError,
            "execution.plan.step_start" => Self::StepStarted,
            "execution.plan.step_complete" => Self::StepFinished,
            "execution.plan.step_failed" => Self::StepFailed,
            "execution.loop.turn_start" => Self::TextMessageStart,
            "execution.loop.turn_complete" => Self::TextMessageEnd,
            "execution.loop.tool_calls" => Self::ToolCallStart,
            "approval_gate.context.parked" => Self::ApprovalInterrupt,
            "approval_gate.context.resumed" => Self::ApprovalResumed,
            _ => return None,
        })
    }
}

/// Something that happened in a session. What it holds is for those who watch, not for a log.
#[derive(Clone, Serialize)]
pub struct SessionEvent {
    /// `evt-` and 32 hexadecimal digits; an event told twice keeps it.
    id: String,
    /// What happened.
    #[serde(rename = "type")]
    pub event_type: SessionEventType,
    /// When.
    #[serde(serialize_with = "rfc3339")]
    pub timestamp: DateTime<Utc>,
    /// Where.
    pub session_id: SessionId,
    /// What it belongs to.
    pub correlation_id: Option<String>,
    /// Who did it.
    pub agent_id: Option<String>,
    /// Details, by type.
    pub payload: Map<String, Value>,
}

fn rfc3339<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

impl SessionEvent {
    /// An event with an id of its own. A `payload` that is no object counts as an empty one.
    pub fn new(
        event_type: SessionEventType,
        session_id: SessionId,
        timestamp: DateTime<Utc>,
        payload: Value,
    ) -> Self {
        let payload = match payload {
            Value::Object(payload) => payload,
            _ => Map::new(),
        };
        let id = format!("evt-{}", Uuid::new_v4().simple());
        Self { id, event_type, timestamp, session_id, correlation_id: None, agent_id: None, payload }
    }

    /// Done by this agent.
    pub fn by(mut self, agent_id: impl Into<String>) -> Self {
        self.agent_id = Some(agent_id.into());
        self
    }

    /// Belongs to this.
    pub fn correlated(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The event as those may see it who cannot decide over tools, for arguments may hold secrets: every
    /// argument below a member `tool_args` is masked, and in `tool_call_args` every member but the names
    /// of tool and call. `None` when there is nothing to hide.
    pub fn masked(&self) -> Option<Self> {
        let mut masked = self.clone();
        let mut hides = hide_in(&mut masked.payload);
        if self.event_type == SessionEventType::ToolCallArgs {
            let known = ["tool_call_id", "tool_name", TOOL_ARGS];
            for (name, value) in &mut masked.payload {
                if !known.contains(&name.as_str()) {
                    hides |= hide(value);
                }
            }
        }
        hides.then_some(masked)
    }
}

/// The member that holds the arguments of a tool.
const TOOL_ARGS: &str = "tool_args";

/// Masks the values of an object, or the value itself; whether there was something.
pub fn hide(value: &mut Value) -> bool {
    match value {
        Value::Null => false,
        Value::Object(members) => {
            for value in members.values_mut() {
                *value = MASK.into();
            }
            !members.is_empty()
        }
        other => {
            *other = MASK.into();
            true
        }
    }
}

fn hide_in(members: &mut Map<String, Value>) -> bool {
    let mut hides = false;
    for (name, value) in members {
        hides |= if name == TOOL_ARGS { hide(value) } else { hide_below(value) };
    }
    hides
}

fn hide_below(value: &mut Value) -> bool {
    let mut hides = false;
    match value {
        Value::Object(members) => hides = hide_in(members),
        Value::Array(all) => all.iter_mut().for_each(|value| hides |= hide_below(value)),
        _ => {}
    }
    hides
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(event_type: SessionEventType, payload: Value) -> SessionEvent {
        let at = DateTime::from_timestamp_micros(1_800_000_000_120_000).unwrap();
        SessionEvent::new(event_type, SessionId::new("s-1").unwrap(), at, payload)
    }

    #[test]
    fn session_ids_are_plain_words() {
        for good in ["a", "A_b-9", &"x".repeat(128)] {
            assert!(SessionId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a/b", "a.b", "a b", "a\n", "\0", "ä", "%2e", &"x".repeat(129)] {
            assert!(SessionId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_event_is_the_one_of_the_wire() {
        let event = event(SessionEventType::Dissent, json!({"a": 1})).by("agent").correlated("c");
        let id = event.id();
        assert!(id.len() == 36 && id[4..].bytes().all(|b| b.is_ascii_hexdigit()) && id.starts_with("evt-"));
        assert_eq!(
            serde_json::to_value(&event).unwrap(),
            json!({
                "id": id, "type": "synthorg:dissent", "timestamp": "2027-01-15T08:00:00.120Z",
                "session_id": "s-1", "correlation_id": "c", "agent_id": "agent", "payload": {"a": 1},
            })
        );
    }

    #[test]
    fn eleven_internal_events_are_shown_and_others_are_not() {
        let shown = [
            "execution.engine.start",
            "execution.engine.complete",
            "execution.engine.error",
            "execution.plan.step_start",
            "execution.plan.step_complete",
            "execution.plan.step_failed",
            "execution.loop.turn_start",
            "execution.loop.turn_complete",
            "execution.loop.tool_calls",
            "approval_gate.context.parked",
            "approval_gate.context.resumed",
        ];
        let types: std::collections::HashSet<_> =
            shown.iter().map(|name| SessionEventType::projected(name).unwrap()).collect();
        assert_eq!(types.len(), shown.len());
        assert_eq!(SessionEventType::projected("execution.engine.started"), None);
        assert_eq!(SessionEventType::projected("run_started"), None);
    }

    #[test]
    fn arguments_of_tools_are_hidden_wherever_they_stand() {
        let hidden = |event_type, payload| event(event_type, payload).masked().map(|event| event.payload);
        let secret = json!({"tool_name": "t", "tool_args": {"key": "s", "deep": {"a": "s"}}});
        assert_eq!(
            json!(hidden(SessionEventType::ApprovalInterrupt, secret.clone())),
            json!({"tool_name": "t", "tool_args": {"key": MASK, "deep": MASK}})
        );
        assert_eq!(
            json!(hidden(SessionEventType::StepStarted, json!({"calls": [secret]}))),
            json!({"calls": [{"tool_name": "t", "tool_args": {"key": MASK, "deep": MASK}}]})
        );
        assert_eq!(
            json!(hidden(
                SessionEventType::ToolCallArgs,
                json!({"tool_call_id": "c", "delta": "{\"key\": \"s", "tool_args": "s"})
            )),
            json!({"tool_call_id": "c", "delta": MASK, "tool_args": MASK})
        );
        assert_eq!(hidden(SessionEventType::ApprovalInterrupt, json!({"tool_args": null, "a": 1})), None);
        assert_eq!(hidden(SessionEventType::RunStarted, json!({"a": "b"})), None);
    }
}
