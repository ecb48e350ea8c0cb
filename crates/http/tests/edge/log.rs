//! The log of requests, and the numbers.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use axum::body::Body;
use quarterdeck_http::edge::EdgeService;
use tower::ServiceExt;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context as LayerContext, Layer, SubscriberExt};

use crate::support::{call, edge, get_with, request, send};

/// One recorded line: its level and its fields, `message` being the name of the event.
#[derive(Clone, Debug)]
struct Line {
    level: Level,
    fields: BTreeMap<&'static str, String>,
}

impl Line {
    fn get(&self, field: &str) -> &str {
        self.fields.get(field).map_or("", String::as_str)
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}

#[derive(Clone, Default)]
struct Record(Arc<Mutex<Vec<Line>>>);

impl Record {
    /// Records what the current thread logs from now on.
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let record = Self::default();
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(record.clone()));
        (record, guard)
    }

    fn named(&self, event: &str) -> Vec<Line> {
        self.0.lock().unwrap().iter().filter(|line| line.get("message") == event).cloned().collect()
    }
}

impl<S: Subscriber> Layer<S> for Record {
    fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
        if event.metadata().target().starts_with("quarterdeck") {
            let mut line = Line { level: *event.metadata().level(), fields: BTreeMap::new() };
            event.record(&mut line);
            self.0.lock().unwrap().push(line);
        }
    }
}

#[tokio::test]
async fn every_refused_request_has_one_completion_line_with_its_instance() {
    let (record, _guard) = Record::start();
    let edge = edge();
    let mut instances = Vec::new();
    for (method, path, headers) in [
        ("GET", "/api/v1/code/1000", &[][..]),
        ("GET", "/api/v1/code/1004", &[]),
        ("GET", "/api/v1/nowhere", &[]),
        ("DELETE", "/api/v1/page", &[]),
        ("POST", "/api/v1/read", &[("content-length", "99999999999")]),
        ("GET", "/api/v1/code/5000", &[]),
        ("GET", "/api/v1/panic", &[]),
    ] {
        let answer = send(&edge, request(method, path, headers, Body::empty())).await;
        instances.push(answer.json()["error_detail"]["instance"].as_str().unwrap().to_owned());
    }
    let completed: Vec<_> = record.named("api.request.completed");
    let started: Vec<_> = record.named("api.request.started");
    assert_eq!(completed.iter().map(|line| line.get("request_id")).collect::<Vec<_>>(), instances);
    assert_eq!(started.iter().map(|line| line.get("request_id")).collect::<Vec<_>>(), instances);
    assert_eq!(
        completed.iter().map(|line| line.get("status_code")).collect::<Vec<_>>(),
        ["401", "403", "404", "405", "413", "429", "500"]
    );
    assert!(completed.iter().all(|line| line.level == Level::INFO));
}

#[tokio::test]
async fn failures_are_logged_by_weight_and_an_unknown_route_by_its_own_name() {
    let (record, _guard) = Record::start();
    call("GET", "/api/v1/code/1001").await;
    call("GET", "/api/v1/fail").await;
    call("GET", "/api/v1/nowhere").await;
    let errors = record.named("api.request.error");
    assert_eq!(errors.len(), 2);
    assert_eq!((errors[0].level, errors[0].get("error_type")), (Level::WARN, "FORBIDDEN"));
    assert_eq!((errors[1].level, errors[1].get("error_type")), (Level::ERROR, "PERSISTENCE_ERROR"));
    assert_eq!(errors[1].get("error"), "password=[redacted]");
    let unknown = record.named("api.route.not_found");
    assert_eq!((unknown.len(), unknown[0].level), (1, Level::WARN));
}

#[tokio::test]
async fn a_panic_is_logged_without_its_secrets() {
    let (record, _guard) = Record::start();
    call("GET", "/api/v1/panic").await;
    let errors = record.named("api.request.error");
    assert_eq!(
        (errors[0].level, errors[0].get("reason"), errors[0].get("error")),
        (Level::ERROR, "panic", "secret=[redacted]")
    );
}

#[tokio::test]
async fn only_the_path_is_logged_never_query_or_headers() {
    let (record, _guard) = Record::start();
    get_with(&edge(), "/api/v1/page?limit=0&token=hunter2", &[("authorization", "Bearer hunter2")]).await;
    let lines = record.0.lock().unwrap().clone();
    assert!(lines.len() >= 3);
    assert!(!format!("{lines:?}").contains("hunter2"));
    assert!(lines.iter().all(|line| !line.fields.contains_key("path") || line.get("path") == "/api/v1/page"));
}

