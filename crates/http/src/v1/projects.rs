//! Projects.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use quarterdeck_domain::project::{MAX_ID, NewProject, Project, ProjectChange, ProjectStatus};
use quarterdeck_domain::role::Guard;
use quarterdeck_domain::text::NotBlank;
use quarterdeck_domain::{Error, ErrorCode};
use quarterdeck_store::project::Filter;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::app::App;
use crate::edge::{Data, PaginatedResponse, Result};
use crate::endpoint::{Endpoint, delete, get, patch, post};
use crate::extract::{Body, Id, Page, Path, Query};
use crate::gate::Acting;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/projects", "projects.list", Guard::Read)
            .doc("List projects", "By id; of more than 10,000 the first are counted and shown.")
            .query::<ListQuery>()
            .gives_page::<Project>()
            .fails(&[ErrorCode::ValidationError])
            .to(list),
        get("/projects/{project_id}", "projects.get", Guard::Read)
            .doc("Show a project", "")
            .gives::<Project>(200)
            .to(show),
        post("/projects", "projects.create", Guard::Write)
            .limit(20, 60)
            .doc("Create a project", "It begins in planning. Names need not be unique.")
            .body::<NewProject>()
            .gives::<Project>(201)
            .fails(&[ErrorCode::ValidationError])
            .to(create),
        patch("/projects/{project_id}", "projects.update", Guard::Write)
            .doc("Change a project", "What is not named stays. Completed and cancelled are final.")
            .body::<ProjectChange>()
            .gives::<Project>(200)
            .fails(&[ErrorCode::ValidationError])
            .to(update),
        delete("/projects/{project_id}", "projects.delete", Guard::Write)
            .doc("Delete a project", "Not while tasks belong to it.")
            .gives_nothing()
            .fails(&[ErrorCode::ResourceConflict])
            .to(remove),
    ]
}

#[derive(Deserialize, IntoParams)]
struct ListQuery {
    /// Those with this status.
    #[param(value_type = Option<String>, min_length = 1, max_length = 128)]
    status: Option<NotBlank<128>>,
    /// Those with this lead.
    #[param(value_type = Option<String>, min_length = 1, max_length = 128)]
    lead: Option<NotBlank<MAX_ID>>,
}

impl ListQuery {
    fn filter(self) -> Result<Filter, Error> {
        let status = self.status.map(|status| {
            ProjectStatus::parse(&status).ok_or_else(|| {
                let known: Vec<_> = ProjectStatus::ALL.iter().map(|status| status.as_str()).collect();
                Error::rule(format!("status must be one of {}", known.join(", ")))
            })
        });
        Ok(Filter { status: status.transpose()?, lead: self.lead.map(NotBlank::into_inner) })
    }
}

async fn list(
    State(app): State<App>,
    page: Page,
    Query(query): Query<ListQuery>,
) -> Result<impl IntoResponse> {
    let (projects, total) = app.projects.page(&query.filter()?, page.offset, page.limit.into()).await?;
    Ok(PaginatedResponse::new(projects, page.offset, page.limit, total))
}

async fn show(State(app): State<App>, Path(id): Path<Id>) -> Result<impl IntoResponse> {
    Ok(Data(app.projects.get(&id).await?))
}

async fn create(
    State(app): State<App>,
    Acting(actor): Acting,
    Body(new): Body<NewProject>,
) -> Result<impl IntoResponse> {
    Ok((StatusCode::CREATED, Data(app.projects.create(&actor, new).await?)))
}

async fn update(
    State(app): State<App>,
    Acting(actor): Acting,
    Path(id): Path<Id>,
    Body(change): Body<ProjectChange>,
) -> Result<impl IntoResponse> {
    Ok(Data(app.projects.update(&actor, &id, change).await?))
}

async fn remove(
    State(app): State<App>,
    Acting(actor): Acting,
    Path(id): Path<Id>,
) -> Result<impl IntoResponse> {
    app.projects.delete(&actor, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
