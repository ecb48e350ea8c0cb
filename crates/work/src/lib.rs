//! What gets done: settings, interrupts, tasks, approvals, escalations, meetings, autonomy.

pub mod approvals;
pub mod autonomy;
pub mod escalations;
pub mod interrupts;
pub mod meetings;
pub mod settings;
pub mod tasks;