#[tokio::test]
async fn probes_are_measured_but_not_logged() {
    let (record, _guard) = Record::start();
    let edge = edge();
    assert_eq!(get_with(&edge, "/api/v1/healthz", &[]).await.status, 200);
    assert!(record.0.lock().unwrap().is_empty());
    assert!(edge.edge().metrics().render().contains("duration_seconds_count"));
}

#[tokio::test]
async fn a_client_that_goes_away_is_completed_without_a_status() {
    let (record, _guard) = Record::start();
    let mut waiting = Box::pin(edge().oneshot(request("GET", "/api/v1/pending", &[], Body::empty())));
    assert!(matches!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
    drop(waiting);
    let completed = record.named("api.request.completed");
    assert_eq!(completed.len(), 1);
    assert_eq!(completed[0].level, Level::WARN);
    assert_eq!((completed[0].get("status_code"), completed[0].get("status_code_captured")), ("0", "false"));
}

#[tokio::test]
async fn durations_have_two_decimals() {
    let (record, _guard) = Record::start();
    call("GET", "/api/v1/thing").await;
    let duration = record.named("api.request.completed")[0].get("duration_ms").to_owned();
    assert!(duration.parse::<f64>().unwrap() >= 0.0);
    assert!(duration.split_once('.').is_none_or(|(_, decimals)| decimals.len() <= 2), "{duration}");
}

#[tokio::test]
async fn concurrent_requests_never_share_an_id() {
    let edge = edge();
    let answers = futures_util::future::join_all((0..200).map(|_| {
        let edge = edge.clone();
        tokio::spawn(async move {
            let answer = get_with(&edge, "/api/v1/context", &[]).await;
            let id = answer.header("x-request-id").unwrap().to_owned();
            assert_eq!(answer.json()["data"]["id"], id);
            id
        })
    }))
    .await;
    let ids: HashSet<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(ids.len(), 200);
}

/// The span of the request a log line stands in.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<String>>>);

impl<S> Layer<S> for Spans
where
    S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    fn on_new_span(
        &self,
        attributes: &tracing::span::Attributes<'_>,
        id: &tracing::Id,
        context: LayerContext<'_, S>,
    ) {
        let mut line = Line { level: Level::INFO, fields: BTreeMap::new() };
        attributes.record(&mut line);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(line);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: LayerContext<'_, S>) {
        if event.metadata().target() == "inner" {
            let id = context
                .event_span(event)
                .and_then(|span| Some(span.extensions().get::<Line>()?.get("request_id").to_owned()));
            self.0.lock().unwrap().push(id.unwrap_or_default());
        }
    }
}

#[tokio::test]
async fn lines_of_inner_code_and_its_tasks_stand_in_the_span_of_the_request() {
    use tracing::Instrument;
    let spans = Spans::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(spans.clone()));
    let router = axum::Router::new().route(
        "/",
        axum::routing::get(async || {
            tracing::warn!(target: "inner", "before");
            tokio::task::yield_now().await;
            tracing::warn!(target: "inner", "after");
            tokio::spawn(async { tracing::warn!(target: "inner", "aside") }.in_current_span()).await.unwrap();
        }),
    );
    let edge = quarterdeck_http::edge::Edge::new(Default::default()).unwrap();
    let edge: EdgeService = quarterdeck_http::edge::wrap(router, Arc::new(edge));
    let answer = get_with(&edge, "/", &[]).await;
    let id = answer.header("x-request-id").unwrap();
    assert_eq!(*spans.0.lock().unwrap(), [id, id, id]);
}

#[tokio::test]
async fn requests_and_failures_are_counted() {
    let edge = edge();
    get_with(&edge, "/api/v1/thing", &[]).await;
    get_with(&edge, "/api/v1/nowhere?x=1", &[]).await;
    get_with(&edge, "/api/v1/fail", &[]).await;
    let metrics = edge.edge().metrics().render();
    for line in [
        r#"api_request_duration_seconds_count{method="GET",route="/api/v1/thing",status_class="2xx"} 1"#,
        r#"api_request_duration_seconds_count{method="GET",route="__unmatched__",status_class="4xx"} 1"#,
        r#"api_error_classification_total{category="not_found",status_class="4xx"} 1"#,
        r#"api_error_classification_total{category="internal",status_class="5xx"} 1"#,
    ] {
        assert!(metrics.contains(&format!("quarterdeck_{line}")), "{line}\n{metrics}");
    }
    assert!(!metrics.contains("nowhere"));
}
