//! Signing in and out, and the first account.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use quarterdeck_domain::approval::RiskLevel;
use quarterdeck_domain::audit::{Actor, Entry, STRANGER};
use quarterdeck_domain::clock::random_bytes;
use quarterdeck_domain::role::{HumanRole, OrgRole};
use quarterdeck_domain::text::NotBlank;
use quarterdeck_domain::user::{Session, User, is_reserved_name};
use quarterdeck_domain::{Error, ErrorCode, Result};
use quarterdeck_store::refresh_token::RefreshToken;
use quarterdeck_store::{Tx, login_attempt, refresh_token, session, user};
use secrecy::SecretString;

use crate::identify::unauthorized;
use crate::lockout::{self, Attempt, Lockout, Recorded};
use crate::{Auth, Credentials, Live, MAX_NAME, Password, identify};

/// Longest user agent that is stored, in characters.
const MAX_USER_AGENT: usize = 512;

/// The other end of a request, as sessions remember it.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// Address, or `unknown`.
    pub ip_address: String,
    /// What failures are counted by: the address, or its network where one host owns all of it.
    pub network: String,
    /// `User-Agent`; cut at 512 characters.
    pub user_agent: String,
    /// Id of the request.
    pub request_id: Option<Arc<str>>,
}

impl Client {
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.ip_address.parse().ok()
    }

    /// This user, at this end.
    pub(crate) fn actor(&self, id: &str, name: &str, operation: &'static str) -> Actor {
        let request_id = self.request_id.clone();
        Actor { id: id.into(), name: name.into(), operation, ip: self.ip(), request_id }
    }

    /// Somebody at this end who has not proved who they are.
    pub(crate) fn stranger(&self, operation: &'static str) -> Actor {
        self.actor(STRANGER, STRANGER, operation)
    }
}

/// A session that has just begun or moved on: what the cookies carry.
pub struct Issued {
    /// The JWT; for the session cookie only, never for a body.
    pub token: SecretString,
    /// For the cookie that scripts read.
    pub csrf: String,
    /// For the refresh cookie, when refresh is on.
    pub refresh: Option<SecretString>,
    /// Lifetime of the token in seconds.
    pub expires_in: i64,
    /// Who signed in.
    pub user: User,
    pub(crate) session_id: String,
    /// Older sessions that had to end for this one.
    ended: usize,
}

impl Issued {
    /// Tells the log of a session that has begun. For after the commit, as all such events: nothing is
    /// told that did not happen, and the caller's span names the request.
    pub(crate) fn log_begun(&self) {
        let (user_id, session) = (&self.user.id, short(&self.session_id));
        self.log_token();
        if self.ended > 0 {
            tracing::info!(target: "auth", user_id, count = self.ended, "session.limit_enforced");
        }
        tracing::info!(target: "auth", user_id, session, "session.created");
    }

    /// Tells the log of a token.
    pub(crate) fn log_token(&self) {
        let (user_id, username) = (&self.user.id, &self.user.username);
        tracing::info!(target: "auth", user_id, username, "auth.token_issued");
    }
}

