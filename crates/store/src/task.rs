//! Tasks, in documents of their wire form.

use quarterdeck_domain::task::{Task, TaskStatus};
use quarterdeck_domain::{Error, ErrorCode, Result};
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult, Value};
use serde_json::value::RawValue;

use crate::sql::{all, count, execute, micros, number, one, row_count};
use crate::{Tx, project};

#[derive(FromQueryResult)]
struct Row {
    document: String,
}

impl Row {
    fn task(self) -> Result<Task> {
        serde_json::from_str(&self.document).map_err(unreadable)
    }
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::new(ErrorCode::PersistenceError).caused_by(format_args!("a task is unreadable: {error}"))
}

fn document(task: &Task) -> Result<String> {
    serde_json::to_string(task).map_err(Error::internal)
}

fn finished_at(task: &Task) -> Option<i64> {
    task.status.is_terminal().then(|| micros(task.updated_at))
}

/// Which tasks a list shows: those that have all that is named.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Where they stand.
    pub status: Option<TaskStatus>,
    /// Who does them.
    pub assigned_to: Option<String>,
    /// Where they belong.
    pub project: Option<String>,
}

impl Filter {
    fn conditions(&self) -> (String, Vec<Value>) {
        let mut sql = String::new();
        let mut values = Vec::new();
        let status = self.status.map(|status| status.as_str().to_owned());
        let named = [
            ("status", status),
            ("assigned_to", self.assigned_to.clone()),
            ("project", self.project.clone()),
        ];
        for (column, value) in named {
            if let Some(value) = value {
                values.push(value.into());
                let word = if sql.is_empty() { " WHERE" } else { " AND" };
                sql += &format!("{word} {column} = ${}", values.len());
            }
        }
        (sql, values)
    }
}

/// Adds a task. Its project, if there is one, is not deleted meanwhile.
pub async fn insert(tx: &Tx, task: &Task) -> Result<()> {
    project::hold(tx, &task.project).await?;
    let sql = "INSERT INTO tasks (id, status, assigned_to, project, version, created_at, updated_at, \
               finished_at, document) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let values = [
        task.id.as_str().into(),
        task.status.as_str().into(),
        task.assigned_to.clone().into(),
        task.project.as_str().into(),
        task.version.into(),
        micros(task.created_at).into(),
        micros(task.updated_at).into(),
        finished_at(task).into(),
        document(task)?.into(),
    ];
    execute(&**tx, sql, values).await.map(drop)
}

/// Replaces a task by its next version, if it still is what that was made from; whether it was.
pub async fn update(tx: &Tx, next: &Task) -> Result<bool> {
    let sql = "UPDATE tasks SET status = $3, assigned_to = $4, project = $5, version = $6, updated_at = $7, \
               finished_at = COALESCE(finished_at, $8), document = $9 WHERE id = $1 AND version = $2";
    let values = [
        next.id.as_str().into(),
        (next.version - 1).into(),
        next.status.as_str().into(),
        next.assigned_to.clone().into(),
        next.project.as_str().into(),
        next.version.into(),
        micros(next.updated_at).into(),
        finished_at(next).into(),
        document(next)?.into(),
    ];
    Ok(execute(&**tx, sql, values).await? == 1)
}

/// Deletes a task and its version counter with it; whether there was one.
///
/// # Errors
/// 409/4000 while approvals, decisions or costs refer to it: the trail must lead somewhere.
pub async fn delete(tx: &Tx, id: &str) -> Result<bool> {
    let sql = "SELECT count(*) FROM (SELECT 1 FROM approvals WHERE task_id = $1 \
               UNION ALL SELECT 1 FROM decision_records WHERE task_id = $1 \
               UNION ALL SELECT 1 FROM review_stage_decisions WHERE task_id = $1 \
               UNION ALL SELECT 1 FROM cost_days WHERE agent_id = '' AND task_id = $1 LIMIT 1) AS trail";
    if number(&**tx, sql, [id.into()]).await? > 0 {
        return Err(Error::conflict("The task has approvals, decision records or costs; cancel it instead"));
    }
    Ok(execute(&**tx, "DELETE FROM tasks WHERE id = $1", [id.into()]).await? == 1)
}

/// The task with this id.
pub async fn by_id(connection: &impl ConnectionTrait, id: &str) -> Result<Option<Task>> {
    let row = one::<Row>(connection, "SELECT document FROM tasks WHERE id = $1", [id.into()]).await?;
    row.map(Row::task).transpose()
}

/// The task with this id, held against changes by other transactions until this one ends.
pub async fn lock(tx: &Tx, id: &str) -> Result<Option<Task>> {
    let lock = if tx.get_database_backend() == DbBackend::Postgres { " FOR UPDATE" } else { "" };
    let sql = format!("SELECT document FROM tasks WHERE id = $1{lock}");
    one::<Row>(&**tx, &sql, [id.into()]).await?.map(Row::task).transpose()
}

/// Tasks in their wire form, the oldest first, and how many match in all.
///
/// Each filter has an index in the order of the list. What matches is counted by triggers where at most one
/// filter is asked for, and in the index of one of them otherwise.
pub async fn page(
    connection: &impl ConnectionTrait,
    filter: &Filter,
    offset: u64,
    limit: u32,
) -> Result<(Vec<Box<RawValue>>, u64)> {
    let (conditions, values) = filter.conditions();
    let total = match filter {
        Filter { status, assigned_to: None, project: None } => {
            row_count(connection, "tasks", status.map(TaskStatus::as_str)).await?
        }
        Filter { status: None, assigned_to: None, project: Some(project) } => {
            row_count(connection, "tasks.project", Some(project)).await?
        }
        Filter { status: None, assigned_to: Some(assignee), project: None } => {
            row_count(connection, "tasks.assignee", Some(assignee)).await?
        }
        _ => count(connection, &format!("SELECT count(*) FROM tasks{conditions}"), values.clone()).await?,
    };
    let (limits, offsets) = (values.len() + 1, values.len() + 2);
    let sql = format!(
        "SELECT document FROM tasks{conditions} ORDER BY created_at, id LIMIT ${limits} OFFSET ${offsets}"
    );
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    let values = values.into_iter().chain([i64::from(limit).into(), offset.into()]);
    let rows: Vec<Row> = all(connection, &sql, values).await?;
    let tasks = rows.into_iter().map(|row| RawValue::from_string(row.document).map_err(unreadable));
    Ok((tasks.collect::<Result<_>>()?, total))
}
