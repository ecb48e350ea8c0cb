//! Calls the running server of this configuration.

use std::time::Duration;

use chrono::Utc;
use quarterdeck_auth::cli_token::mint_cli_token;
use quarterdeck_http::config::ApiConfig;
use reqwest::header::{
    AUTHORIZATION, CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, SET_COOKIE,
    UPGRADE,
};
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;

use crate::Failure;
use crate::terminal::{harmless, harmless_json};

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Most of an answer that is read, in bytes.
const BODY_LIMIT: usize = 1024 * 1024;

/// The server's answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    /// The body, when it is JSON of at most [`BODY_LIMIT`] bytes; its text is harmless for terminals.
    pub(crate) body: Option<Value>,
}

/// A way to the server that this configuration describes.
pub(crate) struct Client {
    base: String,
    http: reqwest::Client,
}

impl Client {
    pub(crate) fn new(api: &ApiConfig) -> Result<Self, Failure> {
        let base = format!("{}{}", api.server.local_url(), api.api_prefix);
        let mut builder = reqwest::Client::builder()
            .connect_timeout(TIMEOUT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("quarterdeck/", env!("CARGO_PKG_VERSION")));
        // A certificate names the public host, not the loopback address this client uses.
        if api.server.is_loopback() || api.server.is_wildcard() {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        let http =
            builder.build().map_err(|e| Failure::runtime(format!("no HTTP client can be made ({e})")))?;
        Ok(Self { base, http })
    }

    /// Address of the interface.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Asks for a public path below the prefix.
    pub(crate) async fn get(&self, path: &str) -> Result<Reply, Failure> {
        self.send(self.http.get(format!("{}{path}", self.base))).await
    }

    /// Asks for a path below the prefix as the system user.
    pub(crate) async fn get_as_system(
        &self,
        path: &str,
        secret: &SecretString,
        api: &ApiConfig,
    ) -> Result<Reply, Failure> {
        self.as_system(Method::GET, path, secret, api)?.send().await
    }

    /// A request for a path below the prefix as the system user, to be completed.
    pub(crate) fn as_system(
        &self,
        method: Method,
        path: &str,
        secret: &SecretString,
        api: &ApiConfig,
    ) -> Result<Call<'_>, Failure> {
        let token = mint_cli_token(secret, api.auth.jwt_algorithm, Utc::now())?;
        let request = self.http.request(method, format!("{}{path}", self.base));
        let request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        Ok(Call { client: self, request, timeout: TIMEOUT })
    }

    /// Opens a session; its token.
    pub(crate) async fn login(&self, user: &str, password: &SecretString) -> Result<SecretString, Failure> {
        let body = serde_json::json!({"username": user, "password": password.expose_secret()});
        let request = self.http.post(format!("{}/auth/login", self.base)).json(&body).timeout(TIMEOUT);
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        // The session is the first cookie, whatever the operator called it.
        let cookie = response.headers().get(SET_COOKIE).and_then(|line| line.to_str().ok());
        let token = cookie
            .and_then(|line| line.split(';').next()?.split_once('='))
            .map(|(_, token)| token.to_owned());
        let reply = self.read(response).await?;
        match token {
            Some(token) if reply.status.is_success() => Ok(token.into()),
            _ if reply.status == StatusCode::UNAUTHORIZED => {
                Err(reply.failure().hint("check the login name and the password"))
            }
            _ => Err(reply.failure()),
        }
    }

    /// Ends a session.
    pub(crate) async fn logout(&self, token: &SecretString) -> Result<Reply, Failure> {
        let request = self.http.post(format!("{}/auth/logout", self.base));
        self.send(request.bearer_auth(token.expose_secret())).await
    }

    /// A one-time ticket for a WebSocket.
    pub(crate) async fn ticket(&self, token: &SecretString) -> Result<SecretString, Failure> {
        let request = self.http.post(format!("{}/auth/ws-ticket", self.base));
        let reply = self.send(request.bearer_auth(token.expose_secret())).await?;
        let ticket = reply.body.as_ref().and_then(|body| body.pointer("/data/ticket")?.as_str());
        match ticket {
            Some(ticket) if reply.status.is_success() => Ok(ticket.to_owned().into()),
            _ if reply.status == StatusCode::UNAUTHORIZED => Err(reply.failure().hint("sign in again")),
            _ => Err(reply.failure()),
        }
    }

