//! Events: what has happened, as everyone who may know is told.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::channel::{Channel, Shared};
use crate::{Error, Result};

/// Version of the envelope; raised for a breaking change only, and a new type is none.
const VERSION: u8 = 1;

/// Largest event that is delivered, in bytes.
pub const MAX_BYTES: usize = 32_768;

/// Where events of a type are told.
#[derive(Clone, Copy)]
enum Place {
    /// Always there.
    On(Shared),
    /// Wherever the publisher says.
    Anywhere,
    /// On the channel of the user it is about.
    Owner,
}

macro_rules! event_types {
    ($($variant:ident $text:literal $place:expr, $members:literal;)+) => {
        /// What happened. The declaration says where it is told and which members its payload has; those
        /// with a `?` may be missing.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum EventType {
            $(#[doc = concat!("`", $text, "`: ", $members)] $variant),+
        }

        impl EventType {
            /// Every type, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Wire form.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            const fn place(self) -> Place {
                match self { $(Self::$variant => $place),+ }
            }

            /// Names of the members of its payload, those that may be missing with a `?`.
            pub const fn members(self) -> &'static str {
                match self { $(Self::$variant => $members),+ }
            }
        }
    };
}

use Place::{Anywhere, On, Owner};
use Shared::{
    Agents, Approvals, Artifacts, Budget, Clients, Company, Departments, Dissent, Interrupts, Meetings,
    Projects, Requests, Reviews, Simulations, System, Tasks,
};

event_types! {
    TaskCreated "task.created" On(Tasks), "task_id title? status? assigned_agent_id? project_id? task? version? requested_by?";
    TaskUpdated "task.updated" On(Tasks), "task_id title? status? assigned_agent_id? task? version? requested_by?";
    TaskStatusChanged "task.status_changed" On(Tasks), "task_id from_status? to_status task? version? reason? requested_by?";
    TaskAssigned "task.assigned" On(Tasks), "task_id agent_id task? version? requested_by?";
    TaskDeleted "task.deleted" On(Tasks), "task_id version? requested_by?";
    AgentCreated "agent.created" On(Agents), "name role department";
    AgentUpdated "agent.updated" On(Agents), "name role department";
    AgentDeleted "agent.deleted" On(Agents), "name";
    AgentHired "agent.hired" On(Agents), "agent_id name role department";
    AgentFired "agent.fired" On(Agents), "agent_id name reason?";
    AgentStatusChanged "agent.status_changed" On(Agents), "agent_id from_status? to_status";
    AgentsReordered "agents.reordered" On(Departments), "department? agent_names";
    PersonalityTrimmed "personality.trimmed" On(Agents), "agent_id agent_name task_id trim_tier before_tokens after_tokens max_tokens budget_met";
    CompanyUpdated "company.updated" On(Company), "company_name? autonomy_level? budget_monthly? communication_pattern?";
    DepartmentCreated "department.created" On(Departments), "name description? budget_percent?";
    DepartmentUpdated "department.updated" On(Departments), "name description? budget_percent?";
    DepartmentDeleted "department.deleted" On(Departments), "name";
    DepartmentsReordered "departments.reordered" On(Departments), "department_names";
    BudgetRecordAdded "budget.record_added" On(Budget), "amount currency category? agent_id?";
    BudgetAlert "budget.alert" On(Budget), "severity message threshold? current? currency";
    MessageSent "message.sent" Anywhere, "message_id sender to content parts?";
    SystemError "system.error" On(System), "message code?";
    SystemStartup "system.startup" On(System), "message version?";
    SystemShutdown "system.shutdown" On(System), "message reason?";
    ApprovalSubmitted "approval.submitted" On(Approvals), "approval_id status action_type risk_level approval?";
    ApprovalApproved "approval.approved" On(Approvals), "approval_id status action_type risk_level approval?";
    ApprovalRejected "approval.rejected" On(Approvals), "approval_id status action_type risk_level approval?";
    ApprovalExpired "approval.expired" On(Approvals), "approval_id status action_type risk_level approval?";
    CoordinationStarted "coordination.started" On(Tasks), "task_id agent_count";
    CoordinationPhaseCompleted "coordination.phase_completed" On(Tasks), "task_id phase success duration_seconds?";
    CoordinationCompleted "coordination.completed" On(Tasks), "task_id topology is_success total_duration_seconds";
    CoordinationFailed "coordination.failed" On(Tasks), "task_id phase? topology? is_success? total_duration_seconds? error?";
    MeetingStarted "meeting.started" On(Meetings), "meeting_id? meeting_type status? project_id? department? participants?";
    MeetingCompleted "meeting.completed" On(Meetings), "meeting_id meeting_type status project_id? department? participants? duration_seconds? summary?";
    MeetingFailed "meeting.failed" On(Meetings), "meeting_id meeting_type status project_id? department? participants? error? reason?";
    ArtifactCreated "artifact.created" On(Artifacts), "artifact_id task_id created_by type";
    ArtifactDeleted "artifact.deleted" On(Artifacts), "artifact_id task_id";
    ArtifactContentUploaded "artifact.content_uploaded" On(Artifacts), "artifact_id size_bytes content_type";
    ProjectCreated "project.created" On(Projects), "project_id name status lead?";
    ProjectDeleted "project.deleted" On(Projects), "project_id name";
    ProjectStatusChanged "project.status_changed" On(Projects), "project_id status previous_status?";
    FineTuneProgress "memory.fine_tune.progress" On(System), "run_id stage progress?";
    FineTuneStageChanged "memory.fine_tune.stage_changed" On(System), "run_id stage progress? previous_stage?";
    FineTuneCompleted "memory.fine_tune.completed" On(System), "run_id stage progress?";
    FineTuneFailed "memory.fine_tune.failed" On(System), "run_id stage progress? error?";
    ClientCreated "client.created" On(Clients), "client_id name strictness_level";
    ClientUpdated "client.updated" On(Clients), "client_id name strictness_level";
    ClientDeactivated "client.deactivated" On(Clients), "client_id name strictness_level";
    ClientDeleted "client.deleted" On(Clients), "client_id name?";
    RequestSubmitted "request.submitted" On(Requests), "request_id client_id status";
    RequestScoped "request.scoped" On(Requests), "request_id client_id status";
    RequestApproved "request.approved" On(Requests), "request_id client_id status";
    RequestRejected "request.rejected" On(Requests), "request_id client_id status";
    RequestStatusChanged "request.status_changed" On(Requests), "request_id client_id status previous_status?";
    SimulationStarted "simulation.started" On(Simulations), "simulation_id status progress";
    SimulationRunning "simulation.running" On(Simulations), "simulation_id status progress";
    SimulationPaused "simulation.paused" On(Simulations), "simulation_id status progress";
    SimulationCancelled "simulation.cancelled" On(Simulations), "simulation_id status progress";
    SimulationCompleted "simulation.completed" On(Simulations), "simulation_id status progress";
    SimulationFailed "simulation.failed" On(Simulations), "simulation_id status progress error?";
    ReviewStageDecided "review.stage_decided" On(Reviews), "task_id stage_name verdict decided_by";
    ReviewStageCompleted "review.stage_completed" On(Reviews), "task_id stage_name";
    ReviewPipelineCompleted "review.pipeline_completed" On(Reviews), "task_id final_verdict?";
    InterruptCreated "interrupt.created" On(Interrupts), "interrupt_id task_id? reason?";
    InterruptResumed "interrupt.resumed" On(Interrupts), "interrupt_id task_id?";
    DissentPublished "dissent.published" On(Dissent), "task_id agent_id message";
    UserCreated "user.created" On(System), "user_id";
    UserUpdated "user.updated" On(System), "user_id";
    UserDeleted "user.deleted" On(System), "user_id";
    SessionStarted "session.started" Owner, "session_id";
    SessionEnded "session.ended" Owner, "session_id";
    SettingChanged "setting.changed" On(System), "namespace key";
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for EventType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Something that happened, ready to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Stays the same on every way to every client.
    pub id: Uuid,
    /// What happened.
    pub event_type: EventType,
    /// Where it is told.
    pub channel: Channel,
    /// When.
    pub timestamp: DateTime<Utc>,
    body: String,
}

