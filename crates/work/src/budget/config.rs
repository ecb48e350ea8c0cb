//! The budget as settings make it, and its versions.

use chrono::{DateTime, Utc};
use quarterdeck_domain::Result;
use quarterdeck_domain::audit::{Actor, Entry};
use quarterdeck_domain::budget::{
    AutoDowngrade, BudgetAlerts, BudgetConfig, DowngradeBoundary, RiskBudget, RiskBudgetAlerts,
};
use quarterdeck_domain::money::{Currency, Money};
use quarterdeck_domain::setting::{Definition, budget};
use quarterdeck_store::{Tx, budget_config};
use serde_json::Value;

use crate::settings::{Rule, Snapshot};

const PARTS: [&Definition; 19] = [
    budget::TOTAL_MONTHLY.definition(),
    budget::PER_TASK_LIMIT.definition(),
    budget::PER_AGENT_DAILY_LIMIT.definition(),
    budget::RESET_DAY.definition(),
    budget::CURRENCY.definition(),
    budget::ALERT_WARN_AT.definition(),
    budget::ALERT_CRITICAL_AT.definition(),
    budget::ALERT_HARD_STOP_AT.definition(),
    budget::AUTO_DOWNGRADE_ENABLED.definition(),
    budget::AUTO_DOWNGRADE_THRESHOLD.definition(),
    budget::AUTO_DOWNGRADE_MAP.definition(),
    budget::AUTO_DOWNGRADE_BOUNDARY.definition(),
    budget::RISK_ENABLED.definition(),
    budget::RISK_PER_TASK_LIMIT.definition(),
    budget::RISK_PER_AGENT_DAILY_LIMIT.definition(),
    budget::RISK_TOTAL_DAILY_LIMIT.definition(),
    budget::RISK_ALERT_WARN_AT.definition(),
    budget::RISK_ALERT_CRITICAL_AT.definition(),
    budget::PTE_TRACKING_ENABLED.definition(),
];

/// The rules over the settings of the budget. Every change of one adds a version, in its transaction.
pub fn rule() -> Rule {
    Rule::over(PARTS, |values| of(values).check()).recorded(|tx, noted| {
        Box::pin(async move {
            let actor = Actor {
                id: noted.actor.as_str().into(),
                name: noted.actor.as_str().into(),
                ..Actor::system("settings.update")
            };
            keep(tx, &of(&noted.after), &actor, noted.at).await
        })
    })
}

/// Adds a version unless the newest is the same.
pub(super) async fn keep(tx: &Tx, config: &BudgetConfig, actor: &Actor, now: DateTime<Utc>) -> Result<()> {
    // The lock of the settings: at the start versions are added without a change of settings.
    tx.lock("quarterdeck.settings").await?;
    // The first one is what the program begins with; nobody did anything.
    if let Some(version) = budget_config::append(tx, config, &actor.id, now).await?
        && version > 1
    {
        let text = format!("The budget has version {version}");
        tx.audit(Entry::new(actor, "budget:configure", now, text).arguments(config));
    }
    Ok(())
}

/// The budget that these values make. Their bounds keep every part of it in range.
pub(super) fn of(values: &Snapshot) -> BudgetConfig {
    let money = |setting| Money::from_f64(values.get(setting)).unwrap_or_default();
    BudgetConfig {
        total_monthly: money(&budget::TOTAL_MONTHLY),
        alerts: BudgetAlerts {
            warn_at: values.get(&budget::ALERT_WARN_AT),
            critical_at: values.get(&budget::ALERT_CRITICAL_AT),
            hard_stop_at: values.get(&budget::ALERT_HARD_STOP_AT),
        },
        per_task_limit: money(&budget::PER_TASK_LIMIT),
        per_agent_daily_limit: money(&budget::PER_AGENT_DAILY_LIMIT),
        auto_downgrade: AutoDowngrade {
            enabled: values.get(&budget::AUTO_DOWNGRADE_ENABLED),
            threshold: values.get(&budget::AUTO_DOWNGRADE_THRESHOLD),
            downgrade_map: pairs(values.get(&budget::AUTO_DOWNGRADE_MAP)),
            boundary: DowngradeBoundary::TaskAssignment,
        },
        reset_day: u32::try_from(values.get(&budget::RESET_DAY)).unwrap_or(1),
        currency: Currency::parse(&values.get(&budget::CURRENCY)).unwrap_or(Currency::Usd),
        risk_budget: RiskBudget {
            enabled: values.get(&budget::RISK_ENABLED),
            per_task_risk_limit: values.get(&budget::RISK_PER_TASK_LIMIT),
            per_agent_daily_risk_limit: values.get(&budget::RISK_PER_AGENT_DAILY_LIMIT),
            total_daily_risk_limit: values.get(&budget::RISK_TOTAL_DAILY_LIMIT),
            alerts: RiskBudgetAlerts {
                warn_at: values.get(&budget::RISK_ALERT_WARN_AT),
                critical_at: values.get(&budget::RISK_ALERT_CRITICAL_AT),
            },
        },
        pte_tracking_enabled: values.get(&budget::PTE_TRACKING_ENABLED),
    }
}

fn pairs(value: Value) -> Vec<(String, String)> {
    serde_json::from_value(value).unwrap_or_default()
}
