//! Looking at sessions and ending them.

use std::sync::Arc;

use quarterdeck_domain::audit::{Actor, Entry};
use quarterdeck_domain::identity::Identity;
use quarterdeck_domain::role::HumanRole;
use quarterdeck_domain::user::Session;
use quarterdeck_domain::{Error, Result};
use quarterdeck_store::session;

use crate::Auth;
use crate::login::short;

/// Which of a user's sessions to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All but the one that asks.
    Others,
    /// All, the one that asks included.
    All,
}

impl Auth {
    /// Active sessions, newest first: the caller's own, or everybody's for the CEO who asks for all.
    pub async fn sessions(&self, caller: &Identity, everybody: bool) -> Result<Vec<Session>> {
        let owner = (!everybody || caller.role != HumanRole::Ceo).then_some(&*caller.user_id);
        session::active(self.store.read(), owner, self.clock.now()).await
    }

    /// Ends a session. Ending it again is fine.
    ///
    /// # Errors
    /// 404/3000 alike for an unknown session and, unless the caller is the CEO, for somebody else's.
    pub async fn revoke_session(self: &Arc<Self>, caller: &Identity, actor: &Actor, id: &str) -> Result<()> {
        let found = session::by_id(self.store.read(), id).await?;
        let visible = found.filter(|s| *s.user_id == *caller.user_id || caller.role == HumanRole::Ceo);
        let Some(session) = visible else {
            let missing = Error::missing("Session", id).because("session_not_owned");
            // The log names at most the start of a session.
            return Err(missing.caused_by("no such session, or not the caller's"));
        };
        let now = self.clock.now();
        let id = session.session_id.clone();
        let reason = format!("Ended the session {} of {}", short(&id), session.username);
        let entry = Entry::new(actor, "session:revoke", now, reason);
        let ended = self.store.write(move |tx| {
            Box::pin(async move {
                let ended = session::revoke(tx, &id, now).await?;
                if ended {
                    tx.audit(entry);
                }
                Ok(ended)
            })
        });
        if ended.await? {
            tracing::info!(
                target: "auth", session = %short(&session.session_id), user_id = %session.user_id,
                revoked_by = %caller.user_id, "session.revoked"
            );
        }
        Ok(())
    }

    /// Ends the caller's sessions; how many.
    pub async fn revoke_own_sessions(
        self: &Arc<Self>,
        caller: &Identity,
        actor: &Actor,
        scope: Scope,
    ) -> Result<usize> {
        let keep = match scope {
            Scope::Others => caller.session_id.clone(),
            Scope::All => None,
        };
        let (user_id, now, by) = (caller.user_id.clone(), self.clock.now(), actor.clone());
        let ended = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let ended = session::revoke_all(tx, &user_id, keep.as_deref(), now).await?;
                    if !ended.is_empty() {
                        let reason = format!("Ended {} of their own sessions", ended.len());
                        tx.audit(Entry::new(&by, "session:revoke_all", now, reason));
                    }
                    Ok(ended)
                })
            })
            .await?;
        tracing::info!(target: "auth", user_id = %caller.user_id, count = ended.len(), "session.force_logout");
        Ok(ended.len())
    }
}
