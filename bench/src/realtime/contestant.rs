//! A server under load, and how to reach it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::processes::Processes;
use crate::Failure;
use crate::program::{Account, terminate};

/// Connections that may wait to be accepted.
const BACKLOG: usize = 4096;
/// Connections nginx may have; more than any load opens.
const NGINX_CONNECTIONS: usize = 16_384;

/// Who takes part.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// nginx with the nchan module.
    Nchan,
    /// A Node server with the `ws` package.
    Ws,
    /// Quarterdeck, as clients without a subprotocol see it.
    Plain,
    /// Quarterdeck, as clients that recover see it.
    Capable,
}

/// The frame with which a connection subscribes.
pub(crate) struct FirstFrame {
    pub(crate) text: &'static str,
    /// What the frame contains that says it is done.
    pub(crate) answer: &'static str,
}

/// A running server on core 0; ends with this value.
pub(crate) struct Contestant {
    pub(crate) processes: Processes,
    /// Where an event is posted to.
    pub(crate) publish_url: String,
    pub(crate) subprotocol: Option<&'static str>,
    /// `None` when opening a connection subscribes it.
    pub(crate) first_frame: Option<FirstFrame>,
    ws_url: String,
    /// Who asks for tickets, where a connection needs one.
    pub(crate) account: Option<Account>,
    _server: Server,
}

impl Kind {
    /// All, in the order of their turns.
    pub(crate) const ALL: [Self; 4] = [Self::Nchan, Self::Ws, Self::Plain, Self::Capable];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nchan => "nginx nchan",
            Self::Ws => "node ws",
            Self::Plain => "quarterdeck plain",
            Self::Capable => "quarterdeck.v1",
        }
    }

    /// Whether it is somebody to be compared with.
    pub(crate) fn is_peer(self) -> bool {
        match self {
            Self::Nchan | Self::Ws => true,
            Self::Plain | Self::Capable => false,
        }
    }

    pub(crate) async fn start(self) -> Result<Contestant, Failure> {
        match self {
            Self::Nchan => nchan(),
            Self::Ws => ws(),
            Self::Plain => quarterdeck(None).await,
            Self::Capable => quarterdeck(Some("quarterdeck.v1")).await,
        }
    }
}

impl Contestant {
    /// Addresses for this many connections; with tickets that are good for half a minute.
    pub(crate) async fn ws_urls(&self, connections: u32) -> Result<Vec<String>, Failure> {
        let Some(account) = &self.account else {
            return Ok(vec![self.ws_url.clone(); connections as usize]);
        };
        let tickets = account.tickets(connections).await?;
        Ok(tickets.iter().map(|ticket| format!("{}?ticket={ticket}", self.ws_url)).collect())
    }
}

/// A process and its folder.
struct Server {
    process: Child,
    _folder: Option<TempDir>,
}

impl Server {
    /// Starts one that prints its address, and gives host and port of it.
    fn that_prints(mut command: Command) -> Result<(Self, String), Failure> {
        let mut server = Self { process: command.stdout(Stdio::piped()).spawn()?, _folder: None };
        let printed = server.process.stdout.take().ok_or("no pipe")?;
        let authority = line(printed, |line| line.strip_prefix("http://").map(str::to_owned))?;
        Ok((server, authority))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = terminate(&mut self.process);
    }
}

fn nchan() -> Result<Contestant, Failure> {
    let folder = TempDir::new()?;
    let config = folder.path().join("nginx.conf");
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    std::fs::write(&config, nginx_config(&modules_folder()?, &folder.path().to_string_lossy(), port))?;
    let mut command = pinned("nginx");
    command.arg("-e").arg("stderr").arg("-c").arg(&config).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut server = Server { process: command.spawn()?, _folder: Some(folder) };
    // The sockets listen before the first worker starts.
    let log = server.process.stderr.take().ok_or("no pipe")?;
    line(log, |line| line.contains("start worker process ").then_some(()))?;
    Ok(Contestant {
        processes: Processes::of(&server.process)?,
        publish_url: format!("http://127.0.0.1:{port}/publish"),
        subprotocol: None,
        first_frame: None,
        ws_url: format!("ws://127.0.0.1:{port}/ws"),
        account: None,
        _server: server,
    })
}

/// Where this nginx keeps its modules.
fn modules_folder() -> Result<String, Failure> {
    let output = Command::new("nginx").arg("-V").output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let folder = text.split_whitespace().find_map(|word| word.strip_prefix("--modules-path="));
    Ok(folder.ok_or("nginx does not say where its modules are")?.to_owned())
}

/// One worker, no log of requests, everything it writes in this folder.
fn nginx_config(modules: &str, folder: &str, port: u16) -> String {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("  {name}_temp_path {folder}/{name};\n"))
        .concat();
    format!(
        "load_module {modules}/ngx_nchan_module.so;
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr notice;
events {{ worker_connections {NGINX_CONNECTIONS}; }}
http {{
  access_log off;
{temporary}
  # One publisher sends everything over one connection.
  keepalive_requests 1000000;
  server {{
    listen 127.0.0.1:{port} backlog={BACKLOG};
    location = /publish {{ nchan_publisher http; nchan_channel_id bench; }}
    location = /ws {{
      nchan_subscriber websocket;
      nchan_channel_id bench;
      nchan_subscriber_first_message newest;
    }}
  }}
}}
"
    )
}

fn ws() -> Result<Contestant, Failure> {
    let mut command = pinned("node");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/ws-server.mjs"));
    passes_bytes_on(command)
}

fn passes_bytes_on(command: Command) -> Result<Contestant, Failure> {
    let (server, authority) = Server::that_prints(command)?;
    Ok(Contestant {
        processes: Processes::of(&server.process)?,
        publish_url: format!("http://{authority}/publish"),
        subprotocol: None,
        first_frame: None,
        ws_url: format!("ws://{authority}/ws"),
        account: None,
        _server: server,
    })
}

async fn quarterdeck(subprotocol: Option<&'static str>) -> Result<Contestant, Failure> {
    let mut command = pinned(std::env::current_exe()?);
    command.arg("hub");
    let (server, authority) = Server::that_prints(command)?;
    Ok(Contestant {
        processes: Processes::of(&server.process)?,
        publish_url: format!("http://{authority}/api/v1/bench/publish"),
        subprotocol,
        first_frame: Some(FirstFrame {
            text: r#"{"action":"subscribe","channels":["system"]}"#,
            answer: r#""action":"subscribed""#,
        }),
        ws_url: format!("ws://{authority}/api/v1/ws"),
        account: Some(Account::first(&format!("http://{authority}")).await?),
        _server: server,
    })
}

/// A command on the core of servers.
fn pinned(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(program);
    command
}

/// What the first line gives for which `find` finds something.
fn line<T>(output: impl Read, find: impl Fn(&str) -> Option<T>) -> Result<T, Failure> {
    let mut said = String::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        if let Some(found) = find(&line) {
            return Ok(found);
        }
        said.push_str(&line);
        said.push('\n');
    }
    Err(format!("a server did not start:\n{said}").into())
}
