//! Tokens: JWS in compact form (RFC 7515) with HMAC (RFC 7518 §3.2), and nothing else.
//!
//! One algorithm, fixed by configuration, is accepted; there is no negotiation to confuse.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use quarterdeck_domain::user::{CLI_AUDIENCE, CLI_ISSUER, CLI_TOKEN_SECONDS, SYSTEM_USER, User};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

use crate::JwtSecret;
use crate::config::JwtAlgorithm;

/// Issuer and audience of user tokens; accepted absent, refused when different.
pub(crate) const USER_ISSUER: &str = "quarterdeck-api";
/// How far a token's birth may lie in the future: clocks of hosts and containers differ.
const FUTURE_SECONDS: i64 = 30;
/// Longest lifetime of a system token that is believed.
const MAX_SYSTEM_SECONDS: i64 = 120;
/// Longer tokens are refused unread.
const MAX_TOKEN_BYTES: usize = 8192;

/// What a token says. Only `sub`, `jti` and the times are ever believed, and `sub` only to find the
/// stored user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// User id.
    pub sub: String,
    /// Session id.
    pub jti: String,
    /// Birth, seconds since 1970.
    pub iat: i64,
    /// End, seconds since 1970.
    pub exp: i64,
    /// Not valid before, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// Issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// Audience; a list is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// Start of the hash of the stored password hash: a changed password ends every older token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pwd_sig: Option<String>,
}

#[derive(Serialize)]
struct Minted<'a> {
    #[serde(flatten)]
    claims: Claims,
    username: &'a str,
    role: &'a str,
    must_change_password: bool,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
    crit: Option<serde::de::IgnoredAny>,
}

#[derive(Clone)]
enum Keyed {
    Hs256(Hmac<Sha256>),
    Hs384(Hmac<Sha384>),
    Hs512(Hmac<Sha512>),
}

/// Signs and verifies tokens with one secret and one algorithm.
#[derive(Clone)]
pub struct Signer {
    keyed: Arc<Keyed>,
    algorithm: &'static str,
    /// The header of every token of ours, encoded; one comparison replaces parsing it.
    header: Arc<str>,
}

impl Signer {
    /// A signer for the configured algorithm.
    pub fn new(secret: &JwtSecret, algorithm: JwtAlgorithm) -> Self {
        // HMAC takes a key of any length, so this cannot fail.
        fn key<M: KeyInit>(bytes: &[u8]) -> M {
            M::new_from_slice(bytes).unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"))
        }
        let (keyed, algorithm) = match algorithm {
            JwtAlgorithm::HS256 => (Keyed::Hs256(key(secret.bytes())), "HS256"),
            JwtAlgorithm::HS384 => (Keyed::Hs384(key(secret.bytes())), "HS384"),
            JwtAlgorithm::HS512 => (Keyed::Hs512(key(secret.bytes())), "HS512"),
        };
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#));
        Self { keyed: Arc::new(keyed), algorithm, header: header.into() }
    }

    /// A token for a user's session.
    ///
    /// # Panics
    /// For the system user, who never has a session: a programming error.
    pub fn mint(&self, user: &User, session_id: &str, now: DateTime<Utc>, seconds: i64) -> String {
        assert!(!user.is_system(), "the system user has no sessions");
        let claims = Claims {
            sub: user.id.clone(),
            jti: session_id.to_owned(),
            iat: now.timestamp(),
            exp: now.timestamp() + seconds,
            nbf: None,
            iss: Some(USER_ISSUER.to_owned()),
            aud: Some(USER_ISSUER.to_owned()),
            pwd_sig: Some(password_signature(&user.password_hash)),
        };
        self.sign(&Minted {
            claims,
            username: &user.username,
            role: user.role.as_str(),
            must_change_password: user.must_change_password,
        })
    }

    /// A token for one request of the command line; valid for 60 seconds.
    pub fn mint_for_cli(&self, now: DateTime<Utc>) -> String {
        self.sign(&Claims {
            sub: SYSTEM_USER.to_owned(),
            jti: uuid::Uuid::new_v4().simple().to_string(),
            iat: now.timestamp(),
            exp: now.timestamp() + CLI_TOKEN_SECONDS,
            nbf: None,
            iss: Some(CLI_ISSUER.to_owned()),
            aud: Some(CLI_AUDIENCE.to_owned()),
            pwd_sig: None,
        })
    }

