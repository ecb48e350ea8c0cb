//! API keys of the caller.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use chrono::{DateTime, Utc};
use quarterdeck_auth::{MAX_NAME, NewKey};
use quarterdeck_domain::ErrorCode::{ResourceConflict, ValidationError};
use quarterdeck_domain::role::{Guard, HumanRole};
use quarterdeck_domain::text::NotBlank;
use quarterdeck_domain::user::ApiKey;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::edge::{Data, NoCompression, Result};
use crate::endpoint::{Endpoint, delete, get, post};
use crate::extract::{Body, Path};
use crate::gate::Caller;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        post("/auth/api-keys", "auth.api_keys_issue", Guard::Read)
            .limit(10, 60)
            .doc("Issue an API key", "The key itself is shown in this answer only. Needs a signed-in user.")
            .body::<IssueKeyRequest>()
            .gives::<IssuedKeyResponse>(201)
            .fails(&[ResourceConflict, ValidationError])
            .to(issue),
        get("/auth/api-keys", "auth.api_keys_list", Guard::Read)
            .limit(30, 60)
            .doc("List one's API keys", "Newest first, revoked ones included.")
            .gives_list::<ApiKey>()
            .to(list),
        delete("/auth/api-keys/{key_id}", "auth.api_keys_revoke", Guard::Read)
            .limit(30, 60)
            .doc("Revoke an API key", "One's own, or anybody's for the CEO. Doing it again is fine.")
            .gives_nothing()
            .to(revoke),
    ]
}

/// What the key shall be.
#[derive(Deserialize, ToSchema)]
struct IssueKeyRequest {
    /// Name to tell keys apart.
    #[schema(value_type = String, min_length = 1, max_length = 128, pattern = r"\S")]
    name: NotBlank<MAX_NAME>,
    /// Highest role it acts with; not above the caller's.
    role: HumanRole,
    /// Last instant it is valid; absent = no end.
    #[schema(min_length = 20)]
    expires_at: Option<DateTime<Utc>>,
}

/// The key, once.
#[derive(Serialize, ToSchema)]
struct IssuedKeyResponse {
    key: ApiKey,
    /// 43 URL-safe characters, to be sent as `Authorization: Bearer`.
    api_key: String,
}

async fn issue(
    State(app): State<App>,
    Caller(caller): Caller,
    Body(request): Body<IssueKeyRequest>,
) -> Result<impl IntoResponse> {
    let wanted = NewKey { name: request.name, role: request.role, expires_at: request.expires_at };
    let issued = app.auth.issue_key(&caller, wanted).await?;
    let answer = IssuedKeyResponse { key: issued.key, api_key: issued.raw.expose_secret().to_owned() };
    Ok((StatusCode::CREATED, NoCompression, Data(answer)))
}

async fn list(State(app): State<App>, Caller(caller): Caller) -> Result<impl IntoResponse> {
    Ok(Data(app.auth.keys(&caller).await?))
}

async fn revoke(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<impl IntoResponse> {
    app.auth.revoke_key(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
