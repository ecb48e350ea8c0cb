//! What an operator decides about escalations: the section `communication.conflict_resolution.escalation`.

use chrono::TimeDelta;
use quarterdeck_domain::config::between;
use quarterdeck_domain::conflict::DecisionStrategy;
use quarterdeck_domain::escalation::NotifyChannel;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// Where escalations are kept. There is one database and they are always kept in it; naming one is a
/// check that it is the one meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// In the database of the program.
    #[default]
    Auto,
    /// In the database of the program too: the word other programs use for "whatever is there".
    Memory,
    /// In SQLite, and the program has to run on it.
    Sqlite,
    /// In PostgreSQL, and the program has to run on it.
    Postgres,
}

/// Whether ends of escalations are told on a channel of PostgreSQL, and heard from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CrossInstanceNotify {
    /// Where the program runs on PostgreSQL.
    #[default]
    Auto,
    /// Yes, and the program has to run on PostgreSQL.
    On,
    /// No. Copies of the program still wake each other, as for every other change.
    Off,
}

/// The section `communication.conflict_resolution.escalation`; does not change after the start.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EscalationConfig {
    /// Where escalations are kept.
    pub backend: Backend,
    /// Which decisions people may take.
    pub decision_strategy: DecisionStrategy,
    /// How long somebody waits for people; absent = for ever.
    #[serde(deserialize_with = "seconds")]
    pub default_timeout_seconds: Option<u32>,
    /// Pause between two looks for what is overdue.
    pub sweeper_interval_seconds: u32,
    /// Whether ends are told to other programs.
    pub cross_instance_notify: CrossInstanceNotify,
    /// Where they are told.
    pub notify_channel: NotifyChannel,
    /// Pause before a lost connection to that channel is made anew.
    pub reconnect_delay_seconds: f64,
}

impl Default for EscalationConfig {
    fn default() -> Self {
        Self {
            backend: Backend::default(),
            decision_strategy: DecisionStrategy::default(),
            default_timeout_seconds: None,
            sweeper_interval_seconds: 30,
            cross_instance_notify: CrossInstanceNotify::default(),
            notify_channel: NotifyChannel::default(),
            reconnect_delay_seconds: 1.0,
        }
    }
}

/// A number, or its text, as which a variable gives what has no default.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Number(u32),
        Text(String),
    }
    let refuse = || D::Error::custom("must be a whole number of seconds");
    match Option::<Given>::deserialize(deserializer).map_err(|_| refuse())? {
        Some(Given::Number(number)) => Ok(Some(number)),
        Some(Given::Text(text)) => text.parse().map(Some).map_err(|_| refuse()),
        None => Ok(None),
    }
}

fn field(name: &str) -> String {
    format!("communication.conflict_resolution.escalation.{name}")
}

impl EscalationConfig {
    /// Checks every bound and rule, with the database the program will run on.
    ///
    /// # Errors
    /// A sentence with the dotted field and the broken rule.
    pub fn validate(&self, on_postgres: bool) -> Result<(), String> {
        let fits = match self.backend {
            Backend::Auto | Backend::Memory => true,
            Backend::Sqlite => !on_postgres,
            Backend::Postgres => on_postgres,
        };
        if !fits {
            return Err(format!("{} must be the database the program runs on", field("backend")));
        }
        if self.cross_instance_notify == CrossInstanceNotify::On && !on_postgres {
            return Err(format!("{} must not be on without PostgreSQL", field("cross_instance_notify")));
        }
        if let Some(seconds) = self.default_timeout_seconds {
            between(&field("default_timeout_seconds"), seconds, 1, u32::MAX)?;
        }
        between(&field("sweeper_interval_seconds"), self.sweeper_interval_seconds, 5, 86_400)?;
        if self.reconnect_delay_seconds <= 0.0 {
            return Err(format!("{} must be above 0", field("reconnect_delay_seconds")));
        }
        between(&field("reconnect_delay_seconds"), self.reconnect_delay_seconds, 0.0, 60.0)
    }

    /// Whether ends are told to other programs, where the database can.
    pub fn notifies(&self) -> bool {
        self.cross_instance_notify != CrossInstanceNotify::Off
    }

    pub(super) fn default_timeout(&self) -> Option<TimeDelta> {
        self.default_timeout_seconds.map(|seconds| TimeDelta::seconds(seconds.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_postgres_is_refused_without_it() {
        let with = |change: fn(&mut EscalationConfig), on_postgres| {
            let mut config = EscalationConfig::default();
            change(&mut config);
            config.validate(on_postgres)
        };
        assert!(with(|_| {}, false).is_ok() && with(|_| {}, true).is_ok());
        assert!(with(|c| c.backend = Backend::Memory, true).is_ok());
        assert!(with(|c| c.backend = Backend::Sqlite, false).is_ok());
        assert!(with(|c| c.backend = Backend::Sqlite, true).is_err());
        assert!(with(|c| c.backend = Backend::Postgres, true).is_ok());
        assert!(with(|c| c.backend = Backend::Postgres, false).is_err());
        assert!(with(|c| c.cross_instance_notify = CrossInstanceNotify::On, true).is_ok());
        assert!(with(|c| c.cross_instance_notify = CrossInstanceNotify::On, false).is_err());
    }

    #[test]
    fn numbers_have_bounds() {
        let with = |change: fn(&mut EscalationConfig)| {
            let mut config = EscalationConfig::default();
            change(&mut config);
            config.validate(false)
        };
        assert!(with(|c| c.default_timeout_seconds = Some(1)).is_ok());
        assert!(with(|c| c.default_timeout_seconds = Some(0)).is_err());
        assert!(with(|c| c.sweeper_interval_seconds = 5).is_ok());
        assert!(with(|c| c.sweeper_interval_seconds = 4).is_err());
        assert!(with(|c| c.reconnect_delay_seconds = 60.0).is_ok());
        for delay in [0.0, -1.0, 60.1, f64::NAN] {
            let config = EscalationConfig { reconnect_delay_seconds: delay, ..EscalationConfig::default() };
            assert!(config.validate(false).is_err(), "{delay}");
        }
    }
}
