//! Managing accounts: making, ranking and deleting them.

use std::sync::Arc;

use quarterdeck_domain::approval::RiskLevel;
use quarterdeck_domain::audit::{Actor, Entry};
use quarterdeck_domain::role::{HumanRole, OrgRole};
use quarterdeck_domain::text::NotBlank;
use quarterdeck_domain::user::{SYSTEM_USER, User, is_reserved_name};
use quarterdeck_domain::{Error, Result};
use quarterdeck_store::{Tx, refresh_token, session, user};
use serde_json::json;

use crate::{Auth, MAX_NAME, Password};

impl Auth {
    /// Makes an account whose owner must change the password.
    ///
    /// # Errors
    /// 422/2000 for role `system` or a short password; 409/4000 for a reserved or taken name or a
    /// second CEO.
    pub async fn create_user(
        self: &Arc<Self>,
        actor: &Actor,
        username: NotBlank<MAX_NAME>,
        password: Password,
        role: HumanRole,
    ) -> Result<User> {
        not_system_role(role)?;
        self.check_length(&password).map_err(|rule| Error::rule(format!("The password {rule}")))?;
        if is_reserved_name(&username) {
            return Err(Error::conflict("Username is reserved"));
        }
        let user = self.new_user(username, &password, role, Vec::new(), true).await?;
        let reason = format!("Made the account {} ({role})", user.username);
        let entry = Entry::new(actor, "user:create", self.clock.now(), reason)
            .risk(risk_of(role))
            .arguments(&json!({"username": &user.username, "role": role}));
        let row = user.clone();
        self.store
            .write(move |tx| {
                Box::pin(async move {
                    user::insert(tx, &row).await?;
                    tx.audit(entry);
                    Ok(())
                })
            })
            .await?;
        tracing::info!(target: "auth", user_id = %user.id, actor = &*actor.id, "user.created");
        Ok(user)
    }

    /// People, oldest first, and how many there are; never the system user.
    pub async fn users(&self, offset: u64, limit: u64) -> Result<(Vec<User>, u64)> {
        user::page(self.store.read(), offset, limit).await
    }

    /// Whether the first account is still missing.
    pub async fn needs_setup(&self) -> Result<bool> {
        Ok(user::count_role(self.store.read(), HumanRole::Ceo).await? == 0)
    }

    /// One account.
    ///
    /// # Errors
    /// 404/3000 when there is none.
    pub async fn user(&self, id: &str) -> Result<User> {
        user::by_id(self.store.read(), id).await?.ok_or_else(|| Error::missing("User", id))
    }

    /// Sets a role; it counts from the user's next request on.
    ///
    /// # Errors
    /// 422/2000 for role `system`, 404/3000, 409/4000 for the system user, when the only CEO would lose
    /// the role and when a second would gain it.
    pub async fn set_role(self: &Arc<Self>, actor: &Actor, id: &str, role: HumanRole) -> Result<User> {
        not_system_role(role)?;
        let (now, by) = (self.clock.now(), actor.clone());
        self.change(actor, id, "role", move |tx, user| {
            Box::pin(async move {
                not_system_user(user)?;
                if user.role != role {
                    user::set_role(tx, &user.id, role, now).await?;
                    let User { id, username, role: before, .. } = user;
                    let reason = format!("Changed the role of {username} from {before} to {role}");
                    let entry = Entry::new(&by, "user:role_change", now, reason);
                    tx.audit(entry.risk(risk_of(role)).arguments(&json!({"user_id": id, "role": role})));
                }
                Ok(())
            })
        })
        .await
    }

    /// Hands the CEO role over: the caller becomes manager, the other one CEO, in one step.
    ///
    /// # Errors
    /// 404/3000, 409/4000 for the system user and for oneself.
    pub async fn transfer_ceo(self: &Arc<Self>, actor: &Actor, id: &str) -> Result<User> {
        let (now, by) = (self.clock.now(), actor.clone());
        let user = self.change(actor, id, "transfer_ceo", move |tx, user| {
            Box::pin(async move {
                not_system_user(user)?;
                if *user.id == *by.id {
                    return Err(Error::conflict("The CEO role cannot be handed to its holder"));
                }
                let holder = user::lock(tx, &by.id).await?.filter(|u| u.role == HumanRole::Ceo);
                if holder.is_none() {
                    return Err(Error::conflict("Only the CEO can hand the role over"));
                }
                user::transfer_ceo(tx, &by.id, &user.id, now).await?;
                let reason = format!("Handed the CEO role over to {}", user.username);
                let entry = Entry::new(&by, "user:ceo_transfer", now, reason);
                tx.audit(entry.risk(RiskLevel::Critical).arguments(&json!({"user_id": user.id})));
                Ok(())
            })
        });
        let user = user.await?;
        self.tickets.purge_user(&actor.id);
        Ok(user)
    }

