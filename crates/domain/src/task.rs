//! Tasks: what is to be done, and the rules every change of one keeps.

mod status;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

pub use self::status::TaskStatus;
use crate::error::{Error, Result};
use crate::role::wire_enum;

/// Longest title over the API, in characters.
pub const MAX_TITLE: usize = 256;
/// Longest description and reason over the API, in characters.
pub const MAX_TEXT: usize = 4096;
/// Longest name of a person, agent or project over the API, in characters.
pub const MAX_NAME: usize = 256;

wire_enum! {
    /// Kind of work.
    TaskType {
        /// Building.
        Development = "development",
        /// Shaping.
        Design = "design",
        /// Finding out.
        Research = "research",
        /// Looking at the work of others.
        Review = "review",
        /// Talking.
        Meeting = "meeting",
        /// Everything else that keeps a company going.
        Admin = "admin",
    }
}

wire_enum! {
    /// What comes first.
    Priority {
        /// Before everything else.
        Critical = "critical",
        /// Soon.
        High = "high",
        /// In turn.
        Medium = "medium",
        /// When there is time.
        Low = "low",
    }
}

wire_enum! {
    /// How hard it is expected to be.
    Complexity {
        /// One step.
        Simple = "simple",
        /// A few steps.
        Medium = "medium",
        /// Many steps that depend on each other.
        Complex = "complex",
        /// Too much for one.
        Epic = "epic",
    }
}

wire_enum! {
    /// How its parts depend on each other.
    TaskStructure {
        /// One after the other.
        Sequential = "sequential",
        /// Side by side.
        Parallel = "parallel",
        /// Both.
        Mixed = "mixed",
    }
}

wire_enum! {
    /// Where it came from.
    TaskSource {
        /// The company itself.
        Internal = "internal",
        /// A client.
        Client = "client",
        /// A simulation.
        Simulation = "simulation",
    }
}

wire_enum! {
    /// How several agents share it.
    CoordinationTopology {
        /// One agent alone.
        Sas = "sas",
        /// One leads.
        Centralized = "centralized",
        /// Nobody leads.
        Decentralized = "decentralized",
        /// It depends on the part.
        ContextDependent = "context_dependent",
        /// To be chosen when it begins.
        Auto = "auto",
    }
}

wire_enum! {
    /// Kind of a result.
    ArtifactType {
        /// Sources.
        Code = "code",
        /// Tests.
        Tests = "tests",
        /// Words for people.
        Documentation = "documentation",
    }
}

/// A result the task is expected to have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExpectedArtifact {
    /// What it is.
    pub r#type: ArtifactType,
    /// Where it will be; not blank.
    pub path: String,
}

/// A condition for being done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AcceptanceCriterion {
    /// The condition; not blank.
    pub description: String,
    /// Whether it holds.
    #[serde(default)]
    pub met: bool,
}

/// A task, as it is kept and shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Task {
    /// `task-` and 32 hex digits.
    pub id: String,
    /// What it is, in a line.
    pub title: String,
    /// What it is, in full.
    pub description: String,
    /// Kind of work.
    pub r#type: TaskType,
    /// What comes first.
    pub priority: Priority,
    /// The project it belongs to.
    pub project: String,
    /// Who wants it done.
    pub created_by: String,
    /// Who does it.
    pub assigned_to: Option<String>,
    /// Who looks at the result.
    pub reviewers: Vec<String>,
    /// Tasks that come first.
    pub dependencies: Vec<String>,
    /// Results it is expected to have.
    pub artifacts_expected: Vec<ExpectedArtifact>,
    /// Conditions for being done.
    pub acceptance_criteria: Vec<AcceptanceCriterion>,
    /// How hard it is expected to be.
    pub estimated_complexity: Complexity,
    /// Most it may cost, in the currency of the budget; 0 for no bound.
    #[schema(minimum = 0)]
    pub budget_limit: f64,
    /// When it has to be done, ISO 8601.
    pub deadline: Option<String>,
    /// How often it may be tried again.
    pub max_retries: u32,
    /// Where it stands.
    pub status: TaskStatus,
    /// The task it is a part of.
    pub parent_task_id: Option<String>,
    /// Who handed it on, in order.
    pub delegation_chain: Vec<String>,
    /// How its parts depend on each other.
    pub task_structure: Option<TaskStructure>,
    /// How several agents share it.
    pub coordination_topology: CoordinationTopology,
    /// Where it came from.
    pub source: Option<TaskSource>,
    /// Steps of its run, where they differ from the usual ones.
    pub middleware_override: Option<Vec<String>>,
    /// Anything else.
    #[schema(value_type = std::collections::HashMap<String, Value>)]
    pub metadata: Map<String, Value>,
    /// Counts its changes, from 1.
    #[schema(minimum = 1)]
    pub version: i64,
    /// When it was made; RFC 3339 in UTC.
    #[serde(serialize_with = "write_time", deserialize_with = "read_time")]
    pub created_at: DateTime<Utc>,
    /// When it last changed; RFC 3339 in UTC.
    #[serde(serialize_with = "write_time", deserialize_with = "read_time")]
    pub updated_at: DateTime<Utc>,
}