impl Event {
    /// An event of a type that has a place of its own. `payload` is a JSON object.
    ///
    /// # Errors
    /// 500/8000, for the log, when the payload is not what the type declares: a member too many, or one
    /// missing, an `event_type` in it that is another, or more than
    /// [`MAX_BYTES`] in all.
    pub fn new(event_type: EventType, now: DateTime<Utc>, payload: Value) -> Result<Self> {
        match event_type.place() {
            On(shared) => Self::build(event_type, shared.into(), now, payload, Uuid::now_v7()),
            Anywhere | Owner => Err(refused(event_type, "needs a channel")),
        }
    }

    /// What an agent said, brought to people. It keeps the id of the message, by which copies of the
    /// program that all bring it are recognised.
    ///
    /// # Errors
    /// As [`Event::new`].
    pub fn of_message(id: Uuid, channel: Channel, now: DateTime<Utc>, payload: Value) -> Result<Self> {
        Self::build(EventType::MessageSent, channel, now, payload, id)
    }

    /// An event of a type that is told where the publisher says.
    ///
    /// # Errors
    /// As [`Event::new`], and when the type is never told on this channel.
    pub fn on(channel: Channel, event_type: EventType, now: DateTime<Utc>, payload: Value) -> Result<Self> {
        let fits = match (event_type.place(), &channel) {
            (On(place), Channel::Shared(shared)) => place == *shared,
            (Anywhere, _) | (Owner, Channel::User(_)) => true,
            _ => false,
        };
        if !fits {
            return Err(refused(event_type, "is never told on this channel"));
        }
        Self::build(event_type, channel, now, payload, Uuid::now_v7())
    }

