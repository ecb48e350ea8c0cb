//! What people have decided instead of stages of a review.

use quarterdeck_domain::event::{Event, EventType};
use quarterdeck_domain::review::{ReviewVerdict, StageDecision};
use quarterdeck_domain::task::{ExpectedArtifact, Task};
use quarterdeck_domain::text::NotBlank;
use quarterdeck_domain::{Error, ErrorCode, Result};
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};
use serde_json::json;
use uuid::Uuid;

use crate::Tx;
use crate::sql::{all, execute, from_micros, micros, number};

#[derive(FromQueryResult)]
struct Row {
    task_id: String,
    stage_name: String,
    verdict: String,
    reason: Option<String>,
    decided_by: String,
    decided_at: i64,
}

impl TryFrom<Row> for StageDecision {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let unreadable = || {
            let text = format_args!("a decision over stage {} is unreadable", row.stage_name);
            Error::new(ErrorCode::PersistenceError).caused_by(text)
        };
        Ok(Self {
            verdict: ReviewVerdict::parse(&row.verdict).ok_or_else(unreadable)?,
            reason: row.reason.clone().map(NotBlank::new).transpose().map_err(|_| unreadable())?,
            task_id: row.task_id,
            stage_name: row.stage_name,
            decided_by: row.decided_by,
            decided_at: from_micros(row.decided_at),
        })
    }
}

/// Adds a decision and tells of it; from now on it counts for its stage. Whoever decides the same stage at
/// the same time waits, so that decisions are numbered in the order of their commits.
pub async fn insert(tx: &Tx, decision: &StageDecision) -> Result<()> {
    let StageDecision { task_id, stage_name, verdict, reason, decided_by, decided_at } = decision;
    tx.lock(&format!("quarterdeck.review.{task_id}/{stage_name}")).await?;
    let sql = "INSERT INTO review_stage_decisions (id, task_id, stage_name, number, verdict, reason, decided_by, \
               decided_at) SELECT $1, $2, $3, COALESCE(MAX(number), 0) + 1, $4, $5, $6, $7 \
               FROM review_stage_decisions WHERE task_id = $2 AND stage_name = $3";
    let values = [
        Uuid::now_v7().to_string().into(),
        task_id.as_str().into(),
        stage_name.as_str().into(),
        verdict.as_str().into(),
        reason.as_deref().map(str::to_owned).into(),
        decided_by.as_str().into(),
        micros(*decided_at).into(),
    ];
    execute(&**tx, sql, values).await?;
    let payload =
        json!({"task_id": task_id, "stage_name": stage_name, "verdict": verdict, "decided_by": decided_by});
    tx.publish(Event::new(EventType::ReviewStageDecided, *decided_at, payload));
    Ok(())
}

/// The decision that counts for each decided stage of a task; the unique index finds them.
pub async fn newest(connection: &impl ConnectionTrait, task_id: &str) -> Result<Vec<StageDecision>> {
    let sql = "SELECT task_id, stage_name, verdict, reason, decided_by, decided_at \
               FROM review_stage_decisions AS decisions WHERE task_id = $1 AND number = \
               (SELECT MAX(number) FROM review_stage_decisions \
               WHERE task_id = $1 AND stage_name = decisions.stage_name) ORDER BY stage_name";
    let rows = all::<Row>(connection, sql, [task_id.into()]).await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

#[derive(FromQueryResult)]
struct ArtifactRow {
    kind: String,
    path: String,
}

/// How many of the artifacts a task is expected to have are missing.
pub async fn missing_artifacts(connection: &impl ConnectionTrait, task: &Task) -> Result<usize> {
    if task.artifacts_expected.is_empty() {
        return Ok(0);
    }
    let rows = if has_artifacts(connection).await? {
        let sql = "SELECT kind, path FROM artifacts WHERE task_id = $1";
        all::<ArtifactRow>(connection, sql, [task.id.as_str().into()]).await?
    } else {
        Vec::new()
    };
    let is_missing = |wanted: &&ExpectedArtifact| {
        !rows.iter().any(|row| row.kind == wanted.r#type.as_str() && row.path == wanted.path)
    };
    Ok(task.artifacts_expected.iter().filter(is_missing).count())
}

/// Whether this database keeps artifacts at all.
async fn has_artifacts(connection: &impl ConnectionTrait) -> Result<bool> {
    let table = match connection.get_database_backend() {
        DbBackend::Postgres => "SELECT count(*) FROM pg_tables WHERE tablename = 'artifacts'",
        _ => "SELECT count(*) FROM sqlite_master WHERE name = 'artifacts'",
    };
    Ok(number(connection, table, []).await? > 0)
}
