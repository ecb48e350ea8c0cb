//! Meetings of agents, as they are kept on record.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::random_bytes;
use crate::role::wire_enum;
use crate::task::Priority;
use crate::{Error, Result};

wire_enum! {
    /// Where a meeting stands.
    MeetingStatus {
        /// It will be held.
        Scheduled = "scheduled",
        /// It is being held.
        InProgress = "in_progress",
        /// It ended with minutes.
        Completed = "completed",
        /// It ended without.
        Failed = "failed",
        /// It was called off.
        Cancelled = "cancelled",
        /// Its tokens were used up before it was summed up.
        BudgetExhausted = "budget_exhausted",
    }
}

wire_enum! {
    /// How a meeting is held.
    #[schema(as = MeetingProtocolType)]
    Protocol {
        /// One after the other.
        RoundRobin = "round_robin",
        /// Everybody writes, one sums up.
        PositionPapers = "position_papers",
        /// Input, discussion where there is conflict, and a summing up.
        StructuredPhases = "structured_phases",
    }
}

wire_enum! {
    /// Part of a meeting.
    #[schema(as = MeetingPhase)]
    Phase {
        /// The leader says what it is about.
        AgendaBroadcast = "agenda_broadcast",
        /// Somebody's turn.
        RoundRobinTurn = "round_robin_turn",
        /// Somebody's paper.
        PositionPaper = "position_paper",
        /// What everybody brings.
        InputGathering = "input_gathering",
        /// About what is in conflict.
        Discussion = "discussion",
        /// The papers become one.
        Synthesis = "synthesis",
        /// The leader sums up.
        Summary = "summary",
        /// How it could fail.
        Premortem = "premortem",
        /// What speaks against it.
        DevilAdvocate = "devil_advocate",
    }
}

/// What a meeting is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = MeetingAgenda)]
pub struct Agenda {
    /// In a few words.
    pub title: String,
    /// What one has to know.
    pub context: String,
    /// Point by point.
    pub items: Vec<AgendaItem>,
}

/// A point of an agenda.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = MeetingAgendaItem)]
pub struct AgendaItem {
    /// In a few words.
    pub title: String,
    /// In more.
    pub description: String,
    /// Who presents it.
    pub presenter_id: Option<String>,
}

/// What one agent said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = MeetingContribution)]
pub struct Contribution {
    /// Who.
    pub agent_id: String,
    /// What.
    pub content: String,
    /// In which part.
    pub phase: Phase,
    /// In which turn, from 0.
    pub turn_number: u32,
    /// Tokens read for it.
    pub input_tokens: u32,
    /// Tokens written.
    pub output_tokens: u32,
    /// When.
    pub timestamp: DateTime<Utc>,
}

/// What somebody has to do now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ActionItem {
    /// What.
    pub description: String,
    /// Who; `null` when nobody of the meeting.
    pub assignee_id: Option<String>,
    /// How urgent it is.
    pub priority: Priority,
}

/// What came out of a meeting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = MeetingMinutes)]
pub struct Minutes {
    /// The meeting.
    pub meeting_id: String,
    /// How it was held.
    pub protocol_type: Protocol,
    /// Who led it.
    pub leader_id: String,
    /// Who else took part, each once.
    pub participant_ids: Vec<String>,
    /// What it was about.
    pub agenda: Agenda,
    /// What was said, in order.
    pub contributions: Vec<Contribution>,
    /// The leader's summary.
    pub summary: String,
    /// What was decided.
    pub decisions: Vec<String>,
    /// What is to be done.
    pub action_items: Vec<ActionItem>,
    /// Whether the participants disagreed.
    pub conflicts_detected: bool,
    /// Sum over the contributions.
    pub total_input_tokens: u64,
    /// Sum over the contributions.
    pub total_output_tokens: u64,
    /// The beginning.
    pub started_at: DateTime<Utc>,
    /// The end.
    pub ended_at: DateTime<Utc>,
    /// Read and written.
    pub total_tokens: u64,
}

/// What whoever conducts a meeting brings home from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// What it was about.
    pub agenda: Agenda,
    /// What was said, in order.
    pub contributions: Vec<Contribution>,
    /// The leader's summary.
    pub summary: String,
    /// What was decided.
    pub decisions: Vec<String>,
    /// What is to be done.
    pub action_items: Vec<ActionItem>,
    /// Whether the participants disagreed.
    pub conflicts_detected: bool,
}

/// A meeting on record.
#[derive(Clone, Debug, PartialEq)]
pub struct Meeting {
    /// `mtg-` and 12 hexadecimal digits.
    pub id: String,
    /// Name of its type.
    pub type_name: String,
    /// How it is held.
    pub protocol: Protocol,
    /// Where it stands.
    pub status: MeetingStatus,
    /// Tokens it may use, above 0.
    pub token_budget: u32,
    /// Who takes part, the leader first.
    pub participants: Vec<String>,
    /// The beginning.
    pub started_at: DateTime<Utc>,
    /// What came out; exactly when it is completed.
    pub minutes: Option<Minutes>,
    /// Why nothing did; exactly when it has failed.
    pub error_message: Option<String>,
}