fn write_time<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

fn read_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
    let text = String::deserialize(deserializer)?;
    DateTime::parse_from_rfc3339(&text).map(|time| time.to_utc()).map_err(serde::de::Error::custom)
}

/// What somebody wants done.
#[derive(Clone, Debug, Serialize)]
pub struct NewTask {
    /// What it is, in a line.
    pub title: String,
    /// What it is, in full.
    pub description: String,
    /// Kind of work.
    pub r#type: TaskType,
    /// What comes first.
    pub priority: Priority,
    /// The project it belongs to.
    pub project: String,
    /// Who wants it done.
    pub created_by: String,
    /// Who is to do it; refused, for a task begins unassigned.
    pub assigned_to: Option<String>,
    /// How hard it is expected to be.
    pub estimated_complexity: Complexity,
    /// Most it may cost.
    pub budget_limit: f64,
}

/// What is to be different; `None` leaves a member alone.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TaskPatch {
    /// What it is, in a line.
    pub title: Option<String>,
    /// What it is, in full.
    pub description: Option<String>,
    /// What comes first.
    pub priority: Option<Priority>,
    /// Who does it.
    pub assigned_to: Option<String>,
    /// Most it may cost.
    pub budget_limit: Option<f64>,
}

impl TaskPatch {
    /// Whether it leaves everything alone.
    pub fn is_empty(&self) -> bool {
        let Self { title, description, priority, assigned_to, budget_limit } = self;
        title.is_none()
            && description.is_none()
            && priority.is_none()
            && assigned_to.is_none()
            && budget_limit.is_none()
    }
}

impl Task {
    /// A new task; it belongs to nobody yet.
    ///
    /// # Errors
    /// 422/2000 as [`Task::check`].
    pub fn new(new: NewTask, now: DateTime<Utc>) -> Result<Self> {
        let task = Self {
            id: format!("task-{}", Uuid::new_v4().simple()),
            title: new.title,
            description: new.description,
            r#type: new.r#type,
            priority: new.priority,
            project: new.project,
            created_by: new.created_by,
            assigned_to: new.assigned_to,
            reviewers: Vec::new(),
            dependencies: Vec::new(),
            artifacts_expected: Vec::new(),
            acceptance_criteria: Vec::new(),
            estimated_complexity: new.estimated_complexity,
            budget_limit: new.budget_limit,
            deadline: None,
            max_retries: 1,
            status: TaskStatus::Created,
            parent_task_id: None,
            delegation_chain: Vec::new(),
            task_structure: None,
            coordination_topology: CoordinationTopology::Auto,
            source: None,
            middleware_override: None,
            metadata: Map::new(),
            version: 1,
            created_at: now,
            updated_at: now,
        };
        task.check()?;
        Ok(task)
    }

    /// The same task with a change of its members; its next version.
    ///
    /// # Errors
    /// 422/2000 as [`Task::check`].
    pub fn patched(&self, patch: TaskPatch, now: DateTime<Utc>) -> Result<Self> {
        let mut next = self.next(now);
        if let Some(title) = patch.title {
            next.title = title;
        }
        if let Some(description) = patch.description {
            next.description = description;
        }
        if let Some(priority) = patch.priority {
            next.priority = priority;
        }
        if let Some(assignee) = patch.assigned_to {
            next.assigned_to = Some(assignee);
        }
        if let Some(limit) = patch.budget_limit {
            next.budget_limit = limit;
        }
        next.check()?;
        Ok(next)
    }

