//! The signing secret: from the environment, else from the store, else made and stored.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use quarterdeck_domain::clock::{SharedClock, random_bytes};
use quarterdeck_domain::{Error, Result};
use quarterdeck_store::audit::AuditKey;
use quarterdeck_store::{Store, setting};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use crate::config::{MIN_SECRET_CHARS, validate_secret};

/// Where the made secret lives; hidden from the settings API because no setting is defined there.
const NAMESPACE: &str = "auth";
const KEY: &str = "jwt_secret";

/// The secret behind every signature and keyed hash; at least 32 characters.
#[derive(Clone)]
pub struct JwtSecret {
    text: Arc<SecretString>,
    /// The hash with the key already mixed in: hashing on the hot path begins at the message.
    keyed: Hmac<Sha256>,
}

impl JwtSecret {
    /// Checks the length.
    ///
    /// # Errors
    /// A sentence with the rule when the text is shorter than 32 characters.
    pub fn new(text: SecretString) -> Result<Self, String> {
        validate_secret(&text)?;
        if text.expose_secret().is_empty() {
            return Err(format!("the signing secret must have at least {MIN_SECRET_CHARS} characters"));
        }
        let keyed = Hmac::new_from_slice(text.expose_secret().as_bytes())
            .map_err(|_| "the signing secret cannot be used as a key".to_owned())?;
        Ok(Self { text: Arc::new(text), keyed })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.text.expose_secret().as_bytes()
    }

    /// HMAC-SHA256 of a raw credential.
    pub(crate) fn digest(&self, raw: &str) -> [u8; 32] {
        let mut mac = self.keyed.clone();
        mac.update(raw.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// The same as lower-case hex: the form API keys and refresh tokens are stored in.
    pub(crate) fn hash(&self, raw: &str) -> String {
        hex(&self.digest(raw))
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl std::fmt::Debug for JwtSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JwtSecret(********)")
    }
}

/// Finds the signing secret: `configured` if not blank, else the stored one, else a new one, stored.
/// Of two programs that start together both end with the same.
///
/// # Errors
/// When the configured secret is too short or the store fails.
pub async fn resolve_secret(
    store: &Store,
    clock: &SharedClock,
    configured: &SecretString,
) -> Result<JwtSecret> {
    let configured = configured.expose_secret().trim();
    if !configured.is_empty() {
        return JwtSecret::new(configured.into()).map_err(|_| {
            Error::internal(format_args!(
                "QUARTERDECK_JWT_SECRET must have at least {MIN_SECRET_CHARS} characters"
            ))
        });
    }
    if let Some(stored) = usable(setting::get(store.read(), NAMESPACE, KEY).await?) {
        return JwtSecret::new(stored).map_err(Error::internal);
    }
    let made = SecretString::from(URL_SAFE_NO_PAD.encode(random_bytes::<48>()));
    let now = clock.now();
    let kept = store
        .write(move |tx| {
            Box::pin(async move {
                tx.lock("quarterdeck.jwt_secret").await?;
                if let Some(stored) = usable(setting::get(&**tx, NAMESPACE, KEY).await?) {
                    return Ok(stored);
                }
                setting::put(tx, NAMESPACE, KEY, made.expose_secret(), now).await?;
                Ok(made)
            })
        })
        .await?;
    JwtSecret::new(kept).map_err(Error::internal)
}

/// What audit entries are signed with, when the secret is known: `configured`, or stored by an earlier start.
///
/// # Errors
/// The store's own.
pub async fn audit_key(store: &Store, configured: &SecretString) -> Result<Option<AuditKey>> {
    let configured = configured.expose_secret().trim();
    let known = match configured.is_empty() {
        true => stored_secret(store).await?,
        false => Some(SecretString::from(configured)),
    };
    Ok(known.map(|secret| AuditKey::derive(secret.expose_secret().as_bytes())))
}

/// The stored secret, without asking for one to be made; for the command line next to a server.
///
/// # Errors
/// When the store fails.
pub async fn stored_secret(store: &Store) -> Result<Option<SecretString>> {
    Ok(usable(setting::get(store.read(), NAMESPACE, KEY).await?))
}

fn usable(row: Option<setting::Row>) -> Option<SecretString> {
    let row = row?;
    let text = row.value.trim();
    if text.chars().count() >= MIN_SECRET_CHARS {
        return Some(text.into());
    }
    tracing::warn!(target: "auth", "auth.secret.stored_too_short");
    None
}
