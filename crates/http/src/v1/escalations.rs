//! Conflicts between agents that wait for a person.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use chrono::{DateTime, Utc};
use quarterdeck_domain::ErrorCode::{ResourceConflict, ValidationError};
use quarterdeck_domain::conflict::{Conflict, Decision, MAX_ID, MAX_REASON};
use quarterdeck_domain::escalation::{Escalation, EscalationStatus, Fate};
use quarterdeck_domain::role::Guard;
use quarterdeck_domain::text::NotBlank;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::edge::{Data, PaginatedResponse, Result};
use crate::endpoint::{Endpoint, get, post};
use crate::extract::{Body, Page, Path, Query};
use crate::gate::Acting;

/// Name of this list where it is shown in part.
const SOURCE: &str = "escalations";

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/conflicts/escalations", "escalations.list", Guard::Read)
            .limit(120, 60)
            .doc(
                "List escalations",
                "The oldest first. Rows that cannot be read are left out; then `degraded_sources` says \
                 `escalations`.",
            )
            .query::<ListQuery>()
            .gives_page::<EscalationResponse>()
            .to(list),
        get("/conflicts/escalations/{escalation_id}", "escalations.get", Guard::Read)
            .limit(120, 60)
            .doc("Show an escalation", "")
            .gives::<EscalationResponse>(200)
            .to(show),
        post("/conflicts/escalations/{escalation_id}/decision", "escalations.decide", Guard::Approval)
            .limit(30, 60)
            .doc(
                "Decide a conflict",
                "`winner` names an agent with a position in it; `reject` refuses all positions, where the \
                 operator allows it. Of several decisions the first one counts; the others get 409.",
            )
            .body::<SubmitDecisionRequest>()
            .gives::<EscalationResponse>(201)
            .fails(&[ResourceConflict, ValidationError])
            .to(decide),
        post("/conflicts/escalations/{escalation_id}/cancel", "escalations.cancel", Guard::Approval)
            .limit(30, 60)
            .doc("Take an escalation back", "Nobody is to decide it any more.")
            .body::<CancelEscalationRequest>()
            .gives::<EscalationResponse>(201)
            .fails(&[ResourceConflict])
            .to(cancel),
    ]
}

#[derive(Deserialize, IntoParams)]
struct ListQuery {
    /// Where they stand.
    #[param(inline, default = "pending")]
    status: Option<EscalationStatus>,
}

/// What a person decides.
#[derive(Deserialize, ToSchema)]
struct SubmitDecisionRequest {
    decision: Decision,
}

/// Why nobody is to decide.
#[derive(Deserialize, ToSchema)]
struct CancelEscalationRequest {
    #[schema(value_type = String, min_length = 1, max_length = 4096)]
    reason: NotBlank<MAX_REASON>,
}

/// An escalation.
#[derive(Serialize, ToSchema)]
struct EscalationResponse {
    escalation: EscalationBody,
    conflict_id: String,
    status: EscalationStatus,
}

/// A conflict put before people.
#[derive(Serialize, ToSchema)]
#[schema(as = Escalation)]
struct EscalationBody {
    id: String,
    conflict: Conflict,
    status: EscalationStatus,
    created_at: DateTime<Utc>,
    /// Until when somebody waits; `null` = for ever.
    expires_at: Option<DateTime<Utc>>,
    /// When it ended, as the next one.
    decided_at: Option<DateTime<Utc>>,
    /// `human:<user id>` or `system:<part>`.
    decided_by: Option<String>,
    decision: Option<Decision>,
    /// Why it was taken back.
    cancel_reason: Option<String>,
}

impl From<Escalation> for EscalationResponse {
    fn from(escalation: Escalation) -> Self {
        let status = escalation.status();
        let (decided_at, decided_by) = escalation.ended.map(|(at, by)| (at, by.as_str().to_owned())).unzip();
        let (decision, cancel_reason) = match escalation.fate {
            Fate::Decided(decision) => (Some(decision), None),
            Fate::Cancelled(reason) => (None, reason),
            Fate::Pending | Fate::Expired => (None, None),
        };
        Self {
            conflict_id: escalation.conflict.id.to_string(),
            status,
            escalation: EscalationBody {
                id: escalation.id.into_inner(),
                conflict: escalation.conflict,
                status,
                created_at: escalation.created_at,
                expires_at: escalation.expires_at,
                decided_at,
                decided_by,
                decision,
                cancel_reason,
            },
        }
    }
}

async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
    page: Page,
) -> Result<impl IntoResponse> {
    let status = query.status.unwrap_or(EscalationStatus::Pending);
    let listed = app.escalations.list(status, page.offset, page.limit.into()).await?;
    let items: Vec<_> = listed.items.into_iter().map(EscalationResponse::from).collect();
    let answer = PaginatedResponse::new(items, page.offset, page.limit, listed.total);
    Ok(if listed.is_partial { answer.degraded(vec![SOURCE.to_owned()]) } else { answer })
}

async fn show(State(app): State<App>, Path(id): Path<NotBlank<MAX_ID>>) -> Result<impl IntoResponse> {
    Ok(Data(EscalationResponse::from(app.escalations.get(&id).await?)))
}

async fn decide(
    State(app): State<App>,
    Acting(actor): Acting,
    Path(id): Path<NotBlank<MAX_ID>>,
    Body(request): Body<SubmitDecisionRequest>,
) -> Result<impl IntoResponse> {
    let decided = app.escalations.decide(&id, request.decision, &actor).await?;
    Ok((StatusCode::CREATED, Data(EscalationResponse::from(decided))))
}

async fn cancel(
    State(app): State<App>,
    Acting(actor): Acting,
    Path(id): Path<NotBlank<MAX_ID>>,
    Body(request): Body<CancelEscalationRequest>,
) -> Result<impl IntoResponse> {
    let cancelled = app.escalations.cancel(&id, &request.reason, &actor).await?;
    Ok((StatusCode::CREATED, Data(EscalationResponse::from(cancelled))))
}
