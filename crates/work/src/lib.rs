//! What gets done: settings, interrupts, the audit trail, notifications.

pub mod audit;
pub mod interrupts;
pub mod notifications;
pub mod settings;
