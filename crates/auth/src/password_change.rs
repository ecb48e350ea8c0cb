//! Changing one's own password; the operator's reset of somebody's.

use std::sync::Arc;

use quarterdeck_domain::approval::RiskLevel;
use quarterdeck_domain::audit::{Actor, Entry};
use quarterdeck_domain::identity::{AuthMethod, Identity};
use quarterdeck_domain::user::SYSTEM_USER;
use quarterdeck_domain::{Error, ErrorCode, Result};
use quarterdeck_store::{login_attempt, refresh_token, session, user};

use crate::lockout::{self, Attempt};
use crate::login::gone;
use crate::{Auth, Client, Issued, Password};

impl Auth {
    /// Replaces the caller's password, ends every session they have and begins a new one.
    ///
    /// # Errors
    /// 400/2001 for a short new password; 403/1001 for the system user and for API keys; 401/1000 for a
    /// wrong current password, which counts towards the lockout (429/1003); 422/2000 when nothing changes.
    pub async fn change_password(
        self: &Arc<Self>,
        caller: &Identity,
        current: Password,
        new: Password,
        client: Client,
    ) -> Result<Issued> {
        self.short_password("/new_password", &new)?;
        if &*caller.user_id == SYSTEM_USER {
            return Err(Error::forbidden("System user cannot be modified")
                .because("system_user_modification_blocked"));
        }
        if caller.auth_method != AuthMethod::Jwt {
            return Err(Error::forbidden("An API key cannot change its owner's password"));
        }
        let (now, name) = (self.clock.now(), caller.username.to_lowercase());
        let Some(before) = user::by_id(self.store.read(), &caller.user_id).await? else { return Err(gone()) };
        if let Some(until) = self.locked_until(self.store.read(), &name, now).await? {
            self.hasher.verify(&current, self.hasher.dummy()).await?;
            return Err(lockout::locked(until, now));
        }
        if !self.hasher.verify(&current, &before.password_hash).await? {
            let refusal = Error::with(ErrorCode::Unauthorized, "Invalid current password")
                .because("invalid_current_password");
            let attempt = Attempt { name, account: Some(before), client, operation: "auth.change_password" };
            return Err(self.count_failure(attempt, refusal).await?);
        }
        if current.same_as(&new) {
            return Err(Error::rule("The new password must differ from the current one"));
        }
        let new_hash = self.hasher.hash(&new).await?;
        let auth = Arc::clone(self);
        let issued = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let now = auth.clock.now();
                    let Some(mut user) = user::lock(tx, &before.id).await? else { return Err(gone()) };
                    if user.password_hash != before.password_hash {
                        return Err(Error::with(ErrorCode::Unauthorized, "Invalid current password"));
                    }
                    user::set_password(tx, &user.id, &new_hash, false, now).await?;
                    let actor = client.actor(&user.id, &user.username, "auth.change_password");
                    tx.audit(Entry::new(&actor, "user:password_change", now, "Changed their own password"));
                    session::revoke_all(tx, &user.id, None, now).await?;
                    refresh_token::use_up_user(tx, &user.id, now).await?;
                    user.password_hash = new_hash;
                    user.must_change_password = false;
                    user.updated_at = now;
                    auth.open_session(tx, user, &client).await
                })
            })
            .await?;
        self.tickets.purge_user(&issued.user.id);
        issued.log_begun();
        tracing::info!(target: "auth", user_id = %issued.user.id, username = %issued.user.username, "auth.password_changed");
        Ok(issued)
    }

    /// Gives an account a new password that its owner must change, ends its sessions and lifts its
    /// lock: the operator's way back in. Returns the user's id.
    ///
    /// # Errors
    /// 404/3000 for an unknown name, 409/4000 for the system user, 422/2000 for a short password.
    pub async fn reset_password(self: &Arc<Self>, username: &str, new: &Password) -> Result<String> {
        self.check_length(new).map_err(|rule| Error::rule(format!("The password {rule}")))?;
        let found = user::by_username(self.store.read(), username).await?;
        let user = found.ok_or_else(|| Error::missing("User", username))?;
        if user.is_system() {
            return Err(Error::conflict("The system user cannot be modified"));
        }
        let (hash, now, id, name) =
            (self.hasher.hash(new).await?, self.clock.now(), user.id.clone(), username.to_lowercase());
        self.store
            .write(move |tx| {
                Box::pin(async move {
                    user::set_password(tx, &user.id, &hash, true, now).await?;
                    let reason = format!("Gave {} a new password and ended all sessions", user.username);
                    let actor = Actor::system("cli.user_reset_password");
                    let entry = Entry::new(&actor, "user:password_reset", now, reason);
                    tx.audit(entry.risk(RiskLevel::High));
                    session::revoke_all(tx, &user.id, None, now).await?;
                    refresh_token::use_up_user(tx, &user.id, now).await?;
                    login_attempt::clear(tx, &name).await.map(drop)
                })
            })
            .await?;
        self.tickets.purge_user(&id);
        tracing::info!(target: "auth", user_id = %id, "auth.password_reset");
        Ok(id)
    }
}
