//! A small router that succeeds, fails, panics and streams, inside the edge.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body as AnyBody;
use axum::extract::{ConnectInfo, Path, Query};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt;
use quarterdeck_domain::text::NotBlank;
use quarterdeck_domain::{Error, ErrorCode};
use quarterdeck_http::edge::{
    AsIs, Data, Edge, EdgeConfig, EdgeService, Failure, NoCompression, PresentedCredential, RequestContext,
    RouteTemplate, wrap,
};
use quarterdeck_http::extract::{self, Page};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt;

#[derive(Deserialize)]
pub(crate) struct Thing {
    pub(crate) name: NotBlank<8>,
    #[serde(default)]
    pub(crate) parts: Vec<Part>,
    pub(crate) kind: Option<Kind>,
}

#[derive(Deserialize)]
pub(crate) struct Part {
    pub(crate) count: u8,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Round,
    Square,
}

pub(crate) fn router() -> Router {
    Router::new()
        .route("/api/v1/thing", get(async || (RouteTemplate("/api/v1/thing"), Data(json!({"n": 1})))))
        .route("/api/v1/thing", post(async |extract::Body(thing): extract::Body<Thing>| {
            Data(json!({"name": &*thing.name, "parts": thing.parts.iter().map(|p| p.count).collect::<Vec<_>>(),
                "square": matches!(thing.kind, Some(Kind::Square))}))
        }))
        .route("/api/v1/things/{id}", get(async |extract::Path(id): extract::Path<u32>| Data(id)))
        .route("/api/v1/page", get(async |page: Page| Data(json!([page.offset, page.limit]))))
        .route("/api/v1/filter", get(async |extract::Query(part): extract::Query<Part>| Data(part.count)))
        .route("/api/v1/read", post(async |body: AnyBody| -> Result<_, Failure> {
            Ok(Data(extract::read(body).await?.len()))
        }))
        .route("/api/v1/context", get(async |context: RequestContext| {
            Data(json!({"id": context.id.as_str(), "client": context.client.to_string(), "secure": context.secure}))
        }))
        .route("/api/v1/code/{code}", get(failing_with))
        .route("/api/v1/status/{status}", get(async |Path(status): Path<u16>| {
            (StatusCode::from_u16(status).unwrap(), [("x-internal", "leak"), ("allow", "GET")], "some internal text")
        }))
        .route("/api/v1/presented", get(async || (PresentedCredential, Failure::from(ErrorCode::Unauthorized))))
        .route("/api/v1/cookies", get(async || ([("set-cookie", "a=; Max-Age=0")], Failure::from(ErrorCode::SessionRevoked))))
        .route("/api/v1/unready", get(async || (StatusCode::SERVICE_UNAVAILABLE, AsIs, Data("unavailable"))))
        .route("/api/v1/fail", get(async || -> Result<(), Failure> {
            Err(Error::with(ErrorCode::PersistenceError, "password=hunter2").into())
        }))
        .route("/api/v1/telltale", get(async || -> Result<(), Failure> {
            Err(Error::rule("cannot reach https://bob:hunter2@db.example with token=abc123").into())
        }))
        .route("/api/v1/panic", get(panicking))
        .route("/api/v1/pending", get(std::future::pending::<()>))
        .route("/api/v1/own-headers", get(async || {
            ([("cache-control", "public"), ("content-security-policy", "default-src *"), ("x-frame-options", "ALLOW")], Data(1))
        }))
        .route("/api/v1/empty", get(async || StatusCode::NO_CONTENT))
        .route("/api/v1/unchanged", get(async || StatusCode::NOT_MODIFIED))
        .route("/api/v1/size/{size}", get(async |Path(size): Path<usize>| "x".repeat(size)))
        .route("/api/v1/secret", get(async || (NoCompression, "x".repeat(5000))))
        .route("/api/v1/events", get(async || ([("content-type", "text/event-stream")], "x".repeat(5000))))
        .route("/api/v1/encoded", get(async || ([("content-encoding", "gzip")], "x".repeat(5000))))
        .route("/api/v1/healthz", get(async || Data("ok")))
        .route("/api/v1/anything", any(async |Query(_): Query<Value>, headers: HeaderMap| Data(headers.len())))
        .route("/docs/openapi.json", get(async || Json(json!({}))))
        .route("/documents", get(async || Json(json!({}))))
        .route("/", get(async || axum::response::Html("<p>hello</p>")))
}

async fn failing_with(Path(code): Path<u16>) -> Response {
    let code = *ErrorCode::ALL.iter().find(|known| known.number() == code).unwrap();
    Failure::from(code).into_response()
}

async fn panicking() -> Response {
    tokio::task::yield_now().await;
    panic!("secret=hunter2")
}

pub(crate) fn edge_with(change: impl FnOnce(&mut EdgeConfig)) -> EdgeService {
    let mut config = EdgeConfig::default();
    change(&mut config);
    wrap(router(), Arc::new(Edge::new(config).unwrap()))
}

pub(crate) fn edge() -> EdgeService {
    edge_with(|_| ())
}

/// A complete answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {:?}", self.bytes))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.headers.get_all(name).into_iter();
        let first = lines.next().map(|value| value.to_str().unwrap());
        assert!(lines.next().is_none(), "{name} is there twice");
        first
    }

    pub(crate) fn code(&self) -> (u16, u64) {
        (self.status, self.json()["error_detail"]["error_code"].as_u64().unwrap())
    }

    pub(crate) fn detail(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }

    /// Pointer and rule of the first refused field.
    pub(crate) fn field(&self) -> (String, String) {
        let field = &self.json()["error_detail"]["errors"][0];
        (field["pointer"].as_str().unwrap().to_owned(), field["detail"].as_str().unwrap().to_owned())
    }
}

pub(crate) async fn send(edge: &EdgeService, request: Request<AnyBody>) -> Answer {
    let response = edge.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status.as_u16(), headers: parts.headers, bytes }
}

pub(crate) fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<AnyBody>,
) -> Request<AnyBody> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

pub(crate) async fn get_with(edge: &EdgeService, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(edge, request("GET", path, headers, AnyBody::empty())).await
}

pub(crate) async fn call(method: &str, path: &str) -> Answer {
    send(&edge(), request(method, path, &[], AnyBody::empty())).await
}

pub(crate) async fn post_json(path: &str, body: &str) -> Answer {
    send(&edge(), request("POST", path, &[("content-type", "application/json")], body.to_owned())).await
}

pub(crate) fn from_peer(mut request: Request<AnyBody>, peer: &str) -> Request<AnyBody> {
    request.extensions_mut().insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 4711)));
    request
}

/// A body of unknown length that arrives in chunks of a megabyte.
pub(crate) fn chunked(megabytes: usize) -> AnyBody {
    let chunk = Bytes::from(vec![b'x'; 1_000_000]);
    AnyBody::from_stream(stream::iter((0..megabytes).map(move |_| Ok::<_, Infallible>(chunk.clone()))))
}
