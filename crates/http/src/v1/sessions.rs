//! Who is signed in, and ending it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use quarterdeck_auth::Scope;
use quarterdeck_domain::Error;
use quarterdeck_domain::ErrorCode::ValidationError;
use quarterdeck_domain::role::Guard;
use quarterdeck_domain::user::Session;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::cookies::SessionCookies;
use crate::edge::{Data, Result};
use crate::endpoint::{Endpoint, delete, get};
use crate::extract::{Path, Query};
use crate::gate::Caller;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/auth/sessions", "auth.sessions_list", Guard::Identified)
            .limit(30, 60)
            .doc(
                "List active sessions",
                "Newest first. `scope=all` shows everybody's to the CEO, one's own to others.",
            )
            .query::<ListScope>()
            .gives_list::<SessionResponse>()
            .fails(&[ValidationError])
            .to(list),
        delete("/auth/sessions", "auth.sessions_revoke_all", Guard::Identified)
            .limit(60, 60)
            .doc(
                "End one's sessions",
                "`others` keeps the session that asks; `all` ends it too and clears its cookies.",
            )
            .query::<RevokeScope>()
            .gives::<Revoked>(200)
            .fails(&[ValidationError])
            .to(revoke_all),
        delete("/auth/sessions/{session_id}", "auth.sessions_revoke", Guard::Identified)
            .limit(60, 60)
            .doc("End a session", "One's own, or anybody's for the CEO. Ending it again is fine.")
            .gives_nothing()
            .to(revoke),
    ]
}

#[derive(Deserialize, IntoParams)]
struct ListScope {
    /// `own` (default) or `all`.
    #[param(pattern = "^(own|all)$")]
    scope: Option<String>,
}

#[derive(Deserialize, IntoParams)]
struct RevokeScope {
    /// `others` or `all`.
    #[param(required, pattern = "^(others|all)$")]
    scope: Option<String>,
}

/// A signed-in browser or script.
#[derive(Serialize, ToSchema)]
struct SessionResponse {
    session_id: String,
    user_id: String,
    username: String,
    ip_address: String,
    user_agent: String,
    created_at: DateTime<Utc>,
    last_active_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    /// Whether this is the session that asks.
    is_current: bool,
}

/// How many sessions were ended.
#[derive(Serialize, ToSchema)]
struct Revoked {
    revoked: usize,
}

impl SessionResponse {
    fn new(session: Session, current: Option<&str>) -> Self {
        Self {
            is_current: current == Some(session.session_id.as_str()),
            session_id: session.session_id,
            user_id: session.user_id,
            username: session.username,
            ip_address: session.ip_address,
            user_agent: session.user_agent,
            created_at: session.created_at,
            last_active_at: session.last_active_at,
            expires_at: session.expires_at,
        }
    }
}

async fn list(
    State(app): State<App>,
    Caller(caller): Caller,
    Query(query): Query<ListScope>,
) -> Result<impl IntoResponse> {
    let everybody = match query.scope.as_deref() {
        None | Some("own") => false,
        Some("all") => true,
        Some(_) => return Err(Error::rule("scope must be own or all").into()),
    };
    let sessions = app.auth.sessions(&caller, everybody).await?;
    let current = caller.session_id.as_deref();
    Ok(Data(sessions.into_iter().map(|s| SessionResponse::new(s, current)).collect::<Vec<_>>()))
}

async fn revoke_all(
    State(app): State<App>,
    Caller(caller): Caller,
    Query(query): Query<RevokeScope>,
) -> Result<Response> {
    let scope = match query.scope.as_deref() {
        Some("others") => Scope::Others,
        Some("all") => Scope::All,
        _ => return Err(Error::rule("scope must be others or all").into()),
    };
    let answer = Data(Revoked { revoked: app.auth.revoke_own_sessions(&caller, scope).await? });
    Ok(match scope {
        Scope::Others => answer.into_response(),
        Scope::All => (SessionCookies::clear(app.auth.config()), answer).into_response(),
    })
}

async fn revoke(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<impl IntoResponse> {
    app.auth.revoke_session(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
