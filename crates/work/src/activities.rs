//! What has happened lately.

use quarterdeck_domain::Result;
use quarterdeck_domain::activity::{Activity, ActivityEventType, ActivityWindow};
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_store::Store;
use quarterdeck_store::activity::{self, Filter};

/// What to look for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Of one kind.
    pub event_type: Option<ActivityEventType>,
    /// By one agent.
    pub agent_id: Option<String>,
    /// How far to look back.
    pub window: ActivityWindow,
}

/// The activities of the company. Cheap to clone.
#[derive(Clone)]
pub struct Activities {
    store: Store,
    clock: SharedClock,
}

impl Activities {
    /// Activities in this store.
    pub fn new(store: Store, clock: SharedClock) -> Self {
        Self { store, clock }
    }

    /// What has happened, the newest first, and how much in all; told to somebody who may know prices, or
    /// may not.
    pub async fn page(
        &self,
        wanted: Wanted,
        knows_prices: bool,
        offset: u64,
        limit: u64,
    ) -> Result<(Vec<Activity>, u64)> {
        let Wanted { event_type, agent_id, window } = wanted;
        let filter = Filter { event_type, agent_id, since: self.clock.now() - window.length() };
        let (happenings, total) = activity::page(self.store.read(), &filter, offset, limit).await?;
        Ok((happenings.into_iter().map(|one| one.shown(knows_prices)).collect(), total))
    }
}
