//! The one service around the router. It is on the way of every request, so it allocates, formats
//! and locks only where a request makes it necessary.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::future::RouteFuture;
use axum::{BoxError, Router};
use bytes::Bytes;
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use quarterdeck_domain::{Error, ErrorCode};
use tower_service::Service;
use tracing::Span;

use super::accept::joined;
use super::body::{Bounded, too_large};
use super::compression::compress;
use super::cors::is_preflight;
use super::failure::{AsIs, Failure, RouteTemplate, Sandboxed};
use super::headers::{Area, secure};
use super::id::{RequestId, TraceId};
use super::render::{failure_of, render};
use super::scrub::{loggable, scrub};
use super::{Edge, EdgeConfig, Encrypted, RequestContext};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Requests that are asked every few seconds and would drown the log.
const PROBES: [&str; 3] = ["/healthz", "/readyz", "/health"];

/// Requests to speak WebSocket, which the socket itself logs and counts. Its query may hold a ticket.
const SOCKET: &str = "/ws";

/// What paths that take files begin and end with.
const UPLOADS: (&str, &str) = ("/artifacts/", "/content");

/// Bytes of a form that are not its file.
const FORM_AROUND_A_FILE: u64 = 65_536;

/// Seconds after which a client refused while draining should try again.
const DRAIN_RETRY: u32 = 5;

/// Seconds after which a client refused between a restore and the restart should try again.
const MAINTENANCE_RETRY: u32 = 30;

/// Puts the edge around a router.
pub fn wrap(router: Router, edge: Arc<Edge>) -> EdgeService {
    EdgeService { router: router.with_state(()), edge }
}

/// A router inside the edge.
#[derive(Clone)]
pub struct EdgeService {
    router: Router,
    edge: Arc<Edge>,
}

impl fmt::Debug for EdgeService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeService").finish_non_exhaustive()
    }
}

impl<B> Service<Request<B>> for EdgeService
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = EdgeFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> EdgeFuture {
        self.handle(request)
    }
}

impl EdgeService {
    /// The edge around the router.
    pub fn edge(&self) -> &Arc<Edge> {
        &self.edge
    }

    /// Answers a request that came from where its extensions say: [`ConnectInfo`] and [`Encrypted`].
    pub fn handle<B>(&self, request: Request<B>) -> EdgeFuture
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let encrypted = request.extensions().get::<Encrypted>().is_some();
        self.handle_from(request, peer, encrypted)
    }

    /// Answers a request of this peer, which came over TLS of our own or did not.
    pub(crate) fn handle_from<B>(
        &self,
        mut request: Request<B>,
        peer: Option<IpAddr>,
        encrypted: bool,
    ) -> EdgeFuture
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let frame = Frame::open(self.edge.clone(), &request, peer, encrypted);
        let config = &self.edge.config;
        if is_preflight(request.method(), request.headers()) {
            let response = config.cors.preflight(config.cors.allowed(request.headers()));
            return EdgeFuture::answered(frame, response);
        }
        if self.edge.is_draining() {
            return EdgeFuture::refused(frame, Error::unavailable("draining", DRAIN_RETRY));
        }
        if self.edge.is_in_maintenance() && !is_probe(request.uri().path(), &config.api_prefix) {
            let refusal = Error::unavailable("a restore waits for a restart", MAINTENANCE_RETRY);
            return EdgeFuture::refused(frame, refusal);
        }
        let most = most_bytes(config, &request);
        if declared_length(&request).is_some_and(|length| length > most) {
            return EdgeFuture::refused(frame, too_large());
        }
        trim_trailing_slash(request.uri_mut());
        request.extensions_mut().insert(frame.context);
        let request = request.map(|body| {
            if body.is_end_stream() {
                Body::empty()
            } else {
                Body::new(Bounded::new(body, most, config.body_read_timeout))
            }
        });
        let mut router = self.router.clone();
        let called = frame.span.in_scope(|| catch_unwind(AssertUnwindSafe(|| router.call(request))));
        match called {
            Ok(inner) => EdgeFuture { inner: Some(inner), ready: None, frame: Some(frame) },
            Err(panic) => EdgeFuture::panicked(frame, &*panic),
        }
    }
}

pin_project! {
    /// The answer to come.
    pub struct EdgeFuture {
        #[pin]
        inner: Option<RouteFuture<Infallible>>,
        ready: Option<Response>,
        frame: Option<Frame>,
    }
}

