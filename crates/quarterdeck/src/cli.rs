//! The command line: what can be asked, and the help that explains it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use quarterdeck_domain::backup::Component;
use quarterdeck_domain::role::HumanRole;

use crate::Failure;
use crate::config::{Environment, Flags};

/// Runs a control plane for organisations of AI agents, and looks after it.
#[derive(Debug, Parser)]
#[command(name = "quarterdeck", version, disable_help_subcommand = false, after_help = AFTER_HELP)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Values come from quarterdeck.toml in the data folder, then from variables such as
QUARTERDECK_API__SERVER__PORT, then from flags; the later wins. `quarterdeck config show`
lists every name with its value.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 server unhealthy, 4 server unreachable,
130 interrupted.";

/// Flags of every command.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Folder for the database and configuration [variable: QUARTERDECK_DATA_DIR]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Configuration file [variable: QUARTERDECK_CONFIG_PATH] [default: quarterdeck.toml in the data folder]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Say nothing but results and errors [variable: QUARTERDECK_QUIET]
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Do not use colours [variable: NO_COLOR]
    #[arg(long, global = true)]
    pub no_color: bool,
    /// Write ASCII only
    #[arg(long, global = true, conflicts_with = "json")]
    pub plain: bool,
    /// Write results as one JSON document, and errors as JSON on stderr
    #[arg(long, global = true)]
    pub json: bool,
    /// Answer every question with yes [variable: QUARTERDECK_YES]
    #[arg(short, long, global = true)]
    pub yes: bool,
    /// Print the help of every command
    #[arg(long, global = true)]
    pub help_all: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server until it is told to stop
    ///
    /// Listens on 127.0.0.1:3001 and keeps everything in a SQLite file in the data folder, unless the
    /// configuration says otherwise. Ctrl-C or SIGTERM stops it; requests under way are finished first.
    Serve(ServeArgs),
    /// Bring the database's tables up to date
    ///
    /// `serve` does this by itself; use it to prepare a database before the first start.
    Migrate,
    /// Ask the running server how it is
    Status(StatusArgs),
    /// Look for what keeps the server from working, and say how to mend it
    Doctor,
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make a backup, or look after those there are
    ///
    /// Without a further word it makes one. The running server does the work, except for `verify` and where
    /// --local is given.
    Backup(BackupArgs),
    /// Delete the data folder and start from nothing
    ///
    /// Makes a backup first, asks before it deletes anything, and stops the server that uses the folder. What
    /// is in PostgreSQL stays.
    Wipe(WipeArgs),
    /// Watch what happens on the running server
    #[command(subcommand)]
    Events(EventsCommand),
    /// Print the OpenAPI document of the HTTP interface
    Openapi,
    /// Manage accounts in the local database, for the operator who is locked out
    #[command(subcommand)]
    User(UserCommand),
    /// Print a completion script for a shell
    ///
    /// For bash: `quarterdeck completion bash > ~/.local/share/bash-completion/completions/quarterdeck`
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version {
        /// The number alone
        #[arg(long)]
        short: bool,
    },
}

/// Flags of `serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Address to listen on
    #[arg(long)]
    pub host: Option<String>,
    /// Port to listen on
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Let the dashboard's development server on http://localhost:5173 call, over plain HTTP
    #[arg(long)]
    pub dev: bool,
}

/// Flags of `status`.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// Say nothing; exit with 0 healthy, 3 unhealthy, 4 unreachable
    #[arg(long, conflicts_with = "watch")]
    pub check: bool,
    /// Ask again and again until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,
    /// Pause between two questions, in seconds
    #[arg(long, requires = "watch", value_name = "SECONDS", default_value = "2", value_parser = interval)]
    pub interval: Duration,
}

/// Arguments of `backup`.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BackupArgs {
    /// What to do
    #[command(subcommand)]
    pub command: Option<BackupCommand>,
    /// Flags of `create`, which is meant without a further word.
    #[command(flatten)]
    pub create: CreateArgs,
}

/// What to do with backups.
#[derive(Clone, Debug, Subcommand)]
pub enum BackupCommand {
    /// Make a backup
    Create(CreateArgs),
    /// List the backups
    List(ListArgs),
    /// Look whether a backup could be restored; needs no server
    Verify {
        /// Id of a backup, or the path of an archive or folder
        backup: String,
    },
    /// Put a backup back, and stop the server so that it starts anew from there
    ///
    /// What is replaced is saved first. With --local, the server must not run.
    Restore(RestoreArgs),
    /// Remove a backup
    Delete {
        /// Id of the backup
        id: String,
    },
}

/// Flags of `backup create`.
#[derive(Args, Clone, Debug)]
pub struct CreateArgs {
    /// Also copy the backup into this file
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Longest wait for the server, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = interval)]
    pub timeout: Duration,
    /// Work on the files of a server that does not run
    #[arg(long)]
    pub local: bool,
}

/// Flags of `backup list`.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Most backups to show; 0 for all
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "0")]
    pub limit: u32,
    /// Order of the backups
    #[arg(long, value_enum, default_value = "newest")]
    pub sort: BackupSort,
}

/// Order of backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackupSort {
    /// The newest first
    Newest,
    /// The oldest first
    Oldest,
    /// The largest first
    Size,
}

