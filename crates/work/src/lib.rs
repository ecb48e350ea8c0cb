//! What gets done: settings, interrupts.

pub mod interrupts;
pub mod settings;
