//! Meetings on record, and when one of each type was last begun.

use chrono::{DateTime, TimeDelta, Utc};
use quarterdeck_domain::event::{Event, EventType};
use quarterdeck_domain::meeting::{Meeting, MeetingStatus, Protocol};
use quarterdeck_domain::{Error, ErrorCode, Result};
use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use serde_json::json;

use crate::Tx;
use crate::sql::{Listed, all, count, execute, from_micros, micros, one, readable, row_count};

const COLUMNS: &str =
    "id, type_name, protocol, status, token_budget, participants, started_at, minutes, error_message";
/// Most bytes of a record that goes with its event; larger ones are read over the API.
const TOLD: usize = 24_576;

#[derive(FromQueryResult)]
struct Row {
    id: String,
    type_name: String,
    protocol: String,
    status: String,
    token_budget: i64,
    participants: String,
    started_at: i64,
    minutes: Option<String>,
    error_message: Option<String>,
}

/// What a row says, if it can be read.
fn read(row: Row) -> Option<Meeting> {
    let meeting = Meeting {
        id: row.id,
        type_name: row.type_name,
        protocol: Protocol::parse(&row.protocol)?,
        status: MeetingStatus::parse(&row.status)?,
        token_budget: u32::try_from(row.token_budget).ok()?,
        participants: serde_json::from_str(&row.participants).ok()?,
        started_at: from_micros(row.started_at),
        minutes: row.minutes.map(|text| serde_json::from_str(&text)).transpose().ok()?,
        error_message: row.error_message,
    };
    meeting.check().is_ok().then_some(meeting)
}

/// Claims the beginning of a meeting of this type: of all who try within `pause` of the last beginning,
/// on any copy of the program, one gets `true`.
pub async fn claim(tx: &Tx, type_name: &str, pause: TimeDelta, now: DateTime<Utc>) -> Result<bool> {
    let sql = "INSERT INTO meeting_runs (type_name, begun_at) VALUES ($1, $2) ON CONFLICT (type_name) \
               DO UPDATE SET begun_at = excluded.begun_at WHERE meeting_runs.begun_at <= $3";
    let values = [type_name.into(), micros(now).into(), micros(now - pause).into()];
    Ok(execute(&**tx, sql, values).await? == 1)
}

/// As [`claim`], for a type whose first meeting comes a pause after it was first seen.
pub async fn claim_next(tx: &Tx, type_name: &str, pause: TimeDelta, now: DateTime<Utc>) -> Result<bool> {
    let sql = "INSERT INTO meeting_runs (type_name, begun_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    if execute(&**tx, sql, [type_name.into(), micros(now).into()]).await? == 1 {
        return Ok(false);
    }
    claim(tx, type_name, pause, now).await
}

/// Adds a meeting that begins, and tells of it.
pub async fn insert(tx: &Tx, meeting: &Meeting) -> Result<()> {
    let sql = "INSERT INTO meetings (id, type_name, protocol, status, token_budget, participants, started_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let values = [
        meeting.id.as_str().into(),
        meeting.type_name.as_str().into(),
        meeting.protocol.as_str().into(),
        meeting.status.as_str().into(),
        i64::from(meeting.token_budget).into(),
        serde_json::to_string(&meeting.participants).map_err(Error::internal)?.into(),
        micros(meeting.started_at).into(),
    ];
    execute(&**tx, sql, values).await?;
    tell(tx, EventType::MeetingStarted, meeting, meeting.started_at);
    Ok(())
}

/// Records how a meeting ended, and tells of it; whether it was still being held.
pub async fn finish(tx: &Tx, meeting: &Meeting, now: DateTime<Utc>) -> Result<bool> {
    let sql = "UPDATE meetings SET status = $2, minutes = $3, error_message = $4 \
               WHERE id = $1 AND status = 'in_progress'";
    let minutes = meeting.minutes.as_ref().map(serde_json::to_string).transpose();
    let values = [
        meeting.id.as_str().into(),
        meeting.status.as_str().into(),
        minutes.map_err(Error::internal)?.into(),
        meeting.error_message.clone().into(),
    ];
    let finished = execute(&**tx, sql, values).await? == 1;
    if finished {
        let completed = meeting.status == MeetingStatus::Completed;
        let event_type = if completed { EventType::MeetingCompleted } else { EventType::MeetingFailed };
        tell(tx, event_type, meeting, now);
    }
    Ok(finished)
}

