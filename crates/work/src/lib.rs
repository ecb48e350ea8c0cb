//! What gets done: settings, interrupts, tasks, approvals, backups.

pub mod approvals;
pub mod backups;
pub mod interrupts;
pub mod settings;
pub mod tasks;
