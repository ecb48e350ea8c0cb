//! Approvals: what people decide before something happens.

mod evidence;
mod shown;
mod timeout;

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

pub use self::evidence::{EvidencePackage, RecommendedAction, Signature, SignatureAlgorithm};
pub use self::shown::ApprovalResponse;
pub use self::timeout::{Tier, TimeoutOutcome, TimeoutPolicy};
use crate::error::{Error, Result};
use crate::role::wire_enum;
use crate::text::NotBlank;

/// Longest title, in characters.
pub const MAX_TITLE: usize = 256;
/// Longest description, comment and reason, in characters.
pub const MAX_TEXT: usize = 4096;
/// Longest action type, in characters.
pub const MAX_ACTION: usize = 128;
/// Most labels of an approval.
pub const MAX_LABELS: usize = 20;
/// Longest key and value of a label, in characters.
pub const MAX_LABEL: usize = 256;
/// Action type of the approval that ends the review of a task.
pub const TASK_COMPLETION: &str = "review:task_completion";

wire_enum! {
    /// What is at stake.
    #[schema(as = ApprovalRiskLevel)]
    RiskLevel {
        /// Everyday.
        Low = "low",
        /// Worth a look.
        Medium = "medium",
        /// Hard to undo.
        High = "high",
        /// Must not go wrong.
        Critical = "critical",
    }
}

wire_enum! {
    /// What has become of an approval.
    ApprovalStatus {
        /// It waits for a decision.
        Pending = "pending",
        /// Yes.
        Approved = "approved",
        /// No.
        Rejected = "rejected",
        /// Nobody has decided in time.
        Expired = "expired",
    }
}

wire_enum! {
    /// How soon somebody has to decide.
    UrgencyLevel {
        /// Within the hour.
        Critical = "critical",
        /// Within four hours.
        High = "high",
        /// Some time.
        Normal = "normal",
        /// Whenever.
        NoExpiry = "no_expiry",
    }
}

wire_enum! {
    /// How a review ended.
    DecisionOutcome {
        /// A person said yes.
        Approved = "approved",
        /// A person said no.
        Rejected = "rejected",
        /// A rule said yes.
        AutoApproved = "auto_approved",
        /// A rule said no.
        AutoRejected = "auto_rejected",
        /// Somebody else has to decide.
        Escalated = "escalated",
    }
}

/// What is to be done, as `category:action`: one colon, neither half blank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ActionType(String);

impl ActionType {
    /// Checks the rule; the error names it.
    pub fn new(text: impl Into<String>) -> Result<Self, String> {
        let text = NotBlank::<MAX_ACTION>::new(text)?.into_inner();
        match text.split_once(':') {
            Some((category, action))
                if !category.trim().is_empty() && !action.trim().is_empty() && !action.contains(':') =>
            {
                Ok(Self(text))
            }
            _ => Err("must have the form category:action".to_owned()),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for ActionType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Words somebody has put on a thing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct Labels(BTreeMap<String, String>);

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = String;

    fn try_from(labels: BTreeMap<String, String>) -> Result<Self, String> {
        if labels.len() > MAX_LABELS {
            return Err(format!("must have at most {MAX_LABELS} keys"));
        }
        let long = |text: &String| text.chars().count() > MAX_LABEL;
        if labels.iter().any(|(key, value)| long(key) || long(value)) {
            return Err(format!("must have keys and values of at most {MAX_LABEL} characters"));
        }
        Ok(Self(labels))
    }
}

/// A decision somebody waits for, or has got.
#[derive(Clone, Debug, PartialEq)]
pub struct Approval {
    /// `approval-` and 32 hex digits.
    pub id: String,
    /// What is to be done.
    pub action_type: String,
    /// What it is, in a line.
    pub title: String,
    /// What it is, in full.
    pub description: String,
    /// Login name of who asks, or agent.
    pub requested_by: String,
    /// User id of who asks, or agent.
    pub requester_id: String,
    /// What is at stake.
    pub risk_level: RiskLevel,
    /// What has become of it.
    pub status: ApprovalStatus,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// From when on nobody may decide any more.
    pub expires_at: Option<DateTime<Utc>>,
    /// When somebody decided.
    pub decided_at: Option<DateTime<Utc>>,
    /// Login name of who decided.
    pub decided_by: Option<String>,
    /// Why; always there for a rejection.
    pub decision_reason: Option<String>,
    /// The task it is about.
    pub task_id: Option<String>,
    /// What speaks for it.
    pub evidence_package: Option<EvidencePackage>,
    /// Labels.
    pub metadata: Labels,
}

/// What somebody asks for.
#[derive(Clone, Debug, Serialize)]
pub struct NewApproval {
    /// What is to be done.
    pub action_type: ActionType,
    /// What it is, in a line.
    pub title: String,
    /// What it is, in full.
    pub description: String,
    /// What is at stake.
    pub risk_level: RiskLevel,
    /// How long it waits; `None` for ever.
    pub ttl_seconds: Option<u32>,
    /// The task it is about; need not exist yet.
    pub task_id: Option<String>,
    /// What speaks for it.
    pub evidence_package: Option<EvidencePackage>,
    /// Labels.
    pub metadata: Labels,
}

/// What a person says to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Decision {
    /// Yes.
    Approve {
        /// Why.
        comment: Option<String>,
    },
    /// No.
    Reject {
        /// Why.
        reason: String,
    },
}

impl Decision {
    /// What becomes of the approval.
    pub const fn status(&self) -> ApprovalStatus {
        match self {
            Self::Approve { .. } => ApprovalStatus::Approved,
            Self::Reject { .. } => ApprovalStatus::Rejected,
        }
    }

