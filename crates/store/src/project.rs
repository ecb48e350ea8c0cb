//! Projects.

use std::collections::HashMap;

use quarterdeck_domain::amount::Amount;
use quarterdeck_domain::project::{Deadline, MAX_TASK_IDS, Project, ProjectStatus, Team};
use quarterdeck_domain::text::{Bounded, NotBlank};
use quarterdeck_domain::{Error, ErrorCode, Result};
use sea_orm::{ConnectionTrait, FromQueryResult, Value};

use crate::Tx;
use crate::sql::{MAX_LISTED, all, execute, number, one, window};

const COLUMNS: &str = "id, name, description, team, lead, deadline, budget, status";

#[derive(FromQueryResult)]
struct Row {
    id: String,
    name: String,
    description: String,
    team: String,
    lead: Option<String>,
    deadline: Option<String>,
    budget: f64,
    status: String,
}

impl TryFrom<Row> for Project {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let id = row.id.clone();
        read(row).ok_or_else(|| {
            Error::new(ErrorCode::PersistenceError).caused_by(format_args!("project {id} is unreadable"))
        })
    }
}

/// What a row says, if it can be read.
fn read(row: Row) -> Option<Project> {
    Some(Project {
        id: row.id,
        name: NotBlank::new(row.name).ok()?,
        description: Bounded::new(row.description).ok()?,
        team: serde_json::from_str::<Team>(&row.team).ok()?,
        lead: row.lead.map(NotBlank::new).transpose().ok()?,
        task_ids: Vec::new(),
        deadline: row.deadline.map(Deadline::new).transpose().ok()?,
        budget: Amount::new(row.budget).ok()?,
        status: ProjectStatus::parse(&row.status)?,
    })
}

/// The values of a row, in the order of its columns.
fn values(project: &Project) -> Result<[Value; 8]> {
    let Project { id, name, description, team, lead, deadline, budget, status, task_ids: _ } = project;
    Ok([
        id.as_str().into(),
        name.as_str().into(),
        (**description).into(),
        serde_json::to_string(team).map_err(Error::internal)?.into(),
        lead.as_ref().map(|lead| lead.as_str().to_owned()).into(),
        deadline.as_ref().map(|deadline| deadline.as_str().to_owned()).into(),
        budget.get().into(),
        status.as_str().into(),
    ])
}

/// Adds a project.
pub async fn insert(tx: &Tx, project: &Project) -> Result<()> {
    let sql = format!("INSERT INTO projects ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)");
    execute(&**tx, &sql, values(project)?).await.map(drop)
}

/// Replaces a project; whether there was one.
pub async fn update(tx: &Tx, project: &Project) -> Result<bool> {
    let sql = "UPDATE projects SET name = $2, description = $3, team = $4, lead = $5, deadline = $6, \
               budget = $7, status = $8 WHERE id = $1";
    Ok(execute(&**tx, sql, values(project)?).await? == 1)
}

/// Keeps others from deleting this project, and from giving it tasks, until this transaction ends.
pub async fn hold(tx: &Tx, id: &str) -> Result<()> {
    tx.lock(&format!("quarterdeck.project.{id}")).await
}

/// Deletes a project; whether there was one.
///
/// # Errors
/// 409/4000 while tasks refer to it.
pub async fn delete(tx: &Tx, id: &str) -> Result<bool> {
    let sql = "SELECT count(*) FROM (SELECT 1 FROM tasks WHERE project = $1 LIMIT 1) AS referring";
    if number(&**tx, sql, [id.into()]).await? > 0 {
        return Err(Error::conflict("The project has tasks; cancel it instead"));
    }
    Ok(execute(&**tx, "DELETE FROM projects WHERE id = $1", [id.into()]).await? == 1)
}

/// The project with this id.
pub async fn by_id(connection: &impl ConnectionTrait, id: &str) -> Result<Option<Project>> {
    let sql = format!("SELECT {COLUMNS} FROM projects WHERE id = $1");
    let project = one::<Row>(connection, &sql, [id.into()]).await?.map(Project::try_from).transpose()?;
    Ok(with_tasks(connection, project.into_iter().collect()).await?.pop())
}

/// The same projects with the ids of their tasks, which come from the index of tasks by project.
async fn with_tasks(connection: &impl ConnectionTrait, mut projects: Vec<Project>) -> Result<Vec<Project>> {
    #[derive(FromQueryResult)]
    struct Task {
        project: String,
        id: String,
    }
    if projects.is_empty() {
        return Ok(projects);
    }
    let places: Vec<_> = (1..=projects.len()).map(|place| format!("${place}")).collect();
    let sql = format!(
        "SELECT project, id FROM (SELECT project, id, \
         row_number() OVER (PARTITION BY project ORDER BY created_at, id) AS place \
         FROM tasks WHERE project IN ({})) AS numbered WHERE place <= {MAX_TASK_IDS} ORDER BY project, place",
        places.join(", ")
    );
    let ids = projects.iter().map(|project| Value::from(project.id.as_str()));
    let mut tasks: HashMap<String, Vec<String>> = HashMap::new();
    for Task { project, id } in all::<Task>(connection, &sql, ids).await? {
        tasks.entry(project).or_default().push(id);
    }
    for project in &mut projects {
        project.task_ids = tasks.remove(&project.id).unwrap_or_default();
    }
    Ok(projects)
}

/// The project with this id; nobody else changes it, or refers to it anew, before this transaction ends.
pub async fn by_id_for_change(tx: &Tx, id: &str) -> Result<Option<Project>> {
    hold(tx, id).await?;
    by_id(&**tx, id).await
}

/// What a list of projects is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Those with this status.
    pub status: Option<ProjectStatus>,
    /// Those with this lead.
    pub lead: Option<String>,
}

/// Projects by id, and how many there are in all, which is never more than a list may hold. The primary key,
/// or the index of the first filter, has the rows in this order.
pub async fn page(
    connection: &impl ConnectionTrait,
    filter: &Filter,
    offset: u64,
    limit: u64,
) -> Result<(Vec<Project>, u64)> {
    let mut conditions = String::from("1 = 1");
    let mut values: Vec<Value> = Vec::new();
    if let Some(status) = filter.status {
        values.push(status.as_str().into());
        conditions.push_str(&format!(" AND status = ${}", values.len()));
    }
    if let Some(lead) = &filter.lead {
        values.push(lead.as_str().into());
        conditions.push_str(&format!(" AND lead = ${}", values.len()));
    }
    let sql = format!(
        "SELECT count(*) FROM (SELECT 1 FROM projects WHERE {conditions} LIMIT {MAX_LISTED}) AS listed"
    );
    let total = number(connection, &sql, values.clone()).await?.unsigned_abs();
    let (offset, limit) = window(offset, limit);
    let sql = format!(
        "SELECT {COLUMNS} FROM projects WHERE {conditions} ORDER BY id LIMIT {limit} OFFSET {offset}"
    );
    let rows = all::<Row>(connection, &sql, values).await?;
    let projects = rows.into_iter().map(Project::try_from).collect::<Result<_>>()?;
    Ok((with_tasks(connection, projects).await?, total))
}
