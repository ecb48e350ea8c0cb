//! What gets done: settings, interrupts, tasks.

pub mod interrupts;
pub mod settings;
pub mod tasks;
