//! Notifications: what people are told though they did not ask.
//!
//! Telling costs the one who tells nothing but a look into a table: each sink has a queue and a task of its
//! own, so one that hangs delays neither the others nor the caller, and what a sink cannot take is counted
//! and logged.

mod config;
mod email;
mod network;
mod queue;
mod sink;
mod target;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use metrics::{Key, KeyName, Label, Level, Metadata, Recorder, SharedString};
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::notification::{Category, Notification, Severity};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use config::{NotificationsConfig, Params, SinkConfig, SinkKind, Variables};

use queue::{Lane, Worker};
use sink::Sink;
use target::Target;

/// Time in which the same thing is told once.
const COLLAPSE: TimeDelta = TimeDelta::minutes(5);
/// Things remembered for that.
const REMEMBERED: usize = 1024;
const TOLD: &str = "quarterdeck_notifications_total";
const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// How patient the dispatcher is.
#[derive(Clone, Debug)]
pub struct Patience {
    /// Longest wait for one attempt.
    pub attempt: Duration,
    /// Pauses before further attempts; there are as many as pauses.
    pub pauses: Vec<Duration>,
    /// Notifications that may wait for one sink.
    pub queue: usize,
}

impl Default for Patience {
    fn default() -> Self {
        let pauses = [1, 5, 25, 125].map(Duration::from_secs).to_vec();
        Self { attempt: Duration::from_secs(10), pauses, queue: 256 }
    }
}

/// Tells people things. Cheap to clone.
#[derive(Clone)]
pub struct Notifications(Arc<Inner>);

struct Inner {
    min_severity: Severity,
    clock: SharedClock,
    recent: Mutex<HashMap<Subject, Recent>>,
    lanes: Vec<Lane>,
    stopping: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// What makes two notifications the same.
type Subject = (Category, &'static str, String);

struct Recent {
    told_at: DateTime<Utc>,
    severity: Severity,
    /// How often it was not told since then.
    collapsed: u64,
}

/// What became of a trial, by sink.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Place in the configuration, from 0; `None` for the console that is there when no sink is.
    pub number: Option<usize>,
    /// What it is.
    pub kind: SinkKind,
    /// Why it did not arrive.
    pub outcome: Result<(), String>,
}

impl Notifications {
    /// Starts the sinks of a configuration. One that cannot start is left out with a warning, and when
    /// there is none at all, the console is told.
    pub fn start(
        config: &NotificationsConfig,
        variable: Variables<'_>,
        clock: SharedClock,
        patience: &Patience,
    ) -> Self {
        let stopping = CancellationToken::new();
        let (mut lanes, mut tasks) = (Vec::new(), Vec::new());
        for (number, kind, sink) in open(config, variable) {
            let sink = match sink {
                Ok(sink) => sink,
                Err(why) => {
                    let kind = kind.as_str();
                    tracing::warn!(target: "notifications", sink = number, kind, why, "notifications.sink.disabled");
                    continue;
                }
            };
            let (lane, worker) = queue::lane(kind, sink, Arc::clone(&clock), patience, stopping.clone());
            lanes.push(lane);
            tasks.push(tokio::spawn(Worker::run(worker)));
        }
        Self(Arc::new(Inner {
            min_severity: config.min_severity,
            clock,
            recent: Mutex::default(),
            lanes,
            stopping,
            tasks: Mutex::new(tasks),
        }))
    }

    /// Tells every sink, soon. Never waits and never fails: the same thing twice within five minutes is
    /// told once, unless it has got worse, and what is below the least severity is not told at all.
    pub fn send(&self, notification: Notification) {
        if notification.severity < self.0.min_severity {
            return;
        }
        let Some(notification) = self.first_of_its_kind(notification) else { return };
        let notification = Arc::new(notification);
        for lane in &self.0.lanes {
            lane.put(Arc::clone(&notification));
        }
    }

