//! The thread that writes: takes rounds from the queue and hands every sink its lines.

use std::convert::Infallible;
use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use quarterdeck_domain::sink::{Destination, LogLevel, SinkConfig, SinkType};

use super::file::LogFile;
use super::layer::{Ids, Shared, mute_this_thread};
use super::line::{Render, Style};
use super::net::{Encoding, NetSink, Network};
use super::queue::{Batch, Line};

/// How often a failing sink is told of.
const REPORT_EVERY: Duration = Duration::from_secs(60);
const LOGGER: &str = "quarterdeck::logging";

/// Held by everyone who still has something to send; the flush is over when the last one lets go.
pub(super) type Ticket = mpsc::Sender<Infallible>;

/// What the writer does besides writing.
pub(super) enum Command {
    /// Pass on what came before.
    Flush(Ticket),
    /// Write to these sinks from now on.
    Install(Vec<SinkConfig>, mpsc::Sender<Result<(), String>>),
}

/// How the console is written to.
pub(super) struct Console {
    pub(super) out: Box<dyn Write + Send>,
    /// Lines for people unless the sink asks for JSON.
    pub(super) human: bool,
    pub(super) colour: bool,
}

enum Output {
    Console,
    File(LogFile),
    Net(NetSink),
}

struct Sink {
    config: SinkConfig,
    output: Output,
    human: bool,
    pending: Vec<u8>,
    lost: u64,
    /// What went wrong since the last report.
    trouble: Option<String>,
    reported: Option<(Instant, u64)>,
}

/// The state of the writing thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    console: Console,
    log_dir: Option<PathBuf>,
    sinks: Vec<Sink>,
    network: Network,
    /// Lines lost by any sink, for whoever asks.
    lost: Arc<AtomicU64>,
    dropped_reported: u64,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        console: Console,
        log_dir: Option<PathBuf>,
        lost: Arc<AtomicU64>,
    ) -> Self {
        let network = Network::new(Arc::clone(&lost));
        Self { shared, console, log_dir, sinks: Vec::new(), network, lost, dropped_reported: 0 }
    }

    /// Writes until the queue is closed and empty.
    pub(super) fn run(mut self) {
        mute_this_thread();
        let shared = Arc::clone(&self.shared);
        let mut batch = Batch::default();
        while let Some(commands) = shared.queue.next(&mut batch) {
            self.write(&batch);
            batch.clear();
            for command in commands {
                match command {
                    Command::Flush(ticket) => self.pass_on(&ticket),
                    Command::Install(sinks, reply) => {
                        let _ = reply.send(self.install(sinks));
                    }
                }
            }
            self.report();
        }
    }

    fn pass_on(&self, ticket: &Ticket) {
        for sink in &self.sinks {
            if let Output::Net(net) = &sink.output {
                net.flush(ticket.clone());
            }
        }
    }

    /// Opens everything new before anything old is let go; an unchanged sink goes on as it is.
    pub(super) fn install(&mut self, configs: Vec<SinkConfig>) -> Result<(), String> {
        let wanted: Vec<SinkConfig> = configs
            .into_iter()
            .filter(|config| config.enabled)
            // Without a directory there are no default files.
            .filter(|config| {
                self.log_dir.is_some() || config.sink_type != SinkType::File || !config.is_default
            })
            .collect();
        if !wanted.iter().any(|config| config.sink_type == SinkType::Console) {
            return Err("the console sink cannot be disabled".to_owned());
        }
        let mut opened = Vec::new();
        for config in &wanted {
            let kept = self.sinks.iter().any(|sink| sink.config == *config);
            opened.push(if kept { None } else { Some(self.open(config)?) });
        }
        let mut old = std::mem::take(&mut self.sinks);
        for (config, opened) in wanted.into_iter().zip(opened) {
            let same = old.iter().position(|sink| sink.config == config);
            self.sinks.push(match (opened, same) {
                (None, Some(same)) => old.swap_remove(same),
                (Some(output), _) => self.sink(config, output),
                (None, None) => continue,
            });
        }
        let json = self.sinks.iter().any(|sink| !sink.human);
        let human = self.sinks.iter().any(|sink| sink.human);
        // A file never gets colours, so they are only used when no file is written for people.
        let plain = self.sinks.iter().any(|sink| sink.human && matches!(sink.output, Output::File(_)));
        self.shared.set_forms(json, human, self.console.colour && !plain);
        Ok(())
    }

    fn sink(&self, config: SinkConfig, output: Output) -> Sink {
        let human = !config.json_format && (!matches!(output, Output::Console) || self.console.human);
        Sink { config, output, human, pending: Vec::new(), lost: 0, trouble: None, reported: None }
    }

    fn open(&mut self, config: &SinkConfig) -> Result<Output, String> {
        match &config.destination {
            Destination::Console => Ok(Output::Console),
            Destination::File(name) => {
                let Some(directory) = &self.log_dir else {
                    return Err(format!("{name} needs a log directory: set QUARTERDECK_LOG_DIR"));
                };
                let path = directory.join(name);
                refuse_parents(Path::new(name))?;
                LogFile::open(path.clone(), config.rotation.unwrap_or_default())
                    .map(Output::File)
                    .map_err(|why| format!("cannot open the log file {}: {why}", path.display()))
            }
            Destination::Syslog(to) => self.network.syslog(to.clone()).map(Output::Net),
            Destination::Http(to) => self.network.http(to, Encoding::Array).map(Output::Net),
            Destination::Otlp(to) => self.network.http(to, Encoding::Otlp).map(Output::Net),
        }
    }

    fn write(&mut self, batch: &Batch) {
        let mut made = String::new();
        for (line, event) in batch.lines() {
            made.clear();
            for sink in &mut self.sinks {
                if line.level < sink.config.level || !sink.config.routes(event, line.logger) {
                    continue;
                }
                // A line formatted before a swap may lack the form the new sink reads.
                let text = match (line.json, line.human) {
                    (_, human) if sink.human && !human.is_empty() => human,
                    ("", human) => {
                        if made.is_empty() {
                            wrap(&mut made, &line, event, human);
                        }
                        &made
                    }
                    (json, _) => json,
                };
                match &sink.output {
                    Output::Net(net) => net.queue(text, line.level),
                    Output::Console | Output::File(_) => {
                        sink.pending.extend_from_slice(text.as_bytes());
                    }
                }
            }
        }
        for sink in &mut self.sinks {
            sink.flush(&mut self.console, &self.lost);
        }
    }

    /// Tells, in the log itself, of lines that are missing from it; what finds no room now is told in
    /// the next round.
    fn report(&mut self) {
        let dropped = self.shared.queue.dropped();
        let lines = dropped - self.dropped_reported;
        if lines > 0 && self.notice("observability.lines.dropped", lines, None, "buffer full") {
            self.dropped_reported = dropped;
        }
        let now = Instant::now();
        for index in 0..self.sinks.len() {
            let sink = &mut self.sinks[index];
            if let Output::Net(net) = &sink.output {
                sink.lost = net.lost();
                sink.trouble = net.trouble().or(sink.trouble.take());
            }
            let (recent, known) = match sink.reported {
                Some((at, known)) => (now.duration_since(at) < REPORT_EVERY, known),
                None => (false, 0),
            };
            if recent || (sink.lost == known && sink.trouble.is_none()) {
                continue;
            }
            let sink = &self.sinks[index];
            let (name, lines) = (sink.config.identifier.as_str(), sink.lost - known);
            let reason = sink.trouble.as_deref().unwrap_or("queue full");
            if self.notice("observability.sink.failed", lines, Some(name), reason) {
                let sink = &mut self.sinks[index];
                sink.reported = Some((now, sink.lost));
                sink.trouble = None;
            }
        }
    }

    fn notice(&self, event: &str, lines: u64, sink: Option<&str>, reason: &str) -> bool {
        self.shared.emit(LogLevel::Warning, LOGGER, event, &Ids::default(), |render| {
            render.text("message", event);
            if let Some(sink) = sink {
                render.text("sink", sink);
            }
            render.number("lines", lines);
            render.text("reason", reason);
        })
    }
}

