//! Tasks.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::ETAG;
use axum::response::{IntoResponse, Response};
use quarterdeck_domain::ErrorCode::{ResourceConflict, ResourceNotFound, ValidationError};
use quarterdeck_domain::amount::Amount;
use quarterdeck_domain::role::Guard;
use quarterdeck_domain::task::{
    Complexity, MAX_NAME, MAX_TEXT, MAX_TITLE, NewTask, Priority, Task, TaskPatch, TaskStatus, TaskType,
};
use quarterdeck_domain::text::NotBlank;
use quarterdeck_store::task::Filter;
use quarterdeck_work::tasks::Expected;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::edge::{Data, PaginatedResponse, Result};
use crate::endpoint::{Endpoint, delete, get, patch, post};
use crate::extract::{Body, Condition, IF_MATCH_DOC, Id, Page, Path, Query, RepeatKey, Version};
use crate::gate::Acting;

pub(super) fn endpoints() -> Vec<Endpoint> {
    let (if_match, if_match_words) = IF_MATCH_DOC;
    vec![
        get("/tasks", "tasks.list", Guard::Read)
            .doc("List tasks", "The oldest first. Filters are compared exactly and all have to hold.")
            .query::<TaskQuery>()
            .gives_page::<Task>()
            .to(list),
        get("/tasks/{task_id}", "tasks.get", Guard::Read)
            .doc("Show a task", "The answer carries its `ETag`, which is its version.")
            .gives::<Task>(200)
            .to(show),
        post("/tasks", "tasks.create", Guard::Write)
            .limit(50, 60)
            .doc("Create a task", "It begins as `created`, and unassigned: assign it with a transition.")
            .header(
                "Idempotency-Key",
                "1 to 255 characters. Asked again with the same key and body within 24 hours, the answer is \
                 the same task.",
            )
            .body::<CreateTaskRequest>()
            .gives::<Task>(201)
            .fails(&[ValidationError])
            .to(create),
        patch("/tasks/{task_id}", "tasks.update", Guard::Write)
            .limit(100, 60)
            .doc("Change a task", "Members that are missing or null stay as they are.")
            .header(if_match, if_match_words)
            .body::<UpdateTaskRequest>()
            .gives::<Task>(200)
            .fails(&[ResourceConflict, ValidationError])
            .to(update),
        post("/tasks/{task_id}/transition", "tasks.transition", Guard::Write)
            .limit(100, 60)
            .doc("Move a task to another status", "")
            .header(if_match, if_match_words)
            .body::<TransitionTaskRequest>()
            .gives::<Task>(201)
            .fails(&[ResourceConflict, ValidationError])
            .to(transition),
        post("/tasks/{task_id}/cancel", "tasks.cancel", Guard::Write)
            .limit(50, 60)
            .doc("Cancel a task", "Whatever its version; the state machine has to allow it.")
            .body::<CancelTaskRequest>()
            .gives::<Task>(201)
            .fails(&[ResourceConflict, ValidationError])
            .to(cancel),
        delete("/tasks/{task_id}", "tasks.delete", Guard::Write)
            .limit(20, 60)
            .doc("Delete a task", "Not while approvals, decisions or costs refer to it.")
            .header(if_match, if_match_words)
            .gives_nothing()
            .fails(&[ResourceConflict, ResourceNotFound])
            .to(remove),
    ]
}

type Name = NotBlank<MAX_NAME>;
type Title = NotBlank<MAX_TITLE>;
type Text = NotBlank<MAX_TEXT>;

#[derive(Deserialize, IntoParams)]
struct TaskQuery {
    /// Where they stand.
    status: Option<TaskStatus>,
    /// Who does them.
    #[param(value_type = Option<String>, min_length = 1, max_length = 256, pattern = r"\S")]
    assigned_to: Option<Name>,
    /// Where they belong.
    #[param(value_type = Option<String>, min_length = 1, max_length = 256, pattern = r"\S")]
    project: Option<Name>,
}

/// A new task.
#[derive(Deserialize, ToSchema)]
struct CreateTaskRequest {
    #[schema(value_type = String, min_length = 1, max_length = 256, pattern = r"\S")]
    title: Title,
    #[schema(value_type = String, min_length = 1, max_length = 4096, pattern = r"\S")]
    description: Text,
    r#type: TaskType,
    #[serde(default = "medium")]
    #[schema(default = "medium")]
    priority: Priority,
    /// Need not exist.
    #[schema(value_type = String, min_length = 1, max_length = 256, pattern = r"\S")]
    project: Name,
    /// Who wants it done.
    #[schema(value_type = String, min_length = 1, max_length = 256, pattern = r"\S")]
    created_by: Name,
    /// Refused when set: a task begins unassigned.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 256, pattern = r"\S")]
    assigned_to: Option<Name>,
    #[serde(default = "usual")]
    #[schema(default = "medium")]
    estimated_complexity: Complexity,
    /// Most it may cost; 0 for no bound.
    #[serde(default)]
    #[schema(value_type = f64, minimum = 0, default = 0)]
    budget_limit: Amount,
}

