//! How freely an agent acts.

use axum::extract::State;
use axum::response::IntoResponse;
use quarterdeck_domain::autonomy::AutonomyLevel;
use quarterdeck_domain::role::Guard;
use quarterdeck_domain::text::NotBlank;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::edge::{Data, Result};
use crate::endpoint::{Endpoint, get, post};
use crate::extract::{Body, Path};
use crate::gate::Acting;

/// Most characters of the id of an agent.
const MAX_ID: usize = 128;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/agents/{agent_id}/autonomy", "autonomy.get", Guard::Read)
            .doc(
                "Show how freely an agent acts",
                "As the setting `company/autonomy_level` says for all agents.",
            )
            .gives::<AutonomyLevelResponse>(200)
            .to(show),
        post("/agents/{agent_id}/autonomy", "autonomy.update", Guard::CeoOrManager)
            .limit(10, 60)
            .doc(
                "Ask for another level",
                "Files an approval `org:promote`. The level stays what it is, and the answer says so.",
            )
            .body::<AutonomyLevelRequest>()
            .gives::<AutonomyLevelResponse>(200)
            .to(ask),
    ]
}

/// The level asked for.
#[derive(Deserialize, ToSchema)]
struct AutonomyLevelRequest {
    level: AutonomyLevel,
}

/// How freely an agent acts.
#[derive(Serialize, ToSchema)]
struct AutonomyLevelResponse {
    agent_id: String,
    /// In force.
    level: AutonomyLevel,
    /// Whether another level was asked for.
    promotion_pending: bool,
}

async fn show(State(app): State<App>, Path(id): Path<NotBlank<MAX_ID>>) -> Result<impl IntoResponse> {
    let level = app.autonomy.level();
    Ok(Data(AutonomyLevelResponse { agent_id: id.into_inner(), level, promotion_pending: false }))
}

async fn ask(
    State(app): State<App>,
    Acting(actor): Acting,
    Path(id): Path<NotBlank<MAX_ID>>,
    Body(request): Body<AutonomyLevelRequest>,
) -> Result<impl IntoResponse> {
    app.autonomy.ask(&id, request.level, &actor).await?;
    let level = app.autonomy.level();
    Ok(Data(AutonomyLevelResponse { agent_id: id.into_inner(), level, promotion_pending: true }))
}