/// Flags of `backup restore`.
#[derive(Args, Clone, Debug)]
pub struct RestoreArgs {
    /// Id of the backup
    pub id: String,
    /// Yes, replace what is there
    #[arg(long)]
    pub confirm: bool,
    /// Parts to restore, separated by commas: persistence, memory, config [default: all it holds]
    #[arg(long, value_name = "PARTS", value_delimiter = ',', value_parser = component)]
    pub components: Vec<Component>,
    /// Check the backup and say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Leave the server running; it answers nothing until somebody starts it anew
    #[arg(long)]
    pub no_restart: bool,
    /// Longest wait for the server, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = interval)]
    pub timeout: Duration,
    /// Work on the files of a server that does not run
    #[arg(long)]
    pub local: bool,
}

/// Flags of `wipe`.
#[derive(Args, Clone, Debug)]
pub struct WipeArgs {
    /// Say what would be deleted, and delete nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Make no backup first
    #[arg(long)]
    pub no_backup: bool,
    /// File for the backup [default: quarterdeck-backup-TIME.tar.gz in the current folder]
    #[arg(short, long, value_name = "FILE", conflicts_with = "no_backup")]
    pub output: Option<PathBuf>,
}

fn component(text: &str) -> Result<Component, String> {
    Component::parse(text).ok_or_else(|| "must be persistence, memory or config".to_owned())
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 =
        text.strip_suffix('s').unwrap_or(text).parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("must be between 0.1 and 86400 seconds".to_owned())
    }
}

/// What to do with events.
#[derive(Debug, Subcommand)]
pub enum EventsCommand {
    /// Print events as they happen, until Ctrl-C
    ///
    /// Goes on after a lost connection, with what was missed meanwhile. Signs in as --user and out again
    /// at the end, or uses the session token in QUARTERDECK_TOKEN. With --json, one event a line.
    Tail(TailArgs),
}

/// Flags of `events tail`.
#[derive(Args, Clone, Debug)]
pub struct TailArgs {
    /// A channel to follow; may be given several times [default: every one you may read]
    #[arg(long, value_name = "CHANNEL")]
    pub channel: Vec<String>,
    /// Login name to follow as; asks for the password
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "user")]
    pub password_stdin: bool,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every value and where it came from; secrets are masked
    Show,
    /// Check the configuration without starting anything
    Check,
}

/// What to do with accounts.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Make an account; its owner chooses a new password at the first sign-in
    Create {
        /// Login name
        username: String,
        /// What the person may do
        #[arg(long, value_parser = role, value_name = "ROLE", default_value = "observer")]
        #[arg(help = "ceo, manager, pair_programmer, board_member or observer")]
        role: HumanRole,
        /// Where the password comes from
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// List the accounts
    List,
    /// Give an account a new password, end its sessions and lift its lock
    ResetPassword {
        /// Login name
        username: String,
        /// Where the password comes from
        #[command(flatten)]
        password: PasswordArgs,
    },
}

/// Where a password comes from; without a flag it is asked for.
#[derive(Args, Clone, Debug)]
pub struct PasswordArgs {
    /// Read the password from standard input
    #[arg(long, conflicts_with = "generate")]
    pub password_stdin: bool,
    /// Make a password and print it, this once
    #[arg(long)]
    pub generate: bool,
}

fn role(text: &str) -> Result<HumanRole, String> {
    HumanRole::parse(text)
        .filter(|role| *role != HumanRole::System)
        .ok_or_else(|| "must be ceo, manager, pair_programmer, board_member or observer".to_owned())
}

/// What the arguments ask for.
pub enum Parsed {
    /// A command.
    Run(Box<Cli>),
    /// Only this text.
    Help(String),
}

/// Reads the arguments, the program's name first.
///
/// # Errors
/// With exit code 2 and what is wrong.
pub fn parse(arguments: &[OsString], environment: &Environment) -> Result<Parsed, Failure> {
    let mut flags = arguments.iter().skip(1).take_while(|argument| *argument != "--");
    if flags.any(|argument| argument == "--help-all") {
        return Ok(Parsed::Help(help_of_everything()));
    }
    match Cli::try_parse_from(arguments) {
        Ok(mut cli) => {
            cli.global.quiet |= cli.global.verbose == 0 && environment.is_true("QUARTERDECK_QUIET");
            cli.global.yes |= environment.is_true("QUARTERDECK_YES");
            Ok(Parsed::Run(Box::new(cli)))
        }
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Ok(Parsed::Help(error.render().to_string()))
        }
        Err(error) => {
            let text = error.render().to_string();
            Err(Failure::usage(text.trim().trim_start_matches("error: ").to_owned()))
        }
    }
}

/// The commands as clap knows them, for completion scripts.
pub(crate) fn definition() -> clap::Command {
    Cli::command()
}

fn help_of_everything() -> String {
    fn walk(command: &mut clap::Command, text: &mut String) {
        text.push_str(&format!("{}\n", command.render_long_help()));
        for below in command.get_subcommands_mut().filter(|below| below.get_name() != "help") {
            text.push_str("────────\n");
            walk(below, text);
        }
    }
    let mut command = definition();
    command.build();
    let mut text = String::new();
    walk(&mut command, &mut text);
    text
}

impl Cli {
    /// What the flags decide in the configuration.
    pub(crate) fn flags(&self) -> Flags {
        let (host, port, dev) = match &self.command {
            Command::Serve(serve) => (serve.host.clone(), serve.port, serve.dev),
            _ => (None, None, false),
        };
        Flags { config: self.global.config.clone(), data_dir: self.global.data_dir.clone(), host, port, dev }
    }
}