impl Meeting {
    /// One that begins.
    pub fn begin(
        type_name: String,
        protocol: Protocol,
        token_budget: u32,
        participants: Vec<String>,
        now: DateTime<Utc>,
    ) -> Self {
        let digits: String = random_bytes::<6>().iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            id: format!("mtg-{digits}"),
            type_name,
            protocol,
            status: MeetingStatus::InProgress,
            token_budget,
            participants,
            started_at: now,
            minutes: None,
            error_message: None,
        }
    }

    /// It ends with minutes. What is to be done by nobody of the meeting is for nobody; what is blank is
    /// left out.
    ///
    /// # Errors
    /// 422/2000 when somebody spoke who takes no part.
    pub fn complete(mut self, held: Held, now: DateTime<Utc>) -> Result<Self> {
        let is_here = |agent: &str| self.participants.iter().any(|participant| participant == agent);
        let mut action_items = held.action_items;
        action_items.retain(|item| !item.description.trim().is_empty());
        for item in &mut action_items {
            item.assignee_id = item.assignee_id.take().filter(|assignee| is_here(assignee));
        }
        let mut participant_ids = self.participants.clone();
        let leader_id = if participant_ids.is_empty() { String::new() } else { participant_ids.remove(0) };
        let (input, output) = totals(&held.contributions);
        let minutes = Minutes {
            meeting_id: self.id.clone(),
            protocol_type: self.protocol,
            leader_id,
            participant_ids,
            agenda: held.agenda,
            contributions: held.contributions,
            summary: held.summary,
            decisions: held.decisions.into_iter().filter(|text| !text.trim().is_empty()).collect(),
            action_items,
            conflicts_detected: held.conflicts_detected,
            total_input_tokens: input,
            total_output_tokens: output,
            started_at: self.started_at,
            ended_at: now.max(self.started_at),
            total_tokens: input + output,
        };
        (self.status, self.minutes) = (MeetingStatus::Completed, Some(minutes));
        self.check().map(|()| self)
    }

    /// It ends without, for this reason.
    pub fn fail(mut self, status: MeetingStatus, why: String) -> Self {
        (self.status, self.minutes, self.error_message) = (status, None, Some(why));
        self
    }

    /// Checks what has to be true of every record.
    ///
    /// # Errors
    /// 422/2000 with the broken rule.
    pub fn check(&self) -> Result<()> {
        use MeetingStatus::{BudgetExhausted, Completed, Failed};
        let rule = |holds: bool, text: &'static str| if holds { Ok(()) } else { Err(Error::rule(text)) };
        rule(self.token_budget > 0, "token_budget must be above 0")?;
        rule(
            (self.status == Completed) == self.minutes.is_some(),
            "a meeting has minutes when it is completed",
        )?;
        let is_lost = matches!(self.status, Failed | BudgetExhausted);
        rule(is_lost == self.error_message.is_some(), "a meeting has an error_message when it has failed")?;
        self.minutes.as_ref().map_or(Ok(()), Minutes::check)
    }

    /// The record as clients see it.
    pub fn shown(&self) -> MeetingResponse {
        let mut usage = BTreeMap::<String, u64>::new();
        for said in self.minutes.iter().flat_map(|minutes| &minutes.contributions) {
            *usage.entry(said.agent_id.clone()).or_default() +=
                u64::from(said.input_tokens) + u64::from(said.output_tokens);
        }
        let mut rank: Vec<_> =
            usage.iter().map(|(agent, tokens)| (Reverse(*tokens), agent.clone())).collect();
        rank.sort();
        let seconds = |minutes: &Minutes| (minutes.ended_at - minutes.started_at).as_seconds_f64();
        MeetingResponse {
            meeting_id: self.id.clone(),
            meeting_type_name: self.type_name.clone(),
            protocol_type: self.protocol,
            status: self.status,
            error_message: self.error_message.clone(),
            token_budget: self.token_budget,
            token_usage_by_participant: usage,
            contribution_rank: rank.into_iter().map(|(_, agent)| agent).collect(),
            meeting_duration_seconds: self.minutes.as_ref().map(seconds),
            minutes: self.minutes.clone(),
        }
    }
}

fn totals(contributions: &[Contribution]) -> (u64, u64) {
    let sum =
        |tokens: fn(&Contribution) -> u32| contributions.iter().map(|said| u64::from(tokens(said))).sum();
    (sum(|said| said.input_tokens), sum(|said| said.output_tokens))
}

impl Minutes {
    /// Checks what has to be true of all minutes.
    ///
    /// # Errors
    /// 422/2000 with the broken rule.
    pub fn check(&self) -> Result<()> {
        let rule = |holds: bool, text: &'static str| if holds { Ok(()) } else { Err(Error::rule(text)) };
        let mut here = HashSet::from([self.leader_id.as_str()]);
        let each_once = self.participant_ids.iter().all(|agent| here.insert(agent));
        rule(each_once, "participant_ids must name each agent once, and not the leader")?;
        let all_here = self.contributions.iter().all(|said| here.contains(said.agent_id.as_str()));
        rule(all_here, "contributions must be of agents who take part")?;
        let (input, output) = totals(&self.contributions);
        let sums = (self.total_input_tokens, self.total_output_tokens, self.total_tokens);
        rule(sums == (input, output, input + output), "token totals must be the sums of the contributions")?;
        rule(self.started_at <= self.ended_at, "started_at must not be after ended_at")
    }
}

/// A meeting.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct MeetingResponse {
    /// `mtg-` and 12 hexadecimal digits.
    pub meeting_id: String,
    /// Name of its type.
    pub meeting_type_name: String,
    /// How it is held.
    pub protocol_type: Protocol,
    /// Where it stands.
    pub status: MeetingStatus,
    /// What came out; exactly when it is completed.
    pub minutes: Option<Minutes>,
    /// Why nothing did; exactly when it has failed or its tokens were used up.
    pub error_message: Option<String>,
    /// Tokens it may use.
    #[schema(minimum = 1)]
    pub token_budget: u32,
    /// Tokens read and written, by agent.
    pub token_usage_by_participant: BTreeMap<String, u64>,
    /// Agents by tokens, the most first.
    pub contribution_rank: Vec<String>,
    /// From beginning to end; `null` without minutes.
    pub meeting_duration_seconds: Option<f64>,
}

#[cfg(test)]
mod tests;
