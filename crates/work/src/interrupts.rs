//! Interrupts: agents that wait for people, on any copy of the program.
//!
//! The row decides. A waiter is woken by the signal of the change, reads the row, and does so once more
//! before it gives up: whoever ends an interrupt first, by deciding or by time, ends it for everyone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::TimeDelta;
use quarterdeck_bus::sessions::SessionHub;
use quarterdeck_domain::Result;
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::interrupt::{
    Ask, Interrupt, InterruptType, Outcome, Resolution, Resume, no_longer_pending, unknown,
};
use quarterdeck_domain::stream::{SessionEvent, SessionEventType, SessionId};
use quarterdeck_store::{Signal, Store, interrupt};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Pause after which a waiter looks for itself, and while news of other copies does not arrive.
const LOOK: Duration = Duration::from_secs(30);
const LOOK_ALONE: Duration = Duration::from_secs(1);
/// How long what has become of an interrupt is kept.
const KEPT: TimeDelta = TimeDelta::days(30);

/// The interrupts of all sessions. Cheap to clone.
#[derive(Clone)]
pub struct Interrupts(Arc<Inner>);

struct Inner {
    store: Store,
    hub: Arc<SessionHub>,
    clock: SharedClock,
    waiting: Arc<Waiting>,
}

/// Who waits here, by interrupt: a bell, and how many listen to it.
#[derive(Default)]
struct Waiting(Mutex<HashMap<String, (Arc<Notify>, usize)>>);

impl Waiting {
    fn all(&self) -> MutexGuard<'_, HashMap<String, (Arc<Notify>, usize)>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn hear(&self, signal: &Signal) {
        match signal {
            Signal::Interrupt { id } => {
                if let Some((bell, _)) = self.all().get(id) {
                    bell.notify_waiters();
                }
            }
            Signal::Everything => self.all().values().for_each(|(bell, _)| bell.notify_waiters()),
            _ => {}
        }
    }
}

/// One who waits.
struct Waiter<'w> {
    waiting: &'w Waiting,
    id: &'w str,
    bell: Arc<Notify>,
}

impl<'w> Waiter<'w> {
    fn new(waiting: &'w Waiting, id: &'w str) -> Self {
        let mut all = waiting.all();
        let (bell, listeners) = all.entry(id.to_owned()).or_default();
        *listeners += 1;
        Self { waiting, id, bell: Arc::clone(bell) }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut all = self.waiting.all();
        if let Some((_, listeners)) = all.get_mut(self.id) {
            *listeners -= 1;
            if *listeners == 0 {
                all.remove(self.id);
            }
        }
    }
}

impl Interrupts {
    /// Forgets what ended long ago; to be called now and then.
    pub async fn upkeep(&self) {
        let before = self.0.clock.now() - KEPT;
        let pruned = self.0.store.write(move |tx| Box::pin(interrupt::prune(tx, before))).await;
        if let Err(error) = pruned {
            tracing::error!(target: "work", error = %error, cause = error.cause(), "interrupts.upkeep.failed");
        }
    }

    /// Hears of decisions through this store, whichever copy of the program they were made on.
    pub fn new(store: Store, hub: Arc<SessionHub>, clock: SharedClock) -> Self {
        let waiting = Arc::new(Waiting::default());
        let heard = Arc::downgrade(&waiting);
        store.on_signal(move |signal| {
            if let Some(waiting) = heard.upgrade() {
                waiting.hear(signal);
            }
        });
        Self(Arc::new(Inner { store, hub, clock, waiting }))
    }

    /// Stores an interrupt and tells those who may decide or answer.
    ///
    /// # Errors
    /// 422/2000 as [`Interrupt::check`]; 409/4001 when there is, or was, one with its id.
    pub async fn create(&self, interrupt: Interrupt) -> Result<()> {
        interrupt.check()?;
        let created = interrupt.clone();
        let insert =
            self.0.store.write(move |tx| Box::pin(async move { interrupt::insert(tx, &created).await }));
        insert.await?;
        tracing::info!(
            target: "communication", id = &*interrupt.id, session = %interrupt.session_id,
            kind = %interrupt.kind(), "communication.interrupt.created"
        );
        self.0.hub.publish(&asked(&interrupt));
        Ok(())
    }

