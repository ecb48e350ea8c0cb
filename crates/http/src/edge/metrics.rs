//! What the edge measures, and the registry every other subject measures into.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::http::Method;
use foldhash::fast::RandomState;
use metrics::{Counter, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, SharedString};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use quarterdeck_domain::Category;

use super::failure::RouteTemplate;

const REQUESTS: &str = "quarterdeck_api_request_duration_seconds";
const ERRORS: &str = "quarterdeck_api_error_classification_total";
const DROPPED: &str = "quarterdeck_log_lines_dropped_total";
const INFO: &str = "quarterdeck_app_info";
/// Measured by `quarterdeck_limits`; buckets can only be given when the recorder is made.
const LIMITS_STORE: &str = "quarterdeck_limits_store_duration_seconds";

/// Upper bounds of the request histogram, in seconds.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Upper bounds of the answers of the shared store of limits, which has 100 ms for each.
const LIMITS_STORE_BUCKETS: [f64; 9] = [0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1];

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// Label of requests that no route took.
const UNMATCHED: RouteTemplate = RouteTemplate("__unmatched__");

/// Labels of one request series, templates told apart by where they are stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Series {
    template: usize,
    method: &'static str,
    class: u8,
}

/// Recorder and pre-resolved series of one server. Nothing global is installed.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    requests: ArcSwap<HashMap<Series, Histogram, RandomState>>,
    errors: [[Counter; 2]; 8],
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    pub(super) fn new(version: &'static str) -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(REQUESTS.to_owned()), &BUCKETS)?
            .set_buckets_for_metric(Matcher::Full(LIMITS_STORE.to_owned()), &LIMITS_STORE_BUCKETS)?
            .build_recorder();
        let describe = |text: &'static str| SharedString::const_str(text);
        recorder.describe_histogram(
            KeyName::from(REQUESTS),
            None,
            describe("Time to answer a request, in seconds."),
        );
        recorder.describe_counter(KeyName::from(ERRORS), None, describe("Failed requests by family."));
        recorder.describe_gauge(KeyName::from(INFO), None, describe("Version of the running program."));
        let info = Key::from_parts(INFO, vec![Label::from_static_parts("version", version)]);
        recorder.register_gauge(&info, &METADATA).set(1.0);
        let errors = Category::ALL.map(|category| {
            ["4xx", "5xx"].map(|class| {
                let labels = [("category", category.as_str()), ("status_class", class)];
                let labels = labels.map(|(key, value)| Label::from_static_parts(key, value)).to_vec();
                recorder.register_counter(&Key::from_parts(ERRORS, labels), &METADATA)
            })
        });
        Ok(Self { handle: recorder.handle(), recorder, requests: ArcSwap::default(), errors })
    }

    /// Where other subjects register their series; names start with `quarterdeck_`.
    pub fn recorder(&self) -> &PrometheusRecorder {
        &self.recorder
    }

    /// All series in Prometheus text format 0.0.4.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds recent samples into the histograms. To be called every few seconds, so that memory stays
    /// bounded when nobody scrapes.
    pub fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Log lines that did not reach some sink since the start.
    pub fn set_dropped_log_lines(&self, lines: u64) {
        self.recorder.register_counter(&Key::from_static_name(DROPPED), &METADATA).absolute(lines);
    }

    pub(super) fn request(&self, method: &Method, route: Option<RouteTemplate>, status: u16, took: Duration) {
        let RouteTemplate(template) = route.unwrap_or(UNMATCHED);
        let class = (status / 100).clamp(1, 5) as u8;
        let series = Series { template: template.as_ptr() as usize, method: method_label(method), class };
        let known = self.requests.load();
        match known.get(&series) {
            Some(histogram) => histogram.record(took),
            None => self.add(series, template).record(took),
        }
    }

    pub(super) fn error(&self, category: Category, status: u16) {
        self.errors[category as usize - 1][usize::from(status >= 500)].increment(1);
    }

    fn add(&self, series: Series, template: &'static str) -> Histogram {
        const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        let labels = vec![
            Label::from_static_parts("method", series.method),
            Label::from_static_parts("route", template),
            Label::from_static_parts("status_class", CLASSES[usize::from(series.class) - 1]),
        ];
        let histogram = self.recorder.register_histogram(&Key::from_parts(REQUESTS, labels), &METADATA);
        self.requests.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.insert(series, histogram.clone());
            known
        });
        histogram
    }
}

/// The method as label: a closed set, whatever clients send.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_of_limits_is_measured_in_buckets_that_fit_its_patience() {
        let metrics = Metrics::new("1.2.3").unwrap();
        let key = Key::from_static_name(LIMITS_STORE);
        metrics.recorder().register_histogram(&key, &METADATA).record(Duration::from_micros(400));
        metrics.run_upkeep();
        let text = metrics.render();
        for (bound, count) in [("0.00025", 0), ("0.0005", 1), ("0.1", 1)] {
            let line = format!("{LIMITS_STORE}_bucket{{le=\"{bound}\"}} {count}");
            assert!(text.contains(&line), "{line}\n{text}");
        }
    }

    #[test]
    fn requests_and_errors_are_counted_under_closed_labels() {
        let metrics = Metrics::new("1.2.3").unwrap();
        let route = Some(RouteTemplate("/api/v1/users/{user_id}"));
        for _ in 0..3 {
            metrics.request(&Method::GET, route, 200, Duration::from_millis(20));
        }
        metrics.request(&Method::from_bytes(b"BREW").unwrap(), None, 404, Duration::from_millis(1));
        metrics.error(Category::NotFound, 404);
        metrics.run_upkeep();
        let text = metrics.render();
        for line in [
            r#"quarterdeck_app_info{version="1.2.3"} 1"#,
            r#"quarterdeck_api_request_duration_seconds_count{method="GET",route="/api/v1/users/{user_id}",status_class="2xx"} 3"#,
            r#"quarterdeck_api_request_duration_seconds_bucket{method="GET",route="/api/v1/users/{user_id}",status_class="2xx",le="0.01"} 0"#,
            r#"quarterdeck_api_request_duration_seconds_bucket{method="GET",route="/api/v1/users/{user_id}",status_class="2xx",le="0.025"} 3"#,
            r#"quarterdeck_api_request_duration_seconds_count{method="OTHER",route="__unmatched__",status_class="4xx"} 1"#,
            r#"quarterdeck_api_error_classification_total{category="not_found",status_class="4xx"} 1"#,
            r#"quarterdeck_api_error_classification_total{category="internal",status_class="5xx"} 0"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
