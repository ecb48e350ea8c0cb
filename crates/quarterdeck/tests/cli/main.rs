//! The compiled program, run the way people run it.

mod accounts;
#[cfg(unix)]
mod backups;
mod configuration;
mod deck;
mod diagnosis;
#[cfg(unix)]
mod redis;
mod usage;
