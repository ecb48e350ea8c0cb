//! Where the command line writes: results to stdout, everything else to stderr.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use serde_json::Value;

use crate::Failure;
use crate::cli::Global;
use crate::config::Environment;

/// How results and messages are written.
#[derive(Clone, Debug)]
pub struct Output {
    json: bool,
    quiet: bool,
    verbose: u8,
    plain: bool,
    colour: bool,
}

/// How a line of a report is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Good,
    Note,
    Bad,
}

impl Output {
    /// As the flags and the terminal want it.
    pub(crate) fn new(global: &Global, environment: &Environment) -> Self {
        let dumb = environment.text("NO_COLOR").is_some_and(|value| !value.is_empty())
            || environment.text("CLICOLOR") == Some("0")
            || environment.text("TERM") == Some("dumb");
        Self {
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose,
            plain: global.plain,
            colour: !(global.json || global.plain || global.no_color || dumb) && io::stdout().is_terminal(),
        }
    }

    /// Before the flags are understood, only the form of failures matters.
    pub(crate) fn for_early_failures(arguments: &[OsString], environment: &Environment) -> Self {
        let mut flags = arguments.iter().skip(1).take_while(|argument| *argument != "--");
        let json = flags.any(|argument| argument == "--json");
        Self::new(&Global { json, ..Global::default() }, environment)
    }

    /// Whether results are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Writes a result: the text, or with `--json` the document.
    pub(crate) fn result(&self, text: &str, document: &Value) {
        if self.json {
            self.print(&format!("{document:#}\n"));
        } else {
            self.print(text);
        }
    }

    /// Writes to stdout as it is. A reader that went away ends the program's need to write.
    pub(crate) fn print(&self, text: &str) {
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    }

    /// Writes something worth knowing to stderr.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet && !self.json {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// Writes what only `-v` asks for to stderr.
    pub(crate) fn detail(&self, text: &str) {
        if self.verbose > 0 {
            self.note(text);
        }
    }

    /// Writes a failure to stderr and gives its exit code.
    pub(crate) fn fail(&self, failure: &Failure) -> ExitCode {
        let mut stderr = io::stderr().lock();
        let _ = if self.json {
            writeln!(stderr, "{}", failure.to_json())
        } else {
            let mut text = format!("error: {}", failure.message);
            if let Some(hint) = failure.hint.as_ref().filter(|_| !self.quiet) {
                text.push_str(&format!("\n hint: {hint}"));
            }
            writeln!(stderr, "{text}")
        };
        ExitCode::from(failure.exit_code)
    }

    /// The sign before a line of a report.
    pub(crate) fn mark(&self, mark: Mark) -> String {
        let (fancy, plain, colour) = match mark {
            Mark::Good => ("✓", "ok  ", 32),
            Mark::Note => ("•", "note", 33),
            Mark::Bad => ("✗", "FAIL", 31),
        };
        match (self.plain, self.colour) {
            (true, _) => plain.to_owned(),
            (false, true) => format!("\u{1b}[{colour}m{fancy}\u{1b}[0m"),
            (false, false) => fancy.to_owned(),
        }
    }
}
