//! What speaks for an action, put together by the agent that wants it.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::RiskLevel;
use crate::error::{Error, Result};
use crate::role::wire_enum;

/// Most actions a package recommends.
const MAX_ACTIONS: usize = 3;
/// Most signatures a package may ask for.
const MAX_THRESHOLD: u8 = 10;

wire_enum! {
    /// How a package is signed.
    SignatureAlgorithm {
        /// FIPS 204.
        MlDsa65 = "ml-dsa-65",
        /// RFC 8032.
        Ed25519 = "ed25519",
    }
}

/// What an agent wants, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvidencePackage {
    /// When it was put together.
    pub created_at: DateTime<Utc>,
    /// Unique.
    pub id: String,
    /// What it is about, in a line.
    pub title: String,
    /// The story.
    pub narrative: String,
    /// How the agent came to it, step by step.
    #[serde(default)]
    pub reasoning_trace: Vec<String>,
    /// What could be done; one to three.
    #[schema(min_items = 1, max_items = 3)]
    pub recommended_actions: Vec<RecommendedAction>,
    /// The agent.
    pub source_agent_id: String,
    /// The task it is about.
    pub task_id: Option<String>,
    /// What is at stake.
    pub risk_level: RiskLevel,
    /// Anything else.
    #[serde(default)]
    #[schema(value_type = std::collections::HashMap<String, Value>)]
    pub metadata: Map<String, Value>,
    /// How many have to sign.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 10, default = 1)]
    pub signature_threshold: u8,
    /// Who has signed.
    #[serde(default)]
    pub signatures: Vec<Signature>,
    /// Whether enough have signed.
    #[serde(default)]
    #[schema(read_only)]
    pub is_fully_signed: bool,
}

const fn one() -> u8 {
    1
}

/// Something that could be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RecommendedAction {
    /// `category:action`.
    pub action_type: String,
    /// For a button.
    pub label: String,
    /// What happens then.
    pub description: String,
    /// Whether to ask once more.
    #[serde(default)]
    pub confirmation_required: bool,
}

/// One signature of a package.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Signature {
    /// Who signed.
    pub approver_id: String,
    /// How.
    pub algorithm: SignatureAlgorithm,
    /// Base64.
    pub signature_bytes: String,
    /// When.
    pub signed_at: DateTime<Utc>,
    /// Place in the order of signing, from 0.
    #[schema(minimum = 0)]
    pub chain_position: u32,
}

impl EvidencePackage {
    /// Checks every rule a package keeps, and that it says truly whether it is signed.
    ///
    /// # Errors
    /// 422/2000 naming the member and the rule.
    pub fn check(&self) -> Result<()> {
        let blank = |text: &str| text.trim().is_empty();
        for (name, text) in [
            ("id", &self.id),
            ("title", &self.title),
            ("narrative", &self.narrative),
            ("source_agent_id", &self.source_agent_id),
        ] {
            if blank(text) {
                return Err(Error::rule(format!("evidence_package.{name} must not be blank")));
            }
        }
        if !(1..=MAX_ACTIONS).contains(&self.recommended_actions.len()) {
            return Err(Error::rule("evidence_package.recommended_actions must have one to three entries"));
        }
        if !(1..=MAX_THRESHOLD).contains(&self.signature_threshold) {
            return Err(Error::rule("evidence_package.signature_threshold must be between 1 and 10"));
        }
        let signers: HashSet<_> = self.signatures.iter().map(|signature| &signature.approver_id).collect();
        if signers.len() < self.signatures.len() {
            return Err(Error::rule("evidence_package.signatures must not hold an approver twice"));
        }
        if self.is_fully_signed != (self.signatures.len() >= usize::from(self.signature_threshold)) {
            return Err(Error::rule("evidence_package.is_fully_signed does not fit its signatures"));
        }
        Ok(())
    }
}
