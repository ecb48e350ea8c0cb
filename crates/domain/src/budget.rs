//! What may be spent, and how near spending has come to it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::money::{Currency, Money};
use crate::role::wire_enum;

wire_enum! {
    /// How near spending has come to the monthly budget.
    AlertLevel {
        /// Nothing to worry about.
        Normal = "normal",
        /// Worth a look.
        Warning = "warning",
        /// Nearly used up.
        Critical = "critical",
        /// Used up.
        HardStop = "hard_stop",
    }
}

wire_enum! {
    /// When a cheaper model may take over.
    DowngradeBoundary {
        /// When a task is handed to an agent.
        TaskAssignment = "task_assignment",
    }
}

/// What may be spent. Made of the settings of namespace `budget`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BudgetConfig {
    /// Most in a billing period; 0 = any amount.
    #[schema(value_type = f64, minimum = 0)]
    pub total_monthly: Money,
    /// When to tell.
    #[schema(inline)]
    pub alerts: BudgetAlerts,
    /// Most for one task.
    #[schema(value_type = f64, minimum = 0)]
    pub per_task_limit: Money,
    /// Most for one agent in a day.
    #[schema(value_type = f64, minimum = 0)]
    pub per_agent_daily_limit: Money,
    /// Cheaper models when money runs short.
    pub auto_downgrade: AutoDowngrade,
    /// Day of the month a billing period begins on.
    #[schema(minimum = 1, maximum = 28)]
    pub reset_day: u32,
    /// What new costs are recorded in.
    pub currency: Currency,
    /// Risk, counted like money.
    pub risk_budget: RiskBudget,
    /// Whether productive and other tokens are told apart.
    pub pte_tracking_enabled: bool,
}

/// Thresholds in percent of the monthly budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BudgetAlerts {
    /// Worth a look.
    #[schema(minimum = 0, maximum = 100)]
    pub warn_at: i64,
    /// Nearly used up.
    #[schema(minimum = 0, maximum = 100)]
    pub critical_at: i64,
    /// Used up.
    #[schema(minimum = 0, maximum = 100)]
    pub hard_stop_at: i64,
}

/// Cheaper models when money runs short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AutoDowngrade {
    /// Whether they take over.
    pub enabled: bool,
    /// From which percent of the monthly budget on.
    #[schema(minimum = 0, maximum = 100)]
    pub threshold: i64,
    /// Pairs of a model and the one that takes over.
    #[schema(value_type = Vec<Vec<String>>)]
    pub downgrade_map: Vec<(String, String)>,
    /// When they may take over.
    pub boundary: DowngradeBoundary,
}

/// Risk units that may be used up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RiskBudget {
    /// Whether it counts.
    pub enabled: bool,
    /// Most for one task.
    #[schema(minimum = 0)]
    pub per_task_risk_limit: f64,
    /// Most for one agent in a day.
    #[schema(minimum = 0)]
    pub per_agent_daily_risk_limit: f64,
    /// Most in a day.
    #[schema(minimum = 0)]
    pub total_daily_risk_limit: f64,
    /// When to tell.
    pub alerts: RiskBudgetAlerts,
}

/// Thresholds in percent of the daily risk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RiskBudgetAlerts {
    /// Worth a look.
    #[schema(minimum = 0, maximum = 100)]
    pub warn_at: i64,
    /// Nearly used up.
    #[schema(minimum = 0, maximum = 100)]
    pub critical_at: i64,
}

impl BudgetConfig {
    /// Checks what bounds of single values do not say.
    ///
    /// # Errors
    /// The broken rule, never a value.
    pub fn check(&self) -> Result<(), String> {
        let BudgetAlerts { warn_at, critical_at, hard_stop_at } = self.alerts;
        if warn_at >= critical_at || critical_at >= hard_stop_at {
            return Err(
                "alert_warn_at must be below alert_critical_at, and that below alert_hard_stop_at".into()
            );
        }
        let limits = [self.per_task_limit, self.per_agent_daily_limit];
        if self.total_monthly > Money::ZERO && limits.iter().any(|limit| *limit > self.total_monthly) {
            return Err(
                "per_task_limit and per_agent_daily_limit must not exceed total_monthly, unless that is 0"
                    .into(),
            );
        }
        let risk = &self.risk_budget;
        if risk.alerts.warn_at >= risk.alerts.critical_at {
            return Err("risk_alert_warn_at must be below risk_alert_critical_at".into());
        }
        if risk.per_task_risk_limit > risk.per_agent_daily_risk_limit
            || risk.per_agent_daily_risk_limit > risk.total_daily_risk_limit
        {
            return Err("risk_per_task_limit must not exceed risk_per_agent_daily_limit, nor that \
                        risk_total_daily_limit"
                .into());
        }
        Ok(())
    }

