//! `completion`: a script that lets a shell finish words.

use std::process::ExitCode;

use clap_complete::Shell;

use super::Context;
use crate::{Failure, cli};

pub(super) fn run(context: &Context<'_>, shell: Shell) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::definition(), "quarterdeck", &mut script);
    let script = String::from_utf8_lossy(&script);
    context.output.result(&script, &serde_json::json!({"shell": shell.to_string(), "script": script}));
    Ok(ExitCode::SUCCESS)
}
