//! What people are told though they did not ask.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::role::wire_enum;

/// Most characters of a title; a longer one is cut.
pub const MAX_TITLE: usize = 200;
/// Most characters of a body; a longer one is cut.
pub const MAX_BODY: usize = 8_192;

wire_enum! {
    /// What a notification is about.
    #[schema(as = NotificationCategory)]
    Category {
        /// Somebody has to decide, or has not.
        Approval = "approval",
        /// Money.
        Budget = "budget",
        /// Access, and the trail of it.
        Security = "security",
        /// The program itself.
        System = "system",
        /// An agent.
        Agent = "agent",
        /// Something outside that is not well.
        Health = "health",
        /// A question that went up.
        Escalation = "escalation",
    }
}

wire_enum! {
    /// How much it matters, least first.
    #[schema(as = NotificationSeverity)]
    Severity {
        /// Good to know.
        Info = "info",
        /// Look at it today.
        Warning = "warning",
        /// Something does not work.
        Error = "error",
        /// Look at it now.
        Critical = "critical",
    }
}

/// A message to whoever looks after the installation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Notification {
    /// Unique.
    pub id: Uuid,
    /// What it is about.
    pub category: Category,
    /// How much it matters.
    pub severity: Severity,
    /// One line; never blank.
    pub title: String,
    /// The rest, in sentences; may be empty.
    pub body: String,
    /// The part of the program that says it, such as `audit.chain`.
    pub source: &'static str,
    /// When.
    pub timestamp: DateTime<Utc>,
    /// Names and numbers that go with it; nothing secret.
    pub metadata: Map<String, Value>,
}

impl Notification {
    /// A notification with a title alone. `source` is a dotted name.
    pub fn new(
        category: Category,
        severity: Severity,
        source: &'static str,
        title: impl Into<String>,
        now: DateTime<Utc>,
    ) -> Self {
        // One line, whatever names of users or agents have in them.
        let title: String = title.into().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let title = if title.trim().is_empty() { source } else { title.trim() };
        Self {
            id: Uuid::now_v7(),
            category,
            severity,
            title: cut(title, MAX_TITLE),
            body: String::new(),
            source,
            timestamp: now,
            metadata: Map::new(),
        }
    }

    /// Says more.
    pub fn body(mut self, body: impl AsRef<str>) -> Self {
        self.body = cut(body.as_ref(), MAX_BODY);
        self
    }

    /// Adds a name or number; nothing secret.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.metadata.insert(name.to_owned(), value.into());
        self
    }
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titled(title: &str) -> String {
        let now = DateTime::UNIX_EPOCH;
        Notification::new(Category::System, Severity::Info, "test.source", title, now).title
    }

    #[test]
    fn a_title_is_one_line_that_is_never_blank_and_never_long() {
        assert_eq!(titled("a\r\nBcc: b\u{7}"), "a  Bcc: b");
        assert_eq!(titled(" \n "), "test.source");
        assert_eq!(titled(&"ä".repeat(MAX_TITLE)).chars().count(), MAX_TITLE);
        let long = titled(&"ä".repeat(MAX_TITLE + 1));
        assert_eq!((long.chars().count(), long.ends_with('…')), (MAX_TITLE, true));
    }

    #[test]
    fn severities_are_in_order() {
        assert!(Severity::ALL.is_sorted());
        assert!(Severity::Critical > Severity::Warning);
    }
}
