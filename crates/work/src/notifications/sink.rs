//! Sending one notification to one place.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use quarterdeck_domain::notification::{Notification, Severity};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, RequestBuilder, StatusCode};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sha2::Sha256;

use super::email::Post;
use super::target::{SecretBytes, Target, shown};

/// Most of an answer that is read so that the connection can serve again.
const ANSWER_BYTES: usize = 64 * 1024;

/// Why a notification did not arrive, in words that hold nothing of what was sent or received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) text: String,
    /// Whether another attempt may succeed.
    pub(super) may_pass: bool,
}

impl Trouble {
    pub(super) fn passing(text: impl Into<String>) -> Self {
        Self { text: text.into(), may_pass: true }
    }

    pub(super) fn lasting(text: impl Into<String>) -> Self {
        Self { text: text.into(), may_pass: false }
    }
}

/// A place that is ready.
pub(super) struct Sink {
    target: Ready,
    client: Client,
}

enum Ready {
    Target(Target),
    Mail(Box<Post>),
}

impl Sink {
    /// Makes ready what a target needs; nothing is sent yet.
    pub(super) fn open(target: Target, client: Client) -> Result<Self, String> {
        let target = match target {
            Target::Email(mail) => Ready::Mail(Box::new(Post::new(*mail)?)),
            other => Ready::Target(other),
        };
        Ok(Self { target, client })
    }

    /// One attempt within `patience`. `now` is the time signatures carry.
    pub(super) async fn deliver(
        &self,
        notification: &Notification,
        now: DateTime<Utc>,
        patience: Duration,
    ) -> Result<(), Trouble> {
        let attempt = async {
            match &self.target {
                Ready::Mail(post) => post.send(notification).await,
                Ready::Target(Target::Webhook { url, key }) => {
                    let request = self.client.post(url.clone());
                    exchange(signed(request, notification, key, now)?).await
                }
                Ready::Target(Target::Ntfy { url, topic, token }) => {
                    let request = self.client.post(url.clone()).json(&ntfy(notification, shown(topic)));
                    let request = match token {
                        Some(token) => request.bearer_auth(shown(token)),
                        None => request,
                    };
                    exchange(request).await
                }
                Ready::Target(Target::Slack { url }) => {
                    exchange(self.client.post(url.clone()).json(&slack(notification))).await
                }
                Ready::Target(Target::Console | Target::Email(_)) => {
                    write(notification);
                    Ok(())
                }
            }
        };
        let late = || Err(Trouble::passing(format!("no answer within {} s", patience.as_secs_f32())));
        tokio::time::timeout(patience, attempt).await.unwrap_or_else(|_| late())
    }
}

/// The log, which goes to stderr and wherever else logs go.
fn write(notification: &Notification) {
    let Notification { id, category, severity, title, body, source, metadata, .. } = notification;
    let metadata = Value::Object(metadata.clone());
    macro_rules! event {
        ($level:ident) => {
            tracing::$level!(
                target: "notifications", %id, %category, %severity, title, body, source, %metadata,
                "notifications.told"
            )
        };
    }
    match severity {
        Severity::Info => event!(info),
        Severity::Warning => event!(warn),
        Severity::Error | Severity::Critical => event!(error),
    }
}

/// A body signed as the Standard Webhooks specification says: HMAC-SHA-256 of `id.timestamp.body`.
fn signed(
    request: RequestBuilder,
    notification: &Notification,
    key: &SecretBytes,
    now: DateTime<Utc>,
) -> Result<RequestBuilder, Trouble> {
    let body = serde_json::to_string(notification).map_err(|_| Trouble::lasting("it cannot be written"))?;
    let (id, timestamp) = (notification.id.to_string(), now.timestamp().to_string());
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key.expose_secret())
        .map_err(|_| Trouble::lasting("the secret cannot be used as a key"))?;
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    Ok(request
        .header(CONTENT_TYPE, "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", format!("v1,{signature}"))
        .body(body))
}

fn ntfy(notification: &Notification, topic: &str) -> Value {
    let Notification { severity, title, category, .. } = notification;
    let priority = match severity {
        Severity::Info => 3,
        Severity::Warning | Severity::Error => 4,
        Severity::Critical => 5,
    };
    json!({
        "topic": topic, "title": title, "message": text(notification), "priority": priority,
        "tags": [severity, category],
    })
}

fn slack(notification: &Notification) -> Value {
    let Notification { severity, title, .. } = notification;
    // What these three mean to Slack must not come from a name of a user or an agent.
    let plain = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    json!({"text": format!("*{severity}*: {}\n{}", plain(title), plain(&text(notification)))})
}

/// Body, origin and what goes with it, for people.
pub(super) fn text(notification: &Notification) -> String {
    let Notification { body, source, metadata, timestamp, .. } = notification;
    let mut text = if body.is_empty() { String::new() } else { format!("{body}\n\n") };
    text.push_str(&format!("{source}, {}", timestamp.format("%Y-%m-%d %H:%M:%S UTC")));
    for (name, value) in metadata {
        let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        text.push_str(&format!("\n{name}: {value}"));
    }
    text
}

async fn exchange(request: RequestBuilder) -> Result<(), Trouble> {
    let mut answer = request.send().await.map_err(|why| {
        // The error's own text may hold the address, and that a secret.
        Trouble::passing(if why.is_connect() { "cannot connect" } else { "the connection broke" })
    })?;
    let status = answer.status();
    let mut read = 0;
    while let Ok(Some(chunk)) = answer.chunk().await {
        read += chunk.len();
        if read > ANSWER_BYTES {
            break;
        }
    }
    if status.is_success() {
        return Ok(());
    }
    let may_pass = status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT;
    Err(Trouble { text: format!("the answer was {}", status.as_u16()), may_pass })
}
