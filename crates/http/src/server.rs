//! From sockets to the edge: HTTP/1 and HTTP/2, with and without TLS, bounded in everything a client
//! can make us hold, and stopping gracefully.

mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::http::header::UPGRADE;
use axum::response::Response;
use futures_util::future::join_all;
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::tls::Tls;
use crate::edge::{EdgeFuture, EdgeService, Encrypted};

/// Pause after a failed accept, which usually means that descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection's place among those allowed, an extension of its requests: what outlives the HTTP
/// spoken on it, as a WebSocket does, keeps it.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionSlot(#[expect(dead_code, reason = "held, not read")] Arc<OwnedSemaphorePermit>);

/// Bounds of the server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Longest wait for the head of a request, for the first one also counted from the connect, and
    /// for a TLS handshake.
    pub header_read_timeout: Duration,
    /// Largest head of a request, in bytes.
    pub max_header_bytes: u32,
    /// Most connections at a time; more are closed at once.
    pub max_connections: usize,
    /// How long requests in flight may go on once the server stops.
    pub grace: Duration,
    /// Keys and certificates, when the server itself speaks TLS.
    pub tls: Option<Tls>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            header_read_timeout: Duration::from_secs(15),
            max_header_bytes: 65_536,
            max_connections: 10_000,
            grace: Duration::from_secs(25),
            tls: None,
        }
    }
}

/// How a server stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Every connection ended by itself.
    Drained,
    /// Some connections were still busy after the grace and were cut.
    Cut,
}

/// Serves until `shutdown` is cancelled, then stops accepting, refuses new requests on open
/// connections, and lets requests in flight finish within the grace.
pub async fn serve(
    listeners: Vec<TcpListener>,
    service: EdgeService,
    options: ServerOptions,
    shutdown: CancellationToken,
) -> Stopped {
    let server = Arc::new(Server::new(service, options));
    join_all(listeners.into_iter().map(|listener| server.clone().accept(listener, shutdown.clone()))).await;
    shutdown.cancelled().await;
    server.service.edge().drain();
    server.connections.close();
    server.closing.cancel();
    let drained = tokio::time::timeout(server.options.grace, server.connections.wait()).await.is_ok();
    server.cut.cancel();
    server.connections.wait().await;
    if drained { Stopped::Drained } else { Stopped::Cut }
}

struct Server {
    service: EdgeService,
    http: auto::Builder<TokioExecutor>,
    options: ServerOptions,
    room: Arc<Semaphore>,
    full: AtomicBool,
    connections: TaskTracker,
    closing: CancellationToken,
    cut: CancellationToken,
}

impl Server {
    fn new(service: EdgeService, options: ServerOptions) -> Self {
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(options.header_read_timeout)
            .max_buf_size(options.max_header_bytes as usize);
        http.http2()
            .timer(TokioTimer::new())
            .max_header_list_size(options.max_header_bytes)
            .max_concurrent_streams(200)
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20));
        Self {
            service,
            http,
            room: Arc::new(Semaphore::new(options.max_connections)),
            full: AtomicBool::new(false),
            connections: TaskTracker::new(),
            closing: CancellationToken::new(),
            cut: CancellationToken::new(),
            options,
        }
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, shutdown: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    if let Some(permit) = self.admit() {
                        self.connections.spawn(self.clone().connection(stream, peer, permit));
                    }
                }
                Err(error) if is_of_the_client(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "api.server.accept_failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Room for one more connection; without it the caller drops, and so closes, the socket.
    fn admit(&self) -> Option<OwnedSemaphorePermit> {
        let permit = self.room.clone().try_acquire_owned().ok();
        if permit.is_some() {
            self.full.store(false, Ordering::Relaxed);
        } else if !self.full.swap(true, Ordering::Relaxed) {
            tracing::warn!(max_connections = self.options.max_connections, "api.server.full");
        }
        permit
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
        let slot = ConnectionSlot(Arc::new(permit));
        // Answers are small and complete; waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.options.tls else { return self.speak(stream, peer, false, slot).await };
        let handshake = tls.acceptor().accept(stream);
        tokio::select! {
            () = self.closing.cancelled() => {}
            handshaken = tokio::time::timeout(self.options.header_read_timeout, handshake) => match handshaken {
                Ok(Ok(stream)) => self.speak(stream, peer, true, slot).await,
                Ok(Err(error)) => tracing::debug!(%error, "api.tls.handshake_failed"),
                Err(_) => tracing::debug!("api.tls.handshake_timeout"),
            },
        }
    }

    async fn speak<S>(&self, stream: S, peer: SocketAddr, encrypted: bool, slot: ConnectionSlot)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        self.speak_http(TokioIo::new(stream), peer, encrypted, slot).await;
    }

    async fn speak_http<I>(&self, io: I, peer: SocketAddr, encrypted: bool, slot: ConnectionSlot)
    where
        I: Read + Write + Unpin + Send + 'static,
    {
        let spoken = Arc::new(AtomicBool::new(false));
        let spoken_here = spoken.clone();
        let service = Connected { service: self.service.clone(), peer, encrypted, spoken: spoken_here, slot };
        let mut connection = pin!(self.http.serve_connection_with_upgrades(io, service));
        let mut silence = pin!(tokio::time::sleep(self.options.header_read_timeout));
        let mut closing = pin!(self.closing.cancelled());
        let mut cut = pin!(self.cut.cancelled());
        let (mut is_closing, mut is_timed) = (false, true);
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "api.server.connection_failed");
                    }
                    return;
                }
                () = silence.as_mut(), if is_timed => {
                    // The protocol is only known from the first bytes, so nothing below times this.
                    if !spoken.load(Ordering::Relaxed) {
                        return;
                    }
                    is_timed = false;
                }
                () = closing.as_mut(), if !is_closing => {
                    // Half a head may take its time to become a request, which would be refused anyway.
                    if !spoken.load(Ordering::Relaxed) {
                        return;
                    }
                    is_closing = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = cut.as_mut(), if is_closing => return,
            }
        }
    }
}

/// The edge, as seen from one connection.
struct Connected {
    service: EdgeService,
    peer: SocketAddr,
    encrypted: bool,
    spoken: Arc<AtomicBool>,
    slot: ConnectionSlot,
}

impl hyper::service::Service<Request<Incoming>> for Connected {
    type Response = Response;
    type Error = Infallible;
    type Future = EdgeFuture;

    fn call(&self, mut request: Request<Incoming>) -> EdgeFuture {
        self.spoken.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(ConnectInfo(self.peer));
        if request.headers().contains_key(UPGRADE) {
            request.extensions_mut().insert(self.slot.clone());
        }
        if self.encrypted {
            request.extensions_mut().insert(Encrypted);
        }
        self.service.handle(request)
    }
}

/// Whether an accept failed because that one client was gone already.
fn is_of_the_client(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
