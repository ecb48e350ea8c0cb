//! Starting part by part, and stopping in the opposite order, whatever happens in between.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

/// The parts that have started, each with the way to stop it.
#[derive(Default)]
pub(crate) struct Lifecycle {
    stops: Vec<Stop>,
}

struct Stop {
    part: &'static str,
    within: Duration,
    how: BoxFuture<'static, ()>,
}

impl Lifecycle {
    /// Remembers how to stop a part that has just started, and how long that may take.
    pub(crate) fn started(
        &mut self,
        part: &'static str,
        within: Duration,
        how: impl Future<Output = ()> + Send + 'static,
    ) {
        tracing::debug!(target: "api", part, "api.app.startup");
        self.stops.push(Stop { part, within, how: how.boxed() });
    }

    /// Stops everything that has started, the last part first. A part that panics or takes too long
    /// does not keep the others from stopping. Stopping again does nothing.
    pub(crate) async fn stop(&mut self) {
        while let Some(Stop { part, within, how }) = self.stops.pop() {
            match tokio::time::timeout(within, AssertUnwindSafe(how).catch_unwind()).await {
                Ok(Ok(())) => tracing::debug!(target: "api", part, "api.app.shutdown"),
                Ok(Err(_)) => tracing::error!(target: "api", part, "api.app.shutdown.panicked"),
                Err(_) => tracing::error!(target: "api", part, "api.app.shutdown.timeout"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    type Log = Arc<Mutex<Vec<&'static str>>>;

    fn part(life: &mut Lifecycle, log: &Log, name: &'static str) {
        let log = Arc::clone(log);
        life.started(name, Duration::from_millis(5), async move {
            match name {
                "hangs" => std::future::pending().await,
                "panics" => panic!("a part that cannot stop"),
                _ => log.lock().unwrap().push(name),
            }
        });
    }

    #[tokio::test]
    async fn parts_stop_once_in_reverse_and_a_bad_one_does_not_hold_up_the_others() {
        for failing in 0..6 {
            let (log, mut life) = (Log::default(), Lifecycle::default());
            let parts = ["store", "hangs", "settings", "panics", "listener"];
            for name in &parts[..failing.min(parts.len())] {
                part(&mut life, &log, name);
            }
            life.stop().await;
            life.stop().await;
            let expected: Vec<_> = parts[..failing.min(5)]
                .iter()
                .rev()
                .filter(|p| !["hangs", "panics"].contains(p))
                .copied()
                .collect();
            assert_eq!(*log.lock().unwrap(), expected, "start failed after {failing} parts");
        }
    }
}
