//! Escalations. Who ends one first, ends it: every end is one conditional update.

use chrono::{DateTime, Utc};
use quarterdeck_domain::conflict::{Conflict, ConflictOutcome, Decision, Dissent};
use quarterdeck_domain::escalation::{EndedBy, Escalation, EscalationStatus, Fate, NotifyChannel};
use quarterdeck_domain::event::{Event, EventType};
use quarterdeck_domain::text::NotBlank;
use quarterdeck_domain::{Error, ErrorCode, Result};
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};
use serde_json::json;

use crate::sql::{Listed, all, execute, from_micros, micros, one, readable, row_count};
use crate::{Signal, Tx};

const COLUMNS: &str = "id, conflict, status, created_at, expires_at, decided_at, decided_by, decision, \
                       cancel_reason";

#[derive(FromQueryResult)]
struct Row {
    id: String,
    conflict: String,
    status: String,
    created_at: i64,
    expires_at: Option<i64>,
    decided_at: Option<i64>,
    decided_by: Option<String>,
    decision: Option<String>,
    cancel_reason: Option<String>,
}

impl TryFrom<Row> for Escalation {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let id = row.id.clone();
        read(row).ok_or_else(|| {
            Error::new(ErrorCode::PersistenceError).caused_by(format_args!("escalation {id} is unreadable"))
        })
    }
}

/// What a row says, if it can be read.
fn read(row: Row) -> Option<Escalation> {
    let conflict: Conflict = serde_json::from_str(&row.conflict).ok()?;
    conflict.check().ok()?;
    let fate = match EscalationStatus::parse(&row.status)? {
        EscalationStatus::Pending => Fate::Pending,
        EscalationStatus::Decided => Fate::Decided(serde_json::from_str(&row.decision?).ok()?),
        EscalationStatus::Expired => Fate::Expired,
        EscalationStatus::Cancelled => Fate::Cancelled(row.cancel_reason),
    };
    let ended = match (&fate, row.decided_at, row.decided_by) {
        (Fate::Pending, None, None) => None,
        (Fate::Pending, ..) => return None,
        (_, Some(at), Some(by)) => Some((from_micros(at), EndedBy::parse(by)?)),
        _ => return None,
    };
    Some(Escalation {
        id: NotBlank::new(row.id).ok()?,
        conflict,
        created_at: from_micros(row.created_at),
        expires_at: row.expires_at.map(from_micros),
        fate,
        ended,
    })
}

/// Adds an escalation that waits, and tells of it.
///
/// # Errors
/// 409/4000 when another one of its conflict waits.
pub async fn insert(tx: &Tx, escalation: &Escalation) -> Result<()> {
    let Escalation { id, conflict, created_at, expires_at, .. } = escalation;
    let sql = "INSERT INTO escalations (id, conflict_id, task_id, conflict, created_at, expires_at) \
               VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (conflict_id) WHERE status = 'pending' DO NOTHING";
    let values = [
        id.as_str().into(),
        conflict.id.as_str().into(),
        conflict.task_id.as_deref().map(ToOwned::to_owned).into(),
        serde_json::to_string(conflict).map_err(Error::internal)?.into(),
        micros(*created_at).into(),
        expires_at.map(micros).into(),
    ];
    if execute(&**tx, sql, values).await? == 0 {
        return Err(Error::conflict("An escalation of this conflict is pending already"));
    }
    let mut payload =
        json!({"escalation_id": id, "conflict_id": conflict.id, "status": EscalationStatus::Pending});
    if let Some(task) = &conflict.task_id {
        payload["task_id"] = json!(task);
    }
    tx.publish(Event::new(EventType::EscalationCreated, *created_at, payload));
    Ok(())
}

/// An end: when, by whom, and where other programs hear of it.
#[derive(Clone, Debug)]
pub struct End {
    /// When.
    pub at: DateTime<Utc>,
    /// By whom.
    pub by: EndedBy,
    /// Channel of PostgreSQL that other programs follow.
    pub notify: Option<NotifyChannel>,
}

