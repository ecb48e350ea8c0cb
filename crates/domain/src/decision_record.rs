//! What reviewers have decided about finished work; kept for ever.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::approval::DecisionOutcome;
use crate::task::Task;

/// A decision of a review.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct DecisionRecord {
    /// A UUID.
    pub id: String,
    /// The task.
    pub task_id: String,
    /// The approval it was decided by.
    pub approval_id: Option<String>,
    /// Who did the work.
    pub executing_agent_id: String,
    /// User id of who decided; never who did the work.
    pub reviewer_agent_id: String,
    /// How it ended.
    pub decision: DecisionOutcome,
    /// Why, if somebody said so.
    pub reason: Option<String>,
    /// The conditions for being done, as they were then.
    pub criteria_snapshot: Vec<String>,
    /// When.
    pub recorded_at: DateTime<Utc>,
    /// Counts the decisions about the task, from 1; 0 until it is stored.
    #[schema(minimum = 1)]
    pub version: i64,
    /// Anything else.
    #[schema(value_type = std::collections::HashMap<String, Value>)]
    pub metadata: Map<String, Value>,
}

impl DecisionRecord {
    /// The record of a decision about a task that `executor` did.
    pub fn new(
        task: &Task,
        executor: &str,
        reviewer: &str,
        decision: DecisionOutcome,
        now: DateTime<Utc>,
    ) -> Self {
        let mut criteria = Vec::new();
        for criterion in &task.acceptance_criteria {
            let text = criterion.description.trim();
            if !criteria.iter().any(|known| known == text) {
                criteria.push(text.to_owned());
            }
        }
        Self {
            id: Uuid::new_v4().to_string(),
            task_id: task.id.clone(),
            approval_id: None,
            executing_agent_id: executor.to_owned(),
            reviewer_agent_id: reviewer.to_owned(),
            decision,
            reason: None,
            criteria_snapshot: criteria,
            recorded_at: now,
            version: 0,
            metadata: Map::new(),
        }
    }
}
