//! The record of what was done, and by whom.

use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::approval::RiskLevel;
use crate::role::wire_enum;
use crate::user::SYSTEM_USER;

wire_enum! {
    /// What was decided about an action.
    #[schema(as = AuditVerdict)]
    Verdict {
        /// It was done.
        Allow = "allow",
        /// It was refused.
        Deny = "deny",
        /// A person has to decide.
        Escalate = "escalate",
        /// What came out of it was looked through.
        OutputScan = "output_scan",
    }
}

/// Id and name of who has not proved who they are.
pub const STRANGER: &str = "anonymous";

/// Who acts, and through which operation. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Actor {
    /// User id, or the name of the part of this program that acts by itself.
    pub id: Arc<str>,
    /// Login name.
    pub name: Arc<str>,
    /// Operation, such as `tasks.create`.
    pub operation: &'static str,
    /// Where the request came from.
    pub ip: Option<IpAddr>,
    /// Id of the request.
    pub request_id: Option<Arc<str>>,
}

impl Actor {
    /// A part of this program that acts without being asked, such as `approvals.expiry`.
    pub fn system(operation: &'static str) -> Self {
        Self { id: SYSTEM_USER.into(), name: SYSTEM_USER.into(), operation, ip: None, request_id: None }
    }
}

/// One entry of the record, as it is kept and shown. The order of its members is the canonical one:
/// that of their names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = AuditRecord)]
pub struct Entry {
    /// `category:action`.
    #[schema(pattern = "^[a-z0-9_]+:[a-z0-9_]+$")]
    pub action_type: String,
    /// User id of who acted.
    pub actor: String,
    /// Login name of who acted.
    pub actor_name: String,
    /// The agent it is about.
    pub agent_id: Option<String>,
    /// The approval that decides it.
    pub approval_id: Option<String>,
    /// SHA-256 of what was asked for, lower-case hex; the arguments are not kept.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    pub arguments_hash: String,
    /// `high` when rules decided, `low` when a guess did.
    pub confidence: String,
    /// Time the decision took, in milliseconds.
    #[schema(minimum = 0)]
    pub evaluation_duration_ms: f64,
    /// Unique.
    pub id: String,
    /// Where the request came from.
    #[schema(value_type = Option<String>)]
    pub ip: Option<IpAddr>,
    /// Rules that matched.
    pub matched_rules: Vec<String>,
    /// One sentence without anything secret.
    pub reason: String,
    /// Id of the request.
    pub request_id: Option<String>,
    /// What was at stake.
    pub risk_level: RiskLevel,
    /// The task it is about.
    pub task_id: Option<String>,
    /// When; RFC 3339 in UTC with microseconds.
    #[schema(format = DateTime)]
    pub timestamp: String,
    /// Family of the tool.
    pub tool_category: String,
    /// Tool or operation.
    pub tool_name: String,
    /// What was decided.
    pub verdict: Verdict,
}

impl Entry {
    /// Something `actor` has done: `action` is `category:action`, `reason` a sentence.
    pub fn new(
        actor: &Actor,
        action: impl Into<String>,
        now: DateTime<Utc>,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            action_type: action.into(),
            actor: actor.id.to_string(),
            actor_name: actor.name.to_string(),
            agent_id: None,
            approval_id: None,
            arguments_hash: digest(b""),
            confidence: "high".to_owned(),
            evaluation_duration_ms: 0.0,
            id: Uuid::now_v7().to_string(),
            ip: actor.ip,
            matched_rules: Vec::new(),
            reason: reason.into(),
            request_id: actor.request_id.as_deref().map(ToOwned::to_owned),
            risk_level: RiskLevel::Low,
            task_id: None,
            timestamp: now.to_rfc3339_opts(SecondsFormat::Micros, true),
            tool_category: "other".to_owned(),
            tool_name: actor.operation.to_owned(),
            verdict: Verdict::Allow,
        }
    }

    /// It is about this task.
    pub fn task(mut self, id: &str) -> Self {
        self.task_id = Some(id.to_owned());
        self
    }

    /// It is about this agent.
    pub fn agent(mut self, id: &str) -> Self {
        self.agent_id = Some(id.to_owned());
        self
    }

    /// Sets what was at stake.
    pub fn risk(mut self, risk: RiskLevel) -> Self {
        self.risk_level = risk;
        self
    }

    /// Sets what was decided.
    pub fn verdict(mut self, verdict: Verdict) -> Self {
        self.verdict = verdict;
        self
    }

    /// Keeps the fingerprint of what was asked for.
    pub fn arguments(mut self, arguments: &impl Serialize) -> Self {
        self.arguments_hash = digest(&serde_json::to_vec(arguments).unwrap_or_default());
        self
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