    fn sign(&self, claims: &impl Serialize) -> String {
        let payload = serde_json::to_vec(claims).unwrap_or_default();
        let mut token = String::with_capacity(self.header.len() + payload.len() * 2 + 96);
        token.push_str(&self.header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut token);
        let signature = self.mac(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_slice(), &mut token);
        token
    }

    fn mac(&self, message: &[u8]) -> Tag {
        fn tag<M: Mac + Clone>(keyed: &M, message: &[u8]) -> Tag {
            let mut mac = keyed.clone();
            mac.update(message);
            Tag::new(&mac.finalize().into_bytes())
        }
        match &*self.keyed {
            Keyed::Hs256(keyed) => tag(keyed, message),
            Keyed::Hs384(keyed) => tag(keyed, message),
            Keyed::Hs512(keyed) => tag(keyed, message),
        }
    }

    /// What the token says, if it is ours and its time is now. `None` for every other reason alike.
    pub fn verify(&self, token: &str, now: DateTime<Utc>) -> Option<Claims> {
        let claims = self.verify_ignoring_expiry(token)?;
        let now = now.timestamp();
        let in_time =
            claims.exp > now && claims.iat <= now + FUTURE_SECONDS && claims.nbf.is_none_or(|n| n <= now);
        in_time.then_some(claims)
    }

    /// As [`verify`](Self::verify), but takes a token whose time has passed.
    pub fn verify_ignoring_expiry(&self, token: &str) -> Option<Claims> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let (message, signature) = token.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        if *header != *self.header && !self.accepts(header) {
            return None;
        }
        let mut shown = [0_u8; 66];
        let length = URL_SAFE_NO_PAD.decode_slice(signature, &mut shown).ok()?;
        if !bool::from(shown.get(..length)?.ct_eq(self.mac(message.as_bytes()).as_slice())) {
            return None;
        }
        let claims: Claims = object(payload)?;
        let sound = !claims.sub.is_empty() && !claims.jti.is_empty() && claims.iat < claims.exp;
        sound.then_some(claims)
    }

    /// Whether a header in another spelling than ours names our algorithm and demands nothing more.
    fn accepts(&self, header: &str) -> bool {
        object::<Header>(header).is_some_and(|h| {
            h.alg == self.algorithm && h.crit.is_none() && h.typ.is_none_or(|t| t.eq_ignore_ascii_case("jwt"))
        })
    }
}

/// What an encoded JSON object says; serde alone would read an array as a struct, too.
fn object<T: DeserializeOwned>(encoded: &str) -> Option<T> {
    let json = URL_SAFE_NO_PAD.decode(encoded).ok()?;
    if json.trim_ascii_start().starts_with(b"{") { serde_json::from_slice(&json).ok() } else { None }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// A message authentication code of up to 64 bytes, without a heap.
struct Tag {
    bytes: [u8; 64],
    length: usize,
}

impl Tag {
    fn new(code: &[u8]) -> Self {
        let mut bytes = [0; 64];
        let length = code.len().min(64);
        bytes[..length].copy_from_slice(&code[..length]);
        Self { bytes, length }
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// First 16 hex characters of SHA-256 over the stored password hash.
pub(crate) fn password_signature(password_hash: &str) -> String {
    Sha256::digest(password_hash.as_bytes())[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks the claims that only a system token has.
///
/// # Errors
/// The reason for the log.
pub(crate) fn check_system(claims: &Claims) -> Result<(), &'static str> {
    if claims.iss.as_deref() != Some(CLI_ISSUER) {
        return Err("system_token_wrong_issuer");
    }
    if claims.aud.as_deref() != Some(CLI_AUDIENCE) {
        return Err("system_token_wrong_audience");
    }
    if claims.exp.saturating_sub(claims.iat) > MAX_SYSTEM_SECONDS {
        return Err("system_token_too_long");
    }
    Ok(())
}

/// Checks the claims of a person's token against the stored user.
///
/// # Errors
/// The reason for the log.
pub(crate) fn check_user(claims: &Claims, signature: &str) -> Result<(), &'static str> {
    let ours = |claim: &Option<String>| claim.as_deref().is_none_or(|value| value == USER_ISSUER);
    if !ours(&claims.iss) || !ours(&claims.aud) {
        return Err("jwt_invalid");
    }
    let shown = claims.pwd_sig.as_deref().unwrap_or_default();
    if bool::from(shown.as_bytes().ct_eq(signature.as_bytes())) {
        Ok(())
    } else {
        Err("password_changed_since_token_issued")
    }
}

#[cfg(test)]
mod tests;
