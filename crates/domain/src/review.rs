//! The review pipeline: stages that look at a task's outcome, and what people decide instead of them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::role::wire_enum;
use crate::text::NotBlank;

/// Most characters of the name of a stage.
pub const MAX_STAGE: usize = 128;
/// Most characters of a reason.
pub const MAX_REASON: usize = 4096;

wire_enum! {
    /// What a stage, or the pipeline, finds.
    ReviewVerdict {
        /// As it should be.
        Pass = "pass",
        /// Not as it should be.
        Fail = "fail",
        /// Nothing to look at.
        Skip = "skip",
    }
}

wire_enum! {
    /// A stage that needs no model and no person.
    BuiltInStage {
        /// Every acceptance criterion is met.
        AcceptanceCriteria = "acceptance_criteria",
        /// Every expected artifact is there.
        ArtifactsExpected = "artifacts_expected",
    }
}

/// What a stage looks at: how much is asked for, and what is missing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// How many things are asked for.
    pub wanted: usize,
    /// How many of them are missing.
    pub missing: usize,
}

/// What a stage has found.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ReviewStageResult)]
pub struct StageResult {
    /// Name of the stage.
    #[schema(min_length = 1)]
    pub stage_name: String,
    /// What it finds.
    pub verdict: ReviewVerdict,
    /// Why.
    #[schema(min_length = 1)]
    pub reason: Option<String>,
    /// How long it took.
    #[schema(minimum = 0)]
    pub duration_ms: u64,
    /// What goes with it: `decided_by` and `decided_at` when a person has decided.
    #[schema(value_type = std::collections::HashMap<String, Value>)]
    pub metadata: Map<String, Value>,
}

/// What a person has decided instead of a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct StageDecision {
    /// The task.
    pub task_id: String,
    /// The stage.
    pub stage_name: String,
    /// What was decided.
    pub verdict: ReviewVerdict,
    /// Why.
    pub reason: Option<NotBlank<MAX_REASON>>,
    /// User id.
    pub decided_by: String,
    /// When.
    pub decided_at: DateTime<Utc>,
}

/// What a person says of a stage.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct StageDecisionPayload {
    /// What is decided.
    pub verdict: ReviewVerdict,
    /// Why.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 4096, pattern = r"\S")]
    pub reason: Option<NotBlank<MAX_REASON>>,
}

impl StageResult {
    /// What a built-in stage finds.
    pub fn found(stage: BuiltInStage, evidence: Evidence) -> Self {
        let Evidence { wanted, missing } = evidence;
        let (things, lack) = match stage {
            BuiltInStage::AcceptanceCriteria => ("acceptance criteria", "are not met"),
            BuiltInStage::ArtifactsExpected => ("expected artifacts", "are missing"),
        };
        let (verdict, reason) = match (wanted, missing) {
            (0, _) => (ReviewVerdict::Skip, Some(format!("The task has no {things}"))),
            (_, 0) => (ReviewVerdict::Pass, None),
            _ => (ReviewVerdict::Fail, Some(format!("{missing} of {wanted} {things} {lack}"))),
        };
        let metadata =
            Map::from_iter([("wanted".to_owned(), json!(wanted)), ("missing".to_owned(), json!(missing))]);
        Self { stage_name: stage.to_string(), verdict, reason, duration_ms: 0, metadata }
    }

    /// A stage that only people decide, before one has.
    pub fn undecided(stage_name: &str) -> Self {
        let reason = Some("Nobody has decided yet".to_owned());
        let (stage_name, verdict) = (stage_name.to_owned(), ReviewVerdict::Skip);
        Self { stage_name, verdict, reason, duration_ms: 0, metadata: Map::new() }
    }

    /// What a person has decided.
    pub fn decided(decision: StageDecision) -> Self {
        let metadata =
            [("decided_by", json!(decision.decided_by)), ("decided_at", json!(decision.decided_at))];
        Self {
            stage_name: decision.stage_name,
            verdict: decision.verdict,
            reason: decision.reason.map(NotBlank::into_inner),
            duration_ms: 0,
            metadata: metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }
}

/// What the pipeline finds: one failure fails it, and without any finding it is skipped.
pub fn final_verdict(stages: &[StageResult]) -> ReviewVerdict {
    let any = |verdict| stages.iter().any(|stage| stage.verdict == verdict);
    if any(ReviewVerdict::Fail) {
        ReviewVerdict::Fail
    } else if any(ReviewVerdict::Pass) {
        ReviewVerdict::Pass
    } else {
        ReviewVerdict::Skip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_in_stage_fails_for_what_is_missing_and_skips_where_nothing_is_asked() {
        let found = |wanted, missing| {
            let result = StageResult::found(BuiltInStage::AcceptanceCriteria, Evidence { wanted, missing });
            (result.verdict, result.reason.unwrap_or_default())
        };
        assert_eq!(found(2, 0), (ReviewVerdict::Pass, String::new()));
        assert_eq!(found(2, 1), (ReviewVerdict::Fail, "1 of 2 acceptance criteria are not met".to_owned()));
        assert_eq!(found(0, 0).0, ReviewVerdict::Skip);
    }

    #[test]
    fn one_failure_fails_the_pipeline_and_skipping_alone_is_skipping() {
        let of = |verdicts: &[ReviewVerdict]| {
            let stage =
                |verdict: &ReviewVerdict| StageResult { verdict: *verdict, ..StageResult::undecided("s") };
            final_verdict(&verdicts.iter().map(stage).collect::<Vec<_>>())
        };
        use ReviewVerdict::{Fail, Pass, Skip};
        assert_eq!(of(&[Pass, Fail, Skip]), Fail);
        assert_eq!(of(&[Skip, Pass]), Pass);
        assert_eq!(of(&[Skip, Skip]), Skip);
    }
}