    /// The same task in another status, and with another assignee if one is named; its next version.
    ///
    /// # Errors
    /// 422/2000 when the state machine does not allow it, or as [`Task::check`].
    pub fn moved(
        &self,
        target: TaskStatus,
        assignee: Option<String>,
        cancel_stuck: bool,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        self.status.check(target, cancel_stuck)?;
        let mut next = self.next(now);
        next.status = target;
        if assignee.is_some() {
            next.assigned_to = assignee;
        }
        next.check()?;
        Ok(next)
    }

    fn next(&self, now: DateTime<Utc>) -> Self {
        Self { version: self.version + 1, updated_at: now, ..self.clone() }
    }

    /// Checks every rule a task keeps.
    ///
    /// # Errors
    /// 422/2000 naming the member and the rule.
    pub fn check(&self) -> Result<()> {
        let blank = |text: &str| text.chars().all(char::is_whitespace);
        let texts = [
            ("title", Some(&self.title)),
            ("description", Some(&self.description)),
            ("project", Some(&self.project)),
            ("created_by", Some(&self.created_by)),
            ("assigned_to", self.assigned_to.as_ref()),
            ("deadline", self.deadline.as_ref()),
            ("parent_task_id", self.parent_task_id.as_ref()),
        ];
        for (name, text) in texts {
            if text.is_some_and(|text| blank(text)) {
                return Err(Error::rule(format!("{name} must not be blank")));
            }
        }
        for (name, list) in [
            ("reviewers", &self.reviewers),
            ("dependencies", &self.dependencies),
            ("delegation_chain", &self.delegation_chain),
        ] {
            if list.iter().any(|entry| blank(entry)) {
                return Err(Error::rule(format!("{name} must not hold a blank entry")));
            }
            if list.iter().collect::<HashSet<_>>().len() < list.len() {
                return Err(Error::rule(format!("{name} must not hold an entry twice")));
            }
        }
        if !(self.budget_limit.is_finite() && self.budget_limit >= 0.0) {
            return Err(Error::rule("budget_limit must not be negative"));
        }
        if self.artifacts_expected.iter().any(|artifact| blank(&artifact.path)) {
            return Err(Error::rule("artifacts_expected must not hold a blank path"));
        }
        if self.acceptance_criteria.iter().any(|criterion| blank(&criterion.description)) {
            return Err(Error::rule("acceptance_criteria must not hold a blank description"));
        }
        if self.dependencies.contains(&self.id) {
            return Err(Error::rule("dependencies must not name the task itself"));
        }
        if self.parent_task_id.as_ref() == Some(&self.id) {
            return Err(Error::rule("parent_task_id must not name the task itself"));
        }
        if self.assigned_to.as_ref().is_some_and(|assignee| self.delegation_chain.contains(assignee)) {
            return Err(Error::rule("assigned_to must not be in delegation_chain"));
        }
        if self.deadline.as_deref().is_some_and(|deadline| !is_iso_8601(deadline)) {
            return Err(Error::rule("deadline must be a date or a date and time (ISO 8601)"));
        }
        match (self.status.wants_assignee(), &self.assigned_to) {
            (Some(true), None) => {
                Err(Error::rule(format!("A task that is {} needs assigned_to", self.status)))
            }
            (Some(false), Some(_)) => Err(Error::rule(format!(
                "A task that is {} cannot have assigned_to; assign it with a transition",
                self.status
            ))),
            _ => Ok(()),
        }
    }

    /// Its entity tag (RFC 9110 section 8.8.3).
    pub fn etag(&self) -> String {
        format!("\"{}\"", self.version)
    }
}

/// Whether a text is a date, or a date and time with or without offset.
pub fn is_iso_8601(text: &str) -> bool {
    text.parse::<chrono::NaiveDate>().is_ok()
        || DateTime::parse_from_rfc3339(text).is_ok()
        || text.parse::<chrono::NaiveDateTime>().is_ok()
}
