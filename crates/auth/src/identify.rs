//! From a credential to an identity. Nothing here asks the store once the caches are warm.

use std::sync::Arc;

use quarterdeck_domain::identity::{AuthMethod, Identity};
use quarterdeck_domain::{Error, ErrorCode, Result};
use quarterdeck_store::{api_key, micros};

use crate::hot::{Account, Proof};
use crate::secret::hex;
use crate::{Auth, jwt};

/// What a request shows to prove who sends it.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// Value of the session cookie, if the request has one.
    pub cookie: Option<&'a str>,
    /// Value of the `Authorization` header; `Err` when there is more than one or it is no text.
    pub authorization: Option<Result<&'a str, ()>>,
}

impl Auth {
    /// Proves who calls: the session cookie first, then the bearer token, which is a JWT when it holds
    /// a dot and an API key otherwise.
    ///
    /// # Errors
    /// 401/1002 for the token of a revoked session, 401/1000 otherwise; the reason is in
    /// [`Error::reason`] and goes to the log only. Failures of the store stay what they are.
    pub async fn identify(&self, shown: Credentials<'_>) -> Result<Arc<Identity>> {
        let cookie = shown.cookie.filter(|value| !value.is_empty());
        let mut cookie_error = None;
        if let Some(token) = cookie {
            match self.identify_jwt(token, true).await {
                Ok(identity) => return Ok(identity),
                Err(error) if error.status() != 401 => return Err(error),
                Err(error) => {
                    tracing::warn!(target: "auth", reason = "cookie_jwt_invalid", cause = error.reason(), "auth.failed");
                    cookie_error = Some(error);
                }
            }
        }
        let Some(authorization) = shown.authorization else {
            return Err(match cookie_error {
                Some(error) => worded(error, "Invalid session cookie"),
                None => worded(unauthorized("missing_authentication"), "Missing authentication"),
            });
        };
        let Some(token) = authorization.ok().and_then(bearer) else {
            return Err(worded(unauthorized("invalid_scheme"), "Invalid authorization scheme"));
        };
        if token.contains('.') {
            self.identify_jwt(token, false).await.map_err(|error| worded(error, "Invalid JWT token"))
        } else {
            self.identify_key(token).await.map_err(|error| worded(error, "Invalid credentials"))
        }
    }

    async fn identify_jwt(&self, token: &str, from_cookie: bool) -> Result<Arc<Identity>> {
        let now = self.clock.now();
        let mark = self.hot.mark();
        if let Some(proof) = self.hot.proven_token(token, mark)
            && proof.valid.contains(&micros(now))
        {
            self.not_revoked(proof.identity.session_id.as_deref().unwrap_or_default()).await?;
            return Ok(Arc::clone(&proof.identity));
        }
        let claims = self.signer.verify(token, now).ok_or_else(|| unauthorized("jwt_invalid"))?;
        self.not_revoked(&claims.jti).await?;
        let account =
            self.hot.account(&claims.sub).await?.ok_or_else(|| unauthorized("jwt_user_not_found"))?;
        let mut identity = identity(&account, AuthMethod::Jwt);
        identity.session_id = Some(claims.jti.as_str().into());
        let identity = Arc::new(identity);
        if account.is_system {
            if from_cookie {
                return Err(unauthorized("system_token_in_cookie"));
            }
            jwt::check_system(&claims).map_err(unauthorized)?;
        } else {
            jwt::check_user(&claims, &account.password_signature).map_err(unauthorized)?;
            // Good as long as the token itself; every change of users, a new password among them,
            // begins an epoch and has it proven again.
            let valid = seconds(claims.nbf.unwrap_or_default())..=seconds(claims.exp) - 1;
            self.hot.remember_token(token, mark, Proof::new(Arc::clone(&identity), valid));
        }
        Ok(identity)
    }

    async fn not_revoked(&self, session_id: &str) -> Result<()> {
        match self.hot.is_revoked(session_id).await? {
            true => Err(Error::new(ErrorCode::SessionRevoked).because("session_revoked")),
            false => Ok(()),
        }
    }

