//! Backups: made, listed, removed, put back.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use quarterdeck_domain::ErrorCode;
use quarterdeck_domain::backup::{self, Component, Kept, Manifest, Trigger};
use quarterdeck_domain::identity::Identity;
use quarterdeck_domain::role::Guard;
use quarterdeck_domain::setting::backup::DESTRUCTIVE_ROLES;
use quarterdeck_domain::text::NotBlank;
use quarterdeck_work::backups::{Restore, Restored};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::edge::{Data, Failure, PaginatedResponse, Result};
use crate::endpoint::{Endpoint, delete, get, post};
use crate::extract::{Body, Page, Path, RepeatKey};
use crate::gate::{Acting, Caller};

const KEY: (&str, &str) = (
    "Idempotency-Key",
    "1 to 255 characters. Asked again with the same key within 24 hours, the answer is the first one, and nothing \
     is done twice.",
);

type Id = NotBlank<128>;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        post("/admin/backups", "admin.backup_create", Guard::SystemOrWrite)
            .limit(5, 3600)
            .doc("Make a backup", "Answers when it is whole and on the disk.")
            .header(KEY.0, KEY.1)
            .gives::<BackupManifest>(201)
            .fails(&[ErrorCode::ResourceConflict, ErrorCode::ValidationError])
            .to(create),
        get("/admin/backups", "admin.backup_list", Guard::SystemOrWrite)
            .doc("List backups", "Newest first.")
            .gives_page::<BackupInfo>()
            .to(list),
        get("/admin/backups/{backup_id}", "admin.backup_get", Guard::SystemOrWrite)
            .doc("Show a backup", "")
            .gives::<BackupManifest>(200)
            .fails(&[ErrorCode::RecordNotFound])
            .to(show),
        delete("/admin/backups/{backup_id}", "admin.backup_delete", Guard::SystemOrWrite)
            .limit(10, 3600)
            .doc("Remove a backup", "The setting `backup/destructive_roles` may leave it to fewer roles.")
            .gives_nothing()
            .fails(&[ErrorCode::RecordNotFound, ErrorCode::ResourceConflict])
            .to(remove),
        post("/admin/backups/restore", "admin.backup_restore", Guard::SystemOrWrite)
            .limit(3, 3600)
            .doc(
                "Put a backup back",
                "All of it, or some of its components; what they replace is saved first. From then on every \
                 request but the health probes is answered with 503, until the server is started anew. The \
                 setting `backup/destructive_roles` may leave it to fewer roles.",
            )
            .header(KEY.0, KEY.1)
            .body::<RestoreRequest>()
            .gives::<RestoreResponse>(201)
            .fails(&[ErrorCode::RecordNotFound, ErrorCode::ResourceConflict, ErrorCode::ValidationError])
            .to(restore),
        // The word is no id, but a path of its own.
        get("/admin/backups/restore", "admin.backup_get_restore", Guard::SystemOrWrite)
            .undocumented()
            .to(no_backup),
        delete("/admin/backups/restore", "admin.backup_delete_restore", Guard::SystemOrWrite)
            .undocumented()
            .to(no_backup),
    ]
}

/// What a backup says of itself.
#[derive(Serialize, ToSchema)]
struct BackupManifest {
    /// Version of the program that made it.
    synthorg_version: String,
    /// ISO 8601 with offset.
    timestamp: String,
    trigger: Trigger,
    /// What it holds.
    components: Vec<Component>,
    /// Before compression.
    size_bytes: u64,
    #[schema(pattern = "^sha256:[0-9a-f]{64}$")]
    checksum: String,
    #[schema(pattern = "^[0-9a-f]{12}$")]
    backup_id: String,
}

impl From<Manifest> for BackupManifest {
    fn from(manifest: Manifest) -> Self {
        Self {
            synthorg_version: manifest.synthorg_version,
            timestamp: manifest.timestamp,
            trigger: manifest.trigger,
            components: manifest.components,
            size_bytes: manifest.size_bytes,
            checksum: manifest.checksum,
            backup_id: manifest.backup_id.into(),
        }
    }
}

