//! Reviews of tasks.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use chrono::{DateTime, Utc};
use quarterdeck_domain::ErrorCode::ResourceConflict;
use quarterdeck_domain::review::{MAX_STAGE, ReviewVerdict, StageDecisionPayload, StageResult};
use quarterdeck_domain::role::Guard;
use quarterdeck_domain::text::NotBlank;
use quarterdeck_work::reviews;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::edge::{Data, Result};
use crate::endpoint::{Endpoint, get, post};
use crate::extract::{Body, Id, Path};
use crate::gate::Acting;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/reviews/{task_id}/pipeline", "reviews.run_pipeline", Guard::Read)
            .doc(
                "Run the review pipeline over a task",
                "The stages of the setting `engine/review_stages`, in order. What people have decided stands \
                 in the place of what a stage finds. The task stays where it is.",
            )
            .gives::<PipelineResult>(200)
            .to(pipeline),
        post("/reviews/{task_id}/stages/{stage_name}/decide", "reviews.decide_stage", Guard::Write)
            .limit(50, 60)
            .doc(
                "Decide a stage of a review",
                "Instead of the stage, until somebody decides it anew. Nobody decides over their own work.",
            )
            .body::<StageDecisionPayload>()
            .gives::<StageDecisionResult>(201)
            .fails(&[ResourceConflict])
            .to(decide),
    ]
}

/// What the pipeline finds.
#[derive(Serialize, ToSchema)]
struct PipelineResult {
    #[schema(min_length = 1)]
    task_id: String,
    /// One failure fails it; without any finding it is skipped.
    final_verdict: ReviewVerdict,
    /// In the order of the stages.
    stage_results: Vec<StageResult>,
    #[schema(minimum = 0)]
    total_duration_ms: u64,
    reviewed_at: DateTime<Utc>,
}

impl From<reviews::PipelineResult> for PipelineResult {
    fn from(result: reviews::PipelineResult) -> Self {
        Self {
            task_id: result.task_id,
            final_verdict: result.final_verdict,
            stage_results: result.stages,
            total_duration_ms: u64::try_from(result.took.as_millis()).unwrap_or(u64::MAX),
            reviewed_at: result.reviewed_at,
        }
    }
}

/// What was decided, and what the pipeline finds with it.
#[derive(Serialize, ToSchema)]
struct StageDecisionResult {
    #[schema(min_length = 1)]
    task_id: String,
    #[schema(min_length = 1)]
    stage_name: String,
    stage_result: StageResult,
    pipeline_result: PipelineResult,
}

async fn pipeline(State(app): State<App>, Path(task_id): Path<Id>) -> Result<impl IntoResponse> {
    Ok(Data(PipelineResult::from(app.reviews.pipeline(&task_id).await?)))
}

async fn decide(
    State(app): State<App>,
    Acting(actor): Acting,
    Path((task_id, stage)): Path<(Id, NotBlank<MAX_STAGE>)>,
    Body(said): Body<StageDecisionPayload>,
) -> Result<impl IntoResponse> {
    let (stage_result, pipeline) = app.reviews.decide(&actor, &task_id, &stage, said).await?;
    let (task_id, stage_name) = (task_id.into_inner(), stage.into_inner());
    let pipeline_result = pipeline.into();
    Ok((
        StatusCode::CREATED,
        Data(StageDecisionResult { task_id, stage_name, stage_result, pipeline_result }),
    ))
}
