//! Interrupts. Who decides first, decides: every end is one conditional update.

use chrono::{DateTime, Utc};
use quarterdeck_domain::event::{Event, EventType};
use quarterdeck_domain::interrupt::{
    Ask, Interrupt, InterruptType, Outcome, Resolution, Resume, ResumeDecision,
};
use quarterdeck_domain::stream::SessionId;
use quarterdeck_domain::text::NotBlank;
use quarterdeck_domain::{Error, ErrorCode, Result};
use sea_orm::{ConnectionTrait, FromQueryResult};
use serde_json::json;

use crate::sql::{all, execute, from_micros, micros, one};
use crate::{Signal, Tx};

const COLUMNS: &str = "id, kind, session_id, agent_id, created_at, timeout_seconds, tool_name, tool_args, \
                       evidence_package_id, question, context_snippet, status, decision, feedback, response, \
                       resolved_by, resolved_at";

#[derive(FromQueryResult)]
struct Row {
    id: String,
    kind: String,
    session_id: String,
    agent_id: String,
    created_at: i64,
    timeout_seconds: f64,
    tool_name: Option<String>,
    tool_args: Option<String>,
    evidence_package_id: Option<String>,
    question: Option<String>,
    context_snippet: Option<String>,
    status: String,
    decision: Option<String>,
    feedback: Option<String>,
    response: Option<String>,
    resolved_by: Option<String>,
    resolved_at: Option<i64>,
}

impl TryFrom<Row> for (Interrupt, Outcome) {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let id = row.id.clone();
        read(row).ok_or_else(|| {
            Error::new(ErrorCode::PersistenceError).caused_by(format_args!("interrupt {id} is unreadable"))
        })
    }
}

/// What a row says, if it can be read.
fn read(row: Row) -> Option<(Interrupt, Outcome)> {
    let ask = match InterruptType::parse(&row.kind)? {
        InterruptType::ToolApproval => Ask::ToolApproval {
            tool_name: NotBlank::new(row.tool_name?).ok()?,
            tool_args: row.tool_args.map(|text| serde_json::from_str(&text)).transpose().ok()?,
            evidence_package_id: optional(row.evidence_package_id)?,
        },
        InterruptType::InfoRequest => Ask::InfoRequest {
            question: NotBlank::new(row.question?).ok()?,
            context_snippet: optional(row.context_snippet)?,
        },
    };
    let outcome = match row.status.as_str() {
        "pending" => Outcome::Pending,
        "resolved" => Outcome::Resolved(Resolution {
            resume: Resume {
                decision: match row.decision {
                    Some(decision) => Some(ResumeDecision::parse(&decision)?),
                    None => None,
                },
                feedback: optional(row.feedback)?,
                response: optional(row.response)?,
            },
            resolved_by: row.resolved_by?,
            resolved_at: from_micros(row.resolved_at?),
        }),
        "expired" => Outcome::Expired,
        _ => return None,
    };
    let interrupt = Interrupt {
        id: NotBlank::new(row.id).ok()?,
        session_id: SessionId::new(row.session_id).ok()?,
        agent_id: NotBlank::new(row.agent_id).ok()?,
        created_at: from_micros(row.created_at),
        timeout_seconds: row.timeout_seconds,
        ask,
    };
    Some((interrupt, outcome))
}

fn optional<const MAX: usize>(text: Option<String>) -> Option<Option<NotBlank<MAX>>> {
    text.map(NotBlank::new).transpose().ok()
}

fn text<const MAX: usize>(text: &NotBlank<MAX>) -> Option<String> {
    Some(text.as_str().to_owned())
}

