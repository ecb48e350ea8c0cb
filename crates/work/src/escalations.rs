//! Escalations: conflicts that wait for people, on any copy of the program.
//!
//! The row decides. Whoever waits is woken by the signal of its end, reads the row, and does so once more
//! before giving up: who ends an escalation first, by deciding, by taking it back or by time, ends it for
//! everyone. When the server stops, those who wait are sent away and their rows stay as they are.

mod config;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use quarterdeck_domain::audit::{Actor, Entry};
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::conflict::{Conflict, Decision};
use quarterdeck_domain::escalation::{EndedBy, Escalation, EscalationStatus, Fate, not_pending, unknown};
use quarterdeck_domain::{Error, Result};
use quarterdeck_store::escalation::{self, End};
use quarterdeck_store::{Listed, Signal, Store};
use tokio_util::sync::CancellationToken;

pub use config::{Backend, CrossInstanceNotify, EscalationConfig};
pub use waiting::{Resolution, Waiting};

use waiting::Register;

/// The escalations of all conflicts. Clones are one.
#[derive(Clone)]
pub struct Escalations(Arc<Inner>);

struct Inner {
    store: Store,
    clock: SharedClock,
    config: EscalationConfig,
    register: Arc<Register>,
    stopping: CancellationToken,
}

impl Escalations {
    /// Hears of ends through this store, whichever copy of the program they were made on.
    pub fn new(store: Store, clock: SharedClock, config: EscalationConfig) -> Self {
        let register = Arc::new(Register::default());
        let heard = Arc::downgrade(&register);
        store.on_signal(move |signal| {
            if let Some(register) = heard.upgrade() {
                match signal {
                    Signal::Escalation { id } => register.ring(id),
                    Signal::Everything => register.ring_all(),
                    _ => {}
                }
            }
        });
        Self(Arc::new(Inner { store, clock, config, register, stopping: CancellationToken::new() }))
    }

    /// How it was configured.
    pub fn config(&self) -> &EscalationConfig {
        &self.0.config
    }

    /// Puts a conflict before people, and gives back what waits for them: it does so before anybody can see
    /// the escalation. It waits `default_timeout_seconds`, or for ever where there is none.
    ///
    /// # Errors
    /// 422/2000 as [`Conflict::check`]; 409/4000 when another escalation of the conflict is pending.
    pub async fn escalate(&self, conflict: Conflict, actor: &Actor) -> Result<Waiting> {
        let now = self.0.clock.now();
        let patience = self.0.config.default_timeout();
        let expires_at = patience.and_then(|patience| now.checked_add_signed(patience));
        let escalation = Escalation::new(conflict, now, expires_at)?;
        let waiting = Waiting::new(self.clone(), escalation.clone())?;
        let subject = format!("Conflict '{}' was put before people", escalation.conflict.id.as_str());
        let entry = self.entry(actor, "escalation:create", &escalation, subject);
        let insert = self.0.store.write(move |tx| {
            Box::pin(async move {
                tx.audit(entry);
                escalation::insert(tx, &escalation).await
            })
        });
        insert.await?;
        tracing::info!(target: "communication", id = waiting.id(), "communication.escalation.created");
        Ok(waiting)
    }

    /// Waits again for an escalation, after a restart for example.
    ///
    /// # Errors
    /// 404/3000 when there is none; 409/4000 when somebody waits for it on this copy already.
    pub async fn wait_again(&self, id: &str) -> Result<Waiting> {
        Waiting::new(self.clone(), self.get(id).await?)
    }

    /// Decides.
    ///
    /// # Errors
    /// 422/2000 when the strategy does not accept the decision or its winner has no position, which leaves
    /// the escalation pending; 404/3000; 409/4000 when it is not pending, or somebody was faster.
    pub async fn decide(&self, id: &str, decision: Decision, actor: &Actor) -> Result<Escalation> {
        decision.fits(self.0.config.decision_strategy)?;
        let escalation = self.pending(id).await?;
        decision.settles(&escalation.conflict)?;
        let end = self.end(EndedBy::human(&actor.id));
        let entry =
            self.entry(actor, "escalation:decide", &escalation, format!("Escalation '{id}' was decided"));
        let entry = entry.arguments(&decision);
        let decided = Escalation {
            fate: Fate::Decided(decision.clone()),
            ended: Some((end.at, end.by.clone())),
            ..escalation.clone()
        };
        let won = self.0.store.write(move |tx| {
            Box::pin(async move {
                let won = escalation::decide(tx, &escalation, &decision, &end).await?;
                if won {
                    tx.audit(entry);
                }
                Ok(won)
            })
        });
        self.won(id, won.await?, decided).await
    }

    /// Takes an escalation back.
    ///
    /// # Errors
    /// 404/3000; 409/4000 when it is not pending, or somebody was faster.
    pub async fn cancel(&self, id: &str, reason: &str, actor: &Actor) -> Result<Escalation> {
        self.take_back(id, Some(reason), EndedBy::human(&actor.id), actor).await
    }

    async fn take_back(
        &self,
        id: &str,
        reason: Option<&str>,
        by: EndedBy,
        actor: &Actor,
    ) -> Result<Escalation> {
        let escalation = self.pending(id).await?;
        let end = self.end(by);
        let entry =
            self.entry(actor, "escalation:cancel", &escalation, format!("Escalation '{id}' was taken back"));
        let entry = entry.arguments(&reason);
        let reason = reason.map(ToOwned::to_owned);
        let cancelled = Escalation {
            fate: Fate::Cancelled(reason.clone()),
            ended: Some((end.at, end.by.clone())),
            ..escalation
        };
        let ending = id.to_owned();
        let won = self.0.store.write(move |tx| {
            Box::pin(async move {
                let won = escalation::cancel(tx, &ending, reason.as_deref(), &end).await?;
                if won {
                    tx.audit(entry);
                }
                Ok(won)
            })
        });
        self.won(id, won.await?, cancelled).await
    }

