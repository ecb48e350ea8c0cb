//! The edge from outside: what any client of any route can rely on.

mod errors;
mod extracts;
mod log;
mod serving;
mod support;
mod transport;
