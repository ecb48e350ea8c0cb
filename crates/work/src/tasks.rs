//! Tasks: every change is one compare-and-set in the database, with its event and its audit entry.

mod gate;
mod snapshot;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use quarterdeck_bus::message::MessageBus;
use quarterdeck_domain::audit::{Actor, Entry};
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::event::{Event, EventType};
use quarterdeck_domain::setting::{IfMatch, engine};
use quarterdeck_domain::task::{NewTask, Task, TaskPatch, TaskStatus};
use quarterdeck_domain::{Error, Result};
use quarterdeck_store::idempotency::{self, IdempotencyKey, Seen};
use quarterdeck_store::task::{self, Filter};
use quarterdeck_store::{Store, Tx};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use self::gate::Gate;
use self::snapshot::{Herald, Snapshot};
use crate::settings::Settings;

/// Larger tasks are not part of the event that tells of them; who is told can ask for them.
const MAX_SHOWN: usize = 24 * 1024;

/// The tasks of the company. Cheap to clone.
#[derive(Clone)]
pub struct Tasks(Arc<Inner>);

struct Inner {
    store: Store,
    settings: Settings,
    clock: SharedClock,
    gate: Gate,
    herald: Herald,
}

/// The version a change is good for; both have to hold.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Exactly this one.
    pub version: Option<i64>,
    /// The condition of the request.
    pub if_match: IfMatch,
}

impl Expected {
    fn check(&self, task: &Task) -> Result<()> {
        if self.version.is_none_or(|version| version == task.version) && self.if_match.allows(&task.etag()) {
            return Ok(());
        }
        Err(Error::conflict("The task has changed since; read it again"))
    }
}

/// What becomes of a task, and what is said about it.
pub(crate) struct Change {
    pub(crate) next: Task,
    /// `update`, `transition` or `cancel`.
    pub(crate) mutation: &'static str,
    pub(crate) reason: Option<String>,
}

impl Tasks {
    /// Tasks in this store. Agents are told of changes through `messages`.
    pub fn new(store: Store, settings: Settings, clock: SharedClock, messages: Option<MessageBus>) -> Self {
        let herald = Herald::start(messages, Arc::clone(&clock));
        Self(Arc::new(Inner { store, settings, clock, gate: Gate::default(), herald }))
    }

    /// Makes a task. With a key, the same request made again within 24 hours answers the same task.
    ///
    /// # Errors
    /// 422/2000 when it breaks a rule, or the key was used for another request; 503/8001 when too much waits.
    pub async fn create(&self, actor: &Actor, new: NewTask, key: Option<IdempotencyKey>) -> Result<Task> {
        let permit = self.enter()?;
        let (this, actor, now) = (self.clone(), actor.clone(), self.0.clock.now());
        let made = Task::new(new.clone(), now)?;
        let create = self.0.store.write(move |tx| {
            Box::pin(async move {
                let _permit = permit;
                if let Some(key) = &key
                    && let Some(answered) = repeated(tx, key, &made, now).await?
                {
                    return Ok(answered);
                }
                task::insert(tx, &made).await?;
                let entry = Entry::new(&actor, "task:create", now, "Task created");
                tx.audit(entry.task(&made.id).arguments(&new));
                let mut payload = about(&made, &actor);
                payload.insert("title".into(), made.title.as_str().into());
                payload.insert("status".into(), made.status.as_str().into());
                payload.insert("project_id".into(), made.project.as_str().into());
                tx.publish(Event::new(EventType::TaskCreated, now, payload.into()));
                this.herald(tx, Snapshot::of("create", &actor, None, &made, None));
                Ok(made)
            })
        });
        create.await
    }

    /// Changes members of a task. A patch of nothing makes no new version.
    ///
    /// # Errors
    /// 404/3000; 409/4000 when the task is not what was expected; 422/2000 when it would break a rule;
    /// 503/8001.
    pub async fn update(
        &self,
        actor: &Actor,
        id: &str,
        patch: TaskPatch,
        expected: Expected,
    ) -> Result<Task> {
        let arguments = patch.clone();
        self.change(actor, id, expected, arguments, move |task, now, _| {
            if patch.is_empty() {
                return Ok(None);
            }
            let next = task.patched(patch, now)?;
            Ok(Some(Change { next, mutation: "update", reason: None }))
        })
        .await
    }

