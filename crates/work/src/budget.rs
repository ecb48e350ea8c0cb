//! Money: what calls of models have cost, and the budget they are held against.

mod config;

use std::sync::Arc;

use chrono::{DateTime, Days, TimeDelta, Utc};
use quarterdeck_domain::analytics::{Forecast, SPARKLINE_DAYS};
use quarterdeck_domain::audit::{Actor, Entry};
use quarterdeck_domain::budget::{AlertLevel, BudgetConfig};
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::cost_record::{CostRecord, DayTotals, MAX_ID, Totals, currency_of, sum};
use quarterdeck_domain::event::{Event, EventType};
use quarterdeck_domain::money::{Currency, Money};
use quarterdeck_domain::notification::{Category, Notification, Severity};
use quarterdeck_domain::period::Period;
use quarterdeck_domain::setting::budget::{RECORDS_KEPT, RECORDS_KEPT_HOURS};
use quarterdeck_domain::text::NotBlank;
use quarterdeck_domain::{Error, ErrorCode, Result};
pub use quarterdeck_store::budget_config::Version;
pub use quarterdeck_store::cost_record::Filter;
use quarterdeck_store::{Store, Tx, budget_config, cost_record};
use serde_json::json;

use crate::notifications::Notifications;
use crate::settings::Settings;

pub use config::rule;

/// Whoever decides over the order of spending holds this lock.
const LOCK: &str = "quarterdeck.budget";

/// What has been spent, and what may be. Cheap to clone.
#[derive(Clone)]
pub struct Budget(Arc<Inner>);

struct Inner {
    store: Store,
    settings: Settings,
    clock: SharedClock,
    notifications: Notifications,
}

/// A page of records, with the sums of all that match.
#[derive(Debug)]
pub struct Records {
    /// The records of the page, the newest first.
    pub page: Vec<CostRecord>,
    /// How many match and are still kept.
    pub total: u64,
    /// Sums of each day, oldest first.
    pub days: Vec<DayTotals>,
    /// Sums of all days.
    pub sums: Totals,
    /// What all sums are in.
    pub currency: Currency,
}

/// How spending stands in the current billing period.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// What was spent.
    pub spent: Money,
    /// What may still be spent; `None` when any amount may.
    pub left: Option<Money>,
    /// Used part of the budget, 0 without one; may exceed 100.
    pub used_percent: f64,
    /// What each of the last seven days has cost.
    pub week: Vec<DayTotals>,
    /// What the amounts are in.
    pub currency: Currency,
}

impl Budget {
    /// Keeps the budget in force as a version unless the newest is the same: environment and file may have
    /// changed it while nobody watched.
    ///
    /// # Errors
    /// A sentence for the operator when the budget breaks a rule over several settings.
    pub async fn open(
        store: Store,
        settings: Settings,
        clock: SharedClock,
        notifications: Notifications,
    ) -> Result<Self> {
        let config = config::of(&settings.current());
        config.check().map_err(|rule| Error::internal(format_args!("the budget cannot be used: {rule}")))?;
        let now = clock.now();
        store
            .write(move |tx| {
                Box::pin(async move { config::keep(tx, &config, &Actor::system("budget.open"), now).await })
            })
            .await?;
        Ok(Self(Arc::new(Inner { store, settings, clock, notifications })))
    }

    /// The budget in force.
    pub fn config(&self) -> BudgetConfig {
        config::of(&self.0.settings.current())
    }

    /// Versions of the budget, the newest first, and how many there are in all.
    pub async fn versions(&self, offset: u64, limit: u64) -> Result<(Vec<Version>, u64)> {
        budget_config::page(self.0.store.read(), offset, limit).await
    }

    /// One version of the budget.
    ///
    /// # Errors
    /// 404/3000 when there is none with this number.
    pub async fn version(&self, number: i64) -> Result<Version> {
        let version = budget_config::by_version(self.0.store.read(), number).await?;
        version.ok_or_else(|| Error::missing("Budget config version", &number.to_string()))
    }

    /// Stores a record and tells of it, and of a threshold that it crosses.
    ///
    /// # Errors
    /// 422/2000 as [`CostRecord::check`]; 409/4007 when its currency is not the configured one.
    pub async fn record(&self, record: CostRecord) -> Result<()> {
        record.check()?;
        let (config, now) = (self.config(), self.0.clock.now());
        if record.currency != config.currency {
            return Err(ErrorCode::MixedCurrencyAggregation.into());
        }
        let notifications = self.0.notifications.clone();
        let add = self
            .0
            .store
            .write(move |tx| Box::pin(async move { add(tx, &record, &config, notifications, now).await }));
        add.await
    }

    /// Records that match, the newest first, with the sums of all of them.
    ///
    /// # Errors
    /// 422/2000 when an id of the filter is empty or too long; 409/4007 when the records are in several
    /// currencies.
    pub async fn records(&self, filter: Filter, offset: u64, limit: u64) -> Result<Records> {
        for (name, id) in [("agent_id", &filter.agent_id), ("task_id", &filter.task_id)] {
            if id.as_ref().is_some_and(|id| id.is_empty() || id.chars().count() > MAX_ID) {
                return Err(Error::rule(format!("{name} must have 1 to {MAX_ID} characters")));
            }
        }
        let store = self.0.store.read();
        let days = cost_record::days(store, &filter, None, None).await?;
        let currency = currency_of(&days, self.config().currency)?;
        let (page, total) = cost_record::page(store, &filter, offset, limit).await?;
        Ok(Records { page, total, sums: sum(&days), days, currency })
    }

