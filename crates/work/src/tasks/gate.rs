//! How many changes may wait, and the end of it.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use quarterdeck_domain::{Error, Result};
use tokio::sync::Notify;
use tokio::time::timeout;

/// Lets changes in, counts them, and at the end none.
#[derive(Default)]
pub(super) struct Gate(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    left: Notify,
}

#[derive(Default)]
struct State {
    inside: usize,
    is_closed: bool,
}

/// A change that was let in; it leaves when this is dropped.
pub(super) struct Permit(Arc<Inner>);

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Gate {
    /// Lets a change in while at most `waiting` wait behind the one that is made; 0 for no bound.
    pub(super) fn enter(&self, waiting: usize) -> Result<Permit> {
        let mut state = self.0.state();
        if state.is_closed {
            return Err(Error::unavailable("the task engine is not running", 1));
        }
        if waiting > 0 && state.inside > waiting {
            return Err(Error::unavailable("too many changes of tasks wait", 1));
        }
        state.inside += 1;
        Ok(Permit(Arc::clone(&self.0)))
    }

    /// Lets nobody in any more and waits for those inside; how many are left when time is up.
    pub(super) async fn close(&self, patience: Duration) -> usize {
        self.0.state().is_closed = true;
        let empty = async {
            loop {
                let mut left = std::pin::pin!(self.0.left.notified());
                left.as_mut().enable();
                if self.0.state().inside == 0 {
                    return;
                }
                left.await;
            }
        };
        let _ = timeout(patience, empty).await;
        self.0.state().inside
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.inside -= 1;
        if state.inside == 0 {
            self.0.left.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_made_as_many_as_allowed_wait_and_the_next_is_refused_at_once() {
        let gate = Gate::default();
        let inside: Vec<_> = (0..3).map(|_| gate.enter(2).unwrap()).collect();
        assert_eq!(gate.enter(2).err().map(|e| e.status()), Some(503));
        assert!(gate.enter(0).is_ok(), "0 is no bound");
        drop(inside);
        assert!(gate.enter(2).is_ok());
    }

    #[tokio::test]
    async fn a_closed_gate_waits_for_those_inside_but_not_for_ever() {
        let gate = Gate::default();
        let permit = gate.enter(1).unwrap();
        assert_eq!(gate.close(Duration::from_millis(1)).await, 1);
        assert_eq!(gate.enter(1).err().map(|e| e.status()), Some(503));
        let leaving = tokio::spawn(async move { drop(permit) });
        assert_eq!(gate.close(Duration::from_secs(60)).await, 0);
        leaving.await.unwrap();
    }
}
