//! Refresh tokens: each works once, and a late replay ends the session (RFC 9700 §4.14).

use std::sync::Arc;

use chrono::TimeDelta;
use quarterdeck_domain::approval::RiskLevel;
use quarterdeck_domain::audit::{Entry, Verdict};
use quarterdeck_domain::{Error, ErrorCode, Result};
use quarterdeck_store::refresh_token::{self, Consumed};
use quarterdeck_store::{session, user};

use crate::login::short;
use crate::{Auth, Client, Issued};

/// Two tabs that refresh at once replay each other's token within this time; a thief comes later.
const REPLAY_GRACE: TimeDelta = TimeDelta::seconds(10);

enum Outcome {
    Issued(Box<Issued>),
    Rejected(&'static str),
    /// The session that a late replay has ended.
    Ended(String),
}

impl Auth {
    /// Exchanges a refresh token for a new token of the same session and a new refresh token.
    ///
    /// # Errors
    /// 401/1005 with one text for every reason; the reason goes to the log. A failure of the store
    /// leaves the token usable and stays what it is.
    pub async fn refresh(self: &Arc<Self>, cookie: Option<&str>, client: Client) -> Result<Issued> {
        if !self.config.jwt_refresh_enabled {
            return Err(rejected("refresh_disabled"));
        }
        let Some(raw) = cookie.filter(|value| !value.is_empty()) else {
            return Err(rejected("cookie_missing"));
        };
        let (auth, hash) = (Arc::clone(self), self.secret.hash(raw));
        let outcome = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let now = auth.clock.now();
                    let Some(owner) = refresh_token::owner(tx, &hash).await? else {
                        return Ok(Outcome::Rejected("not_found_or_expired"));
                    };
                    // The owner before the token, as everywhere: whoever ends sessions or changes
                    // passwords locks in this order, too.
                    let Some(user) = user::lock(tx, &owner).await? else {
                        return Ok(Outcome::Rejected("user_not_found"));
                    };
                    let session_id = match refresh_token::consume(tx, &hash, now).await? {
                        Consumed::Taken { session_id } => session_id,
                        Consumed::Unknown => return Ok(Outcome::Rejected("not_found_or_expired")),
                        Consumed::Replayed { session_id, used_at } => {
                            let late = now - used_at > REPLAY_GRACE;
                            if !late || !session::revoke(tx, &session_id, now).await? {
                                return Ok(Outcome::Rejected("replay_detected"));
                            }
                            let reason = format!(
                                "A used refresh token came back; ended the session of {}",
                                user.username
                            );
                            let actor = client.stranger("auth.refresh");
                            let entry = Entry::new(&actor, "session:replay", now, reason);
                            tx.audit(entry.verdict(Verdict::Deny).risk(RiskLevel::High));
                            return Ok(Outcome::Ended(session_id));
                        }
                    };
                    if session::is_revoked(&**tx, &session_id).await? {
                        // An error rolls back: the token stays as it was.
                        return Err(rejected("session_revoked"));
                    }
                    let issued = auth.issue(tx, user, session_id, &client, now).await?;
                    Ok(Outcome::Issued(Box::new(issued)))
                })
            })
            .await?;
        match outcome {
            Outcome::Issued(issued) => {
                let (user_id, session) = (&issued.user.id, short(&issued.session_id));
                tracing::info!(target: "auth", user_id, session, "auth.refresh_consumed");
                issued.log_token();
                Ok(*issued)
            }
            Outcome::Ended(session_id) => {
                let session = short(&session_id);
                tracing::warn!(target: "auth", session, revoked_by = "replay", "session.revoked");
                Err(rejected("replay_detected"))
            }
            Outcome::Rejected(reason) => Err(rejected(reason)),
        }
    }
}

fn rejected(reason: &'static str) -> Error {
    Error::new(ErrorCode::RefreshTokenInvalid).because(reason)
}