    /// The highest level that spending has reached in a billing period.
    pub fn level(&self, spent: Money) -> AlertLevel {
        if self.total_monthly == Money::ZERO {
            return AlertLevel::Normal;
        }
        let levels = [AlertLevel::HardStop, AlertLevel::Critical, AlertLevel::Warning];
        levels
            .into_iter()
            .find(|level| self.threshold(*level).is_some_and(|at| spent.reaches(at, self.total_monthly)))
            .unwrap_or(AlertLevel::Normal)
    }

    /// The percentage a level begins at.
    pub const fn threshold(&self, level: AlertLevel) -> Option<i64> {
        match level {
            AlertLevel::Normal => None,
            AlertLevel::Warning => Some(self.alerts.warn_at),
            AlertLevel::Critical => Some(self.alerts.critical_at),
            AlertLevel::HardStop => Some(self.alerts.hard_stop_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(amount: f64) -> Money {
        Money::from_f64(amount).unwrap()
    }

    fn sound() -> BudgetConfig {
        BudgetConfig {
            total_monthly: money(100.0),
            alerts: BudgetAlerts { warn_at: 75, critical_at: 90, hard_stop_at: 100 },
            per_task_limit: money(5.0),
            per_agent_daily_limit: money(10.0),
            auto_downgrade: AutoDowngrade {
                enabled: false,
                threshold: 85,
                downgrade_map: Vec::new(),
                boundary: DowngradeBoundary::TaskAssignment,
            },
            reset_day: 1,
            currency: Currency::Usd,
            risk_budget: RiskBudget {
                enabled: false,
                per_task_risk_limit: 5.0,
                per_agent_daily_risk_limit: 20.0,
                total_daily_risk_limit: 100.0,
                alerts: RiskBudgetAlerts { warn_at: 75, critical_at: 90 },
            },
            pte_tracking_enabled: false,
        }
    }

    #[test]
    fn each_rule_over_several_values_is_checked() {
        assert_eq!(sound().check(), Ok(()));
        type Breaks = fn(&mut BudgetConfig);
        let broken: [(&str, Breaks); 7] = [
            ("alert_warn_at", |c| c.alerts.warn_at = 90),
            ("alert_warn_at", |c| c.alerts.hard_stop_at = 90),
            ("per_task_limit", |c| c.per_task_limit = money(100.01)),
            ("per_task_limit", |c| c.per_agent_daily_limit = money(100.01)),
            ("risk_alert_warn_at", |c| c.risk_budget.alerts.critical_at = 75),
            ("risk_per_task_limit", |c| c.risk_budget.per_task_risk_limit = 20.1),
            ("risk_per_task_limit", |c| c.risk_budget.per_agent_daily_risk_limit = 100.1),
        ];
        for (rule, breaks) in broken {
            let mut config = sound();
            breaks(&mut config);
            assert!(config.check().unwrap_err().starts_with(rule), "{config:?}");
        }
        let mut boundless = BudgetConfig { total_monthly: Money::ZERO, ..sound() };
        boundless.per_task_limit = money(1e6);
        assert_eq!(boundless.check(), Ok(()));
    }

    #[test]
    fn the_highest_threshold_reached_is_the_level() {
        let levels = [0.0, 74.99, 75.0, 89.99, 90.0, 99.99, 100.0, 250.0];
        let levels = levels.map(|spent| sound().level(money(spent)).as_str());
        assert_eq!(
            levels,
            ["normal", "normal", "warning", "warning", "critical", "critical", "hard_stop", "hard_stop"]
        );
        let boundless = BudgetConfig { total_monthly: Money::ZERO, ..sound() };
        assert_eq!(boundless.level(money(1e9)), AlertLevel::Normal);
    }
}
