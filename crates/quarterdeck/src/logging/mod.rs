//! Structured logging: events of `tracing` become single lines, secrets taken out, and go to the
//! sinks the operator chose.
//!
//! A thread that logs formats its line and leaves it in a bounded buffer; one thread of our own
//! writes in batches. A full disk, a stuck console or a silent collector costs lines, which are
//! counted and told of, but never a request.
//!
//! `layer` decides and formats (`line`, `redact`), `queue` is the buffer, `writer` distributes to
//! the console, to `file`s and to the `net`work (`syslog`, `otlp`).

mod file;
mod layer;
mod line;
mod net;
mod otlp;
mod queue;
mod redact;
mod stamp;
mod syslog;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::panic::PanicHookInfo;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use quarterdeck_domain::sink::{CONSOLE, LogLevel, SinkConfig, SinkType, default_sinks};
use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt;

use layer::{Levels, Lines, PANIC_LOGGER, Shared};
use writer::{Command, Console, Writer};

/// Text that may wait for the writer, in bytes.
const BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// Longest time [`Logging::flush`] takes.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);
/// Longest time new sinks may take to open.
const INSTALL_WITHIN: Duration = Duration::from_secs(10);

/// What must be known before the first line.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoggingConfig {
    /// Level of the console alone; also lets such lines come into being. `None` is INFO.
    pub(crate) console_level: Option<LogLevel>,
    /// Where log files go; without it there are none. No component may be `..`.
    pub(crate) log_dir: Option<PathBuf>,
}

/// The running log pipeline. Dropping it writes what is left and ends it.
pub(crate) struct Logging {
    shared: Arc<Shared>,
    config: LoggingConfig,
    lost: Arc<AtomicU64>,
}

/// Starts logging for the whole process, panics included.
///
/// # Errors
/// A sentence for the operator when the directory is refused, a file does not open, or logging has
/// already been started.
pub(crate) fn init(config: LoggingConfig) -> Result<Logging, String> {
    let terminal = std::io::stderr().is_terminal();
    let console =
        Console { out: Box::new(std::io::stderr()), human: terminal, colour: terminal && colours_welcome() };
    let (logging, subscriber) = start(config, console, BUFFER_BYTES)?;
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|_| "logging has already been started".to_owned())?;
    let shared = Arc::clone(&logging.shared);
    std::panic::set_hook(Box::new(move |panic| {
        log_panic(panic);
        // The main thread takes the process with it.
        if std::thread::current().name() == Some("main") {
            flush(&shared, FLUSH_WITHIN);
        }
    }));
    Ok(logging)
}

fn colours_welcome() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is = |name: &str, value: &str| std::env::var_os(name).is_some_and(|found| found == value);
    !set("NO_COLOR") && !is("CLICOLOR", "0") && !is("TERM", "dumb")
}

fn start(
    config: LoggingConfig,
    console: Console,
    buffer_bytes: usize,
) -> Result<(Logging, impl Subscriber + Send + Sync + use<>), String> {
    if let Some(directory) = &config.log_dir {
        writer::refuse_parents(directory)?;
    }
    let lost = Arc::new(AtomicU64::new(0));
    let sinks = defaults(&config);
    let levels = levels(&config, &sinks, BTreeMap::new(), LogLevel::Info);
    let shared = Arc::new(Shared::new(buffer_bytes, levels));
    let mut writer = Writer::new(Arc::clone(&shared), console, config.log_dir.clone(), Arc::clone(&lost));
    writer.install(sinks)?;
    std::thread::Builder::new()
        .name("log-writer".into())
        .spawn(move || writer.run())
        .map_err(|why| format!("cannot start the log writer: {why}"))?;
    let subscriber = tracing_subscriber::registry().with(Lines(Arc::clone(&shared)));
    Ok((Logging { shared, config, lost }, subscriber))
}

fn defaults(config: &LoggingConfig) -> Vec<SinkConfig> {
    let mut sinks = default_sinks();
    for sink in &mut sinks {
        if sink.identifier == CONSOLE {
            sink.level = config.console_level.unwrap_or(sink.level);
        } else if config.log_dir.is_none() {
            sink.enabled = false;
        }
    }
    sinks
}

fn levels(
    config: &LoggingConfig,
    sinks: &[SinkConfig],
    loggers: BTreeMap<String, LogLevel>,
    root: LogLevel,
) -> Levels {
    let root = config.console_level.map_or(root, |console| root.min(console));
    let written =
        |sink: &&SinkConfig| sink.enabled && (sink.sink_type != SinkType::File || config.log_dir.is_some());
    let floor = sinks.iter().filter(written).map(|sink| sink.level).min().unwrap_or(LogLevel::Info);
    Levels { floor, root, loggers }
}

/// Message and place; a payload that is no text is not looked into.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(
        target: PANIC_LOGGER,
        reason = panic.payload_as_str().unwrap_or("no message"),
        location = place,
        thread = std::thread::current().name().unwrap_or("unnamed"),
        "api.app.panicked"
    );
}

/// Waits until everything logged before has been handed on; `false` when time ran out.
fn flush(shared: &Shared, within: Duration) -> bool {
    let (ticket, done) = mpsc::channel();
    if !shared.queue.command(Command::Flush(ticket)) {
        return false;
    }
    matches!(done.recv_timeout(within), Err(RecvTimeoutError::Disconnected))
}

impl Logging {
    /// The default sinks as this process runs them: its console level, and files only where a log
    /// directory is known. The base for `quarterdeck_domain::sink::resolve_with`.
    pub(crate) fn defaults(&self) -> Vec<SinkConfig> {
        defaults(&self.config)
    }

    /// Swaps the pipeline. Lines logged before go to the old sinks, later ones to the new. Blocks
    /// while files are opened: not for a thread that drives requests.
    ///
    /// # Errors
    /// A sentence for the operator; the old pipeline then goes on unchanged.
    pub(crate) fn apply(
        &self,
        sinks: Vec<SinkConfig>,
        logger_levels: BTreeMap<String, LogLevel>,
        root_level: LogLevel,
    ) -> Result<(), String> {
        let levels = levels(&self.config, &sinks, logger_levels, root_level);
        let (reply, done) = mpsc::channel();
        if !self.shared.queue.command(Command::Install(sinks, reply)) {
            return Err("logging has ended".to_owned());
        }
        done.recv_timeout(INSTALL_WITHIN).map_err(|_| "the log writer does not answer".to_owned())??;
        self.shared.set_levels(levels);
        Ok(())
    }

    /// Whether lines carry the ids of their scope; they do unless this says otherwise.
    pub(crate) fn correlate(&self, on: bool) {
        self.shared.set_correlation(on);
    }

    /// Blocks, two seconds at most, until everything logged so far is written and sent.
    pub(crate) fn flush(&self) -> bool {
        flush(&self.shared, FLUSH_WITHIN)
    }

    /// Lines that did not reach some sink, since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.shared.queue.dropped() + self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.flush();
        self.shared.queue.close();
    }
}
