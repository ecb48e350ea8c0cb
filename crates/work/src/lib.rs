//! What gets done: settings, interrupts, tasks, approvals, money.

pub mod activities;
pub mod analytics;
pub mod approvals;
pub mod budget;
pub mod coordination_metrics;
pub mod interrupts;
pub mod reviews;
pub mod settings;
pub mod tasks;