    /// Why, if somebody said so.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Approve { comment } => comment.as_deref(),
            Self::Reject { reason } => Some(reason),
        }
    }
}

impl Approval {
    /// An approval that waits for a decision.
    ///
    /// # Errors
    /// 422/2000 when its evidence breaks a rule.
    pub fn new(new: NewApproval, by: (&str, &str), now: DateTime<Utc>) -> Result<Self> {
        if let Some(evidence) = &new.evidence_package {
            evidence.check()?;
        }
        let (requester_id, requested_by) = by;
        Ok(Self {
            id: format!("approval-{}", Uuid::new_v4().simple()),
            action_type: new.action_type.0,
            title: new.title,
            description: new.description,
            requested_by: requested_by.to_owned(),
            requester_id: requester_id.to_owned(),
            risk_level: new.risk_level,
            status: ApprovalStatus::Pending,
            created_at: now,
            expires_at: new.ttl_seconds.map(|ttl| now + TimeDelta::seconds(ttl.into())),
            decided_at: None,
            decided_by: None,
            decision_reason: None,
            task_id: new.task_id,
            evidence_package: new.evidence_package,
            metadata: new.metadata,
        })
    }

    /// Whether it waits although its time is over.
    pub fn is_due(&self, now: DateTime<Utc>) -> bool {
        self.status == ApprovalStatus::Pending && self.expires_at.is_some_and(|end| now >= end)
    }

    /// How long somebody may still decide, in seconds, never below 0; `None` for ever.
    pub fn seconds_remaining(&self, now: DateTime<Utc>) -> Option<f64> {
        self.expires_at.map(|end| (end - now).as_seconds_f64().max(0.0))
    }

    /// How soon somebody has to decide.
    pub fn urgency(&self, now: DateTime<Utc>) -> UrgencyLevel {
        match self.seconds_remaining(now) {
            None => UrgencyLevel::NoExpiry,
            Some(left) if left < 3600.0 => UrgencyLevel::Critical,
            Some(left) if left < 14_400.0 => UrgencyLevel::High,
            Some(_) => UrgencyLevel::Normal,
        }
    }

