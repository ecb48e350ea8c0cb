//! Reading the chain: pages for people, newest first, and everything in order for whoever keeps a copy.

use chrono::{DateTime, Utc};
use quarterdeck_domain::audit::{Entry, Verdict};
use quarterdeck_domain::{Error, ErrorCode, Result};
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult, Value};

use super::head;
use crate::sql::{all, micros, number};

/// Which entries are asked for; all conditions hold together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// The agent it is about.
    pub agent_id: Option<String>,
    /// Tool or operation.
    pub tool_name: Option<String>,
    /// `category:action`.
    pub action_type: Option<String>,
    /// User id of who acted.
    pub actor: Option<String>,
    /// What was decided.
    pub verdict: Option<Verdict>,
    /// The first instant.
    pub since: Option<DateTime<Utc>>,
    /// The last instant.
    pub until: Option<DateTime<Utc>>,
    /// What the matched rules must be like.
    pub rules: Option<Rules>,
}

/// A condition on matched rules, for PostgreSQL.
#[derive(Clone, Debug, PartialEq)]
pub enum Rules {
    /// They contain this JSON document, as `jsonb` understands it.
    Contain(serde_json::Value),
    /// One of them is this.
    Have(String),
}

/// An entry and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Place in the chain, from 0.
    pub position: i64,
    /// What was done.
    pub entry: Entry,
}

/// An entry as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Stored {
    /// Place in the chain, from 0.
    pub position: i64,
    /// Microseconds since 1970 UTC.
    pub recorded_at: i64,
    /// The entry in canonical JSON.
    pub payload: String,
    /// SHA-256 of the payload, lower-case hex.
    pub event_hash: String,
    /// Link of the entry before, `genesis` for the first.
    pub previous_hash: String,
    /// HMAC-SHA-256 of the hash, lower-case hex; empty when there was no key.
    pub signature: String,
    /// Names the key.
    pub key_id: String,
}

#[derive(FromQueryResult)]
struct Shown {
    position: i64,
    payload: String,
}

impl TryFrom<Shown> for Record {
    type Error = Error;

    fn try_from(Shown { position, payload }: Shown) -> Result<Self> {
        let entry = serde_json::from_str(&payload).map_err(|_| {
            Error::new(ErrorCode::PersistenceError)
                .caused_by(format_args!("audit entry {position} is unreadable; verify the chain"))
        })?;
        Ok(Self { position, entry })
    }
}

/// Conditions as they are collected.
#[derive(Default)]
struct Where {
    conditions: Vec<String>,
    values: Vec<Value>,
}

impl Where {
    /// A condition about one value, which stands where `$` is.
    fn and(&mut self, condition: &str, value: impl Into<Value>) {
        self.values.push(value.into());
        self.conditions.push(condition.replace('$', &format!("${}", self.values.len())));
    }

    fn text(&self) -> String {
        if self.conditions.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", self.conditions.join(" AND "))
        }
    }
}

impl Filter {
    /// Conditions that indexes serve.
    fn indexed(&self) -> Where {
        let mut all = Where::default();
        for (condition, value) in [
            ("agent_id = $", &self.agent_id),
            ("tool_name = $", &self.tool_name),
            ("action_type = $", &self.action_type),
            ("actor = $", &self.actor),
        ] {
            if let Some(value) = value {
                all.and(condition, value.as_str());
            }
        }
        if let Some(verdict) = self.verdict {
            all.and("verdict = $", verdict.as_str());
            if verdict != Verdict::Allow {
                // Told as a constant, so that the database sees that the partial index holds them all.
                all.conditions.push("verdict <> 'allow'".to_owned());
            }
        }
        if let Some(since) = self.since {
            all.and("recorded_at >= $", micros(since));
        }
        if let Some(until) = self.until {
            all.and("recorded_at <= $", micros(until));
        }
        all
    }
}

