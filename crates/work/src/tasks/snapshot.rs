//! What agents are told of changes: a message on their channel `tasks`, best effort and in order.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use quarterdeck_bus::message::{Message, MessageBus, MessageType, Metadata, Name, Parts, Priority};
use quarterdeck_domain::audit::Actor;
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::task::{Task, TaskStatus};
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::shown;

/// Snapshots that may wait to be told.
const QUEUE: usize = 1024;
const CHANNEL: &str = "tasks";
const SENDER: &str = "task-engine";
/// Larger tasks are left out: a message is told twice over in its event.
const MAX_SHOWN: usize = 6 * 1024;

/// A change, as agents read it.
pub(super) struct Snapshot {
    task_id: String,
    content: Value,
}

impl Snapshot {
    pub(super) fn of(
        mutation: &str,
        actor: &Actor,
        before: Option<TaskStatus>,
        task: &Task,
        reason: Option<String>,
    ) -> Self {
        let content = json!({
            "mutation_type": mutation, "request_id": Uuid::new_v4().simple().to_string(),
            "requested_by": actor.id, "task_id": task.id, "task": shown(task, MAX_SHOWN),
            "previous_status": before, "new_status": task.status, "version": task.version,
            "reason": reason, "timestamp": written(task.updated_at),
        });
        Self { task_id: task.id.clone(), content }
    }

    pub(super) fn of_deleted(actor: &Actor, gone: &Task, now: DateTime<Utc>) -> Self {
        let content = json!({
            "mutation_type": "delete", "request_id": Uuid::new_v4().simple().to_string(),
            "requested_by": actor.id, "task_id": gone.id, "task": null, "previous_status": gone.status,
            "new_status": null, "version": 0, "reason": null, "timestamp": written(now),
        });
        Self { task_id: gone.id.clone(), content }
    }

    fn message(self, now: DateTime<Utc>) -> Result<Message, String> {
        let name = |text: &str| Name::new(text);
        Ok(Message {
            id: Uuid::now_v7(),
            timestamp: now,
            sender: name(SENDER)?,
            to: name(CHANNEL)?,
            r#type: MessageType::TaskUpdate,
            priority: Priority::Normal,
            channel: name(CHANNEL)?,
            parts: Parts::text(self.content.to_string()),
            metadata: Metadata { task_id: Some(name(&self.task_id)?), ..Metadata::default() },
        })
    }
}

fn written(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Tells agents, one snapshot after the other.
pub(super) struct Herald {
    queue: Option<mpsc::Sender<Snapshot>>,
    telling: Mutex<Option<JoinHandle<()>>>,
    stop: CancellationToken,
}

impl Herald {
    /// Without a bus nobody is told.
    pub(super) fn start(messages: Option<MessageBus>, clock: SharedClock) -> Self {
        let stop = CancellationToken::new();
        let Some(messages) = messages else { return Self { queue: None, telling: Mutex::default(), stop } };
        let (queue, mut waiting) = mpsc::channel::<Snapshot>(QUEUE);
        let stopped = stop.clone();
        let telling = tokio::spawn(async move {
            loop {
                let snapshot = tokio::select! {
                    snapshot = waiting.recv() => snapshot,
                    () = stopped.cancelled(), if !waiting.is_closed() => {
                        waiting.close();
                        continue;
                    }
                };
                let Some(snapshot) = snapshot else { break };
                let told = match snapshot.message(clock.now()) {
                    Ok(message) => messages.publish(message, None).await.map_err(|error| error.to_string()),
                    Err(why) => Err(why),
                };
                if let Err(why) = told {
                    tracing::warn!(target: "engine", why, "engine.tasks.snapshot_failed");
                }
            }
        });
        Self { queue: Some(queue), telling: Mutex::new(Some(telling)), stop }
    }

    /// What tells of this change, to be called once it is durable.
    pub(super) fn teller(&self, snapshot: Snapshot) -> Option<impl FnOnce() + Send + 'static> {
        let queue = self.queue.clone()?;
        Some(move || {
            if queue.try_send(snapshot).is_err() {
                tracing::warn!(target: "engine", why = "too many wait to be told", "engine.tasks.snapshot_failed");
            }
        })
    }

    /// Tells what waits, but not for longer than this.
    pub(super) async fn stop(&self, patience: Duration) {
        self.stop.cancel();
        if let Some(telling) = self.telling.lock().await.take() {
            let _ = timeout(patience, telling).await;
        }
    }
}