    /// Moves a task to another status.
    ///
    /// # Errors
    /// As [`Tasks::update`]; 422/2000 when the state machine does not allow it.
    pub async fn transition(
        &self,
        actor: &Actor,
        id: &str,
        target: TaskStatus,
        assignee: Option<String>,
        expected: Expected,
    ) -> Result<Task> {
        let arguments = json!({"target_status": target, "assigned_to": assignee});
        self.change(actor, id, expected, arguments, move |task, now, cancel_stuck| {
            let next = task.moved(target, assignee, cancel_stuck, now)?;
            let reason = Some(format!("API transition to {target}"));
            Ok(Some(Change { next, mutation: "transition", reason }))
        })
        .await
    }

    /// Gives a task up, whatever its version.
    ///
    /// # Errors
    /// As [`Tasks::transition`], but for versions.
    pub async fn cancel(&self, actor: &Actor, id: &str, reason: String) -> Result<Task> {
        let arguments = json!({"reason": reason});
        self.change(actor, id, Expected::default(), arguments, move |task, now, cancel_stuck| {
            let next = task.moved(TaskStatus::Cancelled, None, cancel_stuck, now)?;
            Ok(Some(Change { next, mutation: "cancel", reason: Some(reason) }))
        })
        .await
    }

    /// Deletes a task that nothing refers to.
    ///
    /// # Errors
    /// 404/3000; 409/4000 when the task is not what was expected, or approvals, decisions or costs refer to
    /// it; 503/8001.
    pub async fn delete(&self, actor: &Actor, id: &str, expected: Expected) -> Result<()> {
        let permit = self.enter()?;
        let (this, actor, id, now) = (self.clone(), actor.clone(), id.to_owned(), self.0.clock.now());
        let delete = self.0.store.write(move |tx| {
            Box::pin(async move {
                let _permit = permit;
                let gone = task::lock(tx, &id).await?.ok_or_else(|| Error::missing("Task", &id))?;
                expected.check(&gone)?;
                task::delete(tx, &id).await?;
                tx.audit(Entry::new(&actor, "task:delete", now, "Task deleted").task(&id));
                let payload = json!({"task_id": id, "version": gone.version, "requested_by": actor.id});
                tx.publish(Event::new(EventType::TaskDeleted, now, payload));
                this.herald(tx, Snapshot::of_deleted(&actor, &gone, now));
                Ok(())
            })
        });
        delete.await
    }

    /// The task with this id.
    ///
    /// # Errors
    /// 404/3000 without one; 503/8001.
    pub async fn get(&self, id: &str) -> Result<Task> {
        task::by_id(self.0.store.read(), id).await?.ok_or_else(|| Error::missing("Task", id))
    }

    /// Tasks in their wire form, the oldest first, and how many match in all.
    ///
    /// # Errors
    /// 503/8001.
    pub async fn page(&self, filter: &Filter, offset: u64, limit: u32) -> Result<(Vec<Box<RawValue>>, u64)> {
        task::page(self.0.store.read(), filter, offset, limit).await
    }

    /// Forgets answers kept for repeated requests that are too old; to be called now and then.
    pub async fn upkeep(&self) {
        let now = self.0.clock.now();
        if let Err(error) = self.0.store.write(move |tx| Box::pin(idempotency::prune(tx, now))).await {
            tracing::error!(target: "work", error = %error, cause = error.cause(), "tasks.upkeep.failed");
        }
    }

    /// Refuses further changes and waits for those that were accepted, but not longer than the setting
    /// `engine/drain_timeout_seconds`. Calling it again is harmless.
    pub async fn stop(&self) {
        let patience = Duration::from_secs_f64(self.0.settings.get(&engine::DRAIN_TIMEOUT_SECONDS));
        let left = self.0.gate.close(patience).await;
        if left > 0 {
            tracing::error!(target: "engine", left, "engine.tasks.drain_timeout");
        }
        self.0.herald.stop(patience).await;
    }

    fn enter(&self) -> Result<gate::Permit> {
        let most = self.0.settings.get(&engine::MAX_QUEUE_SIZE);
        self.0.gate.enter(usize::try_from(most).unwrap_or_default())
    }

