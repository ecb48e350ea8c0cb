//! What gets done: settings, interrupts, escalations, meetings.

pub mod escalations;
pub mod interrupts;
pub mod meetings;
pub mod settings;
