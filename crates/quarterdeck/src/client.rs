//! Calls the running server of this configuration.

use std::time::Duration;

use chrono::Utc;
use quarterdeck_auth::cli_token::mint_cli_token;
use quarterdeck_http::config::ApiConfig;
use reqwest::StatusCode;
use reqwest::header::AUTHORIZATION;
use secrecy::SecretString;
use serde_json::Value;

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
            .timeout(TIMEOUT)
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
        let token = mint_cli_token(secret, api.auth.jwt_algorithm, Utc::now())?;
        let request = self.http.get(format!("{}{path}", self.base));
        self.send(request.header(AUTHORIZATION, format!("Bearer {token}"))).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Reply, Failure> {
        let mut response = request.send().await.map_err(|e| self.unreachable(&e))?;
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
        let reason = if error.is_timeout() {
            format!("no answer within {} seconds", TIMEOUT.as_secs())
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
