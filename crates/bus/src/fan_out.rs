//! Handing events to listeners, apart from whoever published them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::topic::Topic;

/// Channels that have grown.
#[derive(Default)]
pub(crate) struct FanOut {
    grown: Mutex<VecDeque<Arc<Topic>>>,
    ready: Notify,
    /// Rung whenever nothing is left to be handed over.
    done: Notify,
    busy: AtomicBool,
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
            self.busy.store(true, Ordering::Release);
            while let Some(topic) = self.next() {
                // Lowered first: what is appended from here on calls again.
                topic.queued.store(false, Ordering::Release);
                let handed = topic.hand_over().await;
                self.handed.fetch_add(handed as u64, Ordering::Relaxed);
            }
            self.busy.store(false, Ordering::Release);
            self.done.notify_waiters();
        }
    }

    /// Done when nothing waits to be handed over.
    pub(crate) async fn idle(&self) {
        loop {
            let mut done = std::pin::pin!(self.done.notified());
            done.as_mut().enable();
            let waits = !self.grown.lock().unwrap_or_else(|e| e.into_inner()).is_empty();
            if !waits && !self.busy.load(Ordering::Acquire) {
                return;
            }
            done.await;
        }
    }

    fn next(&self) -> Option<Arc<Topic>> {
        self.grown.lock().unwrap_or_else(|e| e.into_inner()).pop_front()
    }
}
