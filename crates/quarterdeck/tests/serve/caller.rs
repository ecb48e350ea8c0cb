//! Somebody who talks to a server over a socket.

use std::collections::BTreeMap;

use quarterdeck_testkit::Answer;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, COOKIE, SET_COOKIE};
use serde_json::{Value, json};

use crate::process::{Server, patiently};

pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// A browser's habits: keeps cookies, repeats the CSRF cookie in a header.
#[derive(Clone)]
pub(crate) struct Caller {
    http: reqwest::Client,
    base: String,
    cookies: BTreeMap<String, String>,
    bearer: Option<String>,
}

impl Caller {
    /// Somebody unknown.
    pub(crate) fn new(server: &Server) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self::through(http, &format!("http://{}", server.address))
    }

    /// Somebody unknown who calls this way.
    pub(crate) fn through(http: reqwest::Client, origin: &str) -> Self {
        Self { http, base: format!("{origin}/api/v1"), cookies: BTreeMap::new(), bearer: None }
    }

    /// A script with this token.
    pub(crate) fn bearer(server: &Server, token: &str) -> Self {
        Self { bearer: Some(token.to_owned()), ..Self::new(server) }
    }

    /// The first account of a new server.
    pub(crate) async fn owner(server: &Server) -> Self {
        let mut caller = Self::new(server);
        caller.post("/auth/setup", json!({"username": "ada", "password": PASSWORD})).await.expect(201);
        caller
    }

    /// Another session of the first account.
    pub(crate) async fn signed_in(server: &Server) -> Self {
        let mut caller = Self::new(server);
        caller.post("/auth/login", json!({"username": "ada", "password": PASSWORD})).await.expect(200);
        caller
    }

    /// The same session at another server.
    pub(crate) fn at(&self, server: &Server) -> Self {
        Self { cookies: self.cookies.clone(), bearer: self.bearer.clone(), ..Self::new(server) }
    }

    pub(crate) fn cookie(&self, name: &str) -> &str {
        &self.cookies[name]
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    pub(crate) async fn post(&mut self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&mut self, path: &str, body: Value) -> Answer {
        self.send(Method::PUT, path, Some(body)).await
    }

    async fn send(&mut self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let answer = self.try_send(method, path, body).await;
        answer.unwrap_or_else(|error| panic!("{path}: {error:?}"))
    }

    /// What came back, if anything did.
    pub(crate) async fn try_send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> reqwest::Result<Answer> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if !self.cookies.is_empty() {
            let pairs: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.header(COOKIE, pairs.join("; "));
        }
        if let Some(token) = self.cookies.get("csrf_token") {
            request = request.header("x-csrf-token", token);
        }
        if let Some(token) = &self.bearer {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(body) = &body {
            request = request.json(body);
        }
        let response = patiently(path, request.send()).await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = patiently(path, response.bytes()).await?.to_vec();
        for line in headers.get_all(SET_COOKIE) {
            let pair = line.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        Ok(Answer { status, headers, body })
    }
}
