//! What gets done: settings, interrupts, money and what is told about work.

pub mod budget;
pub mod coordination_metrics;
pub mod interrupts;
pub mod settings;
