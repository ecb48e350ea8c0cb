//! Approvals, and what reviewers have decided about tasks.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use quarterdeck_domain::Error;
use quarterdeck_domain::ErrorCode::{ResourceConflict, ResourceNotFound, ValidationError};
use quarterdeck_domain::approval::{
    ActionType, ApprovalResponse, ApprovalStatus, Decision, Labels, MAX_ACTION, MAX_TEXT, MAX_TITLE,
    NewApproval, RiskLevel,
};
use quarterdeck_domain::decision_record::DecisionRecord;
use quarterdeck_domain::role::Guard;
use quarterdeck_domain::text::NotBlank;
use quarterdeck_store::approval::Filter;
use serde::{Deserialize, Deserializer};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::edge::{Data, PaginatedResponse, Result};
use crate::endpoint::{Endpoint, get, post};
use crate::extract::{Body, Id, Page, Path, Query};
use crate::gate::Acting;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/approvals", "approvals.list", Guard::Read)
            .doc("List approvals", "The newest first. Those whose time is over show as `expired`.")
            .query::<ApprovalQuery>()
            .gives_page::<ApprovalResponse>()
            .fails(&[ValidationError])
            .to(list),
        get("/approvals/{approval_id}", "approvals.get", Guard::Read)
            .doc("Show an approval", "")
            .gives::<ApprovalResponse>(200)
            .to(show),
        post("/approvals", "approvals.create", Guard::Write)
            .limit(20, 60)
            .doc("Ask for a decision", "In the name of the caller.")
            .body::<CreateApprovalRequest>()
            .gives::<ApprovalResponse>(201)
            .fails(&[ValidationError])
            .to(create),
        post("/approvals/{approval_id}/approve", "approvals.approve", Guard::Approval)
            .limit(100, 60)
            .doc("Approve", "Of several decisions the first one counts. A task in review is completed by it.")
            .body::<ApproveRequest>()
            .gives::<ApprovalResponse>(200)
            .fails(&[ResourceConflict])
            .to(approve),
        post("/approvals/{approval_id}/reject", "approvals.reject", Guard::Approval)
            .limit(100, 60)
            .doc("Reject", "Of several decisions the first one counts. A task in review goes on by it.")
            .body::<RejectRequest>()
            .gives::<ApprovalResponse>(200)
            .fails(&[ResourceConflict])
            .to(reject),
        get("/tasks/{task_id}/decisions", "tasks.decisions", Guard::Read)
            .doc("List what reviewers decided about a task", "The oldest first.")
            .gives_page::<DecisionRecord>()
            .fails(&[ResourceNotFound])
            .to(decisions),
    ]
}

#[derive(Deserialize, IntoParams)]
struct ApprovalQuery {
    /// What has become of them.
    status: Option<ApprovalStatus>,
    /// What is at stake.
    risk_level: Option<RiskLevel>,
    /// What is to be done; compared exactly.
    #[param(max_length = 128)]
    action_type: Option<String>,
}

/// What somebody asks for.
#[derive(Deserialize, ToSchema)]
struct CreateApprovalRequest {
    /// `category:action`.
    #[schema(value_type = String, min_length = 3, max_length = 128, pattern = r"^[^:]*[^:\s][^:]*:[^:]*[^:\s][^:]*$")]
    action_type: ActionType,
    #[schema(value_type = String, min_length = 1, max_length = 256, pattern = r"\S")]
    title: NotBlank<MAX_TITLE>,
    #[schema(value_type = String, min_length = 1, max_length = 4096, pattern = r"\S")]
    description: NotBlank<MAX_TEXT>,
    risk_level: RiskLevel,
    /// How long it waits, in seconds; null for ever.
    #[schema(value_type = Option<i64>, minimum = 60, maximum = 604_800)]
    ttl_seconds: Option<Ttl>,
    /// The task it is about; need not exist.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128, pattern = r"\S")]
    task_id: Option<Id>,
    /// At most 20 keys; keys and values of at most 256 characters.
    #[serde(default)]
    #[schema(schema_with = labels)]
    metadata: Labels,
}

