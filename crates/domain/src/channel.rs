//! Channels: where events are told, and who may listen.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::role::{HumanRole, wire_enum};

wire_enum! {
    /// A channel everybody shares.
    Shared {
        /// Tasks and their coordination.
        Tasks = "tasks",
        /// Agents.
        Agents = "agents",
        /// Money; not for everybody.
        Budget = "budget",
        /// Messages between agents.
        Messages = "messages",
        /// The server itself: its start, its settings, its accounts.
        System = "system",
        /// Approvals.
        Approvals = "approvals",
        /// Meetings.
        Meetings = "meetings",
        /// Artifacts.
        Artifacts = "artifacts",
        /// Projects.
        Projects = "projects",
        /// The company as a whole.
        Company = "company",
        /// Departments.
        Departments = "departments",
        /// Clients.
        Clients = "clients",
        /// Requests of clients.
        Requests = "requests",
        /// Simulations.
        Simulations = "simulations",
        /// Reviews.
        Reviews = "reviews",
        /// What agents do in their sessions.
        Events = "events",
        /// Questions that block an agent.
        Interrupts = "interrupts",
        /// Dissent of agents.
        Dissent = "#dissent",
        /// Webhooks received; not for everybody.
        Webhooks = "#webhooks",
        /// Rate limits of outside services; not for everybody.
        RateLimit = "#ratelimit",
    }
}

impl Shared {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Whether a role may receive it.
    pub const fn readable_by(self, role: HumanRole) -> bool {
        match self {
            Self::Budget | Self::Webhooks | Self::RateLimit => {
                matches!(role, HumanRole::Ceo | HumanRole::Manager)
            }
            _ => role.reads(),
        }
    }
}

/// Prefix of the names of [`Channel::User`].
const USER: &str = "user:";

/// Where an event is told. On the wire a name, compared byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    /// One everybody shares.
    Shared(Shared),
    /// One user's own, `user:<id>`; nobody else may receive it, whatever their role.
    User(Arc<str>),
}

impl Channel {
    /// Reads a name; `None` for one that no channel has.
    pub fn parse(name: &str) -> Option<Self> {
        match name.strip_prefix(USER) {
            Some("") => None,
            Some(id) => Some(Self::User(id.into())),
            None => Shared::parse(name).map(Self::Shared),
        }
    }

    /// Whether a user with this role may receive it.
    pub fn readable_by(&self, user_id: &str, role: HumanRole) -> bool {
        match self {
            Self::Shared(shared) => shared.readable_by(role),
            Self::User(owner) => &**owner == user_id && role.reads(),
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared(shared) => f.write_str(shared.as_str()),
            Self::User(id) => write!(f, "{USER}{id}"),
        }
    }
}

impl From<Shared> for Channel {
    fn from(shared: Shared) -> Self {
        Self::Shared(shared)
    }
}

impl Serialize for Channel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Channel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&name).ok_or_else(|| serde::de::Error::custom("no channel has this name"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_byte_for_byte() {
        for &shared in Shared::ALL {
            assert_eq!(Channel::parse(shared.as_str()), Some(shared.into()));
            assert_eq!(Channel::Shared(shared).to_string(), shared.as_str());
        }
        for name in ["Tasks", " tasks", "tasks ", "", "user:", "#Dissent", "dissent", "tasks\u{301}"] {
            assert_eq!(Channel::parse(name), None, "{name:?}");
        }
        assert_eq!(Channel::parse("user:a:b").unwrap().to_string(), "user:a:b");
    }

    #[test]
    fn money_and_plumbing_are_for_ceo_and_manager_and_a_users_channel_for_nobody_else() {
        let restricted = [Shared::Budget, Shared::Webhooks, Shared::RateLimit];
        for &role in HumanRole::ALL {
            let senior = matches!(role, HumanRole::Ceo | HumanRole::Manager);
            for &shared in Shared::ALL {
                let expected = role.reads() && (senior || !restricted.contains(&shared));
                assert_eq!(shared.readable_by(role), expected, "{shared} {role}");
            }
            let own = Channel::User("a".into());
            assert_eq!(own.readable_by("a", role), role.reads());
            assert!(!own.readable_by("b", role));
        }
    }
}
