//! What an operator decides about meetings: the section `meetings`.

use std::collections::HashSet;
use std::time::Duration;

use chrono::TimeDelta;
use quarterdeck_domain::config::{between, not_blank};
use quarterdeck_domain::meeting::Protocol;
use serde::{Deserialize, Serialize};

/// Most characters of the name of a type, an event or a participant.
const MAX_NAME: usize = 128;

/// The section `meetings`; does not change after the start.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MeetingsConfig {
    /// Whether there are meetings at all.
    pub enabled: bool,
    /// After so long a meeting has failed, whatever became of it.
    pub timeout_seconds: u32,
    /// Which meetings there are.
    pub types: Vec<MeetingType>,
}

impl Default for MeetingsConfig {
    fn default() -> Self {
        Self { enabled: true, timeout_seconds: 3600, types: Vec::new() }
    }
}

/// How often a meeting comes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the words are plain")]
pub enum Frequency {
    Daily,
    Weekly,
    BiWeekly,
    PerSprintDay,
    Monthly,
}

impl Frequency {
    /// From one beginning to the next.
    pub const fn pause(self) -> TimeDelta {
        match self {
            Self::Daily | Self::PerSprintDay => TimeDelta::days(1),
            Self::Weekly => TimeDelta::days(7),
            Self::BiWeekly => TimeDelta::days(14),
            Self::Monthly => TimeDelta::days(30),
        }
    }
}

/// One entry of `meetings.types`: a kind of meeting, held again and again or when something happens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeetingType {
    /// Unique.
    pub name: String,
    /// How often it comes by itself; either this or `trigger`.
    #[serde(default)]
    pub frequency: Option<Frequency>,
    /// The event it is held on.
    #[serde(default)]
    pub trigger: Option<String>,
    /// How it is held.
    #[serde(default = "round_robin")]
    pub protocol: Protocol,
    /// Who takes part, the leader first: a key of the context, `all`, a department, an agent's name or an id.
    #[serde(default)]
    pub participants: Vec<String>,
    /// Tokens it may use.
    #[serde(default = "tokens")]
    pub duration_tokens: u32,
    /// Least pause between two that are triggered.
    #[serde(default)]
    pub min_interval_seconds: Option<u32>,
}

const fn round_robin() -> Protocol {
    Protocol::RoundRobin
}

const fn tokens() -> u32 {
    2000
}

impl MeetingsConfig {
    /// Checks every bound and rule.
    ///
    /// # Errors
    /// A sentence with the dotted field and the broken rule.
    pub fn validate(&self) -> Result<(), String> {
        between("meetings.timeout_seconds", self.timeout_seconds, 1, 86_400)?;
        let mut names = HashSet::new();
        for kind in &self.types {
            kind.validate()?;
            if !names.insert(kind.name.as_str()) {
                return Err("meetings.types must not hold a name twice".to_owned());
            }
        }
        Ok(())
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.into())
    }
}

impl MeetingType {
    fn validate(&self) -> Result<(), String> {
        name("name", &self.name)?;
        let rule =
            |holds: bool, text: &str| if holds { Ok(()) } else { Err(format!("meetings.types: {text}")) };
        let one = self.frequency.is_some() != self.trigger.is_some();
        rule(one, "a type must have either a frequency or a trigger")?;
        if let Some(trigger) = &self.trigger {
            name("trigger", trigger)?;
        }
        let mut seen = HashSet::new();
        for participant in &self.participants {
            name("participants", participant)?;
            rule(seen.insert(participant), "participants must not hold a name twice")?;
        }
        between("meetings.types: duration_tokens", self.duration_tokens, 1, u32::MAX)?;
        if let Some(seconds) = self.min_interval_seconds {
            between("meetings.types: min_interval_seconds", seconds, 1, u32::MAX)?;
            rule(self.trigger.is_some(), "min_interval_seconds must come with a trigger")?;
        }
        Ok(())
    }

    /// Least pause between two that are triggered.
    pub(super) fn min_interval(&self) -> Option<TimeDelta> {
        self.min_interval_seconds.map(|seconds| TimeDelta::seconds(seconds.into()))
    }
}

fn name(field: &str, text: &str) -> Result<(), String> {
    not_blank(&format!("meetings.types: {field}"), text)?;
    if text.chars().count() > MAX_NAME || text.contains('\0') {
        return Err(format!("meetings.types: {field} must have at most {MAX_NAME} characters, and no NUL"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(types: Value) -> Result<MeetingsConfig, String> {
        let config = serde_json::from_value(json!({ "types": types }));
        let config: MeetingsConfig = config.map_err(|error| error.to_string())?;
        config.validate().map(|()| config)
    }

    #[test]
    fn a_type_needs_a_name_and_a_reason_to_meet() {
        let config = of(json!([
            {"name": "standup", "frequency": "daily", "participants": ["all"]},
            {"name": "review", "trigger": "deploy.done", "min_interval_seconds": 60, "protocol": "position_papers"},
        ]))
        .unwrap();
        assert_eq!((config.types[0].duration_tokens, config.types[0].protocol), (2000, Protocol::RoundRobin));
        assert_eq!(config.types[1].min_interval(), Some(TimeDelta::seconds(60)));
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        for broken in [
            json!([{"name": "a"}]),
            json!([{"name": "a", "trigger": "t", "frequency": "daily"}]),
            json!([{"name": " ", "trigger": "t"}]),
            json!([{"name": "a", "trigger": ""}]),
            json!([{"name": "a", "trigger": "t"}, {"name": "a", "trigger": "u"}]),
            json!([{"name": "a", "trigger": "t", "participants": ["x", "x"]}]),
            json!([{"name": "a", "trigger": "t", "duration_tokens": 0}]),
            json!([{"name": "a", "trigger": "t", "min_interval_seconds": 0}]),
            json!([{"name": "a", "frequency": "daily", "min_interval_seconds": 5}]),
            json!([{"name": "a", "frequency": "hourly"}]),
            json!([{"name": "a", "trigger": "t", "protocol": "chaos"}]),
            json!([{"name": "a", "trigger": "t", "color": "red"}]),
            json!([{"name": "a".repeat(129), "trigger": "t"}]),
        ] {
            assert!(of(broken.clone()).is_err(), "{broken}");
        }
        let config = MeetingsConfig { timeout_seconds: 0, ..MeetingsConfig::default() };
        assert!(config.validate().is_err());
    }
}
