//! Artifacts, and their contents.

mod download;
mod upload;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use quarterdeck_domain::ErrorCode::{ArtifactStorageFull, ArtifactTooLarge};
use quarterdeck_domain::artifact::{Artifact, ArtifactType, NewArtifact};
use quarterdeck_domain::project::MAX_ID;
use quarterdeck_domain::role::Guard;
use quarterdeck_domain::text::NotBlank;
use quarterdeck_store::artifact::Filter;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::app::App;
use crate::edge::{Data, PaginatedResponse, Result};
use crate::endpoint::{Endpoint, delete, get, post, put};
use crate::extract::{Body, Id, Page, Path, Query};
use crate::gate::Acting;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/artifacts", "artifacts.list", Guard::Read)
            .doc("List artifacts", "By id; of more than 10,000 the first are counted and shown.")
            .query::<ListQuery>()
            .gives_page::<Artifact>()
            .to(list),
        get("/artifacts/{artifact_id}", "artifacts.get", Guard::Read)
            .doc("Show an artifact", "What is known about it, without its content.")
            .gives::<Artifact>(200)
            .to(show),
        post("/artifacts", "artifacts.create", Guard::Write)
            .limit(50, 60)
            .doc("Create an artifact", "Without content, which is uploaded next.")
            .body::<NewArtifact>()
            .gives::<Artifact>(201)
            .to(create),
        delete("/artifacts/{artifact_id}", "artifacts.delete", Guard::Write)
            .limit(20, 60)
            .doc("Delete an artifact", "With its content.")
            .gives::<Nothing>(200)
            .to(remove),
        put("/artifacts/{artifact_id}/content", "artifacts.upload", Guard::Write)
            .limit(10, 60)
            .doc(
                "Upload content",
                "As the one file of a form, or as the body itself. It takes the place of what was there, \
                 whole or not at all. Of what type it is, the artifact says, not the upload. 50 MiB at most; \
                 1 GiB for all artifacts together.",
            )
            .takes_file()
            .gives::<Artifact>(200)
            .fails(&[ArtifactTooLarge, ArtifactStorageFull])
            .to(upload),
        get("/artifacts/{artifact_id}/content", "artifacts.download", Guard::Read)
            .doc(
                "Download content",
                "Always as an attachment, and as `application/octet-stream` unless its type is harmless. \
                 `ETag` and `Repr-Digest` are made of the SHA-256 of the content.",
            )
            .header("If-None-Match", "Tags of the contents the caller has: 304 if one is the content.")
            .header("Range", "One range of bytes; several are answered with the whole.")
            .header("If-Range", "Tag of the content a part of which the caller has.")
            .gives_content("application/octet-stream")
            .also(206, "The part that was asked for")
            .also(304, "The caller has the content")
            .also(416, "The content does not reach that far")
            .to(download),
    ]
}

/// Nothing: `data` is `null`.
#[derive(serde::Serialize, utoipa::ToSchema)]
struct Nothing;

#[derive(Deserialize, IntoParams)]
struct ListQuery {
    /// Those of this task.
    #[param(value_type = Option<String>, min_length = 1, max_length = 128)]
    task_id: Option<NotBlank<MAX_ID>>,
    /// Those made by this agent or person.
    #[param(value_type = Option<String>, min_length = 1, max_length = 128)]
    created_by: Option<NotBlank<MAX_ID>>,
    /// Those of this type.
    r#type: Option<ArtifactType>,
}

async fn list(
    State(app): State<App>,
    page: Page,
    Query(query): Query<ListQuery>,
) -> Result<impl IntoResponse> {
    let ListQuery { task_id, created_by, r#type } = query;
    let text = |text: Option<NotBlank<MAX_ID>>| text.map(NotBlank::into_inner);
    let filter = Filter { task_id: text(task_id), created_by: text(created_by), r#type };
    let (artifacts, total) = app.artifacts.page(&filter, page.offset, page.limit.into()).await?;
    Ok(PaginatedResponse::new(artifacts, page.offset, page.limit, total))
}

async fn show(State(app): State<App>, Path(id): Path<Id>) -> Result<impl IntoResponse> {
    Ok(Data(app.artifacts.get(&id).await?))
}

async fn create(
    State(app): State<App>,
    Acting(actor): Acting,
    Body(new): Body<NewArtifact>,
) -> Result<impl IntoResponse> {
    Ok((StatusCode::CREATED, Data(app.artifacts.create(&actor, new).await?)))
}

async fn remove(
    State(app): State<App>,
    Acting(actor): Acting,
    Path(id): Path<Id>,
) -> Result<impl IntoResponse> {
    app.artifacts.delete(&actor, &id).await?;
    Ok(Data(Nothing))
}

async fn upload(
    State(app): State<App>,
    Acting(actor): Acting,
    Path(id): Path<Id>,
    request: Request,
) -> Result<impl IntoResponse> {
    let upload::Incoming { announced, bytes } = upload::incoming(request)?;
    Ok(Data(app.artifacts.upload(&actor, &id, announced, bytes).await?))
}

async fn download(State(app): State<App>, Path(id): Path<Id>, headers: HeaderMap) -> Result<Response> {
    let wanted = |content: &_| download::wanted(&headers, content);
    let (artifact, content, bytes) = app.artifacts.read(&id, |content| wanted(content).part()).await?;
    Ok(download::answer(&artifact, &content, wanted(&content), bytes))
}