impl fmt::Debug for EdgeFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeFuture").finish_non_exhaustive()
    }
}

impl EdgeFuture {
    fn answered(frame: Frame, response: Response) -> Self {
        Self { inner: None, ready: Some(response), frame: Some(frame) }
    }

    fn refused(frame: Frame, error: Error) -> Self {
        Self::answered(frame, Failure(error).into_response())
    }

    fn panicked(frame: Frame, panic: &(dyn std::any::Any + Send)) -> Self {
        Self::refused(frame, panic_failure(panic))
    }
}

impl Future for EdgeFuture {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let response = match (this.ready.take(), this.inner.as_mut().as_pin_mut(), this.frame.as_ref()) {
            (Some(response), _, _) => response,
            (None, Some(inner), Some(frame)) => {
                let polled = frame.span.in_scope(|| catch_unwind(AssertUnwindSafe(|| inner.poll(cx))));
                match polled {
                    Ok(Poll::Pending) => return Poll::Pending,
                    Ok(Poll::Ready(Ok(response))) => response,
                    Ok(Poll::Ready(Err(never))) => match never {},
                    Err(panic) => Failure(panic_failure(&*panic)).into_response(),
                }
            }
            // Polled again after it answered.
            _ => return Poll::Pending,
        };
        // Drops what the handler held before the client learns that it is done.
        this.inner.set(None);
        Poll::Ready(Ok(match this.frame.take() {
            Some(frame) => frame.close(response),
            None => response,
        }))
    }
}

/// What is kept of a request until it is answered.
struct Frame {
    edge: Arc<Edge>,
    context: RequestContext,
    method: Method,
    path: Option<PathAndQuery>,
    accept: Option<HeaderValue>,
    accept_encoding: Option<HeaderValue>,
    allowed_origin: Option<HeaderValue>,
    area: Area,
    span: Span,
    started: Instant,
    quiet: bool,
    closed: bool,
}

impl Frame {
    fn open<B>(edge: Arc<Edge>, request: &Request<B>, peer: Option<IpAddr>, encrypted: bool) -> Self {
        let started = Instant::now();
        let headers = request.headers();
        let context = context(&edge, headers, peer, encrypted);
        let path = request.uri().path();
        let below = path.strip_prefix(&*edge.config.api_prefix);
        let quiet = below.is_some_and(|path| path == SOCKET || PROBES.contains(&path));
        if !quiet {
            tracing::info!(
                request_id = context.id.as_str(),
                method = request.method().as_str(),
                path = &*loggable(path),
                "api.request.started"
            );
        }
        let span = tracing::info_span!(
            "request",
            request_id = context.id.as_str(),
            trace_id = tracing::field::Empty
        );
        if let Some(trace) = context.trace {
            span.record("trace_id", trace.as_str());
        }
        Self {
            context,
            method: request.method().clone(),
            path: request.uri().path_and_query().cloned(),
            accept: joined(headers, ACCEPT),
            accept_encoding: joined(headers, ACCEPT_ENCODING),
            allowed_origin: edge.config.cors.allowed(headers),
            area: Area::of(path),
            span,
            started,
            quiet,
            closed: false,
            edge,
        }
    }

