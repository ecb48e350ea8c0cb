//! Conflicts: agents who hold different positions, and what people decide about them.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::role::wire_enum;
use crate::text::NotBlank;
use crate::{Error, Result};

/// Most characters of an id or a name.
pub const MAX_ID: usize = 128;
/// Most characters of a subject, a position or what speaks for it.
pub const MAX_TEXT: usize = 65_536;
/// Most characters of the reasoning of a decision.
pub const MAX_REASON: usize = 4096;
/// Most characters of a position that are told with [`Dissent`]; the row holds all.
const TOLD: usize = 4096;

wire_enum! {
    /// What a conflict is about.
    ConflictType {
        /// How things are built.
        Architecture = "architecture",
        /// How one thing is made.
        Implementation = "implementation",
        /// What comes first.
        Priority = "priority",
        /// Who gets what.
        Resource = "resource",
        /// How work is done.
        Process = "process",
        /// Anything else.
        Other = "other",
    }
}

wire_enum! {
    /// How senior an agent is, juniors first.
    SeniorityLevel {
        /// Beginner.
        Junior = "junior",
        /// Experienced.
        Mid = "mid",
        /// Very experienced.
        Senior = "senior",
        /// Leads a team.
        Lead = "lead",
        /// Leads a field.
        Principal = "principal",
        /// Leads a department.
        Director = "director",
        /// Leads departments.
        Vp = "vp",
        /// Leads the company.
        CSuite = "c_suite",
    }
}

wire_enum! {
    /// Which decisions people may take.
    #[derive(Default)]
    DecisionStrategy {
        /// One of the agents wins.
        #[default]
        Winner = "winner",
        /// One of them wins, or none.
        Hybrid = "hybrid",
    }
}

wire_enum! {
    /// What came out of a conflict.
    ConflictOutcome {
        /// A person chose a position.
        ResolvedByHuman = "resolved_by_human",
        /// A person refused all of them.
        RejectedByHuman = "rejected_by_human",
        /// It was put before people, and none has decided.
        EscalatedToHuman = "escalated_to_human",
    }
}

/// What one agent holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = ConflictPosition)]
pub struct Position {
    /// Who holds it.
    #[schema(value_type = String, min_length = 1, max_length = 128)]
    pub agent_id: NotBlank<MAX_ID>,
    /// Where the agent works.
    #[schema(value_type = String, min_length = 1, max_length = 128)]
    pub agent_department: NotBlank<MAX_ID>,
    /// How senior the agent is.
    pub agent_level: SeniorityLevel,
    /// What ought to be done.
    #[schema(value_type = String, min_length = 1, max_length = 65536)]
    pub position: NotBlank<MAX_TEXT>,
    /// Why.
    #[schema(value_type = String, min_length = 1, max_length = 65536)]
    pub reasoning: NotBlank<MAX_TEXT>,
    /// Since when.
    pub timestamp: DateTime<Utc>,
}

/// Agents who hold different positions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Conflict {
    /// Unique.
    #[schema(value_type = String, min_length = 1, max_length = 128)]
    pub id: NotBlank<MAX_ID>,
    /// What it is about.
    pub r#type: ConflictType,
    /// The task it came up in.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128)]
    pub task_id: Option<NotBlank<MAX_ID>>,
    /// In a few words.
    #[schema(value_type = String, min_length = 1, max_length = 65536)]
    pub subject: NotBlank<MAX_TEXT>,
    /// Two or more, each of another agent.
    #[schema(min_items = 2)]
    pub positions: Vec<Position>,
    /// When it was found.
    pub detected_at: DateTime<Utc>,
    /// Whether the agents are of different departments.
    pub is_cross_department: bool,
}

