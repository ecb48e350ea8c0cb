//! Handing events to listeners, apart from whoever published them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::topic::Topic;

/// Channels that have grown.
#[derive(Default)]
pub(crate) struct FanOut {
    grown: Mutex<VecDeque<Arc<Topic>>>,
    ready: Notify,
    handed: AtomicU64,
}

impl FanOut {
    /// Says that a channel has grown.
    pub(crate) fn stir(&self, topic: &Arc<Topic>) {
        if !topic.queued.swap(true, Ordering::AcqRel) {
            self.grown.lock().unwrap_or_else(|e| e.into_inner()).push_back(Arc::clone(topic));
            self.ready.notify_one();
        }
    }

    /// How often an event was handed to a listener.
    pub(crate) fn handed(&self) -> u64 {
        self.handed.load(Ordering::Relaxed)
    }

    pub(crate) async fn run(self: Arc<Self>, stopping: CancellationToken) {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.ready.notified() => {}
            }
            while let Some(topic) = self.next() {
                // Lowered first: what is appended from here on calls again.
                topic.queued.store(false, Ordering::Release);
                let handed = topic.hand_over();
                self.handed.fetch_add(handed as u64, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    }

    fn next(&self) -> Option<Arc<Topic>> {
        self.grown.lock().unwrap_or_else(|e| e.into_inner()).pop_front()
    }
}