/// A backup in a list.
#[derive(Serialize, ToSchema)]
struct BackupInfo {
    #[schema(pattern = "^[0-9a-f]{12}$")]
    backup_id: String,
    /// ISO 8601 with offset.
    timestamp: String,
    trigger: Trigger,
    /// What it holds.
    components: Vec<Component>,
    /// Before compression.
    size_bytes: u64,
    /// Whether it is one packed file.
    compressed: bool,
}

impl From<Kept> for BackupInfo {
    fn from(Kept { manifest, compressed }: Kept) -> Self {
        Self {
            backup_id: manifest.backup_id.into(),
            timestamp: manifest.timestamp,
            trigger: manifest.trigger,
            components: manifest.components,
            size_bytes: manifest.size_bytes,
            compressed,
        }
    }
}

/// What to put back.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RestoreRequest {
    #[schema(value_type = String, min_length = 1, max_length = 128, pattern = "\\S")]
    backup_id: Id,
    /// Some of its components; null for all.
    #[serde(default, deserialize_with = "some_components")]
    #[schema(min_items = 1)]
    components: Option<Vec<Component>>,
    /// Must be true.
    #[serde(default)]
    confirm: bool,
}

fn some_components<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Component>>, D::Error> {
    let components = Option::<Vec<Component>>::deserialize(deserializer)?;
    if components.as_ref().is_some_and(Vec::is_empty) {
        return Err(D::Error::custom("must not be empty"));
    }
    Ok(components)
}

/// What was put back.
#[derive(Serialize, ToSchema)]
struct RestoreResponse {
    manifest: BackupManifest,
    restored_components: Vec<Component>,
    /// A backup of what they replaced.
    #[schema(pattern = "^[0-9a-f]{12}$")]
    safety_backup_id: String,
    /// Always true: until then the server does nothing else.
    restart_required: bool,
}

async fn create(State(app): State<App>, Acting(actor): Acting, key: RepeatKey) -> Result<impl IntoResponse> {
    let manifest = app.backups.create(&actor, Trigger::Manual, key.of(&actor, &())).await?;
    Ok((StatusCode::CREATED, Data(BackupManifest::from(manifest))))
}

async fn list(State(app): State<App>, page: Page) -> Result<impl IntoResponse> {
    let (kept, total) = app.backups.list(page.offset, page.limit.into()).await?;
    let kept: Vec<_> = kept.into_iter().map(BackupInfo::from).collect();
    Ok(PaginatedResponse::new(kept, page.offset, page.limit, total))
}

async fn show(State(app): State<App>, Path(id): Path<Id>) -> Result<impl IntoResponse> {
    Ok(Data(BackupManifest::from(app.backups.get(&id).await?)))
}

async fn remove(
    State(app): State<App>,
    Caller(caller): Caller,
    Acting(actor): Acting,
    Path(id): Path<Id>,
) -> Result<impl IntoResponse> {
    may_destroy(&app, &caller)?;
    app.backups.delete(&actor, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn restore(
    State(app): State<App>,
    Caller(caller): Caller,
    Acting(actor): Acting,
    key: RepeatKey,
    Body(request): Body<RestoreRequest>,
) -> Result<impl IntoResponse> {
    may_destroy(&app, &caller)?;
    let RestoreRequest { backup_id, components, confirm } = request;
    let wanted = Restore { backup_id: backup_id.into_inner(), components, confirm };
    let key = key.of(&actor, &wanted.intent());
    let Restored { manifest, restored_components, safety_backup_id } =
        app.backups.restore(&actor, wanted, key).await?;
    let response = RestoreResponse {
        manifest: manifest.into(),
        restored_components,
        safety_backup_id: safety_backup_id.into(),
        restart_required: true,
    };
    Ok((StatusCode::CREATED, Data(response)))
}

async fn no_backup() -> Failure {
    Failure(backup::unknown())
}

/// The operator may leave what cannot be taken back to the CEO and the command line.
fn may_destroy(app: &App, caller: &Identity) -> Result<()> {
    if app.settings.get(&DESTRUCTIVE_ROLES) == "ceo_or_system" {
        Guard::CeoOrSystem.check(Some(caller), None)?;
    }
    Ok(())
}