impl Auth {
    /// Makes the first account, the CEO and owner, and signs it in.
    ///
    /// # Errors
    /// 400/2001 for a short password; 409/4000 for a reserved name or when a CEO exists: of racing
    /// callers one wins.
    pub async fn setup(
        self: &Arc<Self>,
        username: NotBlank<MAX_NAME>,
        password: Password,
        client: Client,
    ) -> Result<Issued> {
        self.short_password("/password", &password)?;
        if is_reserved_name(&username) {
            return Err(Error::conflict("Username is reserved").because("setup_reserved_username"));
        }
        let completed = || Error::conflict("Setup already completed");
        if user::count_role(self.store.read(), HumanRole::Ceo).await? > 0 {
            return Err(completed().because("setup_already_completed"));
        }
        let user = self.new_user(username, &password, HumanRole::Ceo, vec![OrgRole::Owner], false).await?;
        let auth = Arc::clone(self);
        let issued = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    user::insert(tx, &user).await.map_err(|error| match error.code() {
                        ErrorCode::ResourceConflict => error.because("setup_race_detected"),
                        _ => error,
                    })?;
                    let actor = client.actor(&user.id, &user.username, "auth.setup");
                    let reason = format!("Made the first account, {}, CEO and owner", user.username);
                    let entry = Entry::new(&actor, "auth:setup", auth.clock.now(), reason);
                    tx.audit(entry.risk(RiskLevel::High));
                    auth.open_session(tx, user, &client).await
                })
            })
            .await;
        let issued = match issued {
            Err(e)
                if e.code() == ErrorCode::ResourceConflict
                    && user::count_role(self.store.read(), HumanRole::Ceo).await? > 0 =>
            {
                return Err(completed().because("setup_race_detected"));
            }
            other => other?,
        };
        issued.log_begun();
        tracing::info!(target: "auth", user_id = %issued.user.id, username = %issued.user.username, "auth.setup_complete");
        Ok(issued)
    }

    /// Signs in with a name and a password.
    ///
    /// Whoever the caller claims to be, exactly one password verification at full cost is done.
    ///
    /// # Errors
    /// 401/1000 for every wrong pair alike; 429/1003 while the name is locked; 429/5000 for a network
    /// with too many failures; 503/8001 when too many passwords wait to be hashed.
    pub async fn login(
        self: &Arc<Self>,
        username: NotBlank<MAX_NAME>,
        password: Password,
        client: Client,
    ) -> Result<Issued> {
        let now = self.clock.now();
        self.check_network(&client.network, now).await?;
        let name = username.to_lowercase();
        let lock = self.locked_until(self.store.read(), &name, now).await?;
        let user = user::by_username(self.store.read(), &username).await?.filter(|user| !user.is_system());
        let candidate = user.filter(|_| lock.is_none());
        let hash = candidate.as_ref().map_or_else(|| self.hasher.dummy(), |user| &user.password_hash);
        let matches = self.hasher.verify(&password, hash).await?;
        if let Some(until) = lock {
            return Err(lockout::locked(until, now));
        }
        match candidate {
            Some(user) if matches => self.finish_login(user, name, &password, client).await,
            account => {
                let attempt = Attempt { name, account, client, operation: "auth.login" };
                Err(self.count_failure(attempt, invalid_credentials()).await?)
            }
        }
    }

    /// Stores one failure of a name and says what to answer.
    pub(crate) async fn count_failure(self: &Arc<Self>, attempt: Attempt, refusal: Error) -> Result<Error> {
        let (auth, now) = (Arc::clone(self), self.clock.now());
        let (username, account, ip) = (attempt.name.clone(), attempt.account.clone(), attempt.client.ip());
        let recorded = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let Attempt { name, client, .. } = &attempt;
                    let recorded = auth.record_failure(tx, name, &client.network, now).await?;
                    auth.record_attempt(tx, &attempt, &recorded, now).await?;
                    Ok(recorded)
                })
            })
            .await?;
        Ok(match recorded {
            Recorded::Counted => refusal,
            Recorded::Locks(until) => {
                let Live { lockout_threshold: threshold, lockout_duration_minutes, .. } = self.live();
                tracing::warn!(
                    target: "auth", username, threshold, duration_minutes = lockout_duration_minutes,
                    "auth.account_locked"
                );
                if let Some(User { username, role, .. }) = account {
                    self.tell_of_lockout(&Lockout { username, role, until, ip });
                }
                lockout::locked(until, now)
            }
            Recorded::Locked(until) => lockout::locked(until, now),
        })
    }

    async fn finish_login(
        self: &Arc<Self>,
        verified: User,
        name: String,
        password: &Password,
        client: Client,
    ) -> Result<Issued> {
        let new_hash = match self.hasher.is_outdated(&verified.password_hash) {
            true => Some(self.hasher.hash(password).await?),
            false => None,
        };
        let (auth, threshold) = (Arc::clone(self), u64::from(self.live().lockout_threshold));
        let (issued, failures) = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let now = auth.clock.now();
                    lockout::lock_name(tx, &name).await?;
                    // Guesses that ran in parallel may have locked the name meanwhile.
                    if let Some(until) = auth.locked_until(&**tx, &name, now).await? {
                        return Err(lockout::locked(until, now));
                    }
                    let Some(mut user) = user::lock(tx, &verified.id).await? else {
                        return Err(invalid_credentials());
                    };
                    if user.password_hash != verified.password_hash {
                        return Err(invalid_credentials());
                    }
                    if let Some(new_hash) = new_hash
                        && user::rehash(tx, &user.id, &user.password_hash, &new_hash).await?
                    {
                        user.password_hash = new_hash;
                    }
                    let failures = login_attempt::clear(tx, &name).await?;
                    let actor = client.actor(&user.id, &user.username, "auth.login");
                    tx.audit(Entry::new(&actor, "auth:login", now, "Signed in"));
                    Ok((auth.open_session(tx, user, &client).await?, failures))
                })
            })
            .await?;
        if failures >= threshold {
            tracing::info!(target: "auth", username = %issued.user.username, "auth.lockout_cleared");
        }
        issued.log_begun();
        Ok(issued)
    }

    /// A new account value; the caller stores it.
    pub(crate) async fn new_user(
        &self,
        username: NotBlank<MAX_NAME>,
        password: &Password,
        role: HumanRole,
        org_roles: Vec<OrgRole>,
        must_change_password: bool,
    ) -> Result<User> {
        let password_hash = self.hasher.hash(password).await?;
        let now = self.clock.now();
        Ok(User {
            id: uuid::Uuid::new_v4().to_string(),
            username: username.into_inner(),
            password_hash,
            role,
            must_change_password,
            org_roles,
            scoped_departments: Vec::new(),
            created_at: now,
            updated_at: now,
        })
    }

    /// Begins a session and keeps the user's number of sessions within the limit.
    pub(crate) async fn open_session(&self, tx: &Tx, user: User, client: &Client) -> Result<Issued> {
        let now = self.clock.now();
        let session_id = uuid::Uuid::new_v4().simple().to_string();
        let mut issued = self.issue(tx, user, session_id, client, now).await?;
        session::announce(tx, &issued.user.id, &issued.session_id, now);
        let limit = self.live().max_concurrent_sessions as usize;
        if limit > 0 {
            let (user_id, keep) = (&issued.user.id, &issued.session_id);
            issued.ended = session::enforce_limit(tx, user_id, limit, keep, now).await?.len();
        }
        Ok(issued)
    }

    /// Mints the credentials of a session and stores that it exists, or that it moved on.
    pub(crate) async fn issue(
        &self,
        tx: &Tx,
        user: User,
        session_id: String,
        client: &Client,
        now: DateTime<Utc>,
    ) -> Result<Issued> {
        let expires_in = self.jwt_expiry_seconds();
        let token = self.signer.mint(&user, &session_id, now, expires_in);
        let mut expires_at = now + TimeDelta::seconds(expires_in);
        let mut refresh = None;
        if self.config.jwt_refresh_enabled {
            let raw = random_token();
            let end = now + TimeDelta::minutes(i64::from(self.config.jwt_refresh_expiry_minutes));
            let row = RefreshToken {
                token_hash: self.secret.hash(&raw),
                session_id: session_id.clone(),
                user_id: user.id.clone(),
                expires_at: end,
                created_at: now,
            };
            refresh_token::insert(tx, &row).await?;
            // The session can come back until its refresh token ends; so must the memory of a revocation.
            expires_at = expires_at.max(end);
            refresh = Some(SecretString::from(raw));
        }
        let row = Session {
            session_id: session_id.clone(),
            user_id: user.id.clone(),
            username: user.username.clone(),
            role: user.role,
            ip_address: client.ip_address.clone(),
            user_agent: client.user_agent.chars().take(MAX_USER_AGENT).collect(),
            created_at: now,
            last_active_at: now,
            expires_at,
            revoked: false,
        };
        session::upsert(tx, &row).await?;
        let csrf = random_token();
        Ok(Issued { token: token.into(), csrf, refresh, expires_in, user, session_id, ended: 0 })
    }

    /// Ends the session of whatever valid token is shown. Says nothing about whether there was one.
    pub async fn logout(self: &Arc<Self>, shown: Credentials<'_>, client: Client) {
        let cookie = shown.cookie.and_then(|token| self.signer.verify_ignoring_expiry(token));
        let claims = cookie.or_else(|| {
            let header = shown.authorization?.ok()?;
            self.signer.verify_ignoring_expiry(identify::bearer(header)?)
        });
        let Some(claims) = claims else { return };
        if claims.sub == quarterdeck_domain::user::SYSTEM_USER {
            return;
        }
        self.tickets.purge_session(&claims.jti);
        let (user_id, session_id) = (claims.sub.clone(), claims.jti.clone());
        match self.end_session(claims, client).await {
            Ok(true) => tracing::info!(
                target: "auth", user_id, session = short(&session_id), revoked_by = "logout", "session.revoked"
            ),
            Ok(false) => {}
            Err(error) => tracing::error!(target: "auth", error = %error, "auth.logout.not_stored"),
        }
    }

    /// Whether the session of a token ended by this.
    async fn end_session(self: &Arc<Self>, claims: crate::Claims, client: Client) -> Result<bool> {
        let auth = Arc::clone(self);
        self.store
            .write(move |tx| {
                Box::pin(async move {
                    let now = auth.clock.now();
                    let Some(user) = user::lock(tx, &claims.sub).await? else { return Ok(false) };
                    let actor = client.actor(&user.id, &user.username, "auth.logout");
                    if session::by_id(&**tx, &claims.jti).await?.is_none() {
                        // A token without a row would outlive its logout; leave a tombstone.
                        let tombstone = Session {
                            session_id: claims.jti.clone(),
                            user_id: user.id.clone(),
                            username: user.username,
                            role: user.role,
                            ip_address: String::new(),
                            user_agent: String::new(),
                            created_at: now,
                            last_active_at: now,
                            expires_at: DateTime::from_timestamp(claims.exp, 0).unwrap_or(now),
                            revoked: false,
                        };
                        session::upsert(tx, &tombstone).await?;
                    }
                    let ended = session::revoke(tx, &claims.jti, now).await?;
                    if ended {
                        tx.audit(Entry::new(&actor, "auth:logout", now, "Signed out"));
                    }
                    Ok(ended)
                })
            })
            .await
    }
}

fn invalid_credentials() -> Error {
    Error::with(ErrorCode::Unauthorized, "Invalid credentials").because("invalid_credentials")
}

pub(crate) fn gone() -> Error {
    unauthorized("jwt_user_not_found")
}

/// 32 random bytes as 43 URL-safe characters: CSRF values, refresh tokens, API keys, tickets.
pub(crate) fn random_token() -> String {
    URL_SAFE_NO_PAD.encode(random_bytes::<32>())
}

/// As much of a session id as a log may hold.
pub(crate) fn short(session_id: &str) -> &str {
    session_id.get(..8).unwrap_or(session_id)
}
