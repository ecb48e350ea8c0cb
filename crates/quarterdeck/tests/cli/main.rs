//! The compiled program, run the way people run it.

mod accounts;
mod configuration;
mod deck;
mod diagnosis;
#[cfg(unix)]
mod redis;
mod trail;
mod usage;
