//! One file per command.

mod backup;
mod completion;
mod config;
mod doctor;
mod events;
mod migrate;
mod openapi;
mod serve;
mod status;
mod user;
mod version;
mod wipe;

use std::future::Future;
use std::process::ExitCode;

use crate::cli::{Cli, Command};
use crate::config::{Environment, Loaded, load};
use crate::{Failure, Output};

/// What every command is given.
pub(crate) struct Context<'a> {
    pub(crate) cli: &'a Cli,
    pub(crate) environment: &'a Environment,
    pub(crate) output: &'a Output,
}

pub(crate) fn run(cli: &Cli, environment: &Environment, output: &Output) -> Result<ExitCode, Failure> {
    let context = Context { cli, environment, output };
    match &cli.command {
        Command::Serve(_) => serve::run(&context),
        Command::Migrate => migrate::run(&context),
        Command::Status(arguments) => status::run(&context, arguments),
        Command::Doctor => doctor::run(&context),
        Command::Backup(arguments) => backup::run(&context, arguments),
        Command::Wipe(arguments) => wipe::run(&context, arguments),
        Command::Config(command) => config::run(&context, command),
        Command::Events(command) => events::run(&context, command),
        Command::Openapi => openapi::run(&context),
        Command::User(command) => user::run(&context, command),
        Command::Completion { shell } => completion::run(&context, *shell),
        Command::Version { short } => version::run(&context, *short),
    }
}

impl Context<'_> {
    /// Loads the configuration and tells of variables that mean nothing.
    pub(crate) fn load(&self) -> Result<Loaded, Failure> {
        let loaded = load(self.environment, &self.cli.flags()).map_err(|text| {
            Failure::runtime(text).hint("`quarterdeck config check` tells whether it is mended")
        })?;
        if let Some(file) = &loaded.file {
            self.output.detail(&format!("configuration: {}", file.display()));
        }
        self.output.detail(&format!("data folder: {}", loaded.config.data_dir.display()));
        // The server logs them.
        let logged = matches!(self.cli.command, Command::Serve(_));
        for text in loaded.unknown_variables.iter().filter(|_| !logged) {
            self.output.note(&format!("warning: {text}"));
        }
        Ok(loaded)
    }

    /// Runs one step to its end, or until Ctrl-C.
    pub(crate) fn wait<T>(&self, step: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failure::runtime(format!("nothing can run ({e})")))?;
        let result = runtime.block_on(async {
            tokio::select! {
                result = step => result,
                _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
            }
        });
        runtime.shutdown_background();
        result
    }
}
