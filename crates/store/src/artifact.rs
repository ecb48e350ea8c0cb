//! Artifacts: what is known about them. Their bytes are kept elsewhere, under a [`ContentName`].

use std::collections::HashSet;

use quarterdeck_domain::artifact::{Artifact, ArtifactId, ArtifactType, ContentName};
use quarterdeck_domain::text::{Bounded, NotBlank};
use quarterdeck_domain::{Error, ErrorCode, Result};
use sea_orm::{ConnectionTrait, FromQueryResult, Value};

use crate::Tx;
use crate::sql::{MAX_LISTED, all, execute, from_micros, micros, number, one, window};

const COLUMNS: &str = "id, kind, path, task_id, created_by, description, project_id, content_type, \
                       size_bytes, created_at, content_version, sha256";
/// Ids asked for in one query.
const BATCH: usize = 500;

#[derive(FromQueryResult)]
struct Row {
    id: String,
    kind: String,
    path: String,
    task_id: String,
    created_by: String,
    description: String,
    project_id: Option<String>,
    content_type: String,
    size_bytes: i64,
    created_at: i64,
    content_version: Option<String>,
    sha256: Option<String>,
}

/// An artifact and where its bytes are.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// What is known about it.
    pub artifact: Artifact,
    /// Its content, if it has any.
    pub content: Option<Content>,
}

/// The content of one upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// What it is kept under.
    pub name: ContentName,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the bytes, lower-case hex.
    pub sha256: String,
}

impl TryFrom<Row> for Stored {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let id = row.id.clone();
        read(row).ok_or_else(|| {
            Error::new(ErrorCode::PersistenceError).caused_by(format_args!("artifact {id} is unreadable"))
        })
    }
}

/// What a row says, if it can be read.
fn read(row: Row) -> Option<Stored> {
    let id = ArtifactId::parse(&row.id)?;
    let size = u64::try_from(row.size_bytes).ok()?;
    let content = match row.content_version {
        Some(version) => {
            Some(Content { name: ContentName::new(id.clone(), version)?, size, sha256: row.sha256? })
        }
        None => None,
    };
    let artifact = Artifact {
        id,
        r#type: ArtifactType::parse(&row.kind)?,
        path: NotBlank::new(row.path).ok()?,
        task_id: NotBlank::new(row.task_id).ok()?,
        created_by: NotBlank::new(row.created_by).ok()?,
        description: Bounded::new(row.description).ok()?,
        project_id: row.project_id.map(NotBlank::new).transpose().ok()?,
        content_type: Bounded::new(row.content_type).ok()?,
        size_bytes: size,
        created_at: from_micros(row.created_at),
    };
    Some(Stored { artifact, content })
}

/// Adds an artifact without content.
pub async fn insert(tx: &Tx, artifact: &Artifact) -> Result<()> {
    let sql = "INSERT INTO artifacts (id, kind, path, task_id, created_by, description, project_id, \
               content_type, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let values = [
        (*artifact.id).into(),
        artifact.r#type.as_str().into(),
        artifact.path.as_str().into(),
        artifact.task_id.as_str().into(),
        artifact.created_by.as_str().into(),
        (*artifact.description).into(),
        artifact.project_id.as_ref().map(|project| project.as_str().to_owned()).into(),
        (*artifact.content_type).into(),
        micros(artifact.created_at).into(),
    ];
    execute(&**tx, sql, values).await.map(drop)
}

/// The artifact with this id.
pub async fn by_id(connection: &impl ConnectionTrait, id: &ArtifactId) -> Result<Option<Stored>> {
    let sql = format!("SELECT {COLUMNS} FROM artifacts WHERE id = $1");
    one::<Row>(connection, &sql, [(**id).into()]).await?.map(Stored::try_from).transpose()
}

/// The artifact with this id; nobody else changes it before this transaction ends.
pub async fn by_id_for_change(tx: &Tx, id: &ArtifactId) -> Result<Option<Stored>> {
    tx.lock(&format!("quarterdeck.artifact.{id}")).await?;
    by_id(&**tx, id).await
}

/// Gives an artifact other content than the `before` it was found with; its type only if it has none.
///
/// # Errors
/// 507/8007 when all contents together would have more than `most` bytes.
pub async fn set_content(
    tx: &Tx,
    before: &Artifact,
    content: &Content,
    content_type: &str,
    most: u64,
) -> Result<()> {
    account(tx, before.size_bytes, content.size, Some(most)).await?;
    let sql = "UPDATE artifacts SET content_version = $2, size_bytes = $3, sha256 = $4, content_type = $5 \
               WHERE id = $1";
    let values = [
        (**content.name.artifact()).into(),
        content.name.version().into(),
        signed(content.size).into(),
        content.sha256.as_str().into(),
        content_type.into(),
    ];
    execute(&**tx, sql, values).await.map(drop)
}