fn tell(tx: &Tx, event_type: EventType, meeting: &Meeting, now: DateTime<Utc>) {
    let shown = meeting.shown();
    let mut payload = json!({
        "meeting_id": shown.meeting_id, "meeting_type": shown.meeting_type_name, "status": shown.status,
        "participants": meeting.participants,
    });
    if event_type == EventType::MeetingCompleted {
        payload["duration_seconds"] = json!(shown.meeting_duration_seconds);
    }
    if event_type == EventType::MeetingFailed {
        payload["error"] = json!(shown.error_message);
    }
    let whole = json!(shown);
    if whole.to_string().len() <= TOLD {
        payload["meeting"] = whole;
    }
    tx.publish(Event::new(event_type, now, payload));
}

/// Meetings begun before this time that are still being held: whoever held them is gone.
pub async fn abandoned(connection: &impl ConnectionTrait, before: DateTime<Utc>) -> Result<Vec<Meeting>> {
    let sql = format!("SELECT {COLUMNS} FROM meetings WHERE status = 'in_progress' AND started_at < $1");
    let rows: Vec<Row> = all(connection, &sql, [micros(before).into()]).await?;
    Ok(rows.into_iter().filter_map(|row| readable(row.id.clone(), read(row))).collect())
}

/// The meeting with this id.
///
/// # Errors
/// 500/8002 when its row cannot be read.
pub async fn by_id(connection: &impl ConnectionTrait, id: &str) -> Result<Option<Meeting>> {
    let sql = format!("SELECT {COLUMNS} FROM meetings WHERE id = $1");
    let Some(row) = one::<Row>(connection, &sql, [id.into()]).await? else { return Ok(None) };
    let unreadable =
        || Error::new(ErrorCode::PersistenceError).caused_by(format_args!("meeting {id} is unreadable"));
    read(row).map(Some).ok_or_else(unreadable)
}

/// Which meetings are listed.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Those that stand here.
    pub status: Option<MeetingStatus>,
    /// Those of this type.
    pub type_name: Option<String>,
}

/// Meetings in the order of their beginning. Each filter has an index in this order, and so has the whole
/// table; with both filters that of the type is used.
pub async fn page(
    connection: &impl ConnectionTrait,
    filter: &Filter,
    offset: u64,
    limit: u64,
) -> Result<Listed<Meeting>> {
    let mut values: Vec<Value> = Vec::new();
    let mut conditions = Vec::new();
    let chosen = [("status", filter.status.map(|status| status.as_str().to_owned()))];
    for (column, wanted) in chosen.into_iter().chain([("type_name", filter.type_name.clone())]) {
        if let Some(wanted) = wanted {
            values.push(wanted.into());
            conditions.push(format!("{column} = ${}", values.len()));
        }
    }
    let only =
        if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    let total = match (&filter.type_name, filter.status) {
        (None, status) => row_count(connection, "meetings", status.map(MeetingStatus::as_str)).await?,
        _ => count(connection, &format!("SELECT count(*) FROM meetings{only}"), values.clone()).await?,
    };
    let (limit_at, offset_at) = (values.len() + 1, values.len() + 2);
    values.extend([(limit as i64).into(), i64::try_from(offset).unwrap_or(i64::MAX).into()]);
    let sql = format!(
        "SELECT {COLUMNS} FROM meetings{only} ORDER BY started_at, id LIMIT ${limit_at} OFFSET ${offset_at}"
    );
    let rows: Vec<Row> = all(connection, &sql, values).await?;
    let found = rows.len();
    let items: Vec<Meeting> =
        rows.into_iter().filter_map(|row| readable(row.id.clone(), read(row))).collect();
    let is_partial = items.len() < found;
    Ok(Listed { items, total, is_partial })
}
