//! Channels and their names.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{BusError, Result};

/// Most characters of the name of a channel or an agent.
pub const MAX_NAME: usize = 128;

/// Who gets what is published on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChannelType {
    /// Those who are subscribed.
    Topic,
    /// The party a message is addressed to; named `@<a>:<b>` with the two ids in order.
    Direct,
    /// Every agent known at that moment: who is subscribed to anything, or has received a broadcast.
    Broadcast,
}

/// A channel as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Channel)]
pub struct ChannelInfo {
    /// Unique name.
    pub name: String,
    /// Who gets what is published.
    pub r#type: ChannelType,
    /// Who would get a message now, in order and each once.
    pub subscribers: Vec<String>,
}

/// Refuses what cannot name a channel or an agent; `what` begins the sentence.
pub(super) fn check_name(what: &str, name: &str) -> Result<()> {
    let rule = if name.trim().is_empty() {
        "must not be blank"
    } else if name.chars().any(char::is_control) {
        "must not hold control characters"
    } else if name.len() > MAX_NAME && name.chars().count() > MAX_NAME {
        return Err(BusError::Invalid(format!("{what} must have at most {MAX_NAME} characters")));
    } else {
        return Ok(());
    };
    Err(BusError::Invalid(format!("{what} {rule}")))
}

/// Refuses what cannot name a topic or a broadcast: names with `@` in front are direct lines.
pub(super) fn check_open_name(what: &str, name: &str) -> Result<()> {
    check_name(what, name)?;
    if name.starts_with('@') {
        return Err(BusError::Invalid(format!("{what} must not begin with @, as direct lines do")));
    }
    Ok(())
}

/// Name of the direct line between two agents, the same from either side.
///
/// # Errors
/// [`BusError::Invalid`] when an id is no name or holds a colon.
pub fn direct_name(one: &str, other: &str) -> Result<String> {
    for id in [one, other] {
        check_name("the id of an agent", id)?;
        if id.contains(':') {
            return Err(BusError::Invalid("the id of an agent must not hold a colon".to_owned()));
        }
    }
    let (first, second) = if one <= other { (one, other) } else { (other, one) };
    let name = format!("@{first}:{second}");
    check_name("the name of a direct line", &name)?;
    Ok(name)
}

/// The two parties of a direct line.
pub(super) fn parties(channel: &str) -> Option<[&str; 2]> {
    channel.strip_prefix('@')?.split_once(':').map(|(first, second)| [first, second])
}

/// Refuses an agent that is none of the two a direct line is for.
pub(super) fn check_party(channel: &str, agent: &str) -> Result<()> {
    if parties(channel).is_some_and(|parties| parties.contains(&agent)) {
        return Ok(());
    }
    Err(BusError::NotAParty { channel: channel.to_owned(), agent: agent.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direct_line_has_one_name_from_both_ends() {
        assert_eq!(direct_name("b", "a").unwrap(), "@a:b");
        assert_eq!(direct_name("a", "b").unwrap(), "@a:b");
        assert_eq!(parties("@a:b"), Some(["a", "b"]));
        assert_eq!(parties("#a:b"), None);
    }

    #[test]
    fn ids_with_a_colon_could_stand_for_two_lines_and_are_refused() {
        assert!(matches!(direct_name("a:b", "c"), Err(BusError::Invalid(_))));
        assert!(matches!(direct_name("a", "b:c"), Err(BusError::Invalid(_))));
    }

    #[test]
    fn a_name_is_bounded_and_plain() {
        assert!(check_name("n", &"ä".repeat(MAX_NAME)).is_ok());
        for name in ["", " ", "a\nb", "\u{7f}", &"a".repeat(MAX_NAME + 1)] {
            assert!(check_name("n", name).is_err(), "{name:?}");
        }
        assert!(check_open_name("n", "@a:b").is_err());
        assert!(direct_name(&"a".repeat(MAX_NAME), "b").is_err());
    }
}