impl Conflict {
    /// A conflict with an id of its own.
    ///
    /// # Errors
    /// As [`Conflict::check`].
    pub fn new(
        r#type: ConflictType,
        task_id: Option<NotBlank<MAX_ID>>,
        subject: NotBlank<MAX_TEXT>,
        positions: Vec<Position>,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let id = unique("conflict")?;
        let is_cross_department = departments(&positions) > 1;
        let conflict =
            Self { id, r#type, task_id, subject, positions, detected_at: now, is_cross_department };
        conflict.check().map(|()| conflict)
    }

    /// Checks what types do not say.
    ///
    /// # Errors
    /// 422/2000 when there are fewer than two positions, two of one agent, a text holds the character NUL,
    /// which not every database can store, or `is_cross_department` is not what the positions say.
    pub fn check(&self) -> Result<()> {
        if self.positions.len() < 2 {
            return Err(Error::rule("positions must hold at least two positions"));
        }
        let mut agents = HashSet::new();
        if !self.positions.iter().all(|position| agents.insert(position.agent_id.as_str())) {
            return Err(Error::rule("positions must each be of another agent"));
        }
        let said = self.positions.iter().flat_map(|said| {
            [said.agent_id.as_str(), &said.agent_department, &said.position, &said.reasoning]
        });
        let mut texts = said.chain([self.id.as_str(), &self.subject]).chain(self.task_id.as_deref());
        if texts.any(|text| text.contains('\0')) {
            return Err(Error::rule("a conflict must not hold the character NUL"));
        }
        if self.is_cross_department != (departments(&self.positions) > 1) {
            return Err(Error::rule("is_cross_department must say what the positions say"));
        }
        Ok(())
    }

    /// The positions that lose by this decision: all but the winner's.
    pub fn losing(&self, decision: &Decision) -> impl Iterator<Item = &Position> {
        let winner = decision.winner().map(ToOwned::to_owned);
        self.positions.iter().filter(move |position| Some(position.agent_id.as_str()) != winner.as_deref())
    }
}

fn departments(positions: &[Position]) -> usize {
    positions.iter().map(|position| position.agent_department.as_str()).collect::<HashSet<_>>().len()
}

pub(crate) fn unique(what: &str) -> Result<NotBlank<MAX_ID>> {
    NotBlank::new(format!("{what}-{}", Uuid::now_v7().simple())).map_err(Error::internal)
}

/// What a person decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = EscalationDecision)]
pub enum Decision {
    /// One of the agents wins.
    Winner {
        /// Who; an agent with a position in the conflict.
        #[schema(value_type = String, min_length = 1, max_length = 128)]
        winning_agent_id: NotBlank<MAX_ID>,
        /// Why.
        #[schema(value_type = String, min_length = 1, max_length = 4096)]
        reasoning: NotBlank<MAX_REASON>,
    },
    /// None of them does; only where the strategy is `hybrid`.
    Reject {
        /// Why.
        #[schema(value_type = String, min_length = 1, max_length = 4096)]
        reasoning: NotBlank<MAX_REASON>,
    },
}

impl Decision {
    /// Who wins; nobody when all positions are refused.
    pub fn winner(&self) -> Option<&str> {
        match self {
            Self::Winner { winning_agent_id, .. } => Some(winning_agent_id),
            Self::Reject { .. } => None,
        }
    }

    /// Why.
    pub fn reasoning(&self) -> &str {
        match self {
            Self::Winner { reasoning, .. } | Self::Reject { reasoning } => reasoning,
        }
    }

    /// Whether people may decide so at all.
    ///
    /// # Errors
    /// 422/2000 for a refusal where one of the agents has to win.
    pub fn fits(&self, strategy: DecisionStrategy) -> Result<()> {
        match (self, strategy) {
            (Self::Reject { .. }, DecisionStrategy::Winner) => {
                Err(Error::rule("decision must be of type winner: the strategy accepts no other"))
            }
            _ => Ok(()),
        }
    }

    /// Whether it can decide this conflict.
    ///
    /// # Errors
    /// 422/2000 when the winner holds no position in it.
    pub fn settles(&self, conflict: &Conflict) -> Result<()> {
        match self.winner() {
            Some(winner) if !conflict.positions.iter().any(|position| &*position.agent_id == winner) => {
                Err(Error::rule("winning_agent_id must be an agent with a position in the conflict"))
            }
            _ => Ok(()),
        }
    }

    /// What has come out of the conflict.
    pub const fn outcome(&self) -> ConflictOutcome {
        match self {
            Self::Winner { .. } => ConflictOutcome::ResolvedByHuman,
            Self::Reject { .. } => ConflictOutcome::RejectedByHuman,
        }
    }
}

/// A position that lost, kept on record.
#[derive(Clone, Debug, PartialEq)]
pub struct Dissent {
    /// The escalation in which it lost.
    pub escalation_id: String,
    /// The conflict.
    pub conflict_id: String,
    /// The task of the conflict.
    pub task_id: Option<String>,
    /// Who dissents.
    pub agent_id: String,
    /// What the agent holds.
    pub position: String,
    /// Why.
    pub reasoning: String,
    /// What came out instead.
    pub outcome: ConflictOutcome,
    /// When it lost.
    pub recorded_at: DateTime<Utc>,
}

impl Dissent {
    /// What those who watch are told of it: as much as an event may hold.
    pub fn message(&self) -> String {
        self.position.chars().take(TOLD).collect()
    }
}

#[cfg(test)]
mod tests;
