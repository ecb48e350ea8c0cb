//! How freely agents act, and who asked for more.

use quarterdeck_domain::Result;
use quarterdeck_domain::approval::RiskLevel;
use quarterdeck_domain::audit::{Actor, Entry, Verdict};
use quarterdeck_domain::autonomy::AutonomyLevel;
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::setting::company::AUTONOMY_LEVEL;
use quarterdeck_store::Store;

use crate::settings::Settings;

/// The autonomy of all agents. Cheap to clone.
#[derive(Clone)]
pub struct Autonomy {
    settings: Settings,
    store: Store,
    clock: SharedClock,
}

impl Autonomy {
    /// As the settings say.
    pub fn new(settings: Settings, store: Store, clock: SharedClock) -> Self {
        Self { settings, store, clock }
    }

    /// The level in force for every agent.
    pub fn level(&self) -> AutonomyLevel {
        AutonomyLevel::parse(&self.settings.get(&AUTONOMY_LEVEL)).unwrap_or(AutonomyLevel::Semi)
    }

    /// Puts on record that another level is wished for an agent; the level that stays in force.
    ///
    /// # Errors
    /// The store's own.
    pub async fn ask(&self, agent: &str, wished: AutonomyLevel, actor: &Actor) -> Result<AutonomyLevel> {
        let sentence = format!("Autonomy level '{wished}' was asked for");
        let entry = Entry::new(actor, "autonomy:request", self.clock.now(), sentence)
            .agent(agent)
            .risk(RiskLevel::High)
            .verdict(Verdict::Escalate)
            .arguments(&wished);
        let record = self.store.write(move |tx| {
            Box::pin(async move {
                tx.audit(entry);
                Ok(())
            })
        });
        record.await?;
        Ok(self.level())
    }
}
