//! What is swept away every minute.

use std::sync::Arc;

use quarterdeck_domain::Result;
use quarterdeck_store::{api_key, from_micros, login_attempt, refresh_token, session};

use crate::Auth;

impl Auth {
    /// Drops what has ended: tickets, sessions, refresh tokens, old failures; notes when keys were last
    /// used. One failing step is logged and does not stop the others.
    pub async fn upkeep(self: &Arc<Self>) {
        log("ws_tickets", self.sweep_tickets().await);
        self.hot.prune();
        log("revoked_sessions", self.hot.load_revoked().await);
        let now = self.clock.now();
        let old = now - self.attempts_kept();
        log("sessions", self.store.write(move |tx| Box::pin(session::prune(tx, now))).await);
        log("refresh_tokens", self.store.write(move |tx| Box::pin(refresh_token::prune(tx, now))).await);
        log("login_attempts", self.store.write(move |tx| Box::pin(login_attempt::prune(tx, old))).await);
        let touched = self.hot.take_touched();
        if !touched.is_empty() {
            let noted = self.store.write(move |tx| {
                Box::pin(async move {
                    for (id, used_at) in touched {
                        api_key::touch(tx, &id, from_micros(used_at)).await?;
                    }
                    Ok(())
                })
            });
            log("api_keys", noted.await);
        }
    }
}

fn log<T>(step: &'static str, outcome: Result<T>) {
    if let Err(error) = outcome {
        tracing::error!(target: "auth", step, error = %error, "auth.upkeep.failed");
    }
}