impl Sink {
    /// One write per round; a failure costs these lines and nothing else.
    fn flush(&mut self, console: &mut Console, total: &AtomicU64) {
        if self.pending.is_empty() {
            return;
        }
        let failed = match &mut self.output {
            Output::Console => {
                let written = console.out.write_all(&self.pending).and_then(|()| console.out.flush());
                written.map_err(|why| (why, self.pending.len())).err()
            }
            Output::File(file) => file.write(&self.pending).err(),
            Output::Net(_) => None,
        };
        if let Some((why, bytes)) = failed {
            let unwritten = &self.pending[self.pending.len() - bytes..];
            let lines = unwritten.iter().filter(|byte| **byte == b'\n').count() as u64;
            self.lost += lines;
            total.fetch_add(lines, Ordering::Relaxed);
            self.trouble = Some(why.to_string());
        }
        self.pending.clear();
        self.pending.shrink_to(256 * 1024);
    }
}

/// JSON around a line that was only written for people.
fn wrap(out: &mut String, line: &Line<'_>, event: &str, human: &str) {
    let mut scratch = String::new();
    let mut render =
        Render::begin(out, &mut scratch, Style::Json, SystemTime::now(), line.level, line.logger);
    render.text("message", event);
    render.text("line", human.trim_end());
    render.end(line.logger, event, &Ids::default());
}

/// A log path never climbs out of where it starts.
pub(super) fn refuse_parents(path: &Path) -> Result<(), String> {
    match path.components().any(|part| part == Component::ParentDir) {
        true => Err(format!("the log path {} must not contain ..", path.display())),
        false => Ok(()),
    }
}
