//! Words and rules of the control plane: errors, identities, roles, users, sessions and settings.
//!
//! Nothing here does I/O, awaits, or knows HTTP beyond the status numbers of the error table.

pub mod activity;
pub mod amount;
pub mod analytics;
pub mod approval;
pub mod artifact;
pub mod audit;
pub mod autonomy;
pub mod backup;
pub mod budget;
pub mod channel;
pub mod clock;
pub mod config;
pub mod conflict;
pub mod coordination_metrics;
pub mod cost_record;
pub mod decision_record;
pub mod error;
pub mod escalation;
pub mod event;
pub mod identity;
pub mod interrupt;
pub mod meeting;
pub mod money;
pub mod notification;
pub mod period;
pub mod project;
pub mod review;
pub mod role;
pub mod setting;
pub mod sink;
pub mod stream;
pub mod task;
pub mod text;
pub mod user;

pub use error::{Category, Error, ErrorCode, Result};
