//! What is counted about sockets.

use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder};

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// Why an event did not reach a client.
#[derive(Clone, Copy)]
pub(super) enum Dropped {
    /// A plain client's queue was full.
    Backpressure,
    /// Larger than any client takes.
    Oversized,
    /// No event at all.
    Invalid,
    /// A reply that did not fit into a plain client's queue.
    Reply,
    /// A capable client was told of a gap.
    Gap,
}

/// How a handshake ended.
#[derive(Clone, Copy)]
pub(super) enum Handshake {
    Accepted,
    Unauthenticated,
    Forbidden,
    Unavailable,
    TooMany,
    ForeignOrigin,
    NotWebSocket,
}

/// Counters of this server; nothing global.
pub(super) struct Metrics {
    connections: Gauge,
    sent: Counter,
    dropped: [Counter; 5],
    handshakes: [Counter; 7],
    commands: [(&'static str, Counter); 4],
    recoveries: [(&'static str, Counter); 6],
    closes: [(u16, Counter); 10],
}

impl Metrics {
    pub(super) fn new(recorder: &impl Recorder) -> Self {
        let counter = |name: &'static str, label: Option<(&'static str, String)>| {
            let labels = label.map(|(key, value)| Label::new(key, value)).into_iter().collect::<Vec<_>>();
            recorder.register_counter(&Key::from_parts(name, labels), &METADATA)
        };
        let by = |name, key, value: &str| counter(name, Some((key, value.to_owned())));
        let dropped = ["backpressure", "oversized", "invalid", "reply", "gap"];
        let handshakes = [
            "accepted",
            "unauthenticated",
            "forbidden",
            "unavailable",
            "too_many",
            "foreign_origin",
            "not_websocket",
        ];
        Self {
            connections: recorder
                .register_gauge(&Key::from_static_name("quarterdeck_ws_connections"), &METADATA),
            sent: counter("quarterdeck_ws_events_sent_total", None),
            dropped: dropped.map(|reason| by("quarterdeck_ws_events_dropped_total", "reason", reason)),
            handshakes: handshakes.map(|result| by("quarterdeck_ws_handshakes_total", "result", result)),
            commands: ["ping", "subscribe", "unsubscribe", "refused"]
                .map(|action| (action, by("quarterdeck_ws_commands_total", "action", action))),
            recoveries: ["recovered", "epoch_changed", "gap", "ahead", "disabled", "too_large"]
                .map(|result| (result, by("quarterdeck_ws_recoveries_total", "result", result))),
            closes: [1000, 1001, 1002, 1008, 1009, 1011, 1012, 4001, 4003, 4011]
                .map(|code| (code, by("quarterdeck_ws_closes_total", "code", &code.to_string()))),
        }
    }

    pub(super) fn connected(&self) {
        self.connections.increment(1.0);
    }

    pub(super) fn disconnected(&self) {
        self.connections.decrement(1.0);
    }

    pub(super) fn sent(&self, events: u64) {
        if events > 0 {
            self.sent.increment(events);
        }
    }

    pub(super) fn dropped(&self, why: Dropped, events: u64) {
        self.dropped[why as usize].increment(events);
    }

    pub(super) fn handshake(&self, result: Handshake) {
        self.handshakes[result as usize].increment(1);
    }

    pub(super) fn command(&self, action: &str) {
        count(&self.commands, action);
    }

    pub(super) fn recovery(&self, result: &str) {
        count(&self.recoveries, result);
    }

    pub(super) fn closed(&self, code: u16) {
        if let Some((_, counter)) = self.closes.iter().find(|(known, _)| *known == code) {
            counter.increment(1);
        }
    }
}

fn count(counters: &[(&'static str, Counter)], label: &str) {
    if let Some((_, counter)) = counters.iter().find(|(known, _)| *known == label) {
        counter.increment(1);
    }
}