    /// Leaves out what was told a moment ago; what is told again says how often it was not.
    fn first_of_its_kind(&self, notification: Notification) -> Option<Notification> {
        let now = self.0.clock.now();
        let mut recent = self.0.recent.lock().unwrap_or_else(|e| e.into_inner());
        let subject = (notification.category, notification.source, notification.title.clone());
        let mut collapsed = 0;
        if let Some(last) = recent.get_mut(&subject) {
            if now - last.told_at < COLLAPSE && notification.severity <= last.severity {
                last.collapsed += 1;
                return None;
            }
            collapsed = last.collapsed;
        } else if recent.len() >= REMEMBERED {
            recent.retain(|_, last| now - last.told_at < COLLAPSE);
            if recent.len() >= REMEMBERED {
                // Better twice than not at all.
                recent.clear();
            }
        }
        recent.insert(subject, Recent { told_at: now, severity: notification.severity, collapsed: 0 });
        Some(if collapsed > 0 { notification.with("collapsed", collapsed) } else { notification })
    }

    /// Sends what waits, one attempt each, and stops; what takes longer than `within` is dropped. Stopping
    /// twice is harmless, and what is told afterwards is counted as lost.
    pub async fn stop(&self, within: Duration) {
        self.0.stopping.cancel();
        let tasks = std::mem::take(&mut *self.0.tasks.lock().unwrap_or_else(|e| e.into_inner()));
        let aborts: Vec<_> = tasks.iter().map(JoinHandle::abort_handle).collect();
        if tokio::time::timeout(within, join_all(tasks)).await.is_err() {
            aborts.iter().for_each(tokio::task::AbortHandle::abort);
        }
    }

    /// Writes the figures since the start.
    pub fn publish(&self, recorder: &impl Recorder) {
        let text = SharedString::const_str("Notifications by kind of sink, and what became of them.");
        recorder.describe_counter(KeyName::from(TOLD), None, text);
        for kind in SinkKind::ALL {
            let lanes = self.0.lanes.iter().filter(|lane| lane.kind() == kind);
            let Some(counts) = lanes.map(Lane::counts).reduce(|a, b| [a[0] + b[0], a[1] + b[1]]) else {
                continue;
            };
            for (outcome, count) in ["delivered", "lost"].into_iter().zip(counts) {
                let labels = [("sink", kind.as_str()), ("outcome", outcome)];
                let labels = labels.map(|(key, value)| Label::from_static_parts(key, value)).to_vec();
                recorder.register_counter(&Key::from_parts(TOLD, labels), &METADATA).absolute(count);
            }
        }
    }
}

/// Sends one notification to every sink of a configuration, and waits for what becomes of it.
pub async fn try_out(
    config: &NotificationsConfig,
    variable: Variables<'_>,
    notification: &Notification,
    patience: &Patience,
) -> Vec<Trial> {
    let chosen = config.sinks.iter().any(|sink| sink.enabled);
    // What steps in for sinks that do not work is no answer to whether they do.
    let tried = open(config, variable).into_iter().filter(|(number, ..)| !chosen || number.is_some());
    let trials = tried.map(|(number, kind, sink)| async move {
        let outcome = match sink {
            Ok(sink) => {
                let sent = sink.deliver(notification, notification.timestamp, patience.attempt).await;
                sent.map_err(|trouble| trouble.text)
            }
            Err(why) => Err(why),
        };
        Trial { number, kind, outcome }
    });
    join_all(trials).await
}

/// Place in the configuration, kind, and the sink or why there is none.
type Opened = (Option<usize>, SinkKind, Result<Sink, String>);

/// The sinks in use, and the console when there would be none.
fn open(config: &NotificationsConfig, variable: Variables<'_>) -> Vec<Opened> {
    let allow_private = config.allow_private_addresses;
    let sink = |kind: SinkKind, params: &Params| {
        let target = Target::new(kind, &params.resolve(variable)?, allow_private)?;
        Sink::open(target, network::client(allow_private)?)
    };
    let enabled = config.sinks.iter().enumerate().filter(|(_, sink)| sink.enabled);
    let mut opened: Vec<Opened> = enabled
        .map(|(number, config)| (Some(number), config.kind, sink(config.kind, &config.params)))
        .collect();
    if opened.iter().all(|(_, _, sink)| sink.is_err()) {
        opened.push((None, SinkKind::Console, sink(SinkKind::Console, &Params::default())));
    }
    opened
}
