//! What is counted, and how it is published.

use metrics::{Key, KeyName, Label, Level, Metadata, Recorder, SharedString, Unit};

use crate::scope::{Counts, Scope};

const DECISIONS: &str = "quarterdeck_limits_decisions_total";
const KEYS: &str = "quarterdeck_limits_keys";
const EVICTED: &str = "quarterdeck_limits_evicted_keys_total";
const IN_FLIGHT: &str = "quarterdeck_limits_in_flight";
const STORE_UP: &str = "quarterdeck_limits_store_up";
const OUTAGES: &str = "quarterdeck_limits_store_outages_total";
const LOCAL: &str = "quarterdeck_limits_local_decisions_total";

/// Histogram of the answers of the shared store, in seconds; give it buckets from 0.25 ms to 100 ms.
pub(crate) const LATENCY: &str = "quarterdeck_limits_store_duration_seconds";

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// Figures of a limiter since it was made. Labels come from the declared scopes and closed sets alone.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Decisions of every declared scope.
    pub scopes: Vec<ScopeStats>,
    /// Keys held in the memory of this process.
    pub keys: usize,
    /// Keys forgotten early because there was no room.
    pub evicted: u64,
    /// Requests under way in this process, of all scopes with a cap.
    pub in_flight: u64,
    /// The shared store; `None` when there is none.
    pub store: Option<StoreStats>,
}

/// Decisions of one scope: admitted, exhausted, unavailable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeStats {
    /// Name of the scope.
    pub name: &'static str,
    /// Of its window.
    pub windows: [u64; 3],
    /// Of its in-flight cap.
    pub in_flight: [u64; 3],
}

/// The shared store as seen from this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreStats {
    /// Whether it answers.
    pub up: bool,
    /// How often it stopped answering.
    pub outages: u64,
    /// Windows and caps decided by this process alone meanwhile.
    pub local_decisions: u64,
}

impl ScopeStats {
    pub(crate) fn of(scope: &Scope) -> Self {
        Self { name: scope.name(), windows: scope.windows().read(), in_flight: scope.flights().read() }
    }
}

pub(crate) fn publish(stats: &Stats, recorder: &dyn Recorder) {
    let about = SharedString::const_str;
    recorder.describe_counter(
        KeyName::from(DECISIONS),
        None,
        about("Decisions by tier or operation, kind of limit and outcome."),
    );
    for scope in &stats.scopes {
        for (kind, counts) in [("window", scope.windows), ("in_flight", scope.in_flight)] {
            for (outcome, count) in Counts::OUTCOMES.into_iter().zip(counts) {
                let labels = [("scope", scope.name), ("kind", kind), ("outcome", outcome)];
                let labels = labels.map(|(key, value)| Label::from_static_parts(key, value)).to_vec();
                recorder.register_counter(&Key::from_parts(DECISIONS, labels), &METADATA).absolute(count);
            }
        }
    }
    let counter = |name: &'static str, text, value| {
        recorder.describe_counter(KeyName::from(name), None, about(text));
        recorder.register_counter(&Key::from_static_name(name), &METADATA).absolute(value);
    };
    let gauge = |name: &'static str, text, value| {
        recorder.describe_gauge(KeyName::from(name), None, about(text));
        recorder.register_gauge(&Key::from_static_name(name), &METADATA).set(value);
    };
    gauge(KEYS, "Keys of limits in the memory of this process.", stats.keys as f64);
    counter(EVICTED, "Keys of limits forgotten early because there was no room.", stats.evicted);
    gauge(IN_FLIGHT, "Requests under way that have an in-flight cap.", stats.in_flight as f64);
    if let Some(store) = stats.store {
        gauge(STORE_UP, "Whether the shared store of limits answers.", f64::from(u8::from(store.up)));
        counter(OUTAGES, "How often the shared store of limits stopped answering.", store.outages);
        counter(LOCAL, "Limits decided by this process alone during outages.", store.local_decisions);
    }
}

/// The histogram of the store's answers in this registry.
pub(crate) fn latency(recorder: &dyn Recorder) -> metrics::Histogram {
    recorder.describe_histogram(
        KeyName::from(LATENCY),
        Some(Unit::Seconds),
        SharedString::const_str("Time the shared store of limits takes to answer, in seconds."),
    );
    recorder.register_histogram(&Key::from_static_name(LATENCY), &METADATA)
}
