//! The queue of one sink, and the task that empties it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::notification::Notification;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_util::sync::CancellationToken;

use super::sink::Sink;
use super::{Patience, SinkKind};

#[derive(Default)]
struct Counts {
    delivered: AtomicU64,
    lost: AtomicU64,
}

/// The end that is told.
pub(super) struct Lane {
    kind: SinkKind,
    queue: Sender<Arc<Notification>>,
    counts: Arc<Counts>,
}

impl Lane {
    pub(super) fn put(&self, notification: Arc<Notification>) {
        if self.queue.try_send(notification).is_err() {
            let lost = self.counts.lost.fetch_add(1, Ordering::Relaxed) + 1;
            let kind = self.kind.as_str();
            tracing::warn!(target: "notifications", kind, lost, "notifications.queue.full");
        }
    }

    pub(super) fn kind(&self) -> SinkKind {
        self.kind
    }

    /// How many were delivered, and how many lost.
    pub(super) fn counts(&self) -> [u64; 2] {
        [&self.counts.delivered, &self.counts.lost].map(|count| count.load(Ordering::Relaxed))
    }
}

/// The end that sends.
pub(super) struct Worker {
    kind: SinkKind,
    sink: Sink,
    queue: Receiver<Arc<Notification>>,
    counts: Arc<Counts>,
    clock: SharedClock,
    attempt: Duration,
    pauses: Vec<Duration>,
    stopping: CancellationToken,
}

pub(super) fn lane(
    kind: SinkKind,
    sink: Sink,
    clock: SharedClock,
    patience: &Patience,
    stopping: CancellationToken,
) -> (Lane, Worker) {
    let (sender, queue) = mpsc::channel(patience.queue.max(1));
    let counts = Arc::new(Counts::default());
    let lane = Lane { kind, queue: sender, counts: Arc::clone(&counts) };
    let (attempt, pauses) = (patience.attempt, patience.pauses.clone());
    (lane, Worker { kind, sink, queue, counts, clock, attempt, pauses, stopping })
}

impl Worker {
    pub(super) async fn run(mut self) {
        loop {
            let next = tokio::select! {
                biased;
                () = self.stopping.cancelled(), if !self.queue.is_closed() => {
                    self.queue.close();
                    continue;
                }
                next = self.queue.recv() => next,
            };
            let Some(notification) = next else { return };
            self.tell(&notification).await;
        }
    }

    async fn tell(&self, notification: &Notification) {
        let kind = self.kind.as_str();
        let mut pauses = self.pauses.iter();
        loop {
            let trouble = match self.sink.deliver(notification, self.clock.now(), self.attempt).await {
                Ok(()) => {
                    self.counts.delivered.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(trouble) => trouble,
            };
            let pause = pauses.next().filter(|_| trouble.may_pass && !self.stopping.is_cancelled());
            let Some(pause) = pause else {
                self.counts.lost.fetch_add(1, Ordering::Relaxed);
                let (id, error) = (notification.id, trouble.text);
                tracing::error!(target: "notifications", kind, %id, error, "notifications.delivery.failed");
                return;
            };
            tracing::debug!(target: "notifications", kind, error = trouble.text, "notifications.delivery.again");
            tokio::select! {
                () = tokio::time::sleep(*pause) => {}
                () = self.stopping.cancelled() => {}
            }
        }
    }
}
