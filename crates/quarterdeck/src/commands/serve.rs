//! `serve`: runs the server until it is told to stop.

use std::process::ExitCode;
use std::thread::available_parallelism;

use super::Context;
use crate::Failure;

pub(super) fn run(context: &Context<'_>) -> Result<ExitCode, Failure> {
    let loaded = context.load()?;
    let cores = available_parallelism().map_or(1, |cores| cores.get());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.max(loaded.config.api.server.workers as usize))
        .enable_all()
        .build()
        .map_err(|e| Failure::runtime(format!("no threads can be started ({e})")))?;
    runtime.block_on(crate::serve::run(loaded, context.output))?;
    Ok(ExitCode::SUCCESS)
}
