//! API keys: random, shown once, stored as a keyed hash.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use quarterdeck_domain::approval::RiskLevel;
use quarterdeck_domain::audit::{Actor, Entry};
use quarterdeck_domain::identity::{AuthMethod, Identity};
use quarterdeck_domain::role::HumanRole;
use quarterdeck_domain::text::NotBlank;
use quarterdeck_domain::user::ApiKey;
use quarterdeck_domain::{Error, Result};
use quarterdeck_store::{api_key, user};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::login::{gone, random_token};
use crate::{Auth, MAX_NAME};

/// Live keys one user may hold.
const MAX_LIVE: u64 = 50;

/// What a new key shall be.
pub struct NewKey {
    /// Name for its owner.
    pub name: NotBlank<MAX_NAME>,
    /// Highest role it acts with.
    pub role: HumanRole,
    /// Last instant it is valid.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A key with its secret, which is nowhere else.
pub struct IssuedKey {
    /// The stored part.
    pub key: ApiKey,
    /// 43 URL-safe characters.
    pub raw: SecretString,
}

impl Auth {
    /// Issues a key to the caller.
    ///
    /// # Errors
    /// 403/1001 without a session or for a role above the caller's; 422/2000 for an end that is not in
    /// the future; 409/4000 with too many live keys.
    pub async fn issue_key(
        self: &Arc<Self>,
        caller: &Identity,
        actor: &Actor,
        wanted: NewKey,
    ) -> Result<IssuedKey> {
        if caller.auth_method != AuthMethod::Jwt {
            return Err(Error::forbidden("API keys can be issued to a signed-in user only"));
        }
        if wanted.role == HumanRole::System || wanted.role > caller.role {
            return Err(Error::forbidden("An API key cannot have a higher role than its owner"));
        }
        let now = self.clock.now();
        if wanted.expires_at.is_some_and(|end| end <= now) {
            return Err(Error::rule("expires_at must be in the future"));
        }
        let raw = SecretString::from(random_token());
        let hash = self.secret.hash(raw.expose_secret());
        let key = ApiKey {
            id: uuid::Uuid::new_v4().to_string(),
            name: wanted.name.into_inner(),
            role: wanted.role,
            user_id: caller.user_id.to_string(),
            created_at: now,
            expires_at: wanted.expires_at,
            revoked: false,
        };
        let reason = format!("Issued the API key {} with the role {}", key.id, key.role);
        let entry = Entry::new(actor, "key:issue", now, reason)
            .risk(RiskLevel::Medium)
            .arguments(&json!({"name": key.name, "role": key.role, "expires_at": key.expires_at}));
        let row = key.clone();
        self.store
            .write(move |tx| {
                Box::pin(async move {
                    user::lock(tx, &row.user_id).await?.ok_or_else(gone)?;
                    if api_key::count_live(&**tx, &row.user_id, now).await? >= MAX_LIVE {
                        return Err(Error::conflict(format!(
                            "A user holds at most {MAX_LIVE} live API keys"
                        )));
                    }
                    api_key::insert(tx, &row, &hash).await?;
                    tx.audit(entry);
                    Ok(())
                })
            })
            .await?;
        tracing::info!(target: "auth", key_id = %key.id, role = %key.role, user_id = %key.user_id, "api_key.issued");
        Ok(IssuedKey { key, raw })
    }

    /// The caller's keys, revoked ones included, newest first.
    pub async fn keys(&self, caller: &Identity) -> Result<Vec<ApiKey>> {
        api_key::of_user(self.store.read(), &caller.user_id).await
    }

    /// Takes a key back. Doing it again is fine.
    ///
    /// # Errors
    /// 404/3000 alike for an unknown key and, unless the caller is the CEO, for somebody else's.
    pub async fn revoke_key(self: &Arc<Self>, caller: &Identity, actor: &Actor, id: &str) -> Result<()> {
        let found = api_key::by_id(self.store.read(), id).await?;
        let visible = found.filter(|k| *k.user_id == *caller.user_id || caller.role == HumanRole::Ceo);
        let key = visible.ok_or_else(|| Error::missing("API key", id))?;
        let key_id = key.id.clone();
        let reason = format!("Revoked the API key {} with the role {}", key.id, key.role);
        let entry =
            Entry::new(actor, "key:revoke", self.clock.now(), reason).arguments(&json!({"key_id": key.id}));
        let revoked = self.store.write(move |tx| {
            Box::pin(async move {
                let revoked = api_key::revoke(tx, &key_id).await?;
                if revoked {
                    tx.audit(entry);
                }
                Ok(revoked)
            })
        });
        if revoked.await? {
            tracing::info!(target: "auth", key_id = %key.id, role = %key.role, user_id = %key.user_id, "api_key.revoked");
        }
        Ok(())
    }
}
