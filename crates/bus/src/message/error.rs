//! What can go wrong on the bus, each failure apart from the others.

use std::fmt;

use quarterdeck_domain::{Error, ErrorCode};

/// Result of an operation of the bus.
pub type Result<T> = std::result::Result<T, BusError>;

/// A failure of the bus. Texts hold names and reasons, never what a message says and never credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusError {
    /// No channel has this name.
    UnknownChannel(String),
    /// A channel has this name already.
    ChannelExists(String),
    /// Receiving needs a subscription; only broadcast channels do without.
    NotSubscribed {
        /// Where.
        channel: String,
        /// Who.
        subscriber: String,
    },
    /// A direct line is for its two parties.
    NotAParty {
        /// The line.
        channel: String,
        /// Who is none of them.
        agent: String,
    },
    /// The bus, or the bridge, was started before and not stopped since.
    AlreadyStarted,
    /// The bus, or the bridge, is not started, or was stopped meanwhile.
    NotRunning,
    /// Stopping took too long, so something may still be at work. Build another one.
    Unusable,
    /// A name or a message breaks a rule; the text says which.
    Invalid(String),
    /// The message has more bytes than may be sent.
    TooLarge {
        /// How many it has, as JSON.
        bytes: usize,
        /// How many it may have.
        most: usize,
    },
    /// The server of the bus cannot be reached or did not do what it was asked.
    Unavailable(String),
}

impl BusError {
    /// The server failed, not the caller.
    pub(super) fn server(doing: &str, cause: impl fmt::Display) -> Self {
        Self::Unavailable(format!("{doing}: {cause}"))
    }
}

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownChannel(name) => write!(f, "channel '{name}' does not exist"),
            Self::ChannelExists(name) => write!(f, "channel '{name}' exists already"),
            Self::NotSubscribed { channel, subscriber } => {
                write!(f, "'{subscriber}' is not subscribed to channel '{channel}'")
            }
            Self::NotAParty { channel, agent } => write!(f, "'{agent}' is no party of '{channel}'"),
            Self::AlreadyStarted => f.write_str("already started"),
            Self::NotRunning => f.write_str("not running"),
            Self::Unusable => f.write_str("did not stop in time and cannot be used any more"),
            Self::Invalid(rule) => f.write_str(rule),
            Self::TooLarge { bytes, most } => {
                write!(f, "the message has {bytes} bytes; it may have {most}")
            }
            Self::Unavailable(cause) => write!(f, "the message bus is unavailable: {cause}"),
        }
    }
}

impl std::error::Error for BusError {}

impl From<BusError> for Error {
    fn from(error: BusError) -> Self {
        let text = error.to_string();
        match error {
            BusError::UnknownChannel(_) => Self::with(ErrorCode::ChannelNotFound, text),
            BusError::ChannelExists(_) => Self::with(ErrorCode::ChannelAlreadyExists, text),
            BusError::NotSubscribed { .. } => Self::conflict(text),
            BusError::NotAParty { .. } => Self::forbidden(text),
            BusError::Invalid(_) | BusError::TooLarge { .. } => Self::rule(text),
            BusError::AlreadyStarted => Self::with(ErrorCode::CommunicationError, text),
            BusError::NotRunning | BusError::Unusable | BusError::Unavailable(_) => {
                Self::unavailable(text, 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_the_server_is_not_shown_to_clients() {
        let error = Error::from(BusError::server("publish", "nats: timed out"));
        assert_eq!((error.status(), error.detail()), (503, "Service unavailable"));
        assert!(error.cause().unwrap().contains("timed out"));
    }

    #[test]
    fn names_of_channels_lead_to_their_own_numbers() {
        let error = |e| Error::from(e).code().number();
        assert_eq!(error(BusError::UnknownChannel("#x".into())), 3007);
        assert_eq!(error(BusError::ChannelExists("#x".into())), 4005);
        assert_eq!(error(BusError::AlreadyStarted), 8005);
    }
}
