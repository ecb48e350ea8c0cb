//! The quarterdeck program: command line, configuration, wiring, start and stop.

mod artifacts;
mod backups;
mod client;
mod commands;
mod failure;
mod follow;
mod gatherings;
mod lifecycle;
mod local;
mod log_settings;
mod logging;
mod news;
mod output;
mod process;
mod serve;
mod terminal;

pub mod cli;
pub mod config;

pub use failure::Failure;
pub use output::Output;

use std::process::ExitCode;

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let environment = config::Environment::of_process();
    let output = Output::for_early_failures(&arguments, &environment);
    match cli::parse(&arguments, &environment) {
        Ok(cli::Parsed::Run(cli)) => {
            let output = Output::new(&cli.global, &environment);
            match commands::run(&cli, &environment, &output) {
                Ok(code) => code,
                Err(failure) => output.fail(&failure),
            }
        }
        Ok(cli::Parsed::Help(text)) => {
            output.print(&text);
            ExitCode::SUCCESS
        }
        Err(failure) => output.fail(&failure),
    }
}
