//! Sinks on the network: each a task with a bounded queue, all on one thread of their own.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quarterdeck_domain::sink::{Collector, LogLevel, Syslog};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, StatusCode, redirect};
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::layer::mute_this_thread;
use super::otlp;
use super::writer::Ticket;

/// Text one sink may have waiting, in bytes; what comes on top is dropped and counted.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// First pause before another attempt; each further one doubles it.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Most of an answer that is read so that the connection can serve again.
const ANSWER_BYTES: usize = 64 * 1024;

pub(super) enum Message {
    Line(Box<str>, LogLevel),
    Flush(Ticket),
}

/// How a batch becomes a request body.
#[derive(Clone, Copy)]
pub(super) enum Encoding {
    /// A JSON array of the lines.
    Array,
    /// An OTLP export request.
    Otlp,
}

/// What a sink's task and the writer both see.
pub(super) struct Progress {
    queued: AtomicUsize,
    lost: AtomicU64,
    total: Arc<AtomicU64>,
    trouble: Mutex<Option<String>>,
}

impl Progress {
    pub(super) fn sent(&self, bytes: usize) {
        self.queued.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn lose(&self, lines: u64, bytes: usize) {
        self.sent(bytes);
        self.lost.fetch_add(lines, Ordering::Relaxed);
        self.total.fetch_add(lines, Ordering::Relaxed);
    }

    pub(super) fn trouble(&self, why: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }
}

/// The writer's end of a network sink. Dropping it lets the task send what it has and end.
pub(super) struct NetSink {
    messages: UnboundedSender<Message>,
    progress: Arc<Progress>,
}

impl NetSink {
    /// Queues one line, or counts it when the queue is full.
    pub(super) fn queue(&self, line: &str, level: LogLevel) {
        let line = line.trim_end_matches('\n');
        // Only this thread adds, so the sum cannot grow between the check and the addition.
        if self.progress.queued.load(Ordering::Relaxed) + line.len() > QUEUE_BYTES {
            return self.progress.lose(1, 0);
        }
        self.progress.queued.fetch_add(line.len(), Ordering::Relaxed);
        if self.messages.send(Message::Line(line.into(), level)).is_err() {
            self.progress.lose(1, line.len());
        }
    }

    /// Asks the task to send what it has; the ticket is let go afterwards.
    pub(super) fn flush(&self, ticket: Ticket) {
        let _ = self.messages.send(Message::Flush(ticket));
    }

    /// Lines lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.progress.lost.load(Ordering::Relaxed)
    }

