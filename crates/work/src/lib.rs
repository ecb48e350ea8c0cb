//! What gets done, and what is decided about it.

pub mod activities;
pub mod analytics;
pub mod approvals;
pub mod artifacts;
pub mod audit;
pub mod autonomy;
pub mod backups;
pub mod budget;
pub mod coordination_metrics;
pub mod escalations;
pub mod interrupts;
pub mod meetings;
pub mod notifications;
pub mod projects;
pub mod reviews;
pub mod settings;
pub mod tasks;
