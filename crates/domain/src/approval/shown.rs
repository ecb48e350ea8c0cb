//! An approval, as it is shown.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Approval, ApprovalStatus, EvidencePackage, Labels, RiskLevel, UrgencyLevel};

/// A decision somebody waits for, or has got, and how much time is left for it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ApprovalResponse {
    /// `approval-` and 32 hex digits.
    pub id: String,
    /// What is to be done, as `category:action`.
    pub action_type: String,
    /// What it is, in a line.
    pub title: String,
    /// What it is, in full.
    pub description: String,
    /// Login name of who asks, or agent.
    pub requested_by: String,
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
    /// Why.
    pub decision_reason: Option<String>,
    /// The task it is about.
    pub task_id: Option<String>,
    /// What speaks for it.
    pub evidence_package: Option<EvidencePackage>,
    /// Labels.
    #[schema(value_type = std::collections::HashMap<String, String>)]
    pub metadata: Labels,
    /// How long somebody may still decide; null for ever.
    #[schema(minimum = 0)]
    pub seconds_remaining: Option<f64>,
    /// How soon somebody has to decide.
    pub urgency_level: UrgencyLevel,
}

impl Approval {
    /// What is shown of it at this time.
    pub fn shown(&self, now: DateTime<Utc>) -> ApprovalResponse {
        let approval = self.clone();
        ApprovalResponse {
            seconds_remaining: self.seconds_remaining(now),
            urgency_level: self.urgency(now),
            id: approval.id,
            action_type: approval.action_type,
            title: approval.title,
            description: approval.description,
            requested_by: approval.requested_by,
            risk_level: approval.risk_level,
            status: approval.status,
            created_at: approval.created_at,
            expires_at: approval.expires_at,
            decided_at: approval.decided_at,
            decided_by: approval.decided_by,
            decision_reason: approval.decision_reason,
            task_id: approval.task_id,
            evidence_package: approval.evidence_package,
            metadata: approval.metadata,
        }
    }
}
