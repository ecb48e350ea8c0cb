//! The program in a process, with a clean environment and a folder of its own.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quarterdeck_testkit::TestDb;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Longest wait for anything. Shorter than the 25 seconds a stop gives to requests under way, so that a
/// stop that waited for them in vain is noticed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits, but not for ever.
pub(crate) async fn patiently<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("in vain: {what}"))
}

/// Asks again and again until the answer is yes.
pub(crate) async fn until(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    patiently(what, async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Where one copy of the program lives, and what its environment says.
pub(crate) struct Home {
    folder: Arc<TempDir>,
    url: Option<String>,
    variables: Vec<(String, String)>,
    pub(crate) port: u16,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self {
            folder: Arc::new(tempfile::tempdir().unwrap()),
            url: None,
            variables: Vec::new(),
            port: free_port(),
        }
    }

    /// On this database; its own file when that is SQLite.
    pub(crate) fn on(db: &TestDb) -> Self {
        Self { url: db.url(), ..Self::new() }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same folder and database at another port.
    pub(crate) fn at_another_port(&self) -> Self {
        Self {
            folder: Arc::clone(&self.folder),
            url: self.url.clone(),
            variables: self.variables.clone(),
            port: free_port(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.path("data").join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quarterdeck"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.path(""))
            .env("QUARTERDECK_DATA_DIR", self.path("data"))
            .env("QUARTERDECK_ARTIFACT_DIR", self.path("data"))
            .env("QUARTERDECK_API__SERVER__PORT", self.port.to_string())
            .envs(self.variables.iter().cloned())
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(url) = &self.url {
            command.env("QUARTERDECK_DATABASE_URL", url).env("QUARTERDECK_POSTGRES_SSL_MODE", "disable");
        }
        command
    }

    /// Starts the server.
    pub(crate) fn spawn(&self) -> Server {
        self.spawn_as(self.command(&["serve"]))
    }

    /// Starts the server with nothing but a home folder and a port that is free.
    pub(crate) fn spawn_unconfigured(&self) -> Server {
        let mut command = self.command(&["serve", "--port", &self.port.to_string()]);
        command.env_clear().env("HOME", self.path(""));
        self.spawn_as(command)
    }

    fn spawn_as(&self, mut command: Command) -> Server {
        let mut process = command.spawn().unwrap();
        let said = Arc::new(Said::default());
        let stdout = said.follow(process.stdout.take().unwrap(), Stream::Out);
        let stderr = said.follow(process.stderr.take().unwrap(), Stream::Err);
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        Server { process, said, readers: [stdout, stderr], address, _folder: Arc::clone(&self.folder) }
    }

    /// Starts the server and waits until it is ready.
    pub(crate) async fn serve(&self) -> Server {
        let server = self.spawn();
        server.ready().await;
        server
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, arguments: &[&str], input: &str) -> Run {
        let mut process = self.command(arguments).spawn().unwrap();
        let mut stdin = process.stdin.take().unwrap();
        // A command that does not read its input closes it early.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = patiently("the command's end", process.wait_with_output()).await.unwrap();
        Run {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What came of a process; without a code when a signal ended it.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A server's process; dies with this value.
pub(crate) struct Server {
    process: Child,
    said: Arc<Said>,
    readers: [JoinHandle<()>; 2],
    pub(crate) address: SocketAddr,
    _folder: Arc<TempDir>,
}

impl Server {
    /// Waits for the line that says so.
    pub(crate) async fn ready(&self) {
        patiently("readiness", self.said.until(|text| text.stdout.contains('\n'))).await;
        let (stdout, stderr) = (self.stdout(), self.stderr());
        assert!(stdout.contains("is ready at"), "stdout: {stdout}\nstderr: {stderr}");
    }

    /// Waits until stderr holds this text so many times.
    pub(crate) async fn logged(&self, text: &str, times: usize) {
        patiently(text, self.said.until(|said| said.stderr.matches(text).count() >= times)).await;
    }

    pub(crate) fn stdout(&self) -> String {
        self.said.text.lock().unwrap().stdout.clone()
    }

    pub(crate) fn stderr(&self) -> String {
        self.said.text.lock().unwrap().stderr.clone()
    }

    /// A connection that says nothing by itself.
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Whether somebody listens.
    pub(crate) async fn listens(&self) -> bool {
        TcpStream::connect(self.address).await.is_ok()
    }

    #[cfg(unix)]
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.process.id().expect("a running process").to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status().await.unwrap();
        assert!(sent.success());
    }

    /// Ends the process without a chance to do anything.
    pub(crate) async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }

    /// Waits for the end by itself.
    pub(crate) async fn ended(mut self) -> Run {
        let status = patiently("the server's end", self.process.wait()).await.unwrap();
        for reader in &mut self.readers {
            patiently("the end of its output", reader).await.unwrap();
        }
        Run { code: status.code(), stdout: self.stdout(), stderr: self.stderr() }
    }

    /// Stops it as a service manager does.
    #[cfg(unix)]
    pub(crate) async fn stop(self) -> Run {
        self.signal("TERM").await;
        let run = self.ended().await;
        assert_eq!(run.code, Some(0), "{run:#?}");
        run
    }

    #[cfg(not(unix))]
    pub(crate) async fn stop(self) {
        self.kill().await;
    }
}

/// What a process has written so far.
#[derive(Default)]
struct Said {
    text: Mutex<Text>,
    news: Notify,
}

#[derive(Default)]
struct Text {
    stdout: String,
    stderr: String,
    ended: bool,
}

#[derive(Clone, Copy)]
enum Stream {
    Out,
    Err,
}

impl Said {
    fn follow(
        self: &Arc<Self>,
        from: impl AsyncRead + Send + Unpin + 'static,
        stream: Stream,
    ) -> JoinHandle<()> {
        let said = Arc::clone(self);
        tokio::spawn(async move {
            let mut lines = BufReader::new(from).lines();
            loop {
                let line = lines.next_line().await.unwrap();
                let mut text = said.text.lock().unwrap();
                let kept = match stream {
                    Stream::Out => &mut text.stdout,
                    Stream::Err => &mut text.stderr,
                };
                if let Some(line) = &line {
                    kept.push_str(line);
                    kept.push('\n');
                }
                text.ended |= line.is_none();
                drop(text);
                said.news.notify_waiters();
                if line.is_none() {
                    return;
                }
            }
        })
    }

    /// Waits for this, or for the end of the process.
    async fn until(&self, holds: impl Fn(&Text) -> bool) {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            {
                let text = self.text.lock().unwrap();
                if holds(&text) || text.ended {
                    return;
                }
            }
            news.await;
        }
    }
}
