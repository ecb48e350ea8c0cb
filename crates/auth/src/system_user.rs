//! The internal user the command line speaks as, and the first owner.

use std::sync::Arc;

use quarterdeck_domain::approval::RiskLevel;
use quarterdeck_domain::audit::{Actor, Entry};
use quarterdeck_domain::clock::random_bytes;
use quarterdeck_domain::role::{HumanRole, OrgRole};
use quarterdeck_domain::user::{SYSTEM_USER, User};
use quarterdeck_domain::{Error, Result};
use quarterdeck_store::user;

use crate::{Auth, Password};

impl Auth {
    /// Makes sure the system user exists. Its password is random and told to nobody.
    ///
    /// # Errors
    /// When the store fails; the start must not go on.
    pub async fn ensure_system_user(self: &Arc<Self>) -> Result<()> {
        if user::by_id(self.store.read(), SYSTEM_USER).await?.is_some() {
            tracing::debug!(target: "auth", action = "already_exists", user_id = SYSTEM_USER, "auth.system_user_ensured");
            return Ok(());
        }
        let unknowable: String = random_bytes::<64>().iter().map(|byte| format!("{byte:02x}")).collect();
        let password = Password::new(unknowable).map_err(Error::internal)?;
        let now = self.clock.now();
        let system = User {
            id: SYSTEM_USER.to_owned(),
            username: SYSTEM_USER.to_owned(),
            password_hash: self.hasher.hash(&password).await?,
            role: HumanRole::System,
            must_change_password: false,
            org_roles: Vec::new(),
            scoped_departments: Vec::new(),
            created_at: now,
            updated_at: now,
        };
        let created = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    // Of programs that start together, the later would find the name taken and not the id.
                    tx.lock("quarterdeck.system_user").await?;
                    user::insert_if_absent(tx, &system).await
                })
            })
            .await?;
        let action = if created { "created" } else { "already_exists" };
        tracing::info!(target: "auth", action, user_id = SYSTEM_USER, "auth.system_user_ensured");
        Ok(())
    }

    /// If nobody is an owner, the person who was here first becomes one.
    ///
    /// # Errors
    /// When the store fails; the start may go on.
    pub async fn ensure_owner(self: &Arc<Self>) -> Result<()> {
        let now = self.clock.now();
        let promoted = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    tx.lock("quarterdeck.first_owner").await?;
                    let Some(first) = user::first_person_without_owner(tx).await? else { return Ok(None) };
                    let mut roles = first.org_roles.clone();
                    roles.push(OrgRole::Owner);
                    roles.sort();
                    user::set_org_roles(tx, &first.id, &roles, &first.scoped_departments, now).await?;
                    let reason = format!("Nobody was an owner, so {} became one", first.username);
                    let actor = Actor::system("auth.first_owner");
                    let entry = Entry::new(&actor, "user:org_role_grant", now, reason);
                    tx.audit(entry.risk(RiskLevel::High));
                    Ok(Some(first.id))
                })
            })
            .await?;
        if let Some(user_id) = promoted {
            tracing::info!(target: "auth", %user_id, intent = "first_owner", "user.updated");
        }
        Ok(())
    }
}
