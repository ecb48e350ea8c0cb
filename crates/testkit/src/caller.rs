//! Somebody who talks to a test server, and what they hear.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, Method, Request};
use axum::response::Response;
use http_body_util::BodyExt;
use quarterdeck_http::edge::EdgeService;
use serde_json::Value;

/// A client with a cookie jar. As a browser does, it sends cookies to their path only and repeats the
/// CSRF cookie in the header of mutations.
#[derive(Clone)]
pub struct Caller {
    service: EdgeService,
    /// Name → (path, value).
    jar: BTreeMap<String, (String, String)>,
    bearer: Option<String>,
    headers: Vec<(String, String)>,
    csrf: bool,
    peer: Option<SocketAddr>,
}

impl Caller {
    pub(crate) fn new(service: EdgeService) -> Self {
        Self { service, jar: BTreeMap::new(), bearer: None, headers: Vec::new(), csrf: true, peer: None }
    }

    /// Sends `Authorization: Bearer` with every request.
    pub fn with_bearer(mut self, token: &str) -> Self {
        self.bearer = Some(token.to_owned());
        self
    }

    /// Sends this header with every request.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Calls from this network address.
    pub fn from(mut self, address: &str) -> Self {
        self.peer = Some((address.parse::<IpAddr>().expect("an address"), 4711).into());
        self
    }

    /// Puts a cookie into the jar.
    pub fn with_cookie(mut self, name: &str, value: &str) -> Self {
        self.jar.insert(name.to_owned(), ("/".to_owned(), value.to_owned()));
        self
    }

    /// Stops repeating the CSRF cookie in a header.
    pub fn without_csrf(mut self) -> Self {
        self.csrf = false;
        self
    }

    /// Value of a cookie in the jar.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.jar.get(name).map(|(_, value)| value.as_str())
    }

    /// `GET`.
    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    /// `POST` with a JSON body.
    pub async fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, Some(body.to_string())).await
    }

    /// `POST` without a body.
    pub async fn post_empty(&mut self, path: &str) -> Answer {
        self.send(Method::POST, path, None).await
    }

    /// `PUT` with a JSON body.
    pub async fn put(&mut self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, Some(body.to_string())).await
    }

    /// `PATCH` with a JSON body.
    pub async fn patch(&mut self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, Some(body.to_string())).await
    }

    /// `DELETE`.
    pub async fn delete(&mut self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None).await
    }

    /// Any request; the body is sent as JSON.
    pub async fn send(&mut self, method: Method, path: &str, body: Option<String>) -> Answer {
        let mut request = Request::builder().method(&method).uri(path);
        let bare = path.split('?').next().unwrap_or(path);
        let cookies: Vec<_> = self
            .jar
            .iter()
            .filter(|(_, (scope, _))| bare.starts_with(scope.as_str()))
            .map(|(name, (_, value))| format!("{name}={value}"))
            .collect();
        if !cookies.is_empty() {
            request = request.header(COOKIE, cookies.join("; "));
        }
        if let (true, Some(csrf)) = (self.csrf && method != Method::GET, self.cookie("csrf_token")) {
            request = request.header("x-csrf-token", csrf);
        }
        if let Some(token) = &self.bearer {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(body.map_or_else(Body::empty, Body::from)).expect("a sound request");
        let answer = self.raw(request).await;
        for line in answer.headers.get_all(SET_COOKIE) {
            self.keep(line.to_str().expect("a cookie is text"));
        }
        answer
    }

    /// A request as it is, without cookies and credentials.
    pub async fn raw(&self, request: Request<Body>) -> Answer {
        let response = self.begin(request).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("the body arrives").to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body: body.to_vec() }
    }

    /// As [`raw`](Self::raw), up to the head of the answer; the body is the caller's to read or drop.
    pub async fn begin(&self, mut request: Request<Body>) -> Response {
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        self.service.handle(request).await.expect("the edge always answers")
    }

    fn keep(&mut self, line: &str) {
        let mut parts = line.split("; ");
        let (name, value) = parts.next().and_then(|pair| pair.split_once('=')).expect("name=value");
        let attributes: Vec<_> = parts.collect();
        if attributes.contains(&"Max-Age=0") {
            self.jar.remove(name);
            return;
        }
        let path = attributes.iter().find_map(|a| a.strip_prefix("Path=")).unwrap_or("/");
        self.jar.insert(name.to_owned(), (path.to_owned(), value.to_owned()));
    }
}

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Demands this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// Demands this status and error code.
    #[track_caller]
    pub fn refused(self, status: u16, code: u16) -> Self {
        assert_eq!((self.status, self.code()), (status, code), "{}", self.text());
        self
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The member `data` of the envelope.
    pub fn data(&self) -> Value {
        self.json()["data"].take()
    }

    /// The error code, 0 without one.
    pub fn code(&self) -> u16 {
        let code = self.json()["error_detail"]["error_code"].as_u64().unwrap_or_default();
        u16::try_from(code).unwrap_or_default()
    }

    /// The text of the failure.
    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }

    /// A header as text, empty without it.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}
