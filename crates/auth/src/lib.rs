//! Identity: passwords, tokens, sessions, keys, tickets and lockout.

pub mod cli_token;
pub mod config;
