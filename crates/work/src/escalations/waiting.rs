//! Those who wait for people.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use quarterdeck_domain::Result;
use quarterdeck_domain::audit::{self, Actor};
use quarterdeck_domain::conflict::{ConflictOutcome, Dissent};
use quarterdeck_domain::escalation::{EndedBy, Escalation, EscalationStatus, Fate};
use quarterdeck_store::escalation;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::{Escalations, awaited_already};

/// Pause after which a waiter looks for itself, and while news of other copies does not arrive.
const LOOK: Duration = Duration::from_secs(30);
const LOOK_ALONE: Duration = Duration::from_secs(1);

/// Who waits here: a bell for each escalation.
#[derive(Default)]
pub(super) struct Register(Mutex<HashMap<String, Arc<Notify>>>);

impl Register {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn ring(&self, id: &str) {
        if let Some(bell) = self.all().get(id) {
            bell.notify_one();
        }
    }

    pub(super) fn ring_all(&self) {
        self.all().values().for_each(|bell| bell.notify_one());
    }

    pub(super) fn len(&self) -> usize {
        self.all().len()
    }
}

/// What has come out of a conflict.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolution {
    /// In a word.
    pub outcome: ConflictOutcome,
    /// The escalation at its end.
    pub escalation: Escalation,
    /// The positions that lost; none when nobody has decided.
    pub dissents: Vec<Dissent>,
}

/// One who waits. Dropping it leaves the escalation to the sweep and to whoever waits again.
pub struct Waiting {
    escalations: Escalations,
    escalation: Escalation,
    /// Keeps a ring that comes before anybody listens.
    bell: Arc<Notify>,
    end: Option<Instant>,
}

impl Waiting {
    pub(super) fn new(escalations: Escalations, escalation: Escalation) -> Result<Self> {
        let bell = Arc::new(Notify::new());
        match escalations.0.register.all().entry(escalation.id.to_string()) {
            Entry::Occupied(_) => return Err(awaited_already()),
            Entry::Vacant(place) => place.insert(Arc::clone(&bell)),
        };
        let left =
            escalation.expires_at.map(|at| (at - escalations.0.clock.now()).to_std().unwrap_or_default());
        let end = left.and_then(|left| Instant::now().checked_add(left));
        Ok(Self { escalations, escalation, bell, end })
    }

    /// Id of the escalation.
    pub fn id(&self) -> &str {
        &self.escalation.id
    }

    /// Waits for the end: a decision, a cancellation, or time, which ends the escalation for everyone.
    /// `None` when the server stops; the escalation is still pending then.
    ///
    /// # Errors
    /// The store's own, when time is over and nobody can tell how it ended.
    pub async fn resolution(self) -> Result<Option<Resolution>> {
        let stopping = self.escalations.0.stopping.clone();
        match stopping.run_until_cancelled(self.ended()).await {
            Some(ended) => self.resolve(ended?).await.map(Some),
            None => Ok(None),
        }
    }

    async fn ended(&self) -> Result<Escalation> {
        let store = &self.escalations.0.store;
        loop {
            match escalation::by_id(store.read(), self.id()).await {
                Ok(Some(escalation)) if escalation.status() != EscalationStatus::Pending => {
                    return Ok(escalation);
                }
                Ok(_) => {}
                Err(error) => {
                    let id = self.id();
                    tracing::warn!(
                        target: "communication", id, error = %error, "communication.escalation.unreadable"
                    );
                }
            }
            let now = Instant::now();
            if self.end.is_some_and(|end| now >= end) {
                return self.expire().await;
            }
            let look = now + if store.signals_are_live() { LOOK } else { LOOK_ALONE };
            tokio::select! {
                () = self.bell.notified() => {}
                () = sleep_until(self.end.map_or(look, |end| end.min(look))) => {}
            }
        }
    }

    /// A decision that is stored by now comes before time.
    async fn expire(&self) -> Result<Escalation> {
        let end = self.escalations.end(EndedBy::expiry());
        let id = self.escalation.id.clone();
        let sentence = format!("Escalation '{}' expired", id.as_str());
        let actor = Actor::system("escalations.expiry");
        let entry = audit::Entry::new(&actor, "escalation:expire", end.at, sentence);
        let expired = self.escalations.0.store.write(move |tx| {
            Box::pin(async move {
                if escalation::expire(tx, &id, &end).await? {
                    tx.audit(entry);
                }
                Ok(())
            })
        });
        expired.await?;
        self.escalations.get(self.id()).await
    }

    async fn resolve(&self, escalation: Escalation) -> Result<Resolution> {
        let (outcome, dissents) = match &escalation.fate {
            Fate::Decided(decision) => {
                let dissents = escalation::dissents(self.escalations.0.store.read(), self.id()).await?;
                (decision.outcome(), dissents)
            }
            _ => (ConflictOutcome::EscalatedToHuman, Vec::new()),
        };
        Ok(Resolution { outcome, escalation, dissents })
    }

    /// Needs no answer any more: takes the escalation back, unless somebody was faster.
    ///
    /// # Errors
    /// 409/4000 when the escalation has ended meanwhile; the store's own.
    pub async fn withdraw(self) -> Result<()> {
        let actor = Actor::system("escalations.resolver");
        self.escalations.take_back(self.id(), None, EndedBy::resolver(), &actor).await.map(drop)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.escalations.0.register.all().remove(self.escalation.id.as_str());
    }
}
