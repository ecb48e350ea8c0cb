//! What wraps every request: id, log, panic barrier, security headers, CORS, compression, limits of
//! the body, and the one place where failures become bytes.
//!
//! [`wrap`] puts all of it around a router as one service. Inner code meets the edge in three ways:
//! it reads the [`RequestContext`] from the request extensions, it fails with [`Failure`], and it
//! leaves hints for the edge in the response extensions ([`RouteTemplate`], [`NoCompression`], …).

mod accept;
mod body;
mod client;
mod compression;
mod cors;
mod envelope;
mod failure;
mod headers;
mod id;
mod metrics;
mod render;
mod scrub;
mod service;

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

pub use self::body::body_failure;
pub use self::client::{ClientAddr, TrustedProxies};
pub use self::cors::{CorsPolicy, DEFAULT_HEADERS, DEFAULT_METHODS};
pub use self::envelope::{
    ApiResponse, Data, ErrorDetail, FieldProblem, PageBeside, PaginatedResponse, PaginationMeta,
    ProblemDetail,
};
pub use self::failure::{
    AsIs, Failure, NoCompression, PresentedCredential, Result, RouteTemplate, Sandboxed,
};
pub use self::id::{RequestId, TraceId};
pub use self::metrics::Metrics;
pub(crate) use self::scrub::loggable;
pub use self::service::{EdgeFuture, EdgeService, wrap};

/// Settings of the edge.
#[derive(Clone, Debug)]
pub struct EdgeConfig {
    /// Address of the page that describes failures; `type` is this, `#` and the category.
    pub error_base: String,
    /// Who may read answers from other origins.
    pub cors: CorsPolicy,
    /// Whose forwarding headers are believed.
    pub trusted_proxies: TrustedProxies,
    /// Largest body of a request, in bytes.
    pub max_body_bytes: u64,
    /// Smallest body of a response worth compressing, in bytes.
    pub compression_minimum_size: u16,
    /// Longest silence while a body is read.
    pub body_read_timeout: Duration,
    /// Whether to tell browsers to come back over TLS only.
    pub hsts: bool,
    /// Version of the program, a label of metrics.
    pub version: &'static str,
    /// What paths of the interface begin with.
    pub api_prefix: String,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            error_base: "/docs/errors".to_owned(),
            cors: CorsPolicy::default(),
            trusted_proxies: TrustedProxies::default(),
            max_body_bytes: 52_428_800,
            compression_minimum_size: 1000,
            body_read_timeout: Duration::from_secs(30),
            hsts: true,
            version: env!("CARGO_PKG_VERSION"),
            api_prefix: crate::config::DEFAULT_API_PREFIX.to_owned(),
        }
    }
}

/// State of the edge, shared by all connections.
#[derive(Debug)]
pub struct Edge {
    config: EdgeConfig,
    types: render::ErrorTypes,
    metrics: Metrics,
    draining: AtomicBool,
    maintenance: AtomicBool,
}

impl Edge {
    /// Prepares everything that does not depend on the request.
    pub fn new(config: EdgeConfig) -> quarterdeck_domain::Result<Self> {
        let types = render::ErrorTypes::new(&config.error_base);
        let metrics = Metrics::new(config.version).map_err(quarterdeck_domain::Error::internal)?;
        Ok(Self {
            config,
            types,
            metrics,
            draining: AtomicBool::default(),
            maintenance: AtomicBool::default(),
        })
    }

    /// The registry of this server's metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Whether the origin a request comes from may read answers.
    pub(crate) fn lets_read(&self, headers: &axum::http::HeaderMap) -> bool {
        self.config.cors.allowed(headers).is_some()
    }

    /// From now on every new request is answered with 503 and a hint to come back.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether every new request but health probes is answered with 503 and a hint to come back, because the
    /// database is being replaced, or was and waits for a restart.
    pub fn set_maintenance(&self, on: bool) {
        self.maintenance.store(on, Ordering::Release);
    }

    pub(crate) fn is_in_maintenance(&self) -> bool {
        self.maintenance.load(Ordering::Acquire)
    }

    /// Whether new requests are refused.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// What the edge knows about a request; an extension of every request, and an extractor.
#[derive(Clone, Copy, Debug)]
pub struct RequestContext {
    /// Correlation id: `X-Request-ID`, `instance` of failures, and `request_id` of log lines.
    pub id: RequestId,
    /// Who is charged for the request.
    pub client: ClientAddr,
    /// Whether the client reached us, or a proxy we trust, over TLS.
    pub secure: bool,
    /// The trace the caller put the request in.
    pub trace: Option<TraceId>,
}

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or_else(|| {
            tracing::warn!("api.correlation.fallback");
            Self { id: RequestId::fresh(), client: ClientAddr::Unknown, secure: false, trace: None }
        }))
    }
}

/// Extension of requests that arrived over TLS of our own.
#[derive(Clone, Copy, Debug)]
pub struct Encrypted;
