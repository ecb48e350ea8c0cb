//! The life of a task, as data.

use crate::error::{Error, Result};
use crate::role::wire_enum;

wire_enum! {
    /// Where a task stands.
    #[schema(as = TaskStatus)]
    TaskStatus {
        /// Nobody has it yet.
        Created = "created",
        /// Somebody has it and has not begun.
        Assigned = "assigned",
        /// Somebody works on it.
        InProgress = "in_progress",
        /// The work is looked at.
        InReview = "in_review",
        /// Done; for ever.
        Completed = "completed",
        /// Something else has to happen first.
        Blocked = "blocked",
        /// The work went wrong; it may be tried again.
        Failed = "failed",
        /// A shutdown stopped it without a checkpoint.
        Interrupted = "interrupted",
        /// A shutdown stopped it at a checkpoint.
        Suspended = "suspended",
        /// Given up; for ever.
        Cancelled = "cancelled",
        /// Never begun; for ever.
        Rejected = "rejected",
        /// It waits until somebody authorises it.
        AuthRequired = "auth_required",
    }
}

impl TaskStatus {
    /// Where a task may go from here. The one table of the state machine: a status without a row does not
    /// compile.
    pub const fn targets(self) -> &'static [Self] {
        use TaskStatus::*;
        match self {
            Created => &[Assigned, Rejected],
            Assigned => &[InProgress, AuthRequired, Blocked, Cancelled, Failed, Interrupted, Suspended],
            InProgress => &[InReview, AuthRequired, Blocked, Cancelled, Failed, Interrupted, Suspended],
            InReview => &[Completed, InProgress, Blocked, Cancelled],
            AuthRequired => &[Assigned, Cancelled],
            Blocked | Failed | Interrupted | Suspended => &[Assigned],
            Completed | Cancelled | Rejected => &[],
        }
    }

    /// Whether nothing comes after.
    pub const fn is_terminal(self) -> bool {
        self.targets().is_empty()
    }

    /// Whether a task that is stuck here may be cancelled where the operator allows it.
    pub const fn is_stuck(self) -> bool {
        matches!(self, Self::Blocked | Self::Failed | Self::Interrupted | Self::Suspended)
    }

    /// What the status demands of the assignee: `Some(true)` that there is one, `Some(false)` that there is
    /// none.
    pub const fn wants_assignee(self) -> Option<bool> {
        match self {
            Self::Created => Some(false),
            Self::Assigned | Self::InProgress | Self::InReview | Self::Completed | Self::AuthRequired => {
                Some(true)
            }
            _ => None,
        }
    }

    /// Lets a task go from here to `target`. With `cancel_stuck`, stuck tasks may be cancelled too.
    ///
    /// # Errors
    /// 422/2000 naming both and what is allowed.
    pub fn check(self, target: Self, cancel_stuck: bool) -> Result<()> {
        let stuck_exit = cancel_stuck && self.is_stuck();
        if self.targets().contains(&target) || (stuck_exit && target == Self::Cancelled) {
            return Ok(());
        }
        let mut allowed: Vec<_> = self.targets().iter().map(|status| status.as_str()).collect();
        if stuck_exit {
            allowed.push(Self::Cancelled.as_str());
        }
        allowed.sort_unstable();
        let allowed = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") };
        Err(Error::rule(format!("A task that is {self} cannot become {target}; allowed: {allowed}")))
    }
}
