//! Backups that are made by themselves: again and again, at the start, at the stop.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use quarterdeck_domain::audit::Actor;
use quarterdeck_domain::backup::Trigger;
use quarterdeck_domain::setting::backup as setting;
use quarterdeck_domain::{Error, ErrorCode, Result};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Backups;

const HOUR: Duration = Duration::from_secs(3600);

/// Makes backups by the clock while it runs.
pub struct Schedule {
    backups: Backups,
    hour: Duration,
    state: Mutex<State>,
    /// Rung when the time between two backups has changed.
    bell: Arc<Notify>,
}

enum State {
    Stopped,
    Running {
        stop: oneshot::Sender<()>,
        task: JoinHandle<()>,
    },
    /// A stop ran out of time: the old task may still act, so no second one may start.
    Stuck,
}

impl Schedule {
    /// A schedule that does not run yet.
    pub fn new(backups: Backups) -> Self {
        Self::with_hours_of(HOUR, backups)
    }

    /// A schedule whose hours take this long.
    pub fn with_hours_of(hour: Duration, backups: Backups) -> Self {
        Self { backups, hour, state: Mutex::new(State::Stopped), bell: Arc::default() }
    }

    /// Brings it in line with the settings: starts, stops or waits anew.
    ///
    /// # Errors
    /// As [`start`](Self::start) and [`stop`](Self::stop).
    pub async fn follow(&self, patience: Duration) -> Result<()> {
        if self.backups.0.settings.get(&setting::ENABLED) {
            self.bell.notify_one();
            self.start()
        } else {
            self.stop(patience).await
        }
    }

    /// Begins; the first backup is made one interval from now. Starting what runs is harmless.
    ///
    /// # Errors
    /// 409/4000 after a stop that ran out of time.
    pub fn start(&self) -> Result<()> {
        let mut state = self.state();
        match *state {
            State::Running { .. } => return Ok(()),
            State::Stuck => {
                return Err(Error::conflict(
                    "The backup schedule did not stop in time and cannot be restarted",
                ));
            }
            State::Stopped => {}
        }
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(run(self.backups.clone(), self.hour, Arc::clone(&self.bell), stopped));
        *state = State::Running { stop, task };
        tracing::info!(target: "backup", "backup.schedule.started");
        Ok(())
    }

    /// Ends after the backup that is being made. Stopping what does not run is harmless.
    ///
    /// # Errors
    /// When that took longer than `patience`; it cannot be started again then.
    pub async fn stop(&self, patience: Duration) -> Result<()> {
        let (stop, task) = {
            let mut state = self.state();
            match std::mem::replace(&mut *state, State::Stuck) {
                State::Running { stop, task } => (stop, task),
                before => {
                    *state = before;
                    return Ok(());
                }
            }
        };
        // Fails only if the task has ended on its own.
        let _ = stop.send(());
        if tokio::time::timeout(patience, task).await.is_err() {
            tracing::error!(target: "backup", "backup.schedule.stop_timed_out");
            return Err(Error::internal("the backup schedule did not stop in time"));
        }
        *self.state() = State::Stopped;
        tracing::info!(target: "backup", "backup.schedule.stopped");
        Ok(())
    }

    /// Makes the backup of a start or a stop, if the settings want one. A failure is logged.
    pub async fn make_if_wanted(&self, trigger: Trigger) {
        let wanted = match trigger {
            Trigger::Startup => &setting::ON_STARTUP,
            _ => &setting::ON_SHUTDOWN,
        };
        // After a restore the database is closed until the next start.
        if self.backups.0.settings.get(wanted) && self.backups.0.store.ping().await.is_ok() {
            make(&self.backups, trigger).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

async fn run(backups: Backups, hour: Duration, bell: Arc<Notify>, mut stopped: oneshot::Receiver<()>) {
    let mut last = Instant::now();
    loop {
        let hours = u32::try_from(backups.0.settings.get(&setting::SCHEDULE_HOURS)).unwrap_or(u32::MAX);
        tokio::select! {
            biased;
            _ = &mut stopped => return,
            // What has passed already counts.
            () = bell.notified() => {}
            () = tokio::time::sleep_until(last + hour * hours) => {
                last = Instant::now();
                make(&backups, Trigger::Scheduled).await;
            }
        }
    }
}

async fn make(backups: &Backups, trigger: Trigger) {
    let actor = Actor::system(match trigger {
        Trigger::Startup => "backup.startup",
        Trigger::Shutdown => "backup.shutdown",
        _ => "backup.schedule",
    });
    match backups.create(&actor, trigger, None).await {
        Ok(_) => {}
        Err(error) if error.code() == ErrorCode::ResourceConflict => {
            tracing::info!(target: "backup", trigger = %trigger, "backup.schedule.skipped");
        }
        // The cause is logged where it happened.
        Err(error) => {
            tracing::warn!(target: "backup", trigger = %trigger, error = %error, "backup.schedule.failed")
        }
    }
}
