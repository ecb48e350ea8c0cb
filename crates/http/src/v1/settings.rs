//! Run-time settings and the security policy made of them.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::ETAG;
use axum::response::IntoResponse;
use chrono::{DateTime, Utc};
use quarterdeck_domain::ErrorCode::{ValidationError, VersionConflict};
use quarterdeck_domain::role::Guard;
use quarterdeck_domain::setting::{Definition, Entry, MAX_VALUE_CHARS};
use quarterdeck_domain::text::NotBlank;
use quarterdeck_work::settings::{Policy, Write};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::app::App;
use crate::edge::{Data, PaginatedResponse, Result};
use crate::endpoint::{Endpoint, delete, get, post, put};
use crate::extract::{Body, Condition, IF_MATCH_DOC, Page, Path};
use crate::gate::Caller;

/// Longest name of a namespace, in characters.
const MAX_NAMESPACE: usize = 64;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/settings/_schema", "settings.schema", Guard::Read)
            .doc("List all definitions", "Sorted by namespace and key.")
            .gives_list::<Definition>()
            .to(definitions),
        get("/settings/_schema/{namespace}", "settings.schema_namespace", Guard::Read)
            .path_bound("namespace", MAX_NAMESPACE)
            .doc("List the definitions of a namespace", "")
            .gives_list::<Definition>()
            .to(definitions_of),
        get("/settings", "settings.list", Guard::Read)
            .doc("List all settings", "With the value in force and where it comes from; secrets are masked.")
            .gives_page::<Entry>()
            .to(list),
        get("/settings/{namespace}", "settings.list_namespace", Guard::Read)
            .path_bound("namespace", MAX_NAMESPACE)
            .doc("List the settings of a namespace", "")
            .gives_list::<Entry>()
            .to(list_of),
        get("/settings/{namespace}/{key}", "settings.get", Guard::Read)
            .path_bound("namespace", MAX_NAMESPACE)
            .doc("Show a setting", "The answer carries its `ETag`.")
            .gives::<Entry>(200)
            .to(show),
        put("/settings/{namespace}/{key}", "settings.update", Guard::CeoOrManager)
            .path_bound("namespace", MAX_NAMESPACE)
            .limit(60, 60)
            .doc(
                "Change a setting",
                "In force at once, unless the definition says that it needs a restart. The answer carries \
                 the new `ETag`.",
            )
            .header(IF_MATCH_DOC.0, IF_MATCH_DOC.1)
            .body::<UpdateSettingRequest>()
            .gives::<Entry>(200)
            .fails(&[ValidationError, VersionConflict])
            .to(update),
        delete("/settings/{namespace}/{key}", "settings.delete", Guard::CeoOrManager)
            .path_bound("namespace", MAX_NAMESPACE)
            .limit(60, 60)
            .doc(
                "Drop a stored value",
                "Environment, configuration file or default decide again. Doing it again is fine.",
            )
            .header(IF_MATCH_DOC.0, IF_MATCH_DOC.1)
            .gives_nothing()
            .fails(&[ValidationError, VersionConflict])
            .to(reset),
        get("/settings/security/export", "settings.export", Guard::CeoOrManager)
            .doc("Export the security policy", "The answer carries the `ETag` of the whole policy.")
            .gives::<SecurityConfigExportResponse>(200)
            .to(export),
        post("/settings/security/import", "settings.import", Guard::CeoOrManager)
            .limit(5, 3600)
            .doc("Import a security policy", "All of it or nothing. What it does not name stays as it is.")
            .header(IF_MATCH_DOC.0, IF_MATCH_DOC.1)
            .body::<SecurityConfigImportRequest>()
            .gives::<SecurityConfigExportResponse>(201)
            .fails(&[ValidationError, VersionConflict])
            .to(import),
    ]
}

/// The new value.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpdateSettingRequest {
    /// The value as text, whatever its type.
    #[serde(deserialize_with = "bounded")]
    #[schema(max_length = 65536)]
    value: String,
}

fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let value = String::deserialize(deserializer)?;
    if value.len() > MAX_VALUE_CHARS && value.chars().count() > MAX_VALUE_CHARS {
        return Err(D::Error::custom(format_args!("must have at most {MAX_VALUE_CHARS} characters")));
    }
    Ok(value)
}

/// A security policy.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SecurityConfigImportRequest {
    /// Settings of namespace `security` by key.
    config: Map<String, Value>,
}

/// The security policy in force.
#[derive(Serialize, ToSchema)]
struct SecurityConfigExportResponse {
    /// Settings of namespace `security` by key.
    config: Map<String, Value>,
    exported_at: DateTime<Utc>,
    /// What the policy leaves out, in words; `null` when it is complete.
    custom_policies_warning: Option<String>,
}

type Namespace = NotBlank<MAX_NAMESPACE>;
type Key = NotBlank<128>;

async fn definitions(State(app): State<App>) -> Result<impl IntoResponse> {
    Ok(Data(app.settings.definitions().to_vec()))
}

async fn definitions_of(
    State(app): State<App>,
    Path(namespace): Path<Namespace>,
) -> Result<impl IntoResponse> {
    Ok(Data(app.settings.definitions_of(&namespace)?))
}

async fn list(State(app): State<App>, page: Page) -> Result<impl IntoResponse> {
    let entries = app.settings.entries();
    let total = entries.len() as u64;
    let skipped = usize::try_from(page.offset).unwrap_or(usize::MAX);
    let shown = entries.into_iter().skip(skipped).take(page.limit as usize).collect();
    Ok(PaginatedResponse::new(shown, page.offset, page.limit, total))
}

async fn list_of(State(app): State<App>, Path(namespace): Path<Namespace>) -> Result<impl IntoResponse> {
    Ok(Data(app.settings.entries_of(&namespace)?))
}

async fn show(
    State(app): State<App>,
    Path((namespace, key)): Path<(Namespace, Key)>,
) -> Result<impl IntoResponse> {
    Ok(tagged(app.settings.entry(&namespace, &key)?))
}

async fn update(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((namespace, key)): Path<(Namespace, Key)>,
    Condition(if_match): Condition,
    Body(request): Body<UpdateSettingRequest>,
) -> Result<impl IntoResponse> {
    let (namespace, key) = (namespace.into_inner(), key.into_inner());
    let write = Write { namespace, key, value: request.value, if_match };
    Ok(tagged(app.settings.set(write, &caller.user_id).await?))
}

async fn reset(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((namespace, key)): Path<(Namespace, Key)>,
    Condition(if_match): Condition,
) -> Result<impl IntoResponse> {
    app.settings.reset(&namespace, &key, if_match, &caller.user_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn export(State(app): State<App>) -> Result<impl IntoResponse> {
    Ok(exported(app.settings.export_security()))
}

async fn import(
    State(app): State<App>,
    Caller(caller): Caller,
    Condition(if_match): Condition,
    Body(request): Body<SecurityConfigImportRequest>,
) -> Result<impl IntoResponse> {
    let policy = app.settings.import_security(request.config, if_match, &caller.user_id).await?;
    Ok((StatusCode::CREATED, exported(policy)))
}

fn tagged(entry: Entry) -> impl IntoResponse {
    ([(ETAG, entry.etag())], Data(entry))
}

fn exported(policy: Policy) -> impl IntoResponse {
    let Policy { config, exported_at, left_out, etag } = policy;
    let custom_policies_warning =
        (!left_out.is_empty()).then(|| format!("Left out, for they are secret: {}", left_out.join(", ")));
    ([(ETAG, etag)], Data(SecurityConfigExportResponse { config, exported_at, custom_policies_warning }))
}
