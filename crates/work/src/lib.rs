//! What gets done: settings, interrupts, tasks, approvals.

pub mod approvals;
pub mod interrupts;
pub mod settings;
pub mod tasks;