    /// Waits until a person has spoken, and says what: any number may wait for the same. `None` when
    /// nobody has in time, which ends the interrupt for everyone, or when there is no such interrupt.
    ///
    /// # Errors
    /// The store's own, when time is over and nobody can tell how it ended.
    pub async fn wait(&self, id: &str, timeout: Duration) -> Result<Option<Resolution>> {
        let Inner { store, clock, waiting, .. } = &*self.0;
        let end = Instant::now() + timeout;
        let waiter = Waiter::new(waiting, id);
        loop {
            let mut woken = std::pin::pin!(waiter.bell.notified());
            // Before the row is read, so that no change falls between the two.
            woken.as_mut().enable();
            match interrupt::by_id(store.read(), id).await {
                Ok(None) => return Ok(None),
                Ok(Some((_, Outcome::Resolved(resolution)))) => return Ok(Some(resolution)),
                Ok(Some((_, Outcome::Expired))) => return Ok(None),
                Ok(Some((_, Outcome::Pending))) => {}
                Err(error) => {
                    tracing::warn!(
                        target: "communication", id, error = %error, "communication.interrupt.unreadable"
                    );
                }
            }
            let now = Instant::now();
            if now >= end {
                break;
            }
            let look = now + if store.signals_are_live() { LOOK } else { LOOK_ALONE };
            tokio::select! {
                () = woken => {}
                () = sleep_until(end.min(look)) => {}
            }
        }
        // A decision that is stored by now comes before time.
        let (ending, now) = (id.to_owned(), clock.now());
        let outcome = store.write(move |tx| {
            Box::pin(async move {
                let expired = interrupt::expire(tx, &ending, now).await?;
                if expired { Ok(None) } else { interrupt::by_id(&**tx, &ending).await }
            })
        });
        match outcome.await? {
            Some((_, Outcome::Resolved(resolution))) => Ok(Some(resolution)),
            _ => {
                tracing::info!(target: "communication", id, "communication.interrupt.expired");
                Ok(None)
            }
        }
    }

    /// Decides or answers, for everyone who waits.
    ///
    /// # Errors
    /// 404/3000 when there is no such interrupt or it no longer waits, because somebody was faster or
    /// its time was over; 422/2000 when this does not answer it, which leaves it waiting.
    pub async fn resolve(&self, id: &str, resume: Resume, username: &str) -> Result<()> {
        let Inner { store, hub, clock, .. } = &*self.0;
        match interrupt::by_id(store.read(), id).await? {
            None => return Err(unknown(id)),
            Some((interrupt, Outcome::Pending)) => interrupt.accepts(&resume)?,
            Some(_) => return Err(no_longer_pending(id)),
        }
        let resolution = Resolution { resume, resolved_by: username.to_owned(), resolved_at: clock.now() };
        let (ending, stored) = (id.to_owned(), resolution.clone());
        let resolve =
            store.write(move |tx| Box::pin(async move { interrupt::resolve(tx, &ending, &stored).await }));
        let interrupt = resolve.await?.ok_or_else(|| no_longer_pending(id))?;
        tracing::info!(
            target: "communication", id, session = %interrupt.session_id, by = username,
            "communication.interrupt.resumed"
        );
        hub.publish(&answered(&interrupt, &resolution));
        Ok(())
    }

    /// What waits, in one session or all, the oldest first.
    ///
    /// # Errors
    /// The store's own.
    pub async fn pending(&self, session: Option<&SessionId>) -> Result<Vec<Interrupt>> {
        interrupt::pending(self.0.store.read(), session).await
    }

    /// How many wait on this copy of the program.
    pub fn awaited(&self) -> usize {
        self.0.waiting.all().values().map(|(_, listeners)| listeners).sum()
    }
}

fn asked(interrupt: &Interrupt) -> SessionEvent {
    let Interrupt { id, timeout_seconds, .. } = interrupt;
    let (event_type, payload) = match &interrupt.ask {
        Ask::ToolApproval { tool_name, tool_args, evidence_package_id } => (
            SessionEventType::ApprovalInterrupt,
            json!({
                "interrupt_id": id, "timeout_seconds": timeout_seconds, "tool_name": tool_name,
                "tool_args": tool_args, "evidence_package_id": evidence_package_id,
            }),
        ),
        Ask::InfoRequest { question, context_snippet } => (
            SessionEventType::InfoRequestInterrupt,
            json!({
                "interrupt_id": id, "timeout_seconds": timeout_seconds, "question": question,
                "context_snippet": context_snippet,
            }),
        ),
    };
    let event = SessionEvent::new(event_type, interrupt.session_id.clone(), interrupt.created_at, payload);
    event.by(interrupt.agent_id.as_str())
}

fn answered(interrupt: &Interrupt, resolution: &Resolution) -> SessionEvent {
    let event_type = match interrupt.kind() {
        InterruptType::ToolApproval => SessionEventType::ApprovalResumed,
        InterruptType::InfoRequest => SessionEventType::InfoRequestResumed,
    };
    let Resume { decision, feedback, response } = &resolution.resume;
    let payload = json!({
        "interrupt_id": interrupt.id, "decision": decision, "feedback": feedback, "response": response,
        "resolved_by": resolution.resolved_by,
    });
    let event = SessionEvent::new(event_type, interrupt.session_id.clone(), resolution.resolved_at, payload);
    event.by(interrupt.agent_id.as_str())
}