fn labels() -> Schema {
    let text = ObjectBuilder::new().schema_type(Type::String).max_length(Some(256));
    let labels = ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(Schema::Object(text.build())));
    Schema::Object(labels.max_properties(Some(20)).build())
}

struct Ttl(u32);

impl<'de> Deserialize<'de> for Ttl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            seconds @ 60..=604_800 => Ok(Self(seconds)),
            _ => Err(serde::de::Error::custom("must be between 60 and 604800")),
        }
    }
}

/// Words for a yes.
#[derive(Deserialize, ToSchema)]
struct ApproveRequest {
    #[schema(value_type = Option<String>, min_length = 1, max_length = 4096, pattern = r"\S")]
    comment: Option<NotBlank<MAX_TEXT>>,
}

/// Words for a no.
#[derive(Deserialize, ToSchema)]
struct RejectRequest {
    #[schema(value_type = String, min_length = 1, max_length = 4096, pattern = r"\S")]
    reason: NotBlank<MAX_TEXT>,
}

async fn list(
    State(app): State<App>,
    Query(query): Query<ApprovalQuery>,
    page: Page,
) -> Result<impl IntoResponse> {
    let ApprovalQuery { status, risk_level, action_type } = query;
    if action_type.as_ref().is_some_and(|action| action.chars().count() > MAX_ACTION) {
        return Err(Error::rule(format!("action_type must have at most {MAX_ACTION} characters")).into());
    }
    let filter = Filter { status, risk_level, action_type };
    let (approvals, total) = app.approvals.page(&filter, page.offset, page.limit).await?;
    let now = app.clock.now();
    let approvals: Vec<_> = approvals.iter().map(|approval| approval.shown(now)).collect();
    Ok(PaginatedResponse::new(approvals, page.offset, page.limit, total))
}

async fn show(State(app): State<App>, Path(id): Path<Id>) -> Result<impl IntoResponse> {
    Ok(Data(app.approvals.get(&id).await?.shown(app.clock.now())))
}

async fn create(
    State(app): State<App>,
    Acting(actor): Acting,
    Body(request): Body<CreateApprovalRequest>,
) -> Result<impl IntoResponse> {
    let new = NewApproval {
        action_type: request.action_type,
        title: request.title.into_inner(),
        description: request.description.into_inner(),
        risk_level: request.risk_level,
        ttl_seconds: request.ttl_seconds.map(|Ttl(seconds)| seconds),
        task_id: request.task_id.map(NotBlank::into_inner),
        evidence_package: None,
        metadata: request.metadata,
    };
    let approval = app.approvals.submit(&actor, new).await?;
    Ok((StatusCode::CREATED, Data(approval.shown(app.clock.now()))))
}

async fn approve(
    State(app): State<App>,
    Acting(actor): Acting,
    Path(id): Path<Id>,
    Body(request): Body<ApproveRequest>,
) -> Result<impl IntoResponse> {
    let decision = Decision::Approve { comment: request.comment.map(NotBlank::into_inner) };
    Ok(Data(app.approvals.decide(&actor, &id, decision).await?.shown(app.clock.now())))
}

async fn reject(
    State(app): State<App>,
    Acting(actor): Acting,
    Path(id): Path<Id>,
    Body(request): Body<RejectRequest>,
) -> Result<impl IntoResponse> {
    let decision = Decision::Reject { reason: request.reason.into_inner() };
    Ok(Data(app.approvals.decide(&actor, &id, decision).await?.shown(app.clock.now())))
}

async fn decisions(State(app): State<App>, Path(id): Path<Id>, page: Page) -> Result<impl IntoResponse> {
    let (records, total) = app.approvals.decisions(&id, page.offset, page.limit).await?;
    Ok(PaginatedResponse::new(records, page.offset, page.limit, total))
}
