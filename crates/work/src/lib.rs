//! What gets done: settings, interrupts, projects, artifacts.

pub mod artifacts;
pub mod interrupts;
pub mod projects;
pub mod settings;