    fn build(
        event_type: EventType,
        channel: Channel,
        timestamp: DateTime<Utc>,
        payload: Value,
        id: Uuid,
    ) -> Result<Self> {
        let Value::Object(payload) = payload else { return Err(refused(event_type, "payload is no object")) };
        let declared = || event_type.members().split(' ').map(|name| (name.trim_end_matches('?'), name));
        for (name, value) in &payload {
            if name == "event_type" {
                if value != event_type.as_str() {
                    return Err(refused(event_type, "payload names another event_type"));
                }
            } else if !declared().any(|(known, _)| known == name) {
                return Err(refused(event_type, format_args!("payload has an undeclared member '{name}'")));
            }
        }
        let missing = declared().find(|(name, raw)| !raw.ends_with('?') && !payload.contains_key(*name));
        if let Some((name, _)) = missing {
            return Err(refused(event_type, format_args!("payload lacks '{name}'")));
        }
        let body = encode(event_type, &channel, timestamp, &payload, id)?;
        Ok(Self { id, event_type, channel, timestamp, body })
    }

    /// The text every plain client receives: one JSON object, `event_id` its last member.
    pub fn body(&self) -> &str {
        &self.body
    }

    /// Gives the text away.
    pub fn into_body(self) -> String {
        self.body
    }
}

fn encode(
    event_type: EventType,
    channel: &Channel,
    timestamp: DateTime<Utc>,
    payload: &Map<String, Value>,
    event_id: Uuid,
) -> Result<String> {
    #[derive(Serialize)]
    struct Envelope<'a> {
        version: u8,
        event_type: EventType,
        channel: &'a Channel,
        timestamp: String,
        payload: &'a Map<String, Value>,
        event_id: Uuid,
    }
    let envelope = Envelope {
        version: VERSION,
        event_type,
        channel,
        timestamp: timestamp.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        payload,
        event_id,
    };
    let body = serde_json::to_string(&envelope).map_err(Error::internal)?;
    if body.len() > MAX_BYTES {
        return Err(refused(event_type, format_args!("more than {MAX_BYTES} bytes")));
    }
    Ok(body)
}

fn refused(event_type: EventType, why: impl fmt::Display) -> Error {
    Error::internal(format_args!("event {event_type} refused: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp_micros(1_800_000_000_120_000).unwrap()
    }

    #[test]
    fn the_envelope_is_the_one_of_the_wire() {
        let event =
            Event::new(EventType::SettingChanged, now(), json!({"namespace": "api", "key": "x"})).unwrap();
        let wire: Value = serde_json::from_str(event.body()).unwrap();
        assert_eq!(
            wire,
            json!({
                "version": 1, "event_type": "setting.changed", "channel": "system",
                "timestamp": "2027-01-15T08:00:00.120Z", "payload": {"namespace": "api", "key": "x"},
                "event_id": event.id.to_string(),
            })
        );
        assert!(event.body().ends_with(&format!(r#""event_id":"{}"}}"#, event.id)));
    }

    #[test]
    fn payloads_are_what_their_type_declares() {
        let with = |payload| Event::new(EventType::AgentFired, now(), payload);
        assert!(with(json!({"agent_id": "a", "name": "n"})).is_ok());
        assert!(
            with(json!({"agent_id": "a", "name": "n", "reason": "r", "event_type": "agent.fired"})).is_ok()
        );
        for (payload, why) in [
            (json!({"agent_id": "a", "name": "n", "salary": 1}), "undeclared member 'salary'"),
            (json!({"agent_id": "a"}), "lacks 'name'"),
            (json!({"agent_id": "a", "name": "n", "event_type": "agent.hired"}), "another event_type"),
            (json!([]), "no object"),
            (json!({"agent_id": "a".repeat(33_000), "name": "n"}), "32768 bytes"),
        ] {
            let error = with(payload).unwrap_err();
            assert_eq!(error.status(), 500);
            assert!(error.cause().unwrap_or_default().contains(why), "{:?}", error.cause());
        }
    }

    #[test]
    fn types_are_told_in_their_place_only() {
        let ended = |channel| Event::on(channel, EventType::SessionEnded, now(), json!({"session_id": "s"}));
        assert!(ended(Channel::User("u".into())).is_ok());
        assert!(ended(Shared::System.into()).is_err());
        let sent = json!({"message_id": "m", "sender": "s", "to": "t", "content": "c"});
        assert!(Event::on(Shared::Tasks.into(), EventType::MessageSent, now(), sent.clone()).is_ok());
        assert!(Event::new(EventType::MessageSent, now(), sent).is_err());
        let names: std::collections::HashSet<_> = EventType::ALL.iter().map(|t| t.as_str()).collect();
        assert_eq!(names.len(), EventType::ALL.len(), "every type has a name of its own");
    }
}
