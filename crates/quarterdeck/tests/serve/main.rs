//! The server in processes of its own: start, stop, and everything that only shows across that border.

mod caller;
mod commands;
mod copies;
mod hostile;
mod kill;
mod limits;
mod process;
mod realtime;
mod refusals;
mod secrets;
mod start;
#[cfg(unix)]
mod stop;
#[cfg(unix)]
mod tls;