    /// Grants an organisation role.
    ///
    /// # Errors
    /// 404/3000; 422/2000 for the system user and for departments that do not go with the role;
    /// 409/4000 when already held.
    pub async fn grant_org_role(
        self: &Arc<Self>,
        actor: &Actor,
        id: &str,
        role: OrgRole,
        departments: Vec<String>,
    ) -> Result<User> {
        let (now, by) = (self.clock.now(), actor.clone());
        self.change(actor, id, "grant_org_role", move |tx, user| {
            Box::pin(async move {
                if user.is_system() {
                    return Err(Error::rule("The system user holds no organisation roles"));
                }
                if user.org_roles.contains(&role) {
                    return Err(Error::conflict(format!("User already holds the role '{role}'")));
                }
                match (role, departments.is_empty()) {
                    (OrgRole::DepartmentAdmin, true) => {
                        return Err(Error::rule("department_admin needs scoped_departments"));
                    }
                    (OrgRole::DepartmentAdmin, false) | (_, true) => {}
                    (_, false) => {
                        return Err(Error::rule("scoped_departments go with department_admin only"));
                    }
                }
                let mut roles = user.org_roles.clone();
                roles.push(role);
                roles.sort();
                let arguments = json!({"user_id": user.id, "role": role, "scoped_departments": departments});
                let mut scoped = [user.scoped_departments.clone(), departments].concat();
                scoped.sort();
                scoped.dedup();
                user::set_org_roles(tx, &user.id, &roles, &scoped, now).await?;
                let reason = format!("Granted {} the organisation role {role}", user.username);
                let entry = Entry::new(&by, "user:org_role_grant", now, reason);
                tx.audit(entry.risk(RiskLevel::Medium).arguments(&arguments));
                Ok(())
            })
        })
        .await
    }

    /// Takes an organisation role back.
    ///
    /// # Errors
    /// 404/3000 for an unknown user and for a role not held; 409/4000 for the last owner.
    pub async fn revoke_org_role(self: &Arc<Self>, actor: &Actor, id: &str, role: OrgRole) -> Result<()> {
        let (now, by) = (self.clock.now(), actor.clone());
        self.change(actor, id, "revoke_org_role", move |tx, user| {
            Box::pin(async move {
                if !user.org_roles.contains(&role) {
                    return Err(Error::missing("Organisation role", role.as_str()));
                }
                let roles: Vec<_> = user.org_roles.iter().copied().filter(|held| *held != role).collect();
                let scoped = match role {
                    OrgRole::DepartmentAdmin => &[][..],
                    _ => &user.scoped_departments,
                };
                user::set_org_roles(tx, &user.id, &roles, scoped, now).await?;
                let reason = format!("Took the organisation role {role} from {}", user.username);
                let entry = Entry::new(&by, "user:org_role_revoke", now, reason);
                tx.audit(entry.risk(RiskLevel::Medium).arguments(&json!({"user_id": user.id, "role": role})));
                Ok(())
            })
        })
        .await
        .map(drop)
    }

    /// Deletes an account with everything that proves it: sessions, keys, tokens, tickets.
    ///
    /// # Errors
    /// 404/3000; 409/4000 for oneself, the system user, the CEO and the last owner.
    pub async fn delete_user(self: &Arc<Self>, actor: &Actor, id: &str) -> Result<()> {
        let (by, target, now) = (actor.clone(), id.to_owned(), self.clock.now());
        let outcome = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let user =
                        user::lock(tx, &target).await?.ok_or_else(|| Error::missing("User", &target))?;
                    if *user.id == *by.id {
                        return Err(Error::conflict("Users cannot delete themselves"));
                    }
                    not_system_user(&user)?;
                    if user.role == HumanRole::Ceo {
                        return Err(Error::conflict("The CEO cannot be deleted"));
                    }
                    refresh_token::use_up_user(tx, &user.id, now).await?;
                    session::revoke_all(tx, &user.id, None, now).await?;
                    let deleted = user::delete(tx, &user.id, now).await?;
                    let reason = format!("Deleted the account {} ({})", user.username, user.role);
                    let entry = Entry::new(&by, "user:delete", now, reason);
                    tx.audit(entry.risk(RiskLevel::High).arguments(&json!({"user_id": user.id})));
                    Ok(deleted)
                })
            })
            .await;
        match outcome {
            Ok(_) => {
                self.tickets.purge_user(id);
                tracing::info!(target: "auth", user_id = id, actor = %actor.id, "user.deleted");
                Ok(())
            }
            Err(error) => {
                tracing::warn!(target: "auth", user_id = id, actor = %actor.id, error = %error, "user.delete_failed");
                Err(error)
            }
        }
    }

    /// Runs one change on a user that no other change can interleave with; the user afterwards.
    async fn change<F>(
        self: &Arc<Self>,
        actor: &Actor,
        id: &str,
        intent: &'static str,
        job: F,
    ) -> Result<User>
    where
        F: for<'c> FnOnce(&'c Tx, &'c User) -> futures_util::future::BoxFuture<'c, Result<()>>
            + Send
            + 'static,
    {
        let target = id.to_owned();
        let user = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let found = user::lock(tx, &target).await?;
                    let user = found.ok_or_else(|| Error::missing("User", &target))?;
                    job(tx, &user).await?;
                    user::by_id(&**tx, &target).await?.ok_or_else(|| Error::missing("User", &target))
                })
            })
            .await?;
        self.tickets.purge_user(id);
        tracing::info!(target: "auth", user_id = id, intent, actor = &*actor.id, "user.updated");
        Ok(user)
    }
}

/// What is at stake when somebody gets this role.
fn risk_of(role: HumanRole) -> RiskLevel {
    match role {
        HumanRole::Ceo | HumanRole::Manager => RiskLevel::High,
        _ => RiskLevel::Medium,
    }
}

fn not_system_role(role: HumanRole) -> Result<()> {
    if role == HumanRole::System { Err(Error::rule("The role 'system' cannot be assigned")) } else { Ok(()) }
}

fn not_system_user(user: &User) -> Result<()> {
    if user.id == SYSTEM_USER { Err(Error::conflict("The system user cannot be modified")) } else { Ok(()) }
}
