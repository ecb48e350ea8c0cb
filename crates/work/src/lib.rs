//! What gets done: settings, interrupts, tasks, approvals, projects, artifacts.

pub mod approvals;
pub mod artifacts;
pub mod interrupts;
pub mod projects;
pub mod settings;
pub mod tasks;
