//! Conflicts that wait for people, and meetings of agents: what is done about them while the server runs.

use std::sync::Arc;
use std::time::Duration;

use quarterdeck_domain::clock::SharedClock;
use quarterdeck_store::Store;
use quarterdeck_work::escalations::Escalations;
use quarterdeck_work::meetings::Meetings;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::lifecycle::Lifecycle;

/// Pause between two looks for meetings that are due or abandoned.
const MEETINGS_INTERVAL: Duration = Duration::from_secs(30);

/// Escalations, with the sweep of those that are overdue and an ear for other programs.
pub(crate) fn escalations(
    life: &mut Lifecycle,
    config: &Config,
    store: &Store,
    clock: &SharedClock,
) -> Escalations {
    let section = config.communication.conflict_resolution.escalation.clone();
    let escalations = Escalations::new(store.clone(), Arc::clone(clock), section);
    let (sweeps, ears) = (escalations.clone(), escalations.clone());
    let tasks = [
        tokio::spawn(async move { sweeps.keep_sweeping().await }),
        tokio::spawn(async move { ears.keep_listening().await }),
    ];
    let stopping = escalations.clone();
    life.started("escalations", Duration::from_secs(5), async move {
        stopping.stop();
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(target: "communication", error = %error, "communication.escalation.ended");
            }
        }
    });
    escalations
}

/// Meetings, with the look for what is due. Nobody conducts them yet: there are no agents.
pub(crate) fn meetings(
    life: &mut Lifecycle,
    config: &Config,
    store: &Store,
    clock: &SharedClock,
) -> Meetings {
    let meetings = Meetings::new(store.clone(), Arc::clone(clock), config.meetings.clone(), None);
    let (looks, stopped) = (meetings.clone(), CancellationToken::new());
    let until = stopped.clone();
    let looking = tokio::spawn(async move {
        loop {
            tokio::select! {
                () = until.cancelled() => return,
                () = tokio::time::sleep(MEETINGS_INTERVAL) => looks.upkeep().await,
            }
        }
    });
    let stopping = meetings.clone();
    life.started("meetings", Duration::from_secs(2), async move {
        stopped.cancel();
        stopping.stop().await;
        if let Err(error) = looking.await {
            tracing::error!(target: "work", error = %error, "meetings.upkeep.ended");
        }
    });
    meetings
}
