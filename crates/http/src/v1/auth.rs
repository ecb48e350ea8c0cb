//! Signing in and out, oneself, one's password, WebSocket tickets.

use axum::extract::{FromRequestParts, State};
use axum::http::header::{HeaderName, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use quarterdeck_auth::{Client, Issued, MAX_NAME, Password};
use quarterdeck_domain::identity::Identity;
use quarterdeck_domain::role::{Guard, HumanRole, OrgRole};
use quarterdeck_domain::text::NotBlank;
use quarterdeck_domain::user::User;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use quarterdeck_domain::ErrorCode::{
    AccountLocked, RefreshTokenInvalid, ResourceConflict, Unauthorized, ValidationError,
};

use crate::app::App;
use crate::cookies::{self, SessionCookies};
use crate::edge::{Data, NoCompression, RequestContext, Result};
use crate::endpoint::{Endpoint, get, post};
use crate::extract::Body;
use crate::gate::{Caller, credentials};

/// Deletes the cookies of this site in browsers that know it.
const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        post("/auth/setup", "auth.setup", Guard::Public)
            .checks_credentials()
            .doc("Create the first account", "Open until a CEO exists, then closed for ever.")
            .csrf_exempt()
            .always_public()
            .body::<SetupRequest>()
            .gives::<CookieSession>(201)
            .fails(&[ResourceConflict])
            .to(setup),
        post("/auth/login", "auth.login", Guard::Public)
            .checks_credentials()
            .doc("Sign in", "Sets the session cookies. Too many failures lock the name for a while.")
            .csrf_exempt()
            .always_public()
            .body::<LoginRequest>()
            .gives::<CookieSession>(200)
            .fails(&[Unauthorized, AccountLocked])
            .to(login),
        post("/auth/refresh", "auth.refresh", Guard::Public)
            .checks_credentials()
            .doc(
                "Prolong the session",
                "Takes the refresh cookie, which works once, and sets all cookies anew.",
            )
            .csrf_exempt()
            .always_public()
            .gives::<CookieSession>(200)
            .fails(&[RefreshTokenInvalid])
            .to(refresh),
        post("/auth/logout", "auth.logout", Guard::Public)
            .doc("Sign out", "Ends the session of the cookie or bearer token, if there is one.")
            .csrf_exempt()
            .always_public()
            .gives_nothing()
            .to(logout),
        post("/auth/change-password", "auth.change_password", Guard::Identified)
            .checks_credentials()
            .doc("Change one's password", "Ends every other session and sets the session cookies anew.")
            .open_to_forced_change()
            .body::<ChangePasswordRequest>()
            .gives::<UserInfo>(200)
            .fails(&[ValidationError, AccountLocked])
            .to(change_password),
        get("/auth/me", "auth.me", Guard::Identified)
            .doc("Who am I", "For an API key, `role` is the role it acts with.")
            .open_to_forced_change()
            .gives::<UserInfo>(200)
            .to(me),
        post("/auth/ws-ticket", "auth.ws_ticket", Guard::Identified)
            .limit(20, 60)
            .doc(
                "Get a WebSocket ticket",
                "Opens one WebSocket within half a minute; needs a signed-in user.",
            )
            .gives::<WsTicket>(200)
            .fails(&[ResourceConflict])
            .to(ws_ticket),
    ]
}

/// The first account.
#[derive(Deserialize, ToSchema)]
struct SetupRequest {
    /// Login name; 1 to 128 characters.
    #[schema(value_type = String, min_length = 1, max_length = 128, pattern = r"\S")]
    username: NotBlank<MAX_NAME>,
    /// At least `min_password_length` characters, at most 128.
    #[schema(value_type = String, min_length = 8, max_length = 128, format = Password)]
    password: Password,
}

/// A name and a password.
#[derive(Deserialize, ToSchema)]
struct LoginRequest {
    /// Login name, matched exactly.
    #[schema(value_type = String, min_length = 1, max_length = 128, pattern = r"\S")]
    username: NotBlank<MAX_NAME>,
    /// The password.
    #[schema(value_type = String, min_length = 1, max_length = 128, format = Password)]
    password: Password,
}

/// The old and the new password.
#[derive(Deserialize, ToSchema)]
struct ChangePasswordRequest {
    /// The password until now.
    #[schema(value_type = String, min_length = 1, max_length = 128, format = Password)]
    current_password: Password,
    /// At least `min_password_length` characters, at most 128, and not the current one.
    #[schema(value_type = String, min_length = 8, max_length = 128, format = Password)]
    new_password: Password,
}