fn medium() -> Priority {
    Priority::Medium
}

fn usual() -> Complexity {
    Complexity::Medium
}

/// What is to be different.
#[derive(Deserialize, ToSchema)]
struct UpdateTaskRequest {
    #[schema(value_type = Option<String>, min_length = 1, max_length = 256, pattern = r"\S")]
    title: Option<Title>,
    #[schema(value_type = Option<String>, min_length = 1, max_length = 4096, pattern = r"\S")]
    description: Option<Text>,
    priority: Option<Priority>,
    #[schema(value_type = Option<String>, min_length = 1, max_length = 256, pattern = r"\S")]
    assigned_to: Option<Name>,
    #[schema(value_type = Option<f64>, minimum = 0)]
    budget_limit: Option<Amount>,
    /// The change is good for this version only.
    #[schema(value_type = Option<i64>, minimum = 1)]
    expected_version: Option<Version>,
}

/// Where it goes.
#[derive(Deserialize, ToSchema)]
struct TransitionTaskRequest {
    target_status: TaskStatus,
    /// Who does it from now on.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 256, pattern = r"\S")]
    assigned_to: Option<Name>,
    /// The change is good for this version only.
    #[schema(value_type = Option<i64>, minimum = 1)]
    expected_version: Option<Version>,
}

/// Why.
#[derive(Deserialize, ToSchema)]
struct CancelTaskRequest {
    #[schema(value_type = String, min_length = 1, max_length = 4096, pattern = r"\S")]
    reason: Text,
}

fn shown(status: StatusCode, task: Task) -> Response {
    (status, [(ETAG, task.etag())], Data(task)).into_response()
}

fn plain<const MAX: usize>(text: Option<NotBlank<MAX>>) -> Option<String> {
    text.map(NotBlank::into_inner)
}

async fn list(
    State(app): State<App>,
    Query(query): Query<TaskQuery>,
    page: Page,
) -> Result<impl IntoResponse> {
    let filter =
        Filter { status: query.status, assigned_to: plain(query.assigned_to), project: plain(query.project) };
    let (tasks, total) = app.tasks.page(&filter, page.offset, page.limit).await?;
    Ok(PaginatedResponse::new(tasks, page.offset, page.limit, total))
}

async fn show(State(app): State<App>, Path(id): Path<Id>) -> Result<Response> {
    Ok(shown(StatusCode::OK, app.tasks.get(&id).await?))
}

async fn create(
    State(app): State<App>,
    Acting(actor): Acting,
    key: RepeatKey,
    Body(request): Body<CreateTaskRequest>,
) -> Result<Response> {
    let new = NewTask {
        title: request.title.into_inner(),
        description: request.description.into_inner(),
        r#type: request.r#type,
        priority: request.priority,
        project: request.project.into_inner(),
        created_by: request.created_by.into_inner(),
        assigned_to: plain(request.assigned_to),
        estimated_complexity: request.estimated_complexity,
        budget_limit: request.budget_limit.get(),
    };
    if new.created_by != *actor.id && new.created_by != *actor.name {
        tracing::warn!(target: "api", user_id = &*actor.id, "api.tasks.created_by_mismatch");
    }
    let key = key.of(&actor, &new);
    Ok(shown(StatusCode::CREATED, app.tasks.create(&actor, new, key).await?))
}

async fn update(
    State(app): State<App>,
    Acting(actor): Acting,
    Path(id): Path<Id>,
    Condition(if_match): Condition,
    Body(request): Body<UpdateTaskRequest>,
) -> Result<Response> {
    let expected = Expected { version: request.expected_version.map(Version::get), if_match };
    let patch = TaskPatch {
        title: plain(request.title),
        description: plain(request.description),
        priority: request.priority,
        assigned_to: plain(request.assigned_to),
        budget_limit: request.budget_limit.map(Amount::get),
    };
    Ok(shown(StatusCode::OK, app.tasks.update(&actor, &id, patch, expected).await?))
}

async fn transition(
    State(app): State<App>,
    Acting(actor): Acting,
    Path(id): Path<Id>,
    Condition(if_match): Condition,
    Body(request): Body<TransitionTaskRequest>,
) -> Result<Response> {
    let expected = Expected { version: request.expected_version.map(Version::get), if_match };
    let (target, assignee) = (request.target_status, plain(request.assigned_to));
    Ok(shown(StatusCode::CREATED, app.tasks.transition(&actor, &id, target, assignee, expected).await?))
}

async fn cancel(
    State(app): State<App>,
    Acting(actor): Acting,
    Path(id): Path<Id>,
    Body(request): Body<CancelTaskRequest>,
) -> Result<Response> {
    Ok(shown(StatusCode::CREATED, app.tasks.cancel(&actor, &id, request.reason.into_inner()).await?))
}

async fn remove(
    State(app): State<App>,
    Acting(actor): Acting,
    Path(id): Path<Id>,
    Condition(if_match): Condition,
) -> Result<StatusCode> {
    app.tasks.delete(&actor, &id, Expected { version: None, if_match }).await?;
    Ok(StatusCode::NO_CONTENT)
}
