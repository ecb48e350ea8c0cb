//! The server on real sockets.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use quarterdeck_http::edge::{Edge, EdgeService, RequestContext, wrap};
use quarterdeck_http::server::{ServerOptions, Stopped, Tls, serve};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

struct Running {
    address: SocketAddr,
    edge: Arc<Edge>,
    reached: Arc<Notify>,
    release: Arc<Notify>,
    shutdown: CancellationToken,
    served: JoinHandle<Stopped>,
}

async fn start(options: ServerOptions) -> Running {
    let (reached, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let gates = (reached.clone(), release.clone());
    let router = Router::new()
        .route("/", get(async || "hello"))
        .route("/who", get(async |context: RequestContext| format!("{} {}", context.client, context.secure)))
        .route(
            "/slow",
            get(async move || {
                gates.0.notify_one();
                gates.1.notified().await;
                "done"
            }),
        )
        .route("/upgrade", get(upgrade));
    let edge = Arc::new(Edge::new(Default::default()).unwrap());
    let service: EdgeService = wrap(router, edge.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let served = tokio::spawn(serve(vec![listener], service, options, shutdown.clone()));
    Running { address, edge, reached, release, shutdown, served }
}

/// Speaks upper case after an upgrade.
async fn upgrade(mut request: axum::extract::Request) -> axum::response::Response {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut io = hyper_util::rt::TokioIo::new(upgraded.await.unwrap());
        let mut word = [0; 4];
        io.read_exact(&mut word).await.unwrap();
        io.write_all(&word.map(|b| b.to_ascii_uppercase())).await.unwrap();
    });
    axum::http::Response::builder()
        .status(101)
        .header("connection", "upgrade")
        .header("upgrade", "shout")
        .body(axum::body::Body::empty())
        .unwrap()
}

/// Sends one HTTP/1 request and reads until the body of the answer is complete.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    answer(stream).await
}

async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head
                .split("content-length: ")
                .nth(1)
                .map_or(0, |rest| rest.lines().next().unwrap().trim().parse::<usize>().unwrap());
            if body.len() >= length {
                return text;
            }
        }
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await.unwrap();
        if read == 0 {
            return text;
        }
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
}

async fn is_closed(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    matches!(stream.read(&mut [0; 16]).await, Ok(0) | Err(_))
}