/// Deletes what is known about an artifact; what that was.
pub async fn delete(tx: &Tx, id: &ArtifactId) -> Result<Option<Stored>> {
    let Some(stored) = by_id_for_change(tx, id).await? else { return Ok(None) };
    execute(&**tx, "DELETE FROM artifacts WHERE id = $1", [(**id).into()]).await?;
    account(tx, stored.artifact.size_bytes, 0, None).await?;
    Ok(Some(stored))
}

/// Counts `old` bytes out and `new` bytes in. One statement judges and counts, so that no two uploads, on
/// whichever copy of the program, fill the same room.
async fn account(tx: &Tx, old: u64, new: u64, most: Option<u64>) -> Result<()> {
    let sql = "UPDATE artifact_usage SET bytes = bytes + $1 WHERE id = 1 AND bytes + $1 <= $2";
    let most = most.map_or(i64::MAX, signed);
    match execute(&**tx, sql, [(signed(new) - signed(old)).into(), most.into()]).await? {
        1 => Ok(()),
        _ => Err(ErrorCode::ArtifactStorageFull.into()),
    }
}

/// Bytes of the contents of all other artifacts together, as of one moment.
pub async fn usage_of_others(connection: &impl ConnectionTrait, id: &ArtifactId) -> Result<u64> {
    let sql = "SELECT bytes - COALESCE((SELECT size_bytes FROM artifacts WHERE id = $1), 0) \
               FROM artifact_usage WHERE id = 1";
    Ok(number(connection, sql, [(**id).into()]).await?.unsigned_abs())
}

/// Which of these contents no artifact has.
pub async fn unreferenced(
    connection: &impl ConnectionTrait,
    names: Vec<ContentName>,
) -> Result<Vec<ContentName>> {
    #[derive(FromQueryResult)]
    struct Version {
        id: String,
        content_version: String,
    }
    let mut unreferenced = Vec::new();
    for names in names.chunks(BATCH) {
        let places: Vec<_> = (1..=names.len()).map(|place| format!("${place}")).collect();
        let sql = format!(
            "SELECT id, content_version FROM artifacts \
             WHERE content_version IS NOT NULL AND id IN ({})",
            places.join(", ")
        );
        let ids = names.iter().map(|name| Value::from(&**name.artifact()));
        let rows = all::<Version>(connection, &sql, ids).await?;
        let known: HashSet<_> = rows.into_iter().map(|row| (row.id, row.content_version)).collect();
        let orphans = names
            .iter()
            .filter(|name| !known.contains(&(name.artifact().to_string(), name.version().to_owned())));
        unreferenced.extend(orphans.cloned());
    }
    Ok(unreferenced)
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// What a list of artifacts is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Those of this task.
    pub task_id: Option<String>,
    /// Those made by this agent or person.
    pub created_by: Option<String>,
    /// Those of this type.
    pub r#type: Option<ArtifactType>,
}

/// Artifacts by id, and how many there are in all, which is never more than a list may hold. The primary key,
/// or the index of one of the filters, has the rows in this order.
pub async fn page(
    connection: &impl ConnectionTrait,
    filter: &Filter,
    offset: u64,
    limit: u64,
) -> Result<(Vec<Artifact>, u64)> {
    let mut conditions = String::from("1 = 1");
    let mut values: Vec<Value> = Vec::new();
    let kind = filter.r#type.map(ArtifactType::as_str);
    for (column, wanted) in
        [("task_id", filter.task_id.as_deref()), ("created_by", filter.created_by.as_deref()), ("kind", kind)]
    {
        if let Some(wanted) = wanted {
            values.push(wanted.into());
            conditions.push_str(&format!(" AND {column} = ${}", values.len()));
        }
    }
    let sql = format!(
        "SELECT count(*) FROM (SELECT 1 FROM artifacts WHERE {conditions} LIMIT {MAX_LISTED}) AS listed"
    );
    let total = number(connection, &sql, values.clone()).await?.unsigned_abs();
    let (offset, limit) = window(offset, limit);
    let sql = format!(
        "SELECT {COLUMNS} FROM artifacts WHERE {conditions} ORDER BY id LIMIT {limit} OFFSET {offset}"
    );
    let rows = all::<Row>(connection, &sql, values).await?;
    let read = rows.into_iter().map(|row| Stored::try_from(row).map(|stored| stored.artifact));
    Ok((read.collect::<Result<_>>()?, total))
}
