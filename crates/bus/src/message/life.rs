//! The life of what is started and stopped: stopped, starting, running, stopping, and unusable when
//! stopping took too long.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::{BusError, Result};

/// Who is allowed to start, and what runs. Starting and stopping happen in tasks of their own, so that
/// somebody who stops waiting for them cannot leave them half done. Clones are the same life.
pub(super) struct Life<R>(Arc<watch::Sender<Phase<R>>>);

enum Phase<R> {
    Stopped,
    Starting(CancellationToken),
    Running(Arc<R>, CancellationToken),
    Stopping,
    Unusable,
}

impl<R: Send + Sync + 'static> Life<R> {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Phase::Stopped)))
    }

    /// What runs now.
    pub(super) fn running(&self) -> Result<Arc<R>> {
        match &*self.0.borrow() {
            Phase::Running(run, _) => Ok(Arc::clone(run)),
            Phase::Unusable => Err(BusError::Unusable),
            _ => Err(BusError::NotRunning),
        }
    }

    /// Starts what `open` makes. Its token is cancelled when a stop comes, also during the start, or when
    /// this future is dropped; when `open` succeeds nevertheless, `close` undoes it.
    pub(super) async fn start<O, C>(
        &self,
        open: impl FnOnce(CancellationToken) -> O,
        close: impl FnOnce(R) -> C + Send + 'static,
    ) -> Result<()>
    where
        O: Future<Output = Result<R>> + Send + 'static,
        C: Future<Output = ()> + Send + 'static,
    {
        let stopping = CancellationToken::new();
        let mut refusal = None;
        self.0.send_if_modified(|phase| {
            match phase {
                Phase::Stopped => *phase = Phase::Starting(stopping.clone()),
                Phase::Unusable => refusal = Some(BusError::Unusable),
                _ => refusal = Some(BusError::AlreadyStarted),
            }
            refusal.is_none()
        });
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        let phase = Arc::clone(&self.0);
        let (opening, given_up) = (open(stopping.clone()), stopping.clone().drop_guard());
        let started = tokio::spawn(async move {
            let mut opened = opening.await.map(Some);
            // Under the lock of the phase, so that a stop either is seen here or sees what runs.
            phase.send_if_modified(|phase| {
                if stopping.is_cancelled() {
                    return false;
                }
                let Ok(Some(run)) = opened.as_mut().map(Option::take) else { return false };
                *phase = Phase::Running(Arc::new(run), stopping);
                true
            });
            let outcome = match opened {
                Ok(None) => return Ok(()),
                Ok(Some(run)) => {
                    close(run).await;
                    Err(BusError::NotRunning)
                }
                Err(error) => Err(error),
            };
            phase.send_replace(Phase::Stopped);
            outcome
        });
        let started = started.await;
        given_up.disarm();
        started.map_err(|error| BusError::server("start", error))?
    }

    /// Cancels the token of what runs and gives `close` so long to end it. Answers whether there was
    /// something to stop; a start that is under way is given up.
    pub(super) async fn stop<C>(
        &self,
        limit: Duration,
        close: impl FnOnce(Arc<R>) -> C + Send + 'static,
    ) -> Result<bool>
    where
        C: Future<Output = ()> + Send + 'static,
    {
        let phase = Arc::clone(&self.0);
        let stopped = tokio::spawn(async move {
            let Some(run) = take(&phase).await? else { return Ok(false) };
            let ended = tokio::time::timeout(limit, close(run)).await;
            phase.send_replace(if ended.is_ok() { Phase::Stopped } else { Phase::Unusable });
            ended.map(|()| true).map_err(|_| BusError::Unusable)
        });
        stopped.await.map_err(|error| BusError::server("stop", error))?
    }
}

/// What runs, to be ended by whoever gets it; waits for a start or another stop to end.
async fn take<R>(phase: &watch::Sender<Phase<R>>) -> Result<Option<Arc<R>>> {
    loop {
        let mut found = None;
        phase.send_if_modified(|phase| {
            match phase {
                Phase::Running(run, stopping) => {
                    stopping.cancel();
                    found = Some(Ok(Some(Arc::clone(run))));
                    *phase = Phase::Stopping;
                    return true;
                }
                Phase::Starting(stopping) => stopping.cancel(),
                Phase::Stopping => {}
                Phase::Stopped => found = Some(Ok(None)),
                Phase::Unusable => found = Some(Err(BusError::Unusable)),
            }
            false
        });
        match found {
            Some(found) => return found,
            None => {
                let settled = |phase: &Phase<R>| !matches!(phase, Phase::Starting(_) | Phase::Stopping);
                // Cannot fail while the sender is here.
                let _ = phase.subscribe().wait_for(settled).await;
            }
        }
    }
}