#[tokio::test]
async fn requests_are_answered_and_know_their_peer() {
    let server = start(ServerOptions::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    assert!(ask(&mut stream, "/").await.ends_with("hello"));
    let answer = ask(&mut stream, "/who").await;
    assert!(answer.ends_with("127.0.0.1 false"), "{answer}");
    assert!(answer.contains("x-request-id: "));
    assert!(!answer.to_lowercase().contains("\r\nserver:"));
}

#[tokio::test]
async fn requests_in_flight_finish_after_the_stop_and_nothing_new_is_accepted() {
    let server = start(ServerOptions::default()).await;
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    ask(&mut idle, "/").await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    server.reached.notified().await;
    server.shutdown.cancel();
    assert!(is_closed(&mut idle).await);
    assert!(server.edge.is_draining());
    assert!(TcpStream::connect(server.address).await.is_err());
    server.release.notify_one();
    assert!(answer(&mut busy).await.ends_with("done"));
    assert_eq!(server.served.await.unwrap(), Stopped::Drained);
}

#[tokio::test]
async fn requests_that_outlast_the_grace_are_cut() {
    let server = start(ServerOptions { grace: Duration::from_millis(10), ..Default::default() }).await;
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    server.reached.notified().await;
    server.shutdown.cancel();
    assert_eq!(server.served.await.unwrap(), Stopped::Cut);
    assert!(is_closed(&mut busy).await);
}

#[tokio::test]
async fn half_a_first_request_does_not_delay_the_stop() {
    const HOUR: Duration = Duration::from_secs(3600);
    let server = start(ServerOptions { header_read_timeout: HOUR, grace: HOUR, ..Default::default() }).await;
    let mut slow = Vec::new();
    for start in ["", "P", "GET / HTTP/1.1\r\nhost: local"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    // Connections are accepted in order, so the server knows the slow ones by now.
    ask(&mut TcpStream::connect(server.address).await.unwrap(), "/").await;
    server.shutdown.cancel();
    let stopped = tokio::time::timeout(Duration::from_secs(20), server.served).await;
    assert_eq!(stopped.expect("the server stops").unwrap(), Stopped::Drained);
    for mut stream in slow {
        assert!(is_closed(&mut stream).await);
    }
}

#[tokio::test]
async fn a_connection_beyond_the_bound_is_closed() {
    let server = start(ServerOptions { max_connections: 1, ..Default::default() }).await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    ask(&mut first, "/").await;
    let mut second = TcpStream::connect(server.address).await.unwrap();
    assert!(is_closed(&mut second).await);
    assert!(ask(&mut first, "/").await.ends_with("hello"));
}

#[tokio::test]
async fn a_client_that_says_nothing_or_not_enough_is_closed() {
    let options = ServerOptions { header_read_timeout: Duration::from_millis(50), ..Default::default() };
    let server = start(options).await;
    for start in ["", "P", "GET / HTTP/1.1\r\nhost: local"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        assert!(is_closed(&mut stream).await, "{start}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = start(ServerOptions::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(70_000));
    let _ = stream.write_all(request.as_bytes()).await;
    let answer = answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn a_connection_can_be_upgraded() {
    let server = start(ServerOptions::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request =
        b"GET /upgrade HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: shout\r\n\r\n";
    stream.write_all(request).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 101"));
    stream.write_all(b"ahoy").await.unwrap();
    let mut word = [0; 4];
    stream.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"AHOY");
}

#[tokio::test]
async fn http2_is_spoken_on_the_same_port() {
    let server = start(ServerOptions::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    hello.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]); // empty SETTINGS
    hello.extend([0, 0, 14, 1, 5, 0, 0, 0, 1]); // HEADERS that end stream 1
    hello.extend([0x82, 0x84, 0x86, 0x41, 9]); // GET, /, http, and an authority of 9 bytes
    hello.extend(b"localhost");
    stream.write_all(&hello).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).await.unwrap();
        if head[3] == 0 {
            assert_eq!(payload, b"hello");
            break;
        }
    }
}

/// Certificates of a small authority, written to files.
struct Certificates {
    folder: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let new = Self { folder: TempDir::new().unwrap(), ca };
        new.write("ca.pem", &new.ca.pem());
        new
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn issue(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    fn load(&self, certificate: &str, key: &str, ca: Option<&str>) -> Result<Tls, String> {
        Tls::load(self.path(certificate), self.path(key), ca.map(|ca| self.path(ca)))
    }

    fn client(&self, identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        TlsConnector::from(Arc::new(config))
    }
}

type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

async fn connect(client: &TlsConnector, address: SocketAddr) -> std::io::Result<TlsStream> {
    let stream = TcpStream::connect(address).await?;
    client.connect(ServerName::try_from("localhost").unwrap(), stream).await
}

fn presented(stream: &TlsStream) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn tls_is_spoken_and_renewed_without_a_restart() {
    let files = Certificates::new();
    let (first, _) = files.issue("server");
    let tls = files.load("server.pem", "server.key", None).unwrap();
    let server = start(ServerOptions { tls: Some(tls.clone()), ..Default::default() }).await;
    let client = files.client(None);
    let mut stream = connect(&client, server.address).await.unwrap();
    assert!(ask(&mut stream, "/who").await.ends_with("127.0.0.1 true"));
    assert_eq!(presented(&stream), first);
    let (second, _) = files.issue("server");
    tls.reload().unwrap();
    assert_eq!(presented(&connect(&client, server.address).await.unwrap()), second);
    files.write("server.key", "nonsense");
    assert!(tls.reload().unwrap_err().contains("server.key"));
    assert_eq!(presented(&connect(&client, server.address).await.unwrap()), second);
}

#[tokio::test]
async fn with_a_client_authority_only_its_clients_get_in() {
    let files = Certificates::new();
    files.issue("server");
    let identity = files.issue("client");
    let tls = files.load("server.pem", "server.key", Some("ca.pem")).unwrap();
    let server = start(ServerOptions { tls: Some(tls), ..Default::default() }).await;
    let mut known = connect(&files.client(Some(identity)), server.address).await.unwrap();
    assert!(ask(&mut known, "/").await.ends_with("hello"));
    // With TLS 1.3 the client learns of the refusal only when it reads.
    if let Ok(mut unknown) = connect(&files.client(None), server.address).await {
        assert!(is_closed(&mut unknown).await);
    }
}

#[test]
fn unusable_tls_files_are_refused_by_name() {
    let files = Certificates::new();
    files.issue("server");
    files.issue("other");
    files.write("empty.pem", "");
    files.write("broken.key", "-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n");
    for (certificate, key, ca, named) in [
        ("missing.pem", "server.key", None, "missing.pem"),
        ("empty.pem", "server.key", None, "empty.pem"),
        ("server.pem", "missing.key", None, "missing.key"),
        ("server.pem", "broken.key", None, "broken.key"),
        ("server.pem", "other.key", None, "other.key"),
        ("server.pem", "server.key", Some("empty.pem"), "empty.pem"),
    ] {
        let error = files.load(certificate, key, ca).unwrap_err();
        assert!(error.contains(named), "{error}");
    }
}
