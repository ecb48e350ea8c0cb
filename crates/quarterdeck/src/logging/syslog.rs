//! RFC 5424 messages over UDP or, octet-counted, over TCP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quarterdeck_domain::sink::{LogLevel, Syslog, SyslogProtocol};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{sleep, timeout};

use super::line::JSON_HEAD;
use super::net::{FIRST_PAUSE, Message, Progress};
use super::stamp::STAMP;

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const SEND_WITHIN: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

pub(super) async fn run(to: Syslog, mut inbox: UnboundedReceiver<Message>, progress: Arc<Progress>) {
    let host = host_name();
    let mut link = None;
    let mut pause = FIRST_PAUSE;
    while let Some(message) = inbox.recv().await {
        // What was sent before the flush has already been handed to the kernel.
        let Message::Line(line, level) = message else { continue };
        let text = format_message(&to, &host, &line, level);
        loop {
            match deliver(&to, &mut link, &text).await {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    progress.sent(line.len());
                    break;
                }
                Err(why) => {
                    link = None;
                    progress.trouble(why.to_string());
                    // A datagram that was refused will not get better; a sink taken away does not linger.
                    if to.protocol == SyslogProtocol::Udp || inbox.is_closed() {
                        progress.lose(1, line.len());
                        break;
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

async fn deliver(to: &Syslog, link: &mut Option<Link>, text: &str) -> io::Result<()> {
    if let Some(Link::Tcp(stream)) = link
        && closed_by_peer(stream)
    {
        *link = None;
    }
    let link = match link {
        Some(link) => link,
        None => link.insert(timeout(CONNECT_WITHIN, connect(to)).await??),
    };
    match link {
        Link::Udp(socket) => socket.send(text.as_bytes()).await.map(drop),
        Link::Tcp(stream) => {
            let frame = format!("{} {text}", text.len());
            timeout(SEND_WITHIN, stream.write_all(frame.as_bytes())).await?
        }
    }
}

async fn connect(to: &Syslog) -> io::Result<Link> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the syslog host has no address");
    for address in lookup_host((to.host.as_str(), to.port)).await? {
        let linked = match to.protocol {
            SyslogProtocol::Tcp => TcpStream::connect(address).await.map(Link::Tcp),
            SyslogProtocol::Udp => datagrams(address).await.map(Link::Udp),
        };
        match linked {
            Ok(link) => return Ok(link),
            Err(why) => last = why,
        }
    }
    Err(last)
}

async fn datagrams(to: SocketAddr) -> io::Result<UdpSocket> {
    let from = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(from).await?;
    socket.connect(to).await?;
    Ok(socket)
}

/// Writing to a closed connection succeeds once; asking first saves that line.
fn closed_by_peer(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0; 64]) {
        Ok(read) => read == 0,
        Err(why) => why.kind() != io::ErrorKind::WouldBlock,
    }
}

fn format_message(to: &Syslog, host: &str, line: &str, level: LogLevel) -> String {
    let severity = match level {
        LogLevel::Debug => 7,
        LogLevel::Info => 6,
        LogLevel::Warning => 4,
        LogLevel::Error => 3,
        LogLevel::Critical => 2,
    };
    let priority = to.facility * 8 + severity;
    let time = line.strip_prefix(JSON_HEAD).and_then(|rest| rest.get(..STAMP)).unwrap_or("-");
    format!("<{priority}>1 {time} {host} quarterdeck {} - - {line}", std::process::id())
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::fs::read_to_string("/etc/hostname"))
        .unwrap_or_default();
    let name: String = name.trim().chars().filter(char::is_ascii_graphic).take(255).collect();
    if name.is_empty() { "-".to_owned() } else { name }
}