#[derive(FromQueryResult)]
struct Ended {
    id: String,
    conflict_id: String,
    task_id: Option<String>,
}

const ENDED: &str = "id, conflict_id, task_id";

/// Records a decision with the positions that lose by it. Of all who try to end the escalation, one gets
/// `true`.
pub async fn decide(tx: &Tx, escalation: &Escalation, decision: &Decision, end: &End) -> Result<bool> {
    let sql = format!(
        "UPDATE escalations SET status = 'decided', decided_at = $2, decided_by = $3, decision = $4 \
         WHERE id = $1 AND status = 'pending' RETURNING {ENDED}"
    );
    let values = [
        escalation.id.as_str().into(),
        micros(end.at).into(),
        end.by.as_str().into(),
        serde_json::to_string(decision).map_err(Error::internal)?.into(),
    ];
    let Some(row) = one::<Ended>(&**tx, &sql, values).await? else { return Ok(false) };
    tell(tx, &row, EscalationStatus::Decided, end).await?;
    for position in escalation.conflict.losing(decision) {
        let dissent = Dissent {
            escalation_id: row.id.clone(),
            conflict_id: row.conflict_id.clone(),
            task_id: row.task_id.clone(),
            agent_id: position.agent_id.to_string(),
            position: position.position.to_string(),
            reasoning: position.reasoning.to_string(),
            outcome: decision.outcome(),
            recorded_at: end.at,
        };
        record(tx, &dissent).await?;
    }
    Ok(true)
}

/// Takes an escalation back; whether it still waited.
pub async fn cancel(tx: &Tx, id: &str, reason: Option<&str>, end: &End) -> Result<bool> {
    let sql = format!(
        "UPDATE escalations SET status = 'cancelled', decided_at = $2, decided_by = $3, cancel_reason = $4 \
         WHERE id = $1 AND status = 'pending' RETURNING {ENDED}"
    );
    let values =
        [id.into(), micros(end.at).into(), end.by.as_str().into(), reason.map(ToOwned::to_owned).into()];
    let Some(row) = one::<Ended>(&**tx, &sql, values).await? else { return Ok(false) };
    tell(tx, &row, EscalationStatus::Cancelled, end).await.map(|()| true)
}

/// Ends an escalation whose time is over; whether it still waited.
pub async fn expire(tx: &Tx, id: &str, end: &End) -> Result<bool> {
    let sql = format!(
        "UPDATE escalations SET status = 'expired', decided_at = $2, decided_by = $3 \
         WHERE id = $1 AND status = 'pending' RETURNING {ENDED}"
    );
    let values = [id.into(), micros(end.at).into(), end.by.as_str().into()];
    let Some(row) = one::<Ended>(&**tx, &sql, values).await? else { return Ok(false) };
    tell(tx, &row, EscalationStatus::Expired, end).await.map(|()| true)
}