impl Rules {
    /// The condition on `payload`. `jsonb` has no character NUL, so a payload that names it is not read as one.
    fn add_to(&self, conditions: &mut Where) {
        let rules =
            r"(CASE WHEN position('\u0000' IN payload) = 0 THEN payload::jsonb -> 'matched_rules' END)";
        match self {
            Self::Contain(json) => conditions.and(&format!("{rules} @> $::jsonb"), json.to_string()),
            Self::Have(rule) => conditions.and(&format!("{rules} ? $"), rule.as_str()),
        }
    }
}

/// Entries, newest first, and how many there are, both within the newest `most`.
///
/// # Errors
/// 422/2000 when SQLite is asked about rules.
pub async fn page(
    connection: &impl ConnectionTrait,
    filter: &Filter,
    most: u64,
    offset: u64,
    limit: u64,
) -> Result<(Vec<Record>, u64)> {
    if filter.rules.is_some() && connection.get_database_backend() != DbBackend::Postgres {
        return Err(Error::rule("matched_rules can be searched on PostgreSQL only"));
    }
    let total = count(connection, filter, most).await?;
    let limit = limit.min(total.saturating_sub(offset));
    if limit == 0 {
        return Ok((Vec::new(), total));
    }
    let (from, mut all_values) = source(filter, most);
    let place = all_values.len();
    all_values.extend([Value::from(limit as i64), Value::from(offset as i64)]);
    let sql = format!(
        "SELECT position, payload FROM {from} ORDER BY recorded_at DESC, position DESC LIMIT ${} OFFSET ${}",
        place + 1,
        place + 2
    );
    let rows = all::<Shown>(connection, &sql, all_values).await?;
    Ok((rows.into_iter().map(Record::try_from).collect::<Result<_>>()?, total))
}

/// Where entries are read from, with the conditions. Rules have no index: they are looked for in the
/// newest `most` entries that meet the other conditions.
fn source(filter: &Filter, most: u64) -> (String, Vec<Value>) {
    let mut conditions = filter.indexed();
    let text = conditions.text();
    let Some(rules) = &filter.rules else { return (format!("audit_entries{text}"), conditions.values) };
    conditions.conditions.clear();
    rules.add_to(&mut conditions);
    let newest = format!(
        "(SELECT recorded_at, position, payload FROM audit_entries{text} \
         ORDER BY recorded_at DESC, position DESC LIMIT {most}) AS newest{}",
        conditions.text()
    );
    (newest, conditions.values)
}

async fn count(connection: &impl ConnectionTrait, filter: &Filter, most: u64) -> Result<u64> {
    if *filter == Filter::default() {
        // The head knows without counting.
        return Ok((head(connection, "").await?.position + 1).unsigned_abs().min(most));
    }
    let (from, values) = source(filter, most);
    let sql = format!("SELECT count(*) FROM (SELECT 1 FROM {from} LIMIT {most}) AS found");
    Ok(number(connection, &sql, values).await?.unsigned_abs())
}

/// Entries of a span of time after a given one, oldest first.
pub async fn after(
    connection: &impl ConnectionTrait,
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
    last: Option<&Stored>,
    limit: u64,
) -> Result<Vec<Stored>> {
    let span = Filter { since, until, ..Filter::default() };
    let mut conditions = span.indexed();
    if let Some(last) = last {
        conditions.values.extend([Value::from(last.recorded_at), Value::from(last.position)]);
        let place = conditions.values.len();
        conditions.conditions.push(format!("(recorded_at, position) > (${}, ${place})", place - 1));
    }
    let sql = format!(
        "SELECT position, recorded_at, payload, event_hash, previous_hash, signature, key_id \
         FROM audit_entries{} ORDER BY recorded_at, position LIMIT {limit}",
        conditions.text()
    );
    all(connection, &sql, conditions.values).await
}

/// How many entries of an actor are later than `since`, counted up to `most`.
pub async fn recent(
    connection: &impl ConnectionTrait,
    actor: &str,
    since: DateTime<Utc>,
    most: u64,
) -> Result<u64> {
    let sql = "SELECT count(*) FROM (SELECT 1 FROM audit_entries WHERE actor = $1 AND recorded_at > $2 LIMIT $3) \
               AS recent";
    let values = [actor.into(), micros(since).into(), (most as i64).into()];
    Ok(number(connection, sql, values).await?.unsigned_abs())
}
