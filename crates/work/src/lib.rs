//! What gets done: settings, interrupts, escalations, meetings, autonomy.

pub mod autonomy;
pub mod escalations;
pub mod interrupts;
pub mod meetings;
pub mod settings;
