//! Projects: what a team works towards, by when and for how much.

use std::collections::HashSet;

use chrono::{NaiveDate, NaiveTime};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{KnownFormat, RefOr};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use crate::amount::Amount;
use crate::role::wire_enum;
use crate::text::{Bounded, NotBlank};
use crate::{Error, Result};

/// Most characters of the id of a project, task or agent.
pub const MAX_ID: usize = 128;
/// Most characters of a name.
pub const MAX_NAME: usize = 256;
/// Most characters of a description.
pub const MAX_DESCRIPTION: usize = 4096;
/// Most agents in a team.
pub const MAX_TEAM: usize = 50;
/// Most tasks that are named with a project; all of them are found by asking for its tasks.
pub const MAX_TASK_IDS: usize = 200;
/// Most characters of a deadline.
const MAX_DEADLINE: usize = 64;

wire_enum! {
    /// Where a project stands. The last two are final.
    ProjectStatus {
        /// It is being thought about.
        Planning = "planning",
        /// It is being worked on.
        Active = "active",
        /// It waits.
        OnHold = "on_hold",
        /// It is done.
        Completed = "completed",
        /// It will not be done.
        Cancelled = "cancelled",
    }
}

impl ProjectStatus {
    /// Whether it stays as it is.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled)
    }
}

/// Ids of the agents that work on a project, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Team(Vec<NotBlank<MAX_ID>>);

impl Team {
    /// Checks number and uniqueness; the error is the broken rule.
    pub fn new(agents: Vec<NotBlank<MAX_ID>>) -> Result<Self, String> {
        if agents.len() > MAX_TEAM {
            return Err(format!("must have at most {MAX_TEAM} elements"));
        }
        let mut seen = HashSet::new();
        if !agents.iter().all(|agent| seen.insert(agent)) {
            return Err("must not name an agent twice".to_owned());
        }
        Ok(Self(agents))
    }

    /// Whether this agent may lead or work: in an empty team everybody may.
    pub fn admits(&self, agent: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|member| member.as_str() == agent)
    }
}

impl<'de> Deserialize<'de> for Team {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Vec::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl PartialSchema for Team {
    fn schema() -> RefOr<Schema> {
        let agent = ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(MAX_ID))
            .pattern(Some(r"\S"));
        let team = ArrayBuilder::new().items(agent).max_items(Some(MAX_TEAM)).unique_items(true);
        team.description(Some("Ids of agents, each once.")).into()
    }
}

impl ToSchema for Team {}

/// A day, or a moment, in the form of ISO 8601: `2026-05-01`, `2026-05-01T10:00:00Z`. Kept as it was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Deadline(String);

