//! How work and spending stand and develop, and what can be reported of a period.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use quarterdeck_domain::analytics::{BucketSize, TrendMetric, TrendPeriod};
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::period::{Period, ReportPeriod, midnight};
use quarterdeck_domain::task::TaskStatus;
use quarterdeck_domain::{ErrorCode, Result};
use quarterdeck_store::Store;
use quarterdeck_store::analytics::{self, Ending};
use quarterdeck_store::cost_record::{self, Filter};

use crate::budget::{Budget, Standing};

/// Figures of the company. Cheap to clone.
#[derive(Clone)]
pub struct Analytics {
    store: Store,
    budget: Budget,
    clock: SharedClock,
}

/// How everything stands.
#[derive(Debug)]
pub struct Overview {
    /// How many tasks have each status, all of which are named.
    pub tasks: Vec<(TaskStatus, u64)>,
    /// Agents with tasks that are not over.
    pub agents: u64,
    /// Those of them that work on one.
    pub active_agents: u64,
    /// Money.
    pub spending: Standing,
    /// When.
    pub now: DateTime<Utc>,
}

/// What there is to report of a period.
#[derive(Debug)]
pub struct Report {
    /// The period.
    pub period: Period,
    /// Whether money was spent.
    pub has_spending: bool,
    /// Whether tasks were completed or failed.
    pub has_performance: bool,
    /// Whether tasks were completed.
    pub has_task_completion: bool,
    /// Whether approvals, and the risk that goes with them, were asked for.
    pub has_risk_trends: bool,
    /// When it was made.
    pub generated_at: DateTime<Utc>,
}

/// One value for each bucket of a trend.
type Points = Vec<(DateTime<Utc>, f64)>;

impl Analytics {
    /// Figures of what is in this store.
    pub fn new(store: Store, budget: Budget, clock: SharedClock) -> Self {
        Self { store, budget, clock }
    }

    /// How everything stands now.
    ///
    /// # Errors
    /// 409/4007 as [`Budget::standing`]; 503/8001.
    pub async fn overview(&self) -> Result<Overview> {
        let store = self.store.read();
        let (agents, active_agents) = analytics::agents(store).await?;
        Ok(Overview {
            tasks: analytics::tasks_by_status(store).await?,
            agents,
            active_agents,
            spending: self.budget.standing().await?,
            now: self.clock.now(),
        })
    }

    /// How something has developed, with a value for every bucket of the period.
    ///
    /// # Errors
    /// 409/4007 for spending in several currencies; 503/8001.
    pub async fn trend(&self, metric: TrendMetric, period: TrendPeriod) -> Result<Points> {
        let buckets = period.buckets(self.clock.now());
        let Some(&from) = buckets.first() else { return Ok(Vec::new()) };
        let size = period.bucket();
        let values: BTreeMap<_, _> = match metric {
            TrendMetric::Spend => self.spending(size, from).await?,
            TrendMetric::TasksCompleted => {
                let ended = analytics::ended(self.store.read(), Ending::Completed, size, from).await?;
                ended.into_iter().map(|(bucket, tasks)| (bucket, tasks as f64)).collect()
            }
            TrendMetric::SuccessRate => self.success(size, from).await?,
            TrendMetric::ActiveAgents => {
                let (_, active) = analytics::agents(self.store.read()).await?;
                buckets.iter().map(|bucket| (*bucket, active as f64)).collect()
            }
        };
        let value = |bucket: &DateTime<Utc>| values.get(bucket).copied().unwrap_or(0.0);
        Ok(buckets.iter().map(|bucket| (*bucket, value(bucket))).collect())
    }

    async fn spending(&self, size: BucketSize, from: DateTime<Utc>) -> Result<BTreeMap<DateTime<Utc>, f64>> {
        let store = self.store.read();
        let sums: Vec<_> = match size {
            BucketSize::Hour => cost_record::hours(store, from).await?,
            BucketSize::Day => {
                let days =
                    cost_record::days(store, &Filter::default(), Some(from.date_naive()), None).await?;
                days.into_iter().map(|day| (midnight(day.day), day.currency, day.totals.cost)).collect()
            }
        };
        if sums.windows(2).any(|pair| pair[0].1 != pair[1].1) {
            return Err(ErrorCode::MixedCurrencyAggregation.into());
        }
        Ok(sums.into_iter().map(|(bucket, _, cost)| (bucket, cost.to_f64())).collect())
    }

    async fn success(&self, size: BucketSize, from: DateTime<Utc>) -> Result<BTreeMap<DateTime<Utc>, f64>> {
        let store = self.store.read();
        let mut counts: BTreeMap<_, (u64, u64)> = BTreeMap::new();
        for (bucket, tasks) in analytics::ended(store, Ending::Completed, size, from).await? {
            counts.entry(bucket).or_default().0 = tasks;
        }
        for (bucket, tasks) in analytics::ended(store, Ending::Failed, size, from).await? {
            counts.entry(bucket).or_default().1 = tasks;
        }
        let rate = |(completed, failed): (u64, u64)| completed as f64 / (completed + failed).max(1) as f64;
        Ok(counts.into_iter().map(|(bucket, counts)| (bucket, rate(counts))).collect())
    }

    /// What there is to report of the last such period that is over.
    ///
    /// # Errors
    /// 503/8001.
    pub async fn report(&self, period: ReportPeriod) -> Result<Report> {
        let (store, generated_at) = (self.store.read(), self.clock.now());
        let period = period.before(generated_at);
        let (first, last) = (period.start.date_naive(), period.end.date_naive());
        let costs = cost_record::days(store, &Filter::default(), Some(first), Some(last)).await?;
        let completed = analytics::any_ended(store, Ending::Completed, period).await?;
        Ok(Report {
            period,
            has_spending: !costs.is_empty(),
            has_performance: completed || analytics::any_ended(store, Ending::Failed, period).await?,
            has_task_completion: completed,
            has_risk_trends: analytics::any_risk(store, period).await?,
            generated_at,
        })
    }
}
