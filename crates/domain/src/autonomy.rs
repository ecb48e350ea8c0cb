//! How freely agents act.

use crate::role::wire_enum;

wire_enum! {
    /// How freely an agent acts, the least free first.
    AutonomyLevel {
        /// Does nothing by itself.
        Locked = "locked",
        /// People approve what it does.
        Supervised = "supervised",
        /// People approve what is risky.
        Semi = "semi",
        /// Acts by itself.
        Full = "full",
    }
}
