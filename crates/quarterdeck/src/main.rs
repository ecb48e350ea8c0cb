//! The quarterdeck program: command line, configuration, wiring, start and stop.
#[allow(dead_code, reason = "started by the serve command")]
mod logging;

fn main() {}