/// Adds an interrupt that waits, and tells of it.
///
/// # Errors
/// 409/4001 when there is, or was, one with its id.
pub async fn insert(tx: &Tx, interrupt: &Interrupt) -> Result<()> {
    let Interrupt { id, session_id, agent_id, created_at, timeout_seconds, ask } = interrupt;
    let (tool_name, tool_args, evidence, question, context) = match ask {
        Ask::ToolApproval { tool_name, tool_args, evidence_package_id } => {
            let arguments = tool_args.as_ref().map(serde_json::to_string).transpose();
            let evidence = evidence_package_id.as_ref().and_then(text);
            (text(tool_name), arguments.map_err(Error::internal)?, evidence, None, None)
        }
        Ask::InfoRequest { question, context_snippet } => {
            (None, None, None, text(question), context_snippet.as_ref().and_then(text))
        }
    };
    let sql = "INSERT INTO interrupts (id, kind, session_id, agent_id, created_at, timeout_seconds, tool_name, \
               tool_args, evidence_package_id, question, context_snippet) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (id) DO NOTHING";
    let values = [
        id.as_str().into(),
        interrupt.kind().as_str().into(),
        session_id.as_str().into(),
        agent_id.as_str().into(),
        micros(*created_at).into(),
        (*timeout_seconds).into(),
        tool_name.into(),
        tool_args.into(),
        evidence.into(),
        question.into(),
        context.into(),
    ];
    if execute(&**tx, sql, values).await? == 0 {
        return Err(ErrorCode::DuplicateRecord.into());
    }
    let payload = json!({"interrupt_id": id, "reason": interrupt.kind()});
    tx.publish(Event::new(EventType::InterruptCreated, *created_at, payload));
    Ok(())
}

/// Records what a person said and tells whoever waits, on any copy of the program. Of all who try, one
/// gets the interrupt back; `None` when it no longer waits.
pub async fn resolve(tx: &Tx, id: &str, resolution: &Resolution) -> Result<Option<Interrupt>> {
    let Resolution { resume, resolved_by, resolved_at } = resolution;
    let sql = format!(
        "UPDATE interrupts SET status = 'resolved', decision = $2, feedback = $3, response = $4, \
         resolved_by = $5, resolved_at = $6 WHERE id = $1 AND status = 'pending' RETURNING {COLUMNS}"
    );
    let values = [
        id.into(),
        resume.decision.map(|decision| decision.as_str().to_owned()).into(),
        resume.feedback.as_ref().and_then(text).into(),
        resume.response.as_ref().and_then(text).into(),
        resolved_by.as_str().into(),
        micros(*resolved_at).into(),
    ];
    let Some(row) = one::<Row>(&**tx, &sql, values).await? else { return Ok(None) };
    let (interrupt, _) = <(Interrupt, Outcome)>::try_from(row)?;
    tx.signal(Signal::Interrupt { id: id.to_owned() });
    let payload = json!({"interrupt_id": id});
    tx.publish(Event::new(EventType::InterruptResumed, *resolved_at, payload));
    Ok(Some(interrupt))
}

/// Ends an interrupt that nobody has answered; whether it still waited.
pub async fn expire(tx: &Tx, id: &str, now: DateTime<Utc>) -> Result<bool> {
    let sql =
        "UPDATE interrupts SET status = 'expired', resolved_at = $2 WHERE id = $1 AND status = 'pending'";
    let ended = execute(&**tx, sql, [id.into(), micros(now).into()]).await? == 1;
    if ended {
        tx.signal(Signal::Interrupt { id: id.to_owned() });
    }
    Ok(ended)
}

/// Forgets interrupts that ended before this time; how many.
pub async fn prune(tx: &Tx, before: DateTime<Utc>) -> Result<u64> {
    let sql = "DELETE FROM interrupts WHERE status <> 'pending' AND resolved_at < $1";
    execute(&**tx, sql, [micros(before).into()]).await
}

/// Interrupts that wait, of one session or all, the oldest first.
pub async fn pending(
    connection: &impl ConnectionTrait,
    session: Option<&SessionId>,
) -> Result<Vec<Interrupt>> {
    let of_session = if session.is_some() { " AND session_id = $1" } else { "" };
    let sql = format!(
        "SELECT {COLUMNS} FROM interrupts WHERE status = 'pending'{of_session} ORDER BY created_at, id"
    );
    let rows: Vec<Row> = all(connection, &sql, session.map(|session| session.as_str().into())).await?;
    rows.into_iter().map(|row| <(Interrupt, Outcome)>::try_from(row).map(|(waits, _)| waits)).collect()
}

/// The interrupt with this id, and what has become of it.
pub async fn by_id(connection: &impl ConnectionTrait, id: &str) -> Result<Option<(Interrupt, Outcome)>> {
    let sql = format!("SELECT {COLUMNS} FROM interrupts WHERE id = $1");
    one::<Row>(connection, &sql, [id.into()]).await?.map(TryInto::try_into).transpose()
}
