//! What gets done: settings.

pub mod settings;
