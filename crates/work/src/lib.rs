//! What gets done, and what is decided about it.

pub mod approvals;
pub mod autonomy;
pub mod backups;
pub mod escalations;
pub mod interrupts;
pub mod meetings;
pub mod settings;
pub mod tasks;
