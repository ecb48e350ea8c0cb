//! The caller of a request, once proven.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::role::{HumanRole, OrgRole};

/// How the caller proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// Session cookie or bearer JWT.
    Jwt,
    /// API key as bearer.
    ApiKey,
    /// One-time WebSocket ticket.
    WsTicket,
}

impl AuthMethod {
    /// Wire and log form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::ApiKey => "api_key",
            Self::WsTicket => "ws_ticket",
        }
    }
}

/// A proven caller. Rights come from the stored user, never from what the credential claims.
#[derive(Clone, Debug)]
pub struct Identity {
    /// User id; `system` for the internal user.
    pub user_id: Arc<str>,
    /// Login name.
    pub username: Arc<str>,
    /// Effective role: for an API key the lower of the key's and its owner's.
    pub role: HumanRole,
    /// How the caller proved who they are.
    pub auth_method: AuthMethod,
    /// Only the way to a new password is open.
    pub must_change_password: bool,
    /// Organisation roles held.
    pub org_roles: Vec<OrgRole>,
    /// Departments a department admin may change; empty for everyone else.
    pub scoped_departments: Vec<String>,
    /// Session id (`jti`) for JWT callers and tickets.
    pub session_id: Option<Arc<str>>,
    /// Key id for API-key callers.
    pub api_key_id: Option<Arc<str>>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn caller(role: HumanRole) -> Identity {
        Identity {
            user_id: "u".into(),
            username: "u".into(),
            role,
            auth_method: AuthMethod::Jwt,
            must_change_password: false,
            org_roles: Vec::new(),
            scoped_departments: Vec::new(),
            session_id: None,
            api_key_id: None,
        }
    }
}