/// Ends every escalation whose time is over by then; the ids of those that this call ended.
pub async fn expire_due(tx: &Tx, end: &End) -> Result<Vec<String>> {
    let sql = format!(
        "UPDATE escalations SET status = 'expired', decided_at = $1, decided_by = $2 \
         WHERE status = 'pending' AND expires_at <= $1 RETURNING {ENDED}"
    );
    let rows = all::<Ended>(&**tx, &sql, [micros(end.at).into(), end.by.as_str().into()]).await?;
    for row in &rows {
        tell(tx, row, EscalationStatus::Expired, end).await?;
    }
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Tells of an end: whoever waits on a copy of this program, people, and other programs.
async fn tell(tx: &Tx, row: &Ended, status: EscalationStatus, end: &End) -> Result<()> {
    tx.signal(Signal::Escalation { id: row.id.clone() });
    let mut payload = json!({
        "escalation_id": row.id, "conflict_id": row.conflict_id, "status": status, "decided_by": end.by,
    });
    if let Some(task) = &row.task_id {
        payload["task_id"] = json!(task);
    }
    let event_type = match status {
        EscalationStatus::Decided => EventType::EscalationDecided,
        EscalationStatus::Cancelled => EventType::EscalationCancelled,
        _ => EventType::EscalationExpired,
    };
    tx.publish(Event::new(event_type, end.at, payload));
    if let (Some(channel), DbBackend::Postgres) = (&end.notify, tx.get_database_backend()) {
        let values = [channel.as_str().into(), format!("{}:{status}", row.id).into()];
        execute(&**tx, "SELECT pg_notify($1, $2)", values).await?;
    }
    Ok(())
}

async fn record(tx: &Tx, dissent: &Dissent) -> Result<()> {
    let sql = "INSERT INTO dissents (escalation_id, conflict_id, task_id, agent_id, position, reasoning, \
               outcome, recorded_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let values = [
        dissent.escalation_id.as_str().into(),
        dissent.conflict_id.as_str().into(),
        dissent.task_id.clone().into(),
        dissent.agent_id.as_str().into(),
        dissent.position.as_str().into(),
        dissent.reasoning.as_str().into(),
        dissent.outcome.as_str().into(),
        micros(dissent.recorded_at).into(),
    ];
    execute(&**tx, sql, values).await?;
    let mut payload = json!({"agent_id": dissent.agent_id, "message": dissent.message()});
    if let Some(task) = &dissent.task_id {
        payload["task_id"] = json!(task);
    }
    tx.publish(Event::new(EventType::DissentPublished, dissent.recorded_at, payload));
    Ok(())
}

/// The escalation with this id.
pub async fn by_id(connection: &impl ConnectionTrait, id: &str) -> Result<Option<Escalation>> {
    let sql = format!("SELECT {COLUMNS} FROM escalations WHERE id = $1");
    one::<Row>(connection, &sql, [id.into()]).await?.map(TryInto::try_into).transpose()
}

/// Escalations that stand here, the oldest first. `escalations_listed` is in this order, so a page costs
/// what it skips and shows, whatever else the table holds.
pub async fn page(
    connection: &impl ConnectionTrait,
    status: EscalationStatus,
    offset: u64,
    limit: u64,
) -> Result<Listed<Escalation>> {
    let total = row_count(connection, "escalations", Some(status.as_str())).await?;
    let sql = format!(
        "SELECT {COLUMNS} FROM escalations WHERE status = $1 ORDER BY created_at, id LIMIT $2 OFFSET $3"
    );
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    let rows: Vec<Row> =
        all(connection, &sql, [status.as_str().into(), (limit as i64).into(), offset.into()]).await?;
    let found = rows.len();
    let items: Vec<Escalation> =
        rows.into_iter().filter_map(|row| readable(row.id.clone(), read(row))).collect();
    let is_partial = items.len() < found;
    Ok(Listed { items, total, is_partial })
}

#[derive(FromQueryResult)]
struct DissentRow {
    conflict_id: String,
    task_id: Option<String>,
    agent_id: String,
    position: String,
    reasoning: String,
    outcome: String,
    recorded_at: i64,
}

/// The positions that lost in this escalation, by agent.
pub async fn dissents(connection: &impl ConnectionTrait, escalation: &str) -> Result<Vec<Dissent>> {
    let sql = "SELECT conflict_id, task_id, agent_id, position, reasoning, outcome, recorded_at \
               FROM dissents WHERE escalation_id = $1 ORDER BY agent_id";
    let rows: Vec<DissentRow> = all(connection, sql, [escalation.into()]).await?;
    let read = |row: DissentRow| {
        Some(Dissent {
            escalation_id: escalation.to_owned(),
            conflict_id: row.conflict_id,
            task_id: row.task_id,
            outcome: ConflictOutcome::parse(&row.outcome)?,
            agent_id: row.agent_id,
            position: row.position,
            reasoning: row.reasoning,
            recorded_at: from_micros(row.recorded_at),
        })
    };
    Ok(rows.into_iter().filter_map(|row| readable(row.agent_id.clone(), read(row))).collect())
}
