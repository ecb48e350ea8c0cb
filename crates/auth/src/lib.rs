//! Identity: passwords, tokens, sessions, keys, tickets and lockout.

pub mod config;
