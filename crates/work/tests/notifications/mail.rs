//! Mail, with a small server that keeps what it is told.

use std::sync::Arc;
use std::time::Duration;

use quarterdeck_domain::notification::Severity;
use quarterdeck_work::notifications::try_out;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::{Log, clock, config, news, quick, start};

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A mail server; every line it is told arrives here, those after STARTTLS with `tls ` before them.
struct Server {
    port: u16,
    lines: UnboundedReceiver<String>,
    authority: tempfile::NamedTempFile,
}

/// What a server answers.
#[derive(Clone, Copy)]
struct Manners {
    offers_tls: bool,
    refuses: bool,
}

impl Server {
    async fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let authority = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(authority.path(), certificate.pem()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let tls =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let tls = tls.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let (told, lines) = unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, acceptor.clone(), told.clone(), manners));
            }
        });
        Self { port, lines, authority }
    }

    fn sink(&self, more: Value) -> Value {
        let mut params = json!({"host": "localhost", "port": self.port, "to_addrs": "Ada <ada@example.org>, bob@example.org",
            "from_addr": "deck@example.org"});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"type": "email", "params": params})
    }

    /// What was told so far.
    fn told(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Ok(line) = self.lines.try_recv() {
            lines.push(line);
        }
        lines
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, told: UnboundedSender<String>, manners: Manners) {
    let mut stream: BufStream<Box<dyn Stream>> = BufStream::new(Box::new(stream));
    let mut mark = "";
    let _ = say(&mut stream, "220 test").await;
    let mut in_data = false;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        let line = line.trim_end().to_owned();
        let _ = told.send(format!("{mark}{line}"));
        let command = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        let answer = match (in_data, command.as_str()) {
            (true, ".") => {
                in_data = false;
                "250 taken"
            }
            (true, _) => continue,
            (_, "EHLO") if mark.is_empty() && manners.offers_tls => "250-test\r\n250 STARTTLS",
            (_, "EHLO") => "250-test\r\n250 AUTH PLAIN",
            (_, "AUTH") => "235 welcome",
            (_, "MAIL") if manners.refuses => "550 no mail from canary-0123456789",
            (_, "DATA") => {
                in_data = true;
                "354 go on"
            }
            (_, "STARTTLS") => {
                let _ = say(&mut stream, "220 go on").await;
                let Ok(secured) = acceptor.accept(stream.into_inner()).await else { return };
                let secured: Box<dyn Stream> = Box::new(secured);
                (stream, mark) = (BufStream::new(secured), "tls ");
                continue;
            }
            _ => "250 fine",
        };
        if say(&mut stream, answer).await.is_err() || command == "QUIT" {
            return;
        }
    }
}

async fn say(stream: &mut BufStream<Box<dyn Stream>>, text: &str) -> std::io::Result<()> {
    stream.write_all(format!("{text}\r\n").as_bytes()).await?;
    stream.flush().await
}

const POLITE: Manners = Manners { offers_tls: true, refuses: false };

#[tokio::test]
async fn mail_is_written_to_everybody_over_a_secured_connection() {
    let mut server = Server::start(POLITE).await;
    let path = server.authority.path().to_str().unwrap().to_owned();
    let sink = server.sink(json!({"username": "deck", "password": "s3cret", "ca_file": path}));
    let told = start(&config(json!([sink])), &clock(), &quick());
    told.send(news(Severity::Critical, "Das Budget ist übersät"));
    told.stop(Duration::from_secs(10)).await;
    let lines = server.told();
    let first = lines.iter().position(|line| line.starts_with("tls ")).expect("a secured connection");
    assert_eq!(lines[first - 1], "STARTTLS");
    assert!(lines[..first].iter().all(|line| line.starts_with("EHLO") || line == "STARTTLS"), "{lines:?}");
    let text = lines.join("\n");
    for part in [
        "tls AUTH PLAIN",
        "tls MAIL FROM:<deck@example.org>",
        "tls RCPT TO:<ada@example.org>",
        "tls RCPT TO:<bob@example.org>",
        "tls Subject: [Quarterdeck] critical:",
        "tls From: deck@example.org",
        "tls More of it.",
        "tls cents: 5",
        "tls Date: Fri, 15 Jan 2027 08:00:00 +0000",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[tokio::test]
async fn without_tls_nothing_is_said_that_needs_it() {
    let (log, _guard) = Log::start();
    let mut bare = Server::start(Manners { offers_tls: false, ..POLITE }).await;
    let sinks = json!([bare.sink(json!({"username": "deck", "password": "s3cret"}))]);
    let trials = try_out(&config(sinks), &|_| None, &news(Severity::Info, "one"), &quick()).await;
    assert!(trials[0].outcome.is_err());
    let lines = bare.told();
    assert!(lines.iter().all(|line| line.starts_with("EHLO") || line.starts_with("QUIT")), "{lines:?}");

    // A server that cannot prove who it is.
    let mut stranger = Server::start(POLITE).await;
    let sinks = json!([stranger.sink(json!({"username": "deck", "password": "s3cret"}))]);
    let trials = try_out(&config(sinks), &|_| None, &news(Severity::Info, "one"), &quick()).await;
    assert!(trials[0].outcome.is_err());
    assert!(!stranger.told().join("\n").contains("AUTH"));
    assert!(!log.text().contains("s3cret"));
}

#[tokio::test]
async fn plain_mail_goes_to_a_relay_of_this_machine() {
    let mut relay = Server::start(Manners { offers_tls: false, ..POLITE }).await;
    let sinks = json!([relay.sink(json!({"use_tls": false}))]);
    let trials = try_out(&config(sinks), &|_| None, &news(Severity::Info, "one"), &quick()).await;
    assert_eq!(trials[0].outcome, Ok(()));
    assert!(relay.told().iter().any(|line| line == "Subject: [Quarterdeck] info: one"));
}

#[tokio::test]
async fn what_a_mail_server_says_is_not_repeated() {
    let relay = Server::start(Manners { offers_tls: false, refuses: true }).await;
    let sinks = json!([relay.sink(json!({"use_tls": false}))]);
    let trials = try_out(&config(sinks), &|_| None, &news(Severity::Info, "one"), &quick()).await;
    assert_eq!(trials[0].outcome, Err("the mail server answered 550".to_owned()));
}
