//! What has happened lately, told in sentences that show everybody only what they may know.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::money::{Currency, Money};
use crate::role::wire_enum;

/// Most characters of a sentence.
const MAX_DESCRIPTION: usize = 1024;

wire_enum! {
    /// What kind of thing has happened.
    ActivityEventType {
        /// An agent was hired.
        Hired = "hired",
        /// An agent is ready to work.
        Onboarded = "onboarded",
        /// An agent was fired.
        Fired = "fired",
        /// An agent has left.
        Offboarded = "offboarded",
        /// An agent's status has changed.
        StatusChanged = "status_changed",
        /// An agent has risen.
        Promoted = "promoted",
        /// An agent has fallen.
        Demoted = "demoted",
        /// Work on a task has begun.
        TaskStarted = "task_started",
        /// A task is done.
        TaskCompleted = "task_completed",
        /// A model was called.
        CostIncurred = "cost_incurred",
        /// A tool was used.
        ToolUsed = "tool_used",
        /// Work was handed on.
        DelegationSent = "delegation_sent",
        /// Work was taken over.
        DelegationReceived = "delegation_received",
    }
}

wire_enum! {
    /// How far to look back.
    ActivityWindow {
        /// A day.
        Day = "24",
        /// Two days.
        TwoDays = "48",
        /// A week.
        Week = "168",
    }
}

impl ActivityWindow {
    /// How long it is.
    pub const fn length(self) -> TimeDelta {
        match self {
            Self::Day => TimeDelta::hours(24),
            Self::TwoDays => TimeDelta::hours(48),
            Self::Week => TimeDelta::hours(168),
        }
    }
}

/// Something that has happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Happening {
    /// When.
    pub at: DateTime<Utc>,
    /// Who did it.
    pub agent_id: Option<String>,
    /// The task it was about.
    pub task_id: Option<String>,
    /// What.
    pub what: What,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Work on a task of this title has begun.
    TaskStarted(String),
    /// A task of this title is done.
    TaskCompleted(String),
    /// A model was called.
    CostIncurred {
        /// The model; not for everybody.
        model: String,
        /// The price; not for everybody.
        cost: Money,
        /// What the price is in.
        currency: Currency,
        /// Tokens sent.
        input_tokens: i64,
        /// Tokens received.
        output_tokens: i64,
    },
}

/// Something that has happened, as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ActivityEvent)]
pub struct Activity {
    /// What kind of thing.
    pub event_type: ActivityEventType,
    /// When.
    pub timestamp: DateTime<Utc>,
    /// A sentence.
    #[schema(max_length = 1024)]
    pub description: String,
    /// Ids by what they name: `agent_id`, `task_id`.
    pub related_ids: BTreeMap<String, String>,
}

impl What {
    const fn event_type(&self) -> ActivityEventType {
        match self {
            Self::TaskStarted(_) => ActivityEventType::TaskStarted,
            Self::TaskCompleted(_) => ActivityEventType::TaskCompleted,
            Self::CostIncurred { .. } => ActivityEventType::CostIncurred,
        }
    }

    /// A sentence. Models and prices are put into it only when `knows_prices`, so there is nothing to
    /// take out for others.
    fn sentence(&self, knows_prices: bool) -> String {
        match self {
            Self::TaskStarted(title) => format!("Task started: {title}"),
            Self::TaskCompleted(title) => format!("Task completed: {title}"),
            Self::CostIncurred { model, cost, currency, input_tokens, output_tokens } => {
                let tokens = format!("{input_tokens} tokens in, {output_tokens} out");
                if knows_prices {
                    format!("Call of {model}: {tokens}, {cost} {currency}")
                } else {
                    format!("Call of a model: {tokens}")
                }
            }
        }
    }
}

impl Happening {
    /// How it is shown to somebody who may know prices, or may not.
    pub fn shown(self, knows_prices: bool) -> Activity {
        let ids = [("agent_id", self.agent_id), ("task_id", self.task_id)];
        let related = ids.into_iter().filter_map(|(name, id)| Some((name.to_owned(), id?)));
        Activity {
            event_type: self.what.event_type(),
            timestamp: self.at,
            description: self.what.sentence(knows_prices).chars().take(MAX_DESCRIPTION).collect(),
            related_ids: related.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(what: What, knows_prices: bool) -> Activity {
        let (agent_id, task_id) = (Some("a-1".to_owned()), None);
        Happening { at: DateTime::UNIX_EPOCH, agent_id, task_id, what }.shown(knows_prices)
    }

    #[test]
    fn models_and_prices_are_told_only_to_those_who_may_know() {
        let call = What::CostIncurred {
            model: "gpt-123".to_owned(),
            cost: Money::from_f64(0.042).unwrap(),
            currency: Currency::Usd,
            input_tokens: 1200,
            output_tokens: 300,
        };
        let told = shown(call.clone(), true);
        assert_eq!(told.description, "Call of gpt-123: 1200 tokens in, 300 out, 0.042 USD");
        assert_eq!(told.related_ids, BTreeMap::from([("agent_id".to_owned(), "a-1".to_owned())]));
        assert_eq!(shown(call, false).description, "Call of a model: 1200 tokens in, 300 out");
    }

    #[test]
    fn a_sentence_is_bounded_in_characters() {
        let long = shown(What::TaskCompleted("ä".repeat(2000)), true);
        assert_eq!(long.description.chars().count(), 1024);
    }
}
