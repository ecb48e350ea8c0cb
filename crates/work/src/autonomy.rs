//! How freely agents act, and who asked for more.

use std::collections::BTreeMap;

use quarterdeck_domain::approval::{ActionType, Approval, Labels, NewApproval, RiskLevel};
use quarterdeck_domain::audit::Actor;
use quarterdeck_domain::autonomy::AutonomyLevel;
use quarterdeck_domain::setting::company::AUTONOMY_LEVEL;
use quarterdeck_domain::{Error, Result};

use crate::approvals::Approvals;
use crate::settings::Settings;

/// Action type of the approval that another level needs.
const PROMOTE: &str = "org:promote";

/// The autonomy of all agents. Cheap to clone.
#[derive(Clone)]
pub struct Autonomy {
    settings: Settings,
    approvals: Approvals,
}

impl Autonomy {
    /// As the settings say; other levels are asked for among these approvals.
    pub fn new(settings: Settings, approvals: Approvals) -> Self {
        Self { settings, approvals }
    }

    /// The level in force for every agent.
    pub fn level(&self) -> AutonomyLevel {
        AutonomyLevel::parse(&self.settings.get(&AUTONOMY_LEVEL)).unwrap_or(AutonomyLevel::Semi)
    }

    /// Asks people whether an agent may have another level; until there are agents that have one of their
    /// own, the answer is on record and changes nothing.
    ///
    /// # Errors
    /// The store's own.
    pub async fn ask(&self, agent: &str, wished: AutonomyLevel, actor: &Actor) -> Result<Approval> {
        let labels = [("agent_id", agent), ("level", wished.as_str()), ("from_level", self.level().as_str())];
        let labels: BTreeMap<_, _> = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let new = NewApproval {
            action_type: ActionType::new(PROMOTE).map_err(Error::internal)?,
            title: format!("Autonomy level '{wished}' for an agent"),
            description: format!("The agent '{agent}' is to act at the level '{wished}'."),
            risk_level: RiskLevel::High,
            ttl_seconds: None,
            task_id: None,
            evidence_package: None,
            metadata: Labels::try_from(labels).map_err(Error::internal)?,
        };
        self.approvals.submit(actor, new).await
    }
}
