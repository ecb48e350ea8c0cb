//! What gets done: settings, interrupts, tasks, money.

pub mod budget;
pub mod coordination_metrics;
pub mod interrupts;
pub mod settings;
pub mod tasks;