    async fn identify_key(&self, raw: &str) -> Result<Arc<Identity>> {
        let digest = self.secret.digest(raw);
        let now = self.clock.now();
        let mark = self.hot.mark();
        let proof = match self.hot.proven_key(&digest, mark) {
            Some(proof) => proof,
            None => {
                let proof = Arc::new(self.prove_key(&digest).await?);
                self.hot.remember_key(digest, mark, Arc::clone(&proof));
                proof
            }
        };
        if !proof.valid.contains(&micros(now)) {
            return Err(unauthorized("api_key_expired"));
        }
        self.hot.touch(&proof, micros(now));
        Ok(Arc::clone(&proof.identity))
    }

    async fn prove_key(&self, digest: &[u8; 32]) -> Result<Proof> {
        let found = api_key::by_hash(self.store.read(), &hex(digest)).await?;
        let key = found.ok_or_else(|| unauthorized("api_key_not_found"))?;
        if key.revoked {
            return Err(unauthorized("api_key_revoked"));
        }
        let Some(owner) = self.hot.account(&key.user_id).await? else {
            tracing::error!(target: "auth", reason = "api_key_orphaned", key_id = %key.id, "auth.failed");
            return Err(unauthorized("api_key_orphaned"));
        };
        let mut identity = identity(&owner, AuthMethod::ApiKey);
        // A key never outlives its owner's rank.
        identity.role = key.role.min(owner.role);
        identity.api_key_id = Some(key.id.into());
        let last = key.expires_at.map_or(i64::MAX, micros);
        Ok(Proof::new(Arc::new(identity), i64::MIN..=last))
    }

    /// The caller as they are now, for a credential that was checked a while ago.
    ///
    /// # Errors
    /// 401 when the user is gone, the session or key was revoked or the password changed since.
    pub async fn recheck(&self, before: &Identity) -> Result<Identity> {
        if let Some(session) = &before.session_id {
            self.not_revoked(session).await?;
        }
        let account =
            self.hot.account(&before.user_id).await?.ok_or_else(|| unauthorized("jwt_user_not_found"))?;
        let mut now = identity(&account, before.auth_method);
        now.session_id.clone_from(&before.session_id);
        if let Some(id) = &before.api_key_id {
            let key = api_key::by_id(self.store.read(), id).await?;
            let key = key.filter(|key| !key.revoked).ok_or_else(|| unauthorized("api_key_revoked"))?;
            if key.expires_at.is_some_and(|end| end < self.clock.now()) {
                return Err(unauthorized("api_key_expired"));
            }
            now.role = key.role.min(account.role);
            now.api_key_id = Some(Arc::clone(id));
        }
        Ok(now)
    }
}

/// Microseconds of a time in seconds; the ends of time stay where they are.
fn seconds(seconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000)
}

pub(crate) fn identity(account: &Account, auth_method: AuthMethod) -> Identity {
    Identity {
        user_id: account.id.clone(),
        username: account.username.clone(),
        role: account.role,
        auth_method,
        must_change_password: account.must_change_password,
        org_roles: account.org_roles.clone(),
        scoped_departments: account.scoped_departments.clone(),
        session_id: None,
        api_key_id: None,
    }
}

pub(crate) fn unauthorized(reason: &'static str) -> Error {
    Error::new(ErrorCode::Unauthorized).because(reason)
}

/// A refusal told in the words for its kind of credential; a revoked session keeps its own.
fn worded(error: Error, text: &'static str) -> Error {
    match error.code() {
        ErrorCode::Unauthorized => {
            Error::with(ErrorCode::Unauthorized, text).because(error.reason().unwrap_or("unauthorized"))
        }
        _ => error,
    }
}

/// The token of a `Bearer` header (RFC 6750 §2.1); the scheme in any case.
pub(crate) fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim_start().split_once(char::is_whitespace)?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
