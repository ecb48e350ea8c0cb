//! Accounts, managed by the CEO.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use chrono::{DateTime, Utc};
use quarterdeck_auth::{MAX_NAME, Password};
use quarterdeck_domain::Error;
use quarterdeck_domain::ErrorCode::{ResourceConflict, ValidationError};
use quarterdeck_domain::role::{Guard, HumanRole, OrgRole};
use quarterdeck_domain::text::NotBlank;
use quarterdeck_domain::user::User;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, Type};

use crate::app::App;
use crate::edge::{Data, PaginatedResponse, Result};
use crate::endpoint::{Endpoint, delete, get, patch, post};
use crate::extract::{Body, Page, Path};
use crate::gate::Caller;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        post("/users", "users.create", Guard::Ceo)
            .limit(5, 60)
            .doc("Create an account", "Its owner must change the password at the first sign-in.")
            .body::<CreateUserRequest>()
            .gives::<UserResponse>(201)
            .fails(&[ResourceConflict, ValidationError])
            .to(create),
        get("/users", "users.list", Guard::Ceo)
            .doc("List accounts", "Oldest first, without the internal system user.")
            .gives_page::<UserResponse>()
            .to(list),
        get("/users/{user_id}", "users.get", Guard::Ceo)
            .doc("Show an account", "")
            .gives::<UserResponse>(200)
            .to(show),
        patch("/users/{user_id}", "users.update_role", Guard::Ceo)
            .limit(10, 60)
            .doc("Change a role", "Counts from the user's next request on.")
            .body::<UpdateUserRoleRequest>()
            .gives::<UserResponse>(200)
            .fails(&[ResourceConflict, ValidationError])
            .to(set_role),
        delete("/users/{user_id}", "users.delete", Guard::Ceo)
            .limit(3, 60)
            .doc("Delete an account", "With its sessions, API keys and tickets. The audit trail stays.")
            .gives_nothing()
            .fails(&[ResourceConflict])
            .to(remove),
        post("/users/{user_id}/transfer-ceo", "users.transfer_ceo", Guard::Ceo)
            .limit(10, 60)
            .doc("Hand the CEO role over", "The caller becomes manager and the account CEO, in one step.")
            .gives::<UserResponse>(200)
            .fails(&[ResourceConflict])
            .to(transfer_ceo),
        post("/users/{user_id}/org-roles", "users.grant_org_role", Guard::Ceo)
            .limit(10, 60)
            .doc("Grant an organisation role", "")
            .body::<GrantOrgRoleRequest>()
            .gives::<UserResponse>(201)
            .fails(&[ResourceConflict, ValidationError])
            .to(grant),
        delete("/users/{user_id}/org-roles/{role}", "users.revoke_org_role", Guard::Ceo)
            .limit(10, 60)
            .doc("Take an organisation role back", "")
            .gives_nothing()
            .fails(&[ResourceConflict, ValidationError])
            .to(revoke),
    ]
}

/// A new account.
#[derive(Deserialize, ToSchema)]
struct CreateUserRequest {
    /// Login name; names that read alike are one name.
    #[schema(value_type = String, min_length = 1, max_length = 128, pattern = r"\S")]
    username: NotBlank<MAX_NAME>,
    /// First password, to be changed by its owner.
    #[schema(value_type = String, min_length = 8, max_length = 128, format = Password)]
    password: Password,
    role: HumanRole,
}

/// The new role.
#[derive(Deserialize, ToSchema)]
struct UpdateUserRoleRequest {
    role: HumanRole,
}

/// The role and, for department admins, where.
#[derive(Deserialize, ToSchema)]
struct GrantOrgRoleRequest {
    role: OrgRole,
    /// Departments; for `department_admin` only, and then at least one.
    #[serde(default)]
    #[schema(schema_with = departments)]
    scoped_departments: Vec<NotBlank<MAX_NAME>>,
}

fn departments() -> Schema {
    let name = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(MAX_NAME));
    ArrayBuilder::new().items(name.pattern(Some(r"\S"))).into()
}

/// An account.
#[derive(Serialize, ToSchema)]
struct UserResponse {
    id: String,
    username: String,
    role: HumanRole,
    must_change_password: bool,
    org_roles: Vec<OrgRole>,
    scoped_departments: Vec<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<User> for UserResponse {
    fn from(user: User) -> Self {
        Self {
            id: user.id,
            username: user.username,
            role: user.role,
            must_change_password: user.must_change_password,
            org_roles: user.org_roles,
            scoped_departments: user.scoped_departments,
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}

async fn create(
    State(app): State<App>,
    Caller(caller): Caller,
    Body(request): Body<CreateUserRequest>,
) -> Result<impl IntoResponse> {
    let CreateUserRequest { username, password, role } = request;
    let user = app.auth.create_user(&caller.user_id, username, password, role).await?;
    Ok((StatusCode::CREATED, Data(UserResponse::from(user))))
}

async fn list(State(app): State<App>, page: Page) -> Result<impl IntoResponse> {
    let (users, total) = app.auth.users(page.offset, page.limit.into()).await?;
    let users: Vec<_> = users.into_iter().map(UserResponse::from).collect();
    Ok(PaginatedResponse::new(users, page.offset, page.limit, total))
}

async fn show(State(app): State<App>, Path(id): Path<String>) -> Result<impl IntoResponse> {
    Ok(Data(UserResponse::from(app.auth.user(&id).await?)))
}

async fn set_role(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
    Body(request): Body<UpdateUserRoleRequest>,
) -> Result<impl IntoResponse> {
    Ok(Data(UserResponse::from(app.auth.set_role(&caller.user_id, &id, request.role).await?)))
}

async fn remove(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<impl IntoResponse> {
    app.auth.delete_user(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn transfer_ceo(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<impl IntoResponse> {
    Ok(Data(UserResponse::from(app.auth.transfer_ceo(&caller.user_id, &id).await?)))
}

async fn grant(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
    Body(request): Body<GrantOrgRoleRequest>,
) -> Result<impl IntoResponse> {
    let departments = request.scoped_departments.into_iter().map(NotBlank::into_inner).collect();
    let user = app.auth.grant_org_role(&caller.user_id, &id, request.role, departments).await?;
    Ok((StatusCode::CREATED, Data(UserResponse::from(user))))
}

async fn revoke(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((id, role)): Path<(String, String)>,
) -> Result<impl IntoResponse> {
    let role = OrgRole::parse(&role)
        .ok_or_else(|| Error::rule("role must be owner, department_admin, editor or viewer"))?;
    app.auth.revoke_org_role(&caller.user_id, &id, role).await?;
    Ok(StatusCode::NO_CONTENT)
}
