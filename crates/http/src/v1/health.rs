//! Whether the server lives, is ready, and what it has counted.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::role::Guard;
use quarterdeck_store::Store;
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use crate::app::{App, VERSION};
use crate::edge::{AsIs, Data};
use crate::endpoint::{Endpoint, get};

/// Longest wait for a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer serves everybody who asks: the endpoint is public and unlimited.
const FRESH: Duration = Duration::from_secs(1);

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/health", "health.show", Guard::Public)
            .doc("Health of the parts", "Always 200; `status` says how things are.")
            .always_public()
            .gives::<HealthStatus>(200)
            .to(health),
        get("/healthz", "health.live", Guard::Public)
            .doc("Liveness", "200 as long as the process answers; asks nothing else.")
            .always_public()
            .gives::<Probe>(200)
            .to(live),
        get("/readyz", "health.ready", Guard::Public)
            .doc("Readiness", "200 when requests can be served, else 503.")
            .always_public()
            .gives::<Probe>(200)
            .to(ready),
        get("/metrics", "metrics.scrape", Guard::Public)
            .doc("Metrics", "In the text format of Prometheus.")
            .always_public()
            .gives_content("text/plain")
            .to(metrics),
    ]
}

/// Asks the database how it is, once a second however many want to know.
pub struct Health {
    store: Store,
    clock: SharedClock,
    last: Arc<Mutex<Option<(Duration, bool)>>>,
    messages: Option<Probed>,
}

/// Says whether a part works.
type Probed = Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

impl Health {
    /// Probes of this store.
    pub fn new(store: Store, clock: SharedClock) -> Self {
        Self { store, clock, last: Arc::default(), messages: None }
    }

    /// Also asks how messages and news travel.
    pub fn with_messages(
        mut self,
        probe: impl Fn() -> BoxFuture<'static, bool> + Send + Sync + 'static,
    ) -> Self {
        self.messages = Some(Box::new(probe));
        self
    }

    async fn messages(&self) -> Option<bool> {
        let probe = self.messages.as_ref()?;
        let answer = tokio::time::timeout(PROBE_TIMEOUT, probe()).await.unwrap_or(false);
        if !answer {
            tracing::warn!(target: "api", component = "message_bus", "api.health.check");
        }
        Some(answer)
    }

    async fn persistence(&self) -> bool {
        // The lock is the point: whoever comes while a probe runs waits for its answer.
        let mut last = self.last.lock().await;
        let now = self.clock.monotonic();
        if let Some((asked, answer)) = *last
            && now.saturating_sub(asked) < FRESH
        {
            return answer;
        }
        let answer = match tokio::time::timeout(PROBE_TIMEOUT, self.store.ping()).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(target: "api", component = "persistence", error = %error, "api.health.check");
                false
            }
            Err(_) => {
                tracing::warn!(target: "api", component = "persistence", error = "timeout", "api.health.check");
                false
            }
        };
        *last = Some((self.clock.monotonic(), answer));
        answer
    }
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ServiceStatus {
    Ok,
    Degraded,
    Down,
}

/// How the parts are; `null` = not in use.
#[derive(Serialize, ToSchema)]
struct HealthStatus {
    status: ServiceStatus,
    persistence: Option<bool>,
    message_bus: Option<bool>,
    #[schema(value_type = String)]
    telemetry: &'static str,
    #[schema(value_type = String)]
    version: &'static str,
    uptime_seconds: f64,
}

/// The short answer for orchestrators.
#[derive(Serialize, ToSchema)]
struct Probe {
    #[schema(value_type = String)]
    status: &'static str,
    #[schema(value_type = String)]
    version: &'static str,
    uptime_seconds: f64,
}

fn uptime(app: &App) -> f64 {
    let seconds = app.clock.monotonic().saturating_sub(app.started).as_secs_f64();
    (seconds * 100.0).round() / 100.0
}

async fn health(State(app): State<App>) -> impl IntoResponse {
    let (persistence, message_bus) = tokio::join!(app.health.persistence(), app.health.messages());
    let status = match (persistence, message_bus) {
        (true, None | Some(true)) => ServiceStatus::Ok,
        (false, None | Some(false)) => ServiceStatus::Down,
        _ => ServiceStatus::Degraded,
    };
    Data(HealthStatus {
        status,
        persistence: Some(persistence),
        message_bus,
        telemetry: "disabled",
        version: VERSION,
        uptime_seconds: uptime(&app),
    })
}

async fn live(State(app): State<App>) -> impl IntoResponse {
    Data(Probe { status: "ok", version: VERSION, uptime_seconds: uptime(&app) })
}

async fn ready(State(app): State<App>) -> Response {
    let ready = !app.edge.is_draining() && app.health.persistence().await;
    let probe = |status| Data(Probe { status, version: VERSION, uptime_seconds: uptime(&app) });
    if ready {
        probe("ok").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, AsIs, probe("unavailable")).into_response()
    }
}

async fn metrics(State(app): State<App>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.edge.metrics().render())
}
