//! Escalations: conflicts put before people, and what became of them.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::conflict::{Conflict, Decision, MAX_ID, unique};
use crate::role::wire_enum;
use crate::text::NotBlank;
use crate::{Error, Result};

wire_enum! {
    /// Where an escalation stands.
    EscalationStatus {
        /// It waits for a person.
        Pending = "pending",
        /// A person has decided.
        Decided = "decided",
        /// Nobody has, in time.
        Expired = "expired",
        /// It was taken back.
        Cancelled = "cancelled",
    }
}

/// Who ended an escalation: `human:<user id>` or a part of the program, `system:<part>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndedBy(String);

impl EndedBy {
    /// The user with this id.
    pub fn human(user_id: &str) -> Self {
        Self(format!("human:{user_id}"))
    }

    /// Time.
    pub fn expiry() -> Self {
        Self("system:expiry".to_owned())
    }

    /// Who had asked, and needs no answer any more.
    pub fn resolver() -> Self {
        Self("system:resolver_cancelled".to_owned())
    }

    /// Reads the text of a row; `None` for any other prefix.
    pub fn parse(text: String) -> Option<Self> {
        let name = text.strip_prefix("human:").or_else(|| text.strip_prefix("system:"))?;
        if name.trim().is_empty() { None } else { Some(Self(text)) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What has become of an escalation.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// It waits.
    Pending,
    /// A person has decided.
    Decided(Decision),
    /// Nobody has, in time.
    Expired,
    /// It was taken back; why, if a person did.
    Cancelled(Option<String>),
}

impl Fate {
    /// Where the escalation stands.
    pub const fn status(&self) -> EscalationStatus {
        match self {
            Self::Pending => EscalationStatus::Pending,
            Self::Decided(_) => EscalationStatus::Decided,
            Self::Expired => EscalationStatus::Expired,
            Self::Cancelled(_) => EscalationStatus::Cancelled,
        }
    }
}

/// A conflict put before people.
#[derive(Clone, Debug, PartialEq)]
pub struct Escalation {
    /// Unique.
    pub id: NotBlank<MAX_ID>,
    /// What is to be decided.
    pub conflict: Conflict,
    /// Since when.
    pub created_at: DateTime<Utc>,
    /// Until when somebody waits; `None` for ever.
    pub expires_at: Option<DateTime<Utc>>,
    /// What has become of it.
    pub fate: Fate,
    /// When and by whom it ended; `None` exactly while it waits.
    pub ended: Option<(DateTime<Utc>, EndedBy)>,
}

impl Escalation {
    /// One that waits, with an id of its own.
    ///
    /// # Errors
    /// As [`Conflict::check`].
    pub fn new(conflict: Conflict, now: DateTime<Utc>, expires_at: Option<DateTime<Utc>>) -> Result<Self> {
        conflict.check()?;
        let id = unique("escalation")?;
        Ok(Self { id, conflict, created_at: now, expires_at, fate: Fate::Pending, ended: None })
    }

    /// Where it stands.
    pub const fn status(&self) -> EscalationStatus {
        self.fate.status()
    }
}

/// Name of the channel of PostgreSQL on which the ends of escalations are told to other programs: 1 to 63
/// ASCII letters, digits and `_`, no digit in front.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct NotifyChannel(String);

impl NotifyChannel {
    /// The name unless another is chosen.
    pub const DEFAULT: &str = "conflict_escalation_events";

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for NotifyChannel {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

impl TryFrom<String> for NotifyChannel {
    type Error = &'static str;

    fn try_from(name: String) -> std::result::Result<Self, Self::Error> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let begins = name.bytes().next().is_some_and(|b| fits(b) && !b.is_ascii_digit());
        if begins && name.len() <= 63 && name.bytes().all(fits) {
            Ok(Self(name))
        } else {
            Err("must have 1 to 63 letters, digits and _, and no digit in front")
        }
    }
}

impl fmt::Display for NotifyChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// 404/3000: no such escalation.
pub fn unknown(id: &str) -> Error {
    Error::missing("Escalation", id)
}

/// 409/4000: somebody was faster, or time was.
pub fn not_pending(id: &str, status: EscalationStatus) -> Error {
    Error::conflict(format!("Escalation '{id}' is no longer pending: it is {status}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_of_a_person_or_of_the_program() {
        for text in ["human:1", "system:expiry", "system:resolver_cancelled"] {
            assert_eq!(EndedBy::parse(text.to_owned()).unwrap().as_str(), text);
        }
        for text in ["", "human:", "system: ", "agent:ada", "ceo", "Human:1"] {
            assert_eq!(EndedBy::parse(text.to_owned()), None, "{text}");
        }
        assert_eq!(EndedBy::human("u").as_str(), "human:u");
        assert_eq!(EndedBy::expiry().as_str(), "system:expiry");
        assert_eq!(EndedBy::resolver().as_str(), "system:resolver_cancelled");
    }

    #[test]
    fn names_of_channels_that_could_be_more_than_a_name_are_refused() {
        for name in ["a", "_", "conflict_escalation_events", "A9", &"a".repeat(63)] {
            assert!(NotifyChannel::try_from(name.to_owned()).is_ok(), "{name}");
        }
        for name in ["", "9a", "a-b", "a b", "a\"; DROP TABLE users; --", "ä", "a;", &"a".repeat(64)] {
            assert!(NotifyChannel::try_from(name.to_owned()).is_err(), "{name}");
            assert!(serde_json::from_value::<NotifyChannel>(name.into()).is_err(), "{name}");
        }
        assert_eq!(NotifyChannel::default().as_str(), NotifyChannel::DEFAULT);
    }
}