    async fn change<F>(
        &self,
        actor: &Actor,
        id: &str,
        expected: Expected,
        arguments: impl Serialize + Send + Sync + 'static,
        plan: F,
    ) -> Result<Task>
    where
        F: FnOnce(&Task, DateTime<Utc>, bool) -> Result<Option<Change>> + Send + 'static,
    {
        let permit = self.enter()?;
        let (this, actor, id, now) = (self.clone(), actor.clone(), id.to_owned(), self.0.clock.now());
        let cancel_stuck = self.0.settings.get(&engine::CANCEL_STUCK_TASKS);
        let change = self.0.store.write(move |tx| {
            Box::pin(async move {
                let _permit = permit;
                let task = task::lock(tx, &id).await?.ok_or_else(|| Error::missing("Task", &id))?;
                expected.check(&task)?;
                match plan(&task, now, cancel_stuck)? {
                    Some(change) => this.apply(tx, &actor, &task, change, &arguments).await,
                    None => Ok(task),
                }
            })
        });
        change.await
    }

    /// Stores the next version of a task that this transaction holds, and says so.
    pub(crate) async fn apply(
        &self,
        tx: &Tx,
        actor: &Actor,
        before: &Task,
        change: Change,
        arguments: &impl Serialize,
    ) -> Result<Task> {
        let Change { next, mutation, reason } = change;
        if !task::update(tx, &next).await? {
            return Err(Error::conflict("The task has changed meanwhile; try again"));
        }
        let now = next.updated_at;
        let moved = before.status != next.status;
        let action = if moved { format!("task:{}", next.status) } else { "task:update".to_owned() };
        let words = match &reason {
            _ if !moved => "Task updated".to_owned(),
            Some(reason) => format!("{} to {}: {}", before.status, next.status, clipped(reason)),
            None => format!("{} to {}", before.status, next.status),
        };
        tx.audit(Entry::new(actor, action, now, words).task(&next.id).arguments(arguments));
        let told = about(&next, actor);
        let mut payload = told.clone();
        if moved {
            payload.insert("from_status".into(), before.status.as_str().into());
            payload.insert("to_status".into(), next.status.as_str().into());
            payload.insert("reason".into(), reason.as_deref().map(clipped).into());
            tx.publish(Event::new(EventType::TaskStatusChanged, now, payload.into()));
        } else {
            payload.insert("title".into(), next.title.as_str().into());
            payload.insert("status".into(), next.status.as_str().into());
            payload.insert("assigned_agent_id".into(), next.assigned_to.as_deref().into());
            tx.publish(Event::new(EventType::TaskUpdated, now, payload.into()));
        }
        if let Some(assignee) = next.assigned_to.as_deref().filter(|_| before.assigned_to != next.assigned_to)
        {
            let mut payload = told;
            payload.insert("agent_id".into(), assignee.into());
            tx.publish(Event::new(EventType::TaskAssigned, now, payload.into()));
        }
        self.herald(tx, Snapshot::of(mutation, actor, Some(before.status), &next, reason));
        Ok(next)
    }

    fn herald(&self, tx: &Tx, snapshot: Snapshot) {
        if self.0.settings.get(&engine::PUBLISH_SNAPSHOTS)
            && let Some(tell) = self.0.herald.teller(snapshot)
        {
            tx.after_commit(tell);
        }
    }
}

/// What was answered to this key before, or nothing, and then `made` is kept as its answer.
async fn repeated(tx: &Tx, key: &IdempotencyKey, made: &Task, now: DateTime<Utc>) -> Result<Option<Task>> {
    // Of requests that come at once, one goes first.
    tx.lock(&key.name()).await?;
    match idempotency::find(&**tx, key, now).await? {
        Some(Seen::Same { body, .. }) => serde_json::from_str(&body).map(Some).map_err(Error::internal),
        Some(Seen::Other) => Err(Error::rule("Idempotency-Key was used for another request")),
        None => {
            let body = serde_json::to_string(made).map_err(Error::internal)?;
            idempotency::keep(tx, key, 201, &body, now).await?;
            Ok(None)
        }
    }
}

/// What every event of a task says.
fn about(task: &Task, actor: &Actor) -> Map<String, Value> {
    let mut payload = Map::new();
    payload.insert("task_id".into(), task.id.as_str().into());
    payload.insert("version".into(), task.version.into());
    payload.insert("requested_by".into(), (*actor.id).into());
    if let Some(shown) = shown(task, MAX_SHOWN) {
        payload.insert("task".into(), shown);
    }
    payload
}

/// The wire form of a task that is not too large to be told.
fn shown(task: &Task, most: usize) -> Option<Value> {
    serde_json::to_value(task).ok().filter(|shown| shown.to_string().len() <= most)
}

/// A reason, short enough to be told.
fn clipped(reason: &str) -> &str {
    reason.char_indices().nth(500).map_or(reason, |(end, _)| &reason[..end])
}
