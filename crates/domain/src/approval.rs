//! Decisions people make before something happens.

use crate::role::wire_enum;

wire_enum! {
    /// What is at stake.
    #[schema(as = ApprovalRiskLevel)]
    RiskLevel {
        /// Everyday.
        Low = "low",
        /// Worth a look.
        Medium = "medium",
        /// Hard to undo.
        High = "high",
        /// Must not go wrong.
        Critical = "critical",
    }
}
