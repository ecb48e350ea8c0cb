//! The review pipeline: what its stages find about a task, unless people have decided otherwise.

use std::time::Duration;

use chrono::{DateTime, Utc};
use quarterdeck_domain::audit::{Actor, Entry};
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::review::{
    BuiltInStage, Evidence, ReviewVerdict, StageDecision, StageDecisionPayload, StageResult, final_verdict,
};
use quarterdeck_domain::setting::engine::REVIEW_STAGES;
use quarterdeck_domain::task::Task;
use quarterdeck_domain::{Error, Result};
use quarterdeck_store::{Connection, Store, review, task};

use crate::settings::Settings;

/// Reviews of tasks. Cheap to clone.
#[derive(Clone)]
pub struct Reviews {
    store: Store,
    settings: Settings,
    clock: SharedClock,
}

/// What the pipeline finds.
#[derive(Clone, Debug, PartialEq)]
pub struct PipelineResult {
    /// The task.
    pub task_id: String,
    /// What all stages find together.
    pub final_verdict: ReviewVerdict,
    /// What each finds, in order.
    pub stages: Vec<StageResult>,
    /// How long it took.
    pub took: Duration,
    /// When.
    pub reviewed_at: DateTime<Utc>,
}

impl Reviews {
    /// Reviews of the tasks in this store.
    pub fn new(store: Store, settings: Settings, clock: SharedClock) -> Self {
        Self { store, settings, clock }
    }

    /// Runs the pipeline.
    ///
    /// # Errors
    /// 404/3000 without such a task; 503/8001 when the setting `engine/review_stages` names no stage.
    pub async fn pipeline(&self, task_id: &str) -> Result<PipelineResult> {
        let stages = self.stages()?;
        let store = self.store.read();
        let task = task::by_id(store, task_id).await?.ok_or_else(|| Error::missing("Task", task_id))?;
        self.run(store, &task, &stages).await
    }

    /// Decides a stage instead of it; the newest decision counts. The task stays where it is.
    ///
    /// # Errors
    /// As [`Reviews::pipeline`]; 409/4000 when no stage has this name; 403/1001 for whoever does the task.
    pub async fn decide(
        &self,
        actor: &Actor,
        task_id: &str,
        stage: &str,
        said: StageDecisionPayload,
    ) -> Result<(StageResult, PipelineResult)> {
        let (this, stages, now) = (self.clone(), self.stages()?, self.clock.now());
        let decision = StageDecision {
            task_id: task_id.to_owned(),
            stage_name: stage.to_owned(),
            verdict: said.verdict,
            reason: said.reason.clone(),
            decided_by: actor.id.to_string(),
            decided_at: now,
        };
        let actor = actor.clone();
        let decide = self.store.write(move |tx| {
            Box::pin(async move {
                // Held, so that nobody becomes its assignee between the look and the decision.
                let found = task::lock(tx, &decision.task_id).await?;
                let task = found.ok_or_else(|| Error::missing("Task", &decision.task_id))?;
                if !stages.contains(&decision.stage_name) {
                    return Err(Error::conflict("The review pipeline has no such stage"));
                }
                if task.assigned_to.as_deref() == Some(&decision.decided_by) {
                    return Err(Error::forbidden("Self-review is not permitted"));
                }
                review::insert(tx, &decision).await?;
                let text = format!("A review stage was decided: {}", decision.verdict);
                let arguments = (&decision.stage_name, &decision.verdict, said.reason.as_deref());
                tx.audit(Entry::new(&actor, "review:decide", now, text).task(&task.id).arguments(&arguments));
                let result = this.run(&**tx, &task, &stages).await?;
                Ok((StageResult::decided(decision), result))
            })
        });
        decide.await
    }

    fn stages(&self) -> Result<Vec<String>> {
        let stages = self.settings.get(&REVIEW_STAGES);
        let stages: Vec<String> = serde_json::from_value(stages).map_err(Error::internal)?;
        if stages.is_empty() {
            return Err(Error::unavailable("the setting engine/review_stages names no stage", 60));
        }
        Ok(stages)
    }

    async fn run(&self, store: &impl Connection, task: &Task, stages: &[String]) -> Result<PipelineResult> {
        let began = self.clock.monotonic();
        let mut decided = review::newest(store, &task.id).await?;
        let mut results = Vec::with_capacity(stages.len());
        for stage in stages {
            let before = self.clock.monotonic();
            let by_people = decided.iter().position(|decision| decision.stage_name == *stage);
            let mut result = match (by_people, BuiltInStage::parse(stage)) {
                (Some(position), _) => StageResult::decided(decided.swap_remove(position)),
                (None, Some(built_in)) => {
                    StageResult::found(built_in, evidence(store, task, built_in).await?)
                }
                (None, None) => StageResult::undecided(stage),
            };
            result.duration_ms = millis(self.clock.monotonic().saturating_sub(before));
            results.push(result);
        }
        Ok(PipelineResult {
            task_id: task.id.clone(),
            final_verdict: final_verdict(&results),
            stages: results,
            took: self.clock.monotonic().saturating_sub(began),
            reviewed_at: self.clock.now(),
        })
    }
}

async fn evidence(store: &impl Connection, task: &Task, stage: BuiltInStage) -> Result<Evidence> {
    Ok(match stage {
        BuiltInStage::AcceptanceCriteria => {
            let criteria = &task.acceptance_criteria;
            let missing = criteria.iter().filter(|criterion| !criterion.met).count();
            Evidence { wanted: criteria.len(), missing }
        }
        BuiltInStage::ArtifactsExpected => Evidence {
            wanted: task.artifacts_expected.len(),
            missing: review::missing_artifacts(store, task).await?,
        },
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
