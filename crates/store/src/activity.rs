//! What has happened lately, read from where it is kept: cost records, and the audit entries of tasks.

use chrono::{DateTime, Utc};
use quarterdeck_domain::activity::{ActivityEventType, Happening, What};
use quarterdeck_domain::money::{Currency, Money};
use quarterdeck_domain::{Error, ErrorCode, Result};
use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use serde::Deserialize;

use crate::sql::{all, from_micros, micros, number};

/// What to look for.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Of one kind.
    pub event_type: Option<ActivityEventType>,
    /// By one agent.
    pub agent_id: Option<String>,
    /// Since when.
    pub since: DateTime<Utc>,
}

impl Filter {
    fn wants(&self, event_type: ActivityEventType) -> bool {
        self.event_type.is_none_or(|wanted| wanted == event_type)
    }

    /// One query for each source that has to be asked, all with the same columns. `$1` is the time, `$2`
    /// the agent if one is asked for.
    fn sources(&self) -> Vec<String> {
        let mut sources = Vec::new();
        if self.wants(ActivityEventType::CostIncurred) {
            let agent = if self.agent_id.is_some() { " AND agent_id = $2" } else { "" };
            sources.push(format!(
                "SELECT recorded_at, id, 'cost' AS kind, agent_id, task_id, model, currency, whole, fraction, \
                 input_tokens, output_tokens FROM cost_records WHERE recorded_at >= $1{agent}"
            ));
        }
        let told = [
            ("task:in_progress", ActivityEventType::TaskStarted),
            ("task:completed", ActivityEventType::TaskCompleted),
        ];
        for (action, _) in told.into_iter().filter(|(_, event_type)| self.wants(*event_type)) {
            let agent = if self.agent_id.is_some() { " AND tasks.assigned_to = $2" } else { "" };
            // The index on actions is in the order of positions: the first of the time bounds what is read.
            sources.push(format!(
                "SELECT recorded_at, entries.id AS id, entries.action_type AS kind, tasks.assigned_to AS agent_id, \
                 entries.task_id, NULL AS model, NULL AS currency, CAST(0 AS BIGINT) AS whole, \
                 CAST(0 AS BIGINT) AS fraction, CAST(0 AS BIGINT) AS input_tokens, \
                 CAST(0 AS BIGINT) AS output_tokens FROM audit_entries AS entries \
                 JOIN tasks ON tasks.id = entries.task_id \
                 WHERE action_type = '{action}' AND recorded_at >= $1 AND position >= (SELECT position \
                 FROM audit_entries WHERE recorded_at >= $1 ORDER BY recorded_at, position LIMIT 1){agent}"
            ));
        }
        sources
    }

    fn values(&self) -> Vec<Value> {
        let agent = self.agent_id.as_deref().map(Into::into);
        [micros(self.since).into()].into_iter().chain(agent).collect()
    }
}

#[derive(FromQueryResult)]
struct Row {
    recorded_at: i64,
    kind: String,
    agent_id: Option<String>,
    task_id: Option<String>,
    model: Option<String>,
    currency: Option<String>,
    whole: i64,
    fraction: i64,
    input_tokens: i64,
    output_tokens: i64,
    document: Option<String>,
}

/// The part of a task that is told.
#[derive(Deserialize)]
struct Titled {
    title: String,
}

impl TryFrom<Row> for Happening {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let unreadable = || Error::new(ErrorCode::PersistenceError).caused_by("an activity is unreadable");
        let title = |document: Option<String>| {
            let titled = serde_json::from_str::<Titled>(&document.unwrap_or_default());
            titled.map(|titled| titled.title).map_err(|_| unreadable())
        };
        let what = match row.kind.as_str() {
            "task:in_progress" => What::TaskStarted(title(row.document)?),
            "task:completed" => What::TaskCompleted(title(row.document)?),
            _ => What::CostIncurred {
                model: row.model.ok_or_else(unreadable)?,
                cost: Money::from_parts(row.whole, row.fraction),
                currency: row.currency.as_deref().and_then(Currency::parse).ok_or_else(unreadable)?,
                input_tokens: row.input_tokens,
                output_tokens: row.output_tokens,
            },
        };
        Ok(Self { at: from_micros(row.recorded_at), agent_id: row.agent_id, task_id: row.task_id, what })
    }
}

/// What has happened, the newest first, and how much in all.
///
/// Each source gives, from an index, no more than the page reaches; titles are read for the page alone.
pub async fn page(
    connection: &impl ConnectionTrait,
    filter: &Filter,
    offset: u64,
    limit: u64,
) -> Result<(Vec<Happening>, u64)> {
    let (sources, mut values) = (filter.sources(), filter.values());
    if sources.is_empty() {
        return Ok((Vec::new(), 0));
    }
    let count = sources.iter().map(|source| format!("(SELECT count(*) FROM ({source}) AS found)"));
    let count = format!("SELECT {}", count.collect::<Vec<_>>().join(" + "));
    let total = number(connection, &count, values.clone()).await?.unsigned_abs();
    let (reach, limit_at, offset_at) = (values.len() + 1, values.len() + 2, values.len() + 3);
    let bounded = |source: String| {
        format!("SELECT * FROM ({source} ORDER BY recorded_at DESC, id DESC LIMIT ${reach}) AS source")
    };
    let sources = sources.into_iter().map(bounded).collect::<Vec<_>>().join(" UNION ALL ");
    let sql = format!(
        "SELECT page.*, tasks.document FROM (SELECT * FROM ({sources}) AS merged \
         ORDER BY recorded_at DESC, id DESC LIMIT ${limit_at} OFFSET ${offset_at}) AS page \
         LEFT JOIN tasks ON tasks.id = page.task_id AND page.kind <> 'cost' \
         ORDER BY page.recorded_at DESC, page.id DESC"
    );
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX).into();
    let offset = offset.min(total);
    values.extend([number(offset.saturating_add(limit)), number(limit), number(offset)]);
    let rows = all::<Row>(connection, &sql, values).await?;
    Ok((rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?, total))
}