    /// Asks for a WebSocket below the prefix that speaks one of these subprotocols.
    pub(crate) async fn upgrade(&self, path: &str, protocols: &str) -> Result<reqwest::Upgraded, Failure> {
        let request = self
            .http
            .get(format!("{}{path}", self.base))
            .version(reqwest::Version::HTTP_11)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, generate_key())
            .header(SEC_WEBSOCKET_PROTOCOL, protocols);
        // A timeout of the request would end the socket too.
        let response = tokio::time::timeout(TIMEOUT, request.send()).await;
        let response = response
            .map_err(|_| Failure::unreachable(format!("no server answers at {} in time", self.base)))?
            .map_err(|e| self.unreachable(&e))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.read(response).await?.failure());
        }
        response.upgrade().await.map_err(|e| self.unreachable(&e))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Reply, Failure> {
        Call { client: self, request, timeout: TIMEOUT }.send().await
    }

    async fn read(&self, mut response: reqwest::Response) -> Result<Reply, Failure> {
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.unreachable(&e))? {
            if body.len() + chunk.len() > BODY_LIMIT {
                return Ok(Reply { status, body: None });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply { status, body: serde_json::from_slice(&body).ok().map(harmless_json) })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        self.unreachable_within(TIMEOUT, error)
    }

    fn unreachable_within(&self, timeout: Duration, error: &reqwest::Error) -> Failure {
        let reason = if error.is_timeout() {
            format!("no answer within {} seconds", timeout.as_secs())
        } else {
            let mut cause: &dyn std::error::Error = error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            harmless(&cause.to_string())
        };
        Failure::unreachable(format!("no server answers at {} ({reason})", self.base))
            .hint("start it with `quarterdeck serve`; `quarterdeck doctor` looks for what is wrong")
    }
}

/// A request on its way.
pub(crate) struct Call<'c> {
    client: &'c Client,
    request: reqwest::RequestBuilder,
    timeout: Duration,
}

impl Call<'_> {
    /// With this JSON body.
    pub(crate) fn body(mut self, body: Option<&Value>) -> Self {
        if let Some(body) = body {
            self.request = self.request.json(body);
        }
        self
    }

    /// To be done once, however often it arrives.
    pub(crate) fn idempotency_key(mut self, key: Option<String>) -> Self {
        if let Some(key) = key {
            self.request = self.request.header("Idempotency-Key", key);
        }
        self
    }

    /// With this much patience.
    pub(crate) fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub(crate) async fn send(self) -> Result<Reply, Failure> {
        let Self { client, request, timeout } = self;
        let response = request.timeout(timeout).send().await;
        client.read(response.map_err(|e| client.unreachable_within(timeout, &e))?).await
    }
}

impl Reply {
    /// What an answer other than success means for the operator.
    pub(crate) fn failure(&self) -> Failure {
        let member = |name| self.body.as_ref().and_then(|body| body.get(name));
        let text = member("error").and_then(Value::as_str).unwrap_or("no explanation");
        let mut failure = Failure::runtime(format!("the server answered {}: {text}", self.status.as_u16()));
        failure.status = Some(self.status.as_u16());
        let detail = |name| member("error_detail")?.get(name)?.as_u64();
        failure.error_code = detail("error_code").and_then(|code| u16::try_from(code).ok());
        match self.status {
            StatusCode::UNAUTHORIZED => failure.hint(
                "server and command line have different signing secrets, or clocks more than a minute apart; \
                 give both the same QUARTERDECK_JWT_SECRET, or neither",
            ),
            StatusCode::FORBIDDEN => failure.hint("the system user may not do this"),
            StatusCode::CONFLICT => failure.hint("something else is under way; try again when it is done"),
            StatusCode::TOO_MANY_REQUESTS => match detail("retry_after") {
                Some(seconds) => failure.hint(format!("try again in {seconds} seconds")),
                None => failure.hint("try again later"),
            },
            _ => failure,
        }
    }
}
