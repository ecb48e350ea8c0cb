//! The quarterdeck program: command line, configuration, wiring, start and stop.
#[allow(dead_code, reason = "started by the serve command")]
mod logging;

fn main() {}
//! Starts the program; everything else is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    quarterdeck::main()
}