    /// What went wrong since the last call.
    pub(super) fn trouble(&self) -> Option<String> {
        self.progress.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The thread the tasks run on; started with the first of them.
pub(super) struct Network {
    running: Option<(Handle, oneshot::Sender<()>)>,
    total: Arc<AtomicU64>,
}

impl Network {
    pub(super) fn new(total: Arc<AtomicU64>) -> Self {
        Self { running: None, total }
    }

    fn handle(&mut self) -> Result<Handle, String> {
        if let Some((handle, _)) = &self.running {
            return Ok(handle.clone());
        }
        let cannot = |why: std::io::Error| format!("cannot start the thread of the network sinks: {why}");
        let runtime = Builder::new_current_thread().enable_all().build().map_err(cannot)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            mute_this_thread();
            let _ = runtime.block_on(stopped);
            // A name lookup that hangs must not keep the thread.
            runtime.shutdown_background();
        };
        std::thread::Builder::new().name("log-net".into()).spawn(run).map_err(cannot)?;
        self.running = Some((handle.clone(), stop));
        Ok(handle)
    }

    fn channel(&self) -> (NetSink, UnboundedReceiver<Message>, Arc<Progress>) {
        let (messages, inbox) = unbounded_channel();
        let progress = Arc::new(Progress {
            queued: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            total: Arc::clone(&self.total),
            trouble: Mutex::new(None),
        });
        (NetSink { messages, progress: Arc::clone(&progress) }, inbox, progress)
    }

    /// Starts a syslog sink; it connects when it has something to say.
    pub(super) fn syslog(&mut self, to: Syslog) -> Result<NetSink, String> {
        let handle = self.handle()?;
        let (sink, inbox, progress) = self.channel();
        handle.spawn(super::syslog::run(to, inbox, progress));
        Ok(sink)
    }

    /// Starts a collector sink; it connects when it has something to say.
    pub(super) fn http(&mut self, to: &Collector, encoding: Encoding) -> Result<NetSink, String> {
        let client = client(to)?;
        let handle = self.handle()?;
        let (sink, inbox, progress) = self.channel();
        let task = Posting { to: to.clone(), encoding, client, inbox, progress };
        handle.spawn(task.run());
        Ok(sink)
    }
}

fn client(to: &Collector) -> Result<Client, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &to.headers {
        let parsed = HeaderName::try_from(name).ok().zip(HeaderValue::try_from(value).ok());
        let (name, mut value) = parsed.ok_or_else(|| format!("the header {name} cannot be sent"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Client::builder()
        .user_agent(concat!("quarterdeck/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .redirect(redirect::Policy::none())
        .timeout(Duration::from_millis(to.timeout_ms))
        .build()
        .map_err(|why| format!("cannot prepare the connection to the log collector: {}", why.without_url()))
}

struct Posting {
    to: Collector,
    encoding: Encoding,
    client: Client,
    inbox: UnboundedReceiver<Message>,
    progress: Arc<Progress>,
}

impl Posting {
    async fn run(mut self) {
        let mut lines: Vec<(Box<str>, LogLevel)> = Vec::new();
        let mut due = Instant::now();
        loop {
            let received = if lines.is_empty() {
                Ok(self.inbox.recv().await)
            } else {
                timeout_at(due, self.inbox.recv()).await
            };
            match received {
                Ok(Some(Message::Line(line, level))) => {
                    if lines.is_empty() {
                        due = Instant::now() + Duration::from_millis(self.to.flush_interval_ms);
                    }
                    lines.push((line, level));
                    if lines.len() >= self.to.batch_size {
                        self.send(&mut lines).await;
                    }
                }
                Ok(Some(Message::Flush(ticket))) => {
                    self.send(&mut lines).await;
                    drop(ticket);
                }
                Ok(None) => return self.send(&mut lines).await,
                Err(_) => self.send(&mut lines).await,
            }
        }
    }

    async fn send(&self, lines: &mut Vec<(Box<str>, LogLevel)>) {
        if lines.is_empty() {
            return;
        }
        let bytes = lines.iter().map(|(line, _)| line.len()).sum();
        let body = match self.encoding {
            Encoding::Array => array(lines),
            Encoding::Otlp => otlp::export(lines),
        };
        let mut pause = FIRST_PAUSE;
        for attempt in 0..=self.to.max_retries {
            match self.post(body.clone()).await {
                Ok(()) => {
                    self.progress.sent(bytes);
                    return lines.clear();
                }
                Err((why, may_pass)) => {
                    self.progress.trouble(why);
                    // A sink that was taken away does not linger.
                    if !may_pass || attempt == self.to.max_retries || self.inbox.is_closed() {
                        break;
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        self.progress.lose(lines.len() as u64, bytes);
        lines.clear();
    }

    /// One attempt; on failure the reason, and whether another attempt may succeed.
    async fn post(&self, body: String) -> Result<(), (String, bool)> {
        let request = self.client.post(&self.to.url).header(CONTENT_TYPE, "application/json").body(body);
        let mut answer = request.send().await.map_err(|why| (why.without_url().to_string(), true))?;
        let status = answer.status();
        let mut read = 0;
        while let Ok(Some(chunk)) = answer.chunk().await {
            read += chunk.len();
            if read > ANSWER_BYTES {
                break;
            }
        }
        if status.is_success() {
            return Ok(());
        }
        let may_pass = status.is_server_error()
            || status == StatusCode::TOO_MANY_REQUESTS
            || status == StatusCode::REQUEST_TIMEOUT;
        Err((format!("the collector answered {status}"), may_pass))
    }
}

fn array(lines: &[(Box<str>, LogLevel)]) -> String {
    let mut body = String::with_capacity(lines.iter().map(|(line, _)| line.len() + 1).sum::<usize>() + 2);
    let mut before = '[';
    for (line, _) in lines {
        body.push(before);
        body.push_str(line);
        before = ',';
    }
    body.push(']');
    body
}
