//! What becomes of approvals nobody decides, where the operator does not want to wait for ever.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;

use super::{Approval, Decision, RiskLevel};
use crate::role::wire_enum;

/// Longest wait a policy may name, in seconds: a year.
const MAX_WAIT: u32 = 31_536_000;
/// Most tiers.
const MAX_TIERS: usize = 50;

wire_enum! {
    /// What time decides.
    TimeoutOutcome {
        /// Yes; never for what is of high or critical risk.
        Approve = "approve",
        /// No.
        Deny = "deny",
    }
}

/// When time decides, and how.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum TimeoutPolicy {
    /// Never.
    #[default]
    Wait,
    /// Everything is refused after the same time.
    Deny {
        /// How long somebody may decide.
        after_seconds: u32,
    },
    /// The first tier that fits says; what fits none waits.
    Tiered {
        /// In order.
        tiers: Vec<Tier>,
    },
}

/// What time decides about some approvals.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// Fits this risk; `None` fits all.
    pub risk_level: Option<RiskLevel>,
    /// Fits these actions; `None` fits all.
    pub action_types: Option<Vec<String>>,
    /// How long somebody may decide.
    pub after_seconds: u32,
    /// What is decided then.
    pub outcome: TimeoutOutcome,
}

impl TimeoutPolicy {
    /// Checks the bounds; the error names the rule.
    pub fn check(&self) -> Result<(), String> {
        let tiers = match self {
            Self::Wait => return Ok(()),
            Self::Deny { after_seconds } => return check_wait(*after_seconds),
            Self::Tiered { tiers } => tiers,
        };
        if tiers.is_empty() || tiers.len() > MAX_TIERS {
            return Err(format!("must have 1 to {MAX_TIERS} tiers"));
        }
        tiers.iter().try_for_each(|tier| check_wait(tier.after_seconds))
    }

    /// The shortest wait it names; `None` when it never decides.
    pub fn shortest_wait(&self) -> Option<TimeDelta> {
        let seconds = match self {
            Self::Wait => None,
            Self::Deny { after_seconds } => Some(*after_seconds),
            Self::Tiered { tiers } => tiers.iter().map(|tier| tier.after_seconds).min(),
        };
        seconds.map(|seconds| TimeDelta::seconds(seconds.into()))
    }

    /// What time decides about an approval now.
    pub fn decide(&self, approval: &Approval, now: DateTime<Utc>) -> Option<Decision> {
        let (after, outcome) = match self {
            Self::Wait => return None,
            Self::Deny { after_seconds } => (*after_seconds, TimeoutOutcome::Deny),
            Self::Tiered { tiers } => {
                let tier = tiers.iter().find(|tier| tier.fits(approval))?;
                (tier.after_seconds, tier.outcome)
            }
        };
        if now < approval.created_at + TimeDelta::seconds(after.into()) {
            return None;
        }
        let is_grave = matches!(approval.risk_level, RiskLevel::High | RiskLevel::Critical);
        let words = format!("Nobody decided within {after} seconds");
        Some(match outcome {
            TimeoutOutcome::Approve if !is_grave => Decision::Approve { comment: Some(words) },
            _ => Decision::Reject { reason: words },
        })
    }
}

fn check_wait(seconds: u32) -> Result<(), String> {
    if (1..=MAX_WAIT).contains(&seconds) {
        Ok(())
    } else {
        Err(format!("after_seconds must be between 1 and {MAX_WAIT}"))
    }
}

impl Tier {
    fn fits(&self, approval: &Approval) -> bool {
        self.risk_level.is_none_or(|risk| risk == approval.risk_level)
            && self.action_types.as_ref().is_none_or(|actions| actions.contains(&approval.action_type))
    }
}
