//! Counts of what there is and what was done, without reading any of it.

use chrono::{DateTime, Utc};
use quarterdeck_domain::Result;
use quarterdeck_domain::analytics::BucketSize;
use quarterdeck_domain::period::Period;
use quarterdeck_domain::task::TaskStatus;
use sea_orm::{ConnectionTrait, FromQueryResult};

use crate::sql::{all, from_micros, micros, number};

/// What became of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// They were completed.
    Completed,
    /// They failed, and nobody has tried again since.
    Failed,
}

impl Ending {
    /// Which tasks, and the time that counts. Completed ones have an index on it; failed ones are few.
    const fn condition(self) -> (&'static str, &'static str) {
        match self {
            Self::Completed => ("completed", "finished_at"),
            Self::Failed => ("failed", "updated_at"),
        }
    }
}

#[derive(FromQueryResult)]
struct StatusRow {
    status: String,
    total: i64,
}

/// How many tasks have each status; triggers keep count.
pub async fn tasks_by_status(connection: &impl ConnectionTrait) -> Result<Vec<(TaskStatus, u64)>> {
    let rows =
        all::<StatusRow>(connection, "SELECT status, total FROM row_counts WHERE kind = 'tasks'", []).await?;
    let count =
        |status: TaskStatus| rows.iter().find(|row| row.status == status.as_str()).map_or(0, |row| row.total);
    Ok(TaskStatus::ALL.iter().map(|status| (*status, count(*status).unsigned_abs())).collect())
}

/// How many agents have tasks that are not over, and how many of them work on one.
pub async fn agents(connection: &impl ConnectionTrait) -> Result<(u64, u64)> {
    let over = TaskStatus::ALL.iter().filter(|status| status.is_terminal());
    let over = over.map(|status| format!("'{status}'")).collect::<Vec<_>>().join(", ");
    let all = format!("SELECT count(DISTINCT assigned_to) FROM tasks WHERE status NOT IN ({over})");
    let busy = "SELECT count(DISTINCT assigned_to) FROM tasks WHERE status = 'in_progress'";
    let (all, busy) = (number(connection, &all, []).await?, number(connection, busy, []).await?);
    Ok((all.unsigned_abs(), busy.unsigned_abs()))
}

#[derive(FromQueryResult)]
struct BucketRow {
    bucket: i64,
    tasks: i64,
}

/// How many tasks ended in each bucket since `from`, with its beginning; empty ones are left out.
pub async fn ended(
    connection: &impl ConnectionTrait,
    ending: Ending,
    size: BucketSize,
    from: DateTime<Utc>,
) -> Result<Vec<(DateTime<Utc>, u64)>> {
    let ((status, time), micros_of_one) = (ending.condition(), size.micros());
    let sql = format!(
        "SELECT bucket, count(*) AS tasks FROM (SELECT {time} / {micros_of_one} AS bucket FROM tasks \
         WHERE status = '{status}' AND {time} >= $1) AS buckets GROUP BY bucket ORDER BY bucket"
    );
    let rows = all::<BucketRow>(connection, &sql, [micros(from).into()]).await?;
    Ok(rows
        .into_iter()
        .map(|row| (from_micros(row.bucket * micros_of_one), row.tasks.unsigned_abs()))
        .collect())
}

/// Whether any task ended so in a period.
pub async fn any_ended(connection: &impl ConnectionTrait, ending: Ending, period: Period) -> Result<bool> {
    let (status, time) = ending.condition();
    let only = format!("SELECT 1 FROM tasks WHERE status = '{status}' AND {time} >= $1 AND {time} < $2");
    any(connection, &only, period).await
}

/// Whether any approval, and the risk that goes with it, was asked for in a period.
pub async fn any_risk(connection: &impl ConnectionTrait, period: Period) -> Result<bool> {
    any(connection, "SELECT 1 FROM approvals WHERE created_at >= $1 AND created_at < $2", period).await
}

async fn any(connection: &impl ConnectionTrait, rows: &str, Period { start, end }: Period) -> Result<bool> {
    let sql = format!("SELECT count(*) FROM ({rows} LIMIT 1) AS found");
    Ok(number(connection, &sql, [micros(start).into(), micros(end).into()]).await? > 0)
}
