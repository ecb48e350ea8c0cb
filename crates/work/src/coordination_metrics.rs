//! Figures of teamwork, kept for whoever looks at them later.

use quarterdeck_domain::Result;
use quarterdeck_domain::coordination_metrics::CoordinationMetricsRecord;
pub use quarterdeck_store::coordination_metrics::Filter;
use quarterdeck_store::{Store, coordination_metrics};

/// How many records are kept.
const KEPT: i64 = 10_000;

/// The figures of past runs. Cheap to clone.
#[derive(Clone)]
pub struct CoordinationMetrics(Store);

impl CoordinationMetrics {
    /// Figures in this store.
    pub fn new(store: Store) -> Self {
        Self(store)
    }

    /// Keeps the figures of a run.
    ///
    /// # Errors
    /// 422/2000 as [`CoordinationMetricsRecord::figures`].
    pub async fn record(&self, record: CoordinationMetricsRecord) -> Result<()> {
        self.0.write(move |tx| Box::pin(async move { coordination_metrics::insert(tx, &record).await })).await
    }

    /// Records that match, the newest first, and how many there are in all.
    pub async fn page(
        &self,
        filter: &Filter,
        offset: u64,
        limit: u64,
    ) -> Result<(Vec<CoordinationMetricsRecord>, u64)> {
        coordination_metrics::page(self.0.read(), filter, offset, limit).await
    }

    /// Forgets the oldest records when there are many, to be called now and then.
    pub async fn upkeep(&self) {
        let pruned = self.0.write(|tx| Box::pin(coordination_metrics::prune(tx, KEPT))).await;
        if let Err(error) = pruned {
            tracing::error!(
                target: "work", error = %error, cause = error.cause(), "coordination_metrics.upkeep.failed"
            );
        }
    }
}