    fn path(&self) -> Cow<'_, str> {
        loggable(self.path.as_ref().map_or("", PathAndQuery::path))
    }

    fn close(mut self, mut response: Response) -> Response {
        self.closed = true;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return response;
        }
        let failed = response.status().is_client_error() || response.status().is_server_error();
        if failed && response.extensions().get::<AsIs>().is_none() {
            response = self.fail(response);
        }
        let edge = &self.edge;
        let minimum = u64::from(edge.config.compression_minimum_size);
        if response.extensions().get::<Sandboxed>().is_some() {
            self.area = Area::Uploaded;
        }
        let mut response = compress(response, self.accept_encoding.as_ref(), &self.method, minimum);
        let status = response.status();
        let headers = response.headers_mut();
        secure(headers, self.area, status, edge.config.hsts);
        headers.insert(X_REQUEST_ID, self.context.id.header());
        edge.config.cors.apply(headers, self.allowed_origin.take());
        let took = self.started.elapsed();
        let route = response.extensions().get::<RouteTemplate>().copied();
        edge.metrics.request(&self.method, route, status.as_u16(), took);
        if !self.quiet {
            tracing::info!(
                request_id = self.context.id.as_str(),
                method = self.method.as_str(),
                path = &*self.path(),
                status_code = status.as_u16(),
                duration_ms = milliseconds(took),
                "api.request.completed"
            );
        }
        response
    }

    fn fail(&self, mut response: Response) -> Response {
        let error = failure_of(&mut response);
        self.edge.metrics.error(error.code().category(), error.status());
        self.log(&error);
        render(&error, &self.context.id, &self.edge.types, self.accept.as_ref(), &self.method, response)
    }

    fn log(&self, error: &Error) {
        let (id, method, path) = (self.context.id.as_str(), self.method.as_str(), self.path());
        if error.code() == ErrorCode::RouteNotFound {
            tracing::warn!(
                request_id = id,
                method,
                path = &*path,
                status_code = error.status(),
                "api.route.not_found"
            );
            return;
        }
        let text = scrub(error.cause().unwrap_or(error.detail()));
        macro_rules! event {
            ($level:ident) => {
                tracing::$level!(
                    request_id = id,
                    method,
                    path = &*path,
                    status_code = error.status(),
                    error_type = error.code().name(),
                    error_code = error.code().number(),
                    reason = error.reason(),
                    error = &*text,
                    "api.request.error"
                )
            };
        }
        if error.status() >= 500 { event!(error) } else { event!(warn) }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        if self.closed || self.quiet {
            return;
        }
        tracing::warn!(
            request_id = self.context.id.as_str(),
            method = self.method.as_str(),
            path = &*self.path(),
            status_code = 0,
            status_code_captured = false,
            duration_ms = milliseconds(self.started.elapsed()),
            "api.request.completed"
        );
    }
}

fn context(edge: &Edge, headers: &HeaderMap, peer: Option<IpAddr>, encrypted: bool) -> RequestContext {
    let proxies = &edge.config.trusted_proxies;
    let trusted = !proxies.is_empty() && peer.is_some_and(|peer| proxies.trusts(peer));
    let foreign = headers.get(X_REQUEST_ID).filter(|_| trusted).and_then(RequestId::foreign);
    let secure = if trusted { proxies.forwarded_secure(peer, headers) } else { None };
    RequestContext {
        id: foreign.unwrap_or_else(RequestId::fresh),
        client: proxies.resolve(peer, headers),
        secure: secure.unwrap_or(encrypted),
        trace: TraceId::of(headers),
    }
}

fn is_probe(path: &str, api_prefix: &str) -> bool {
    path.strip_prefix(api_prefix).is_some_and(|path| PROBES.contains(&path.trim_end_matches('/')))
}

fn panic_failure(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::internal(text.unwrap_or("panic without a text")).because("panic")
}

/// Largest body of this request. A form around a file is no part of the file, which has a limit of its own.
fn most_bytes<B>(config: &EdgeConfig, request: &Request<B>) -> u64 {
    let below = request.uri().path().strip_prefix(&*config.api_prefix).unwrap_or_default();
    let is_upload = below.starts_with(UPLOADS.0) && below.trim_end_matches('/').ends_with(UPLOADS.1);
    config.max_body_bytes.saturating_add(if is_upload { FORM_AROUND_A_FILE } else { 0 })
}

fn declared_length<B>(request: &Request<B>) -> Option<u64> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Lets `/x/` reach the route of `/x`.
fn trim_trailing_slash(uri: &mut Uri) {
    let path = uri.path();
    let trimmed = path.trim_end_matches('/');
    if trimmed.len() == path.len() || path == "/" {
        return;
    }
    let trimmed = if trimmed.is_empty() { "/" } else { trimmed };
    let path_and_query = match uri.query() {
        Some(query) => format!("{trimmed}?{query}"),
        None => trimmed.to_owned(),
    };
    if let Ok(path_and_query) = PathAndQuery::try_from(path_and_query) {
        let mut parts = std::mem::take(uri).into_parts();
        parts.path_and_query = Some(path_and_query);
        *uri = Uri::from_parts(parts).unwrap_or_default();
    }
}

/// Milliseconds with two decimals.
fn milliseconds(took: std::time::Duration) -> f64 {
    (took.as_secs_f64() * 100_000.0).round() / 100.0
}