    /// Refuses whoever may not decide any more.
    ///
    /// # Errors
    /// 409/4000 naming what has become of it.
    pub fn check_pending(&self) -> Result<()> {
        match self.status {
            ApprovalStatus::Pending => Ok(()),
            status => Err(Error::conflict(format!("The approval is {status}, no longer pending"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn approval(ttl_seconds: Option<u32>) -> Approval {
        let new = NewApproval {
            action_type: ActionType::new("deploy:production").unwrap(),
            title: "t".into(),
            description: "d".into(),
            risk_level: RiskLevel::High,
            ttl_seconds,
            task_id: None,
            evidence_package: None,
            metadata: Labels::default(),
        };
        Approval::new(new, ("u", "name"), now()).unwrap()
    }

    #[test]
    fn an_action_has_two_halves_and_one_colon() {
        for good in ["deploy:production", " a : b ", "ä:ö"] {
            assert_eq!(ActionType::new(good).unwrap().as_str(), good);
        }
        for bad in ["merge", "a:b:c", ":x", "x: ", " :x", "", &format!("a:{}", "b".repeat(127))] {
            assert!(ActionType::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn urgency_follows_the_time_that_is_left() {
        for (ttl, expected) in [
            (60, UrgencyLevel::Critical),
            (3599, UrgencyLevel::Critical),
            (3600, UrgencyLevel::High),
            (14_399, UrgencyLevel::High),
            (14_400, UrgencyLevel::Normal),
        ] {
            assert_eq!(approval(Some(ttl)).urgency(now()), expected, "{ttl}");
        }
        assert_eq!(approval(None).urgency(now()), UrgencyLevel::NoExpiry);
        let late = now() + TimeDelta::seconds(100);
        assert_eq!(approval(Some(60)).seconds_remaining(late), Some(0.0));
        assert_eq!(approval(Some(60)).urgency(late), UrgencyLevel::Critical);
    }

    #[test]
    fn time_is_over_at_the_moment_itself() {
        assert!(!approval(Some(60)).is_due(now() + TimeDelta::microseconds(59_999_999)));
        assert!(approval(Some(60)).is_due(now() + TimeDelta::seconds(60)));
        assert!(!approval(None).is_due(now() + TimeDelta::days(9)));
    }

    #[test]
    fn time_decides_as_the_policy_says_and_never_approves_what_is_grave() {
        let policy = |json| serde_json::from_value::<TimeoutPolicy>(json).unwrap();
        let after = |seconds| now() + TimeDelta::seconds(seconds);
        let is = |policy: &TimeoutPolicy, approval: &Approval, seconds, status| {
            let decided = policy.decide(approval, after(seconds)).map(|decision| decision.status());
            assert_eq!(decided, status, "{policy:?} after {seconds}");
        };
        let grave = approval(None);
        let light = Approval { risk_level: RiskLevel::Low, ..approval(None) };
        let other = Approval { action_type: "code:write".into(), ..light.clone() };
        is(&TimeoutPolicy::Wait, &grave, 99_999_999, None);
        let deny = policy(serde_json::json!({"type": "deny", "after_seconds": 60}));
        is(&deny, &light, 59, None);
        is(&deny, &light, 60, Some(ApprovalStatus::Rejected));
        let tiered = policy(serde_json::json!({"type": "tiered", "tiers": [
            {"action_types": ["deploy:production"], "after_seconds": 10, "outcome": "approve"},
            {"risk_level": "low", "after_seconds": 20, "outcome": "deny"},
        ]}));
        is(&tiered, &grave, 10, Some(ApprovalStatus::Rejected));
        is(&tiered, &light, 10, Some(ApprovalStatus::Approved));
        is(&tiered, &other, 19, None);
        is(&tiered, &other, 20, Some(ApprovalStatus::Rejected));
        is(&tiered, &Approval { risk_level: RiskLevel::Medium, ..other }, 999, None);
        assert_eq!(tiered.shortest_wait(), Some(TimeDelta::seconds(10)));
        for bad in [
            serde_json::json!({"type": "deny", "after_seconds": 0}),
            serde_json::json!({"type": "tiered", "tiers": []}),
        ] {
            assert!(policy(bad).check().is_err());
        }
        assert!(serde_json::from_value::<TimeoutPolicy>(serde_json::json!({"type": "hope"})).is_err());
    }

    #[test]
    fn labels_are_few_and_short() {
        let of = |count: usize, length: usize| {
            let all = (0..count).map(|n| (format!("{n:0>width$}", width = length), "v".repeat(length)));
            Labels::try_from(all.collect::<BTreeMap<_, _>>())
        };
        assert!(of(20, 256).is_ok());
        assert!(of(21, 3).is_err());
        assert!(of(1, 257).is_err());
    }
}
