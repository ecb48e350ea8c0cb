use std::io::{self, Write};
use std::sync::Mutex;

use serde_json::Value;
use tracing::dispatcher::{self, Dispatch};

use super::*;

mod console;
mod cost;
mod files;
mod network;

/// A console that can be read back, or that fails or stops.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn lines(&self) -> Vec<Value> {
        parse(&self.text())
    }
}

fn parse(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}")))
        .collect()
}

fn events(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["event"].as_str().unwrap()).collect()
}

/// A pipeline of its own, next to those of other tests.
struct Rig {
    logging: Logging,
    dispatch: Dispatch,
    console: Captured,
}

impl Rig {
    fn new(config: LoggingConfig) -> Self {
        let console = Captured::default();
        let out = Console { out: Box::new(console.clone()), human: false, colour: false };
        let (logging, dispatch) = started(config, out, BUFFER_BYTES).unwrap();
        Self { logging, dispatch, console }
    }

    fn in_directory(directory: &std::path::Path) -> Self {
        Self::new(LoggingConfig { log_dir: Some(directory.to_owned()), ..LoggingConfig::default() })
    }

    fn log<T>(&self, work: impl FnOnce() -> T) -> T {
        dispatcher::with_default(&self.dispatch, work)
    }

    /// The console's lines once everything has been written.
    fn lines(&self) -> Vec<Value> {
        assert!(self.logging.flush(), "everything is written in time");
        self.console.lines()
    }

    fn sinks(&self, overrides: &str, custom: &str) -> Vec<SinkConfig> {
        quarterdeck_domain::sink::resolve_with(self.logging.defaults(), "INFO", overrides, custom).unwrap()
    }

    fn apply(&self, overrides: &str, custom: &str) -> Result<(), String> {
        self.apply_all(self.sinks(overrides, custom), BTreeMap::new(), LogLevel::Info)
    }

    fn apply_all(
        &self,
        sinks: Vec<SinkConfig>,
        loggers: BTreeMap<String, LogLevel>,
        root: LogLevel,
    ) -> Result<(), String> {
        // Call sites ask the subscriber of the thread that has them decide anew.
        self.log(|| self.logging.apply(sinks, loggers, root))
    }
}

fn started(config: LoggingConfig, out: Console, buffer: usize) -> Result<(Logging, Dispatch), String> {
    start(config, out, buffer).map(|(logging, subscriber)| (logging, Dispatch::new(subscriber)))
}
