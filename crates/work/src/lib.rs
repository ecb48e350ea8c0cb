//! What gets done: settings, interrupts, tasks, projects, artifacts.

pub mod artifacts;
pub mod interrupts;
pub mod projects;
pub mod settings;
pub mod tasks;
