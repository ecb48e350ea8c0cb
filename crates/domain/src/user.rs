//! Accounts, their sessions and their API keys, as they are stored and shown.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::role::{HumanRole, OrgRole};
use crate::text;

/// Id and login name of the internal user the command line speaks as.
pub const SYSTEM_USER: &str = "system";
/// Issuer of the command line's tokens.
pub const CLI_ISSUER: &str = "quarterdeck-cli";
/// Audience of the command line's tokens.
pub const CLI_AUDIENCE: &str = "quarterdeck-backend";
/// Lifetime of the command line's tokens in seconds.
pub const CLI_TOKEN_SECONDS: i64 = 60;

/// Whether a login name is, or reads like, the internal user's.
pub fn is_reserved_name(username: &str) -> bool {
    text::fold(username) == SYSTEM_USER
}

/// An account. Has no `Serialize`: what leaves the server is built field by field.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// UUIDv4, or [`SYSTEM_USER`].
    pub id: String,
    /// Login name, matched exactly.
    pub username: String,
    /// Argon2id PHC string.
    pub password_hash: String,
    /// Human role.
    pub role: HumanRole,
    /// Only the way to a new password is open.
    pub must_change_password: bool,
    /// Organisation roles, sorted.
    pub org_roles: Vec<OrgRole>,
    /// Departments of a department admin, sorted; empty otherwise.
    pub scoped_departments: Vec<String>,
    /// When the account was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

impl User {
    /// Whether this is the internal user.
    pub fn is_system(&self) -> bool {
        self.id == SYSTEM_USER
    }
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("id", &self.id).field("role", &self.role).finish_non_exhaustive()
    }
}

/// A signed-in browser or script; its id is the `jti` of its tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Session {
    /// UUIDv4 as 32 hex characters.
    pub session_id: String,
    /// Owner.
    pub user_id: String,
    /// Owner's login name when the session began.
    pub username: String,
    /// Owner's role when the session began; informational.
    pub role: HumanRole,
    /// Client address.
    pub ip_address: String,
    /// First 512 characters of the client's `User-Agent`.
    pub user_agent: String,
    /// When the session began.
    pub created_at: DateTime<Utc>,
    /// When it was last refreshed.
    pub last_active_at: DateTime<Utc>,
    /// When its last token ends.
    pub expires_at: DateTime<Utc>,
    /// Ended before its time.
    pub revoked: bool,
}

/// An API key without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ApiKey {
    /// UUIDv4.
    pub id: String,
    /// Name its owner gave it.
    pub name: String,
    /// Highest role it can act with.
    pub role: HumanRole,
    /// Owner.
    pub user_id: String,
    /// When it was issued.
    pub created_at: DateTime<Utc>,
    /// Last instant it is valid; `null` = no end.
    pub expires_at: Option<DateTime<Utc>>,
    /// Taken back.
    pub revoked: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_name_is_reserved_in_every_disguise() {
        for name in ["system", "System", "SYSTEM", "ｓｙｓｔｅｍ"] {
            assert!(is_reserved_name(name), "{name}");
        }
        assert!(!is_reserved_name("systems"));
    }
}