    /// What an agent has spent in all, 0 for one that is not known.
    ///
    /// # Errors
    /// 409/4007 when it has spent in several currencies.
    pub async fn spent_by(&self, agent: &NotBlank<MAX_ID>) -> Result<(Money, Currency)> {
        let filter = Filter { agent_id: Some(agent.as_str().to_owned()), task_id: None };
        let days = cost_record::days(self.0.store.read(), &filter, None, None).await?;
        Ok((sum(&days).cost, currency_of(&days, self.config().currency)?))
    }

    /// How spending stands now.
    ///
    /// # Errors
    /// 409/4007 when something of the billing period or the last week is in another currency than the
    /// configured one.
    pub async fn standing(&self) -> Result<Standing> {
        let (config, now) = (self.config(), self.0.clock.now());
        let period = Period::billing(now, config.reset_day);
        let spent = cost_record::spent(self.0.store.read(), period, config.currency).await?;
        let limited = config.total_monthly > Money::ZERO;
        Ok(Standing {
            spent,
            left: limited.then(|| config.total_monthly.less(spent)),
            used_percent: spent.percent_of(config.total_monthly),
            week: self.last_days(SPARKLINE_DAYS, config.currency).await?,
            currency: config.currency,
        })
    }

    /// What spending lets expect for the next `horizon` days.
    ///
    /// # Errors
    /// As [`Budget::standing`].
    pub async fn forecast(&self, horizon: u32) -> Result<(Forecast, Currency)> {
        let Standing { left, currency, .. } = self.standing().await?;
        let spent = self.last_days(horizon.into(), currency).await?;
        Ok((Forecast::new(&spent, horizon, self.0.clock.now().date_naive(), left), currency))
    }

    /// What each of the last `count` days has cost, today among them; days without costs are left out.
    async fn last_days(&self, count: u64, currency: Currency) -> Result<Vec<DayTotals>> {
        let today = self.0.clock.now().date_naive();
        let (from, until) = (cost_record::first_of(count, today), today.checked_add_days(Days::new(1)));
        let days = cost_record::days(self.0.store.read(), &Filter::default(), Some(from), until).await?;
        if currency_of(&days, currency)? != currency {
            return Err(ErrorCode::MixedCurrencyAggregation.into());
        }
        Ok(days)
    }

    /// Forgets the oldest records when there are many, to be called now and then. Sums outlive them.
    pub async fn upkeep(&self) {
        let settings = &self.0.settings;
        let (kept, hours) = (settings.get(&RECORDS_KEPT), settings.get(&RECORDS_KEPT_HOURS));
        let now = self.0.clock.now();
        let before = now - TimeDelta::hours(hours);
        let pruned = self.0.store.write(move |tx| Box::pin(prune(tx, kept, before, now))).await;
        if let Err(error) = pruned {
            tracing::error!(target: "budget", error = %error, cause = error.cause(), "budget.upkeep.failed");
        }
    }
}

async fn prune(tx: &Tx, kept: i64, before: DateTime<Utc>, now: DateTime<Utc>) -> Result<()> {
    let count = cost_record::prune(tx, kept, before).await?;
    if count > 0 {
        let text = format!("{count} cost records beyond their age were removed; their sums stay");
        tx.audit(Entry::new(&Actor::system("budget.upkeep"), "budget:prune", now, text));
    }
    Ok(())
}

async fn add(
    tx: &Tx,
    record: &CostRecord,
    config: &BudgetConfig,
    notifications: Notifications,
    now: DateTime<Utc>,
) -> Result<()> {
    // Without it, two that cross a threshold together might both tell of it, or neither.
    tx.lock(LOCK).await?;
    cost_record::insert(tx, record).await?;
    let period = Period::billing(now, config.reset_day);
    if !period.contains(record.timestamp) {
        return Ok(());
    }
    let after = match cost_record::spent(&**tx, period, config.currency).await {
        Ok(after) => after,
        // What is in several currencies has no level.
        Err(mixed) if mixed.code() == ErrorCode::MixedCurrencyAggregation => return Ok(()),
        Err(error) => return Err(error),
    };
    let level = config.level(after);
    if let Some(threshold) = config.threshold(level)
        && level > config.level(after.less(record.cost))
    {
        let words = format!("Spending has reached {threshold} % of the monthly budget");
        let payload = json!({
            "severity": level, "threshold": threshold, "current": after.percent_of(config.total_monthly),
            "message": words, "currency": config.currency,
        });
        let severity = match level {
            AlertLevel::HardStop => Severity::Critical,
            AlertLevel::Critical => Severity::Error,
            AlertLevel::Warning | AlertLevel::Normal => Severity::Warning,
        };
        let notification = Notification::new(Category::Budget, severity, "budget.alert", words, now)
            .with("threshold", threshold)
            .with("currency", config.currency.as_str());
        tx.after_commit(move || notifications.send(notification));
        tx.publish(Event::new(EventType::BudgetAlert, now, payload));
    }
    Ok(())
}
