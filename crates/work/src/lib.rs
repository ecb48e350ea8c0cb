//! What gets done: settings, interrupts, backups.

pub mod backups;
pub mod interrupts;
pub mod settings;
