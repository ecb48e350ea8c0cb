//! What gets done: settings.