    /// Who was first gets the escalation as it is now, everybody else learns what it has become.
    async fn won(&self, id: &str, won: bool, escalation: Escalation) -> Result<Escalation> {
        if won {
            let status = escalation.status();
            tracing::info!(target: "communication", id, %status, "communication.escalation.ended");
            return Ok(escalation);
        }
        Err(not_pending(id, self.get(id).await?.status()))
    }

    async fn pending(&self, id: &str) -> Result<Escalation> {
        let escalation = self.get(id).await?;
        match escalation.status() {
            EscalationStatus::Pending => Ok(escalation),
            status => Err(not_pending(id, status)),
        }
    }

    /// One escalation.
    ///
    /// # Errors
    /// 404/3000 when there is none; 500/8002 when its row cannot be read.
    pub async fn get(&self, id: &str) -> Result<Escalation> {
        escalation::by_id(self.0.store.read(), id).await?.ok_or_else(|| unknown(id))
    }

    /// Escalations that stand here, the oldest first.
    ///
    /// # Errors
    /// The store's own.
    pub async fn list(
        &self,
        status: EscalationStatus,
        offset: u64,
        limit: u64,
    ) -> Result<Listed<Escalation>> {
        escalation::page(self.0.store.read(), status, offset, limit).await
    }

    /// Ends what is overdue; how many this call ended.
    ///
    /// # Errors
    /// The store's own.
    pub async fn sweep(&self) -> Result<usize> {
        let end = self.end(EndedBy::expiry());
        let actor = Actor::system("escalations.expiry");
        let ended = self.0.store.write(move |tx| {
            Box::pin(async move {
                let ended = escalation::expire_due(tx, &end).await?;
                for id in &ended {
                    tx.audit(Entry::new(
                        &actor,
                        "escalation:expire",
                        end.at,
                        format!("Escalation '{id}' expired"),
                    ));
                }
                Ok(ended.len())
            })
        });
        let ended = ended.await?;
        if ended > 0 {
            tracing::info!(target: "communication", ended, "communication.escalation.swept");
        }
        Ok(ended)
    }

    /// Sweeps every `sweeper_interval_seconds` until the server stops. A sweep that fails is logged.
    pub async fn keep_sweeping(&self) {
        let pause = Duration::from_secs(self.0.config.sweeper_interval_seconds.into());
        let sweeps = async {
            loop {
                tokio::time::sleep(pause).await;
                if let Err(error) = self.sweep().await {
                    tracing::error!(
                        target: "communication", error = %error, cause = error.cause(),
                        "communication.escalation.sweep_failed"
                    );
                }
            }
        };
        self.0.stopping.run_until_cancelled(sweeps).await;
    }

    /// Sends away everyone who waits on this copy. What they wait for stays pending.
    pub fn stop(&self) {
        self.0.stopping.cancel();
    }

    /// How many wait on this copy of the program.
    pub fn awaited(&self) -> usize {
        self.0.register.len()
    }

    /// Hears of ends that other programs bring about and tell, on the channel of the database that the
    /// configuration names, until the server stops. They say `<id>:<status>`; the row says what is true.
    pub async fn keep_listening(&self) {
        let Inner { store, config, register, stopping, .. } = &*self.0;
        if !config.notifies() {
            return;
        }
        let pause = Duration::from_secs_f64(config.reconnect_delay_seconds);
        let heard = |told: Option<&str>| match told.map(named) {
            Some(Some(id)) => register.ring(id),
            Some(None) => {
                tracing::warn!(target: "communication", "communication.escalation.notification_malformed");
            }
            None => register.ring_all(),
        };
        stopping.run_until_cancelled(store.follow(&config.notify_channel, pause, heard)).await;
    }

    fn end(&self, by: EndedBy) -> End {
        let notify = self.0.config.notifies().then(|| self.0.config.notify_channel.clone());
        End { at: self.0.clock.now(), by, notify }
    }

    fn entry(&self, actor: &Actor, action: &str, escalation: &Escalation, sentence: String) -> Entry {
        let entry = Entry::new(actor, action, self.0.clock.now(), sentence);
        match &escalation.conflict.task_id {
            Some(task) => entry.task(task),
            None => entry,
        }
    }
}

/// The escalation whose end is told.
fn named(told: &str) -> Option<&str> {
    let (id, status) = told.rsplit_once(':')?;
    let ended = EscalationStatus::parse(status).is_some_and(|status| status != EscalationStatus::Pending);
    (ended && !id.trim().is_empty()).then_some(id)
}

/// 409/4000: one who waits is enough.
fn awaited_already() -> Error {
    Error::conflict("This escalation is awaited already")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_names_an_escalation_and_an_end() {
        assert_eq!(named("escalation-1:decided"), Some("escalation-1"));
        assert_eq!(named("a:b:expired"), Some("a:b"));
        for malformed in
            ["", ":", "escalation-1", "escalation-1:pending", "escalation-1:won", ":decided", " :decided"]
        {
            assert_eq!(named(malformed), None, "{malformed}");
        }
    }
}