impl Deadline {
    /// Checks the form; the error is the broken rule.
    pub fn new(text: String) -> Result<Self, String> {
        let day = |text: &str| {
            text.len() == 10
                && text.starts_with(|first: char| first.is_ascii_digit())
                && NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok()
        };
        let time = |text: &str| {
            let forms = ["%H:%M:%S%.f%#z", "%H:%M:%S%.f", "%H:%M%#z", "%H:%M"];
            forms.iter().any(|form| NaiveTime::parse_from_str(text, form).is_ok())
        };
        let sound = text.len() <= MAX_DEADLINE
            && match text.split_once(['T', 't', ' ']) {
                Some((date, rest)) => day(date) && time(rest),
                None => day(&text),
            };
        if sound { Ok(Self(text)) } else { Err("must be a date or a date and time (ISO 8601)".to_owned()) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Deadline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl PartialSchema for Deadline {
    fn schema() -> RefOr<Schema> {
        let form = |format| {
            ObjectBuilder::new()
                .schema_type(Type::String)
                .format(Some(SchemaFormat::KnownFormat(format)))
                .max_length(Some(MAX_DEADLINE))
        };
        let either = AnyOfBuilder::new().item(form(KnownFormat::Date)).item(form(KnownFormat::DateTime));
        either.description(Some("A day, or a moment with or without offset (ISO 8601).")).into()
    }
}

impl ToSchema for Deadline {}

/// What a team works towards.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Project {
    /// `proj-` and 32 hexadecimal digits.
    pub id: String,
    /// Not unique.
    #[schema(value_type = String, min_length = 1, max_length = 256)]
    pub name: NotBlank<MAX_NAME>,
    /// More words.
    #[schema(value_type = String, max_length = 4096)]
    pub description: Bounded<MAX_DESCRIPTION>,
    /// Who works on it; empty = anybody.
    pub team: Team,
    /// Id of the agent that leads it.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128)]
    pub lead: Option<NotBlank<MAX_ID>>,
    /// Ids of its tasks, the oldest first; of more than 200 the first.
    pub task_ids: Vec<String>,
    /// When it should be done.
    pub deadline: Option<Deadline>,
    /// What it may cost, in the base currency; 0 = no bound.
    #[schema(value_type = f64, minimum = 0.0)]
    pub budget: Amount,
    /// Where it stands.
    pub status: ProjectStatus,
}

/// A new project.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = CreateProjectRequest)]
pub struct NewProject {
    /// Names need not be unique.
    #[schema(value_type = String, min_length = 1, max_length = 256, pattern = r"\S")]
    pub name: NotBlank<MAX_NAME>,
    /// More words.
    #[serde(default)]
    #[schema(value_type = String, max_length = 4096, default = "")]
    pub description: Bounded<MAX_DESCRIPTION>,
    /// Who works on it; empty = anybody.
    #[serde(default)]
    #[schema(required = false)]
    pub team: Team,
    /// Id of the agent that leads it; one of the team, if there is one.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128, pattern = r"\S")]
    pub lead: Option<NotBlank<MAX_ID>>,
    /// When it should be done.
    pub deadline: Option<Deadline>,
    /// What it may cost, in the base currency; 0 = no bound.
    #[serde(default)]
    #[schema(value_type = f64, minimum = 0.0, default = 0.0)]
    pub budget: Amount,
}

/// What changes about a project; what is not named stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = UpdateProjectRequest)]
pub struct ProjectChange {
    /// Another name.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 256, pattern = r"\S")]
    pub name: Option<NotBlank<MAX_NAME>>,
    /// Other words.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = String, required = false, max_length = 4096)]
    pub description: Option<Bounded<MAX_DESCRIPTION>>,
    /// Another team, as a whole.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Team, required = false)]
    pub team: Option<Team>,
    /// Another lead; `null` for none.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128, pattern = r"\S")]
    pub lead: Option<Option<NotBlank<MAX_ID>>>,
    /// Another deadline; `null` for none.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Deadline>)]
    pub deadline: Option<Option<Deadline>>,
    /// Another budget.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = f64, required = false, minimum = 0.0)]
    pub budget: Option<Amount>,
    /// Another status. What is completed or cancelled stays so.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = ProjectStatus, required = false)]
    pub status: Option<ProjectStatus>,
}

/// A member that is there, so that `null` is a value and not an absence.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl Project {
    /// A project in planning, with an id of its own.
    ///
    /// # Errors
    /// As [`Project::check`].
    pub fn new(new: NewProject) -> Result<Self> {
        let NewProject { name, description, team, lead, deadline, budget } = new;
        let project = Self {
            id: format!("proj-{}", Uuid::new_v4().simple()),
            name,
            description,
            team,
            lead,
            task_ids: Vec::new(),
            deadline,
            budget,
            status: ProjectStatus::Planning,
        };
        project.check().map(|()| project)
    }

    /// The project after a change.
    ///
    /// # Errors
    /// 422/2000 when it is completed or cancelled and would not stay so, or as [`Project::check`].
    pub fn changed(&self, change: ProjectChange) -> Result<Self> {
        let before = self.clone();
        let project = Self {
            name: change.name.unwrap_or(before.name),
            description: change.description.unwrap_or(before.description),
            team: change.team.unwrap_or(before.team),
            lead: change.lead.unwrap_or(before.lead),
            deadline: change.deadline.unwrap_or(before.deadline),
            budget: change.budget.unwrap_or(before.budget),
            status: change.status.unwrap_or(before.status),
            id: before.id,
            task_ids: before.task_ids,
        };
        if self.status.is_final() && project.status != self.status {
            return Err(Error::rule(format!("status must stay {}: it is final", self.status)));
        }
        project.check().map(|()| project)
    }

    /// Checks what types do not say.
    ///
    /// # Errors
    /// 422/2000 when the lead is not in the team.
    pub fn check(&self) -> Result<()> {
        match &self.lead {
            Some(lead) if !self.team.admits(lead) => Err(Error::rule("lead must be a member of the team")),
            _ => Ok(()),
        }
    }
}

/// 404/3000: no such project.
pub fn unknown(id: &str) -> Error {
    Error::missing("Project", id)
}

#[cfg(test)]
mod tests;