/// A session that has begun; its token is in the cookie.
#[derive(Serialize, ToSchema)]
struct CookieSession {
    /// Seconds until the token ends.
    #[schema(exclusive_minimum = 0)]
    expires_in: i64,
    /// Only the way to a new password is open.
    must_change_password: bool,
}

/// The caller.
#[derive(Serialize, ToSchema)]
struct UserInfo {
    id: String,
    username: String,
    role: HumanRole,
    must_change_password: bool,
    org_roles: Vec<OrgRole>,
    scoped_departments: Vec<String>,
}

/// Opens one WebSocket.
#[derive(Serialize, ToSchema)]
struct WsTicket {
    /// 43 URL-safe characters.
    ticket: String,
    /// Seconds it can be used for.
    #[schema(exclusive_minimum = 0)]
    expires_in: u64,
}

impl From<User> for UserInfo {
    fn from(user: User) -> Self {
        Self {
            id: user.id,
            username: user.username,
            role: user.role,
            must_change_password: user.must_change_password,
            org_roles: user.org_roles,
            scoped_departments: user.scoped_departments,
        }
    }
}

/// Where a request comes from, as sessions remember it.
struct Origin(Client);

impl<S: Sync> FromRequestParts<S> for Origin {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let context = RequestContext::from_request_parts(parts, state).await?;
        let user_agent = parts.headers.get(USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()));
        Ok(Self(Client {
            ip_address: context.client.to_string(),
            network: context.client.bucket().to_string(),
            user_agent: user_agent.unwrap_or_default().into_owned(),
        }))
    }
}

fn begun(app: &App, issued: Issued) -> (SessionCookies, Data<CookieSession>) {
    let cookies = SessionCookies::set(app.auth.config(), &issued);
    let session = CookieSession {
        expires_in: issued.expires_in,
        must_change_password: issued.user.must_change_password,
    };
    (cookies, Data(session))
}

async fn setup(
    State(app): State<App>,
    Origin(client): Origin,
    Body(request): Body<SetupRequest>,
) -> Result<impl IntoResponse> {
    let issued = app.auth.setup(request.username, request.password, client).await?;
    Ok((StatusCode::CREATED, begun(&app, issued)))
}

async fn login(
    State(app): State<App>,
    Origin(client): Origin,
    Body(request): Body<LoginRequest>,
) -> Result<impl IntoResponse> {
    let issued = app.auth.login(request.username, request.password, client).await?;
    Ok(begun(&app, issued))
}

async fn refresh(
    State(app): State<App>,
    Origin(client): Origin,
    headers: HeaderMap,
) -> Result<impl IntoResponse> {
    let cookie = cookies::find(&headers, &app.auth.config().refresh_cookie_name);
    let issued = app.auth.refresh(cookie, client).await?;
    Ok(begun(&app, issued))
}

async fn logout(State(app): State<App>, headers: HeaderMap) -> impl IntoResponse {
    let config = app.auth.config();
    app.auth.logout(credentials(&headers, &config.cookie_name)).await;
    (StatusCode::NO_CONTENT, SessionCookies::clear(config), [(CLEAR_SITE_DATA, "\"cookies\"")])
}

async fn change_password(
    State(app): State<App>,
    Caller(caller): Caller,
    Origin(client): Origin,
    Body(request): Body<ChangePasswordRequest>,
) -> Result<impl IntoResponse> {
    let issued =
        app.auth.change_password(&caller, request.current_password, request.new_password, client).await?;
    let cookies = SessionCookies::set(app.auth.config(), &issued);
    Ok((cookies, Data(UserInfo::from(issued.user))))
}

async fn me(Caller(caller): Caller) -> impl IntoResponse {
    /// As [`UserInfo`], borrowed.
    #[derive(Serialize)]
    struct Me<'a> {
        id: &'a str,
        username: &'a str,
        role: HumanRole,
        must_change_password: bool,
        org_roles: &'a [OrgRole],
        scoped_departments: &'a [String],
    }
    let Identity { user_id, username, role, must_change_password, org_roles, scoped_departments, .. } =
        &*caller;
    Data(Me {
        id: user_id,
        username,
        role: *role,
        must_change_password: *must_change_password,
        org_roles,
        scoped_departments,
    })
    .into_response()
}

async fn ws_ticket(State(app): State<App>, Caller(caller): Caller) -> Result<impl IntoResponse> {
    let issued = app.auth.issue_ticket(&caller).await?;
    Ok((NoCompression, Data(WsTicket { ticket: issued.ticket, expires_in: issued.expires_in })))
}
