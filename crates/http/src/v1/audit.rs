//! The audit trail: what was done, by whom, and the proof that it was not touched. Nothing here writes.

use std::num::NonZeroU32;

use axum::body::Body as ResponseBody;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use quarterdeck_domain::ErrorCode::ValidationError;
use quarterdeck_domain::audit::{Entry, Verdict};
use quarterdeck_domain::error::FieldError;
use quarterdeck_domain::identity::Identity;
use quarterdeck_domain::role::Guard;
use quarterdeck_domain::setting::{api, security};
use quarterdeck_domain::{Error, Result as DomainResult};
use quarterdeck_store::audit::{Fault, Filter, Record, Report, Rules};
use quarterdeck_work::audit::{Export, Format};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::edge::{Data, PaginatedResponse, Result};
use crate::endpoint::{Endpoint, get};
use crate::extract::{Page, Query};
use crate::gate::{Acting, Caller};

/// A walk along the whole chain is dear; one at a time and caller.
const ONE: NonZeroU32 = NonZeroU32::MIN;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/security/audit", "security.audit_query", Guard::Read)
            .limit(30, 60)
            .doc(
                "Read the audit trail",
                "Newest first; all conditions hold together. At most `api/max_audit_records_per_query` entries \
                 can be reached; narrow the time for older ones. The setting `security/audit_restricted` keeps \
                 it to CEO, managers and board members. Addresses are shown to those alone. The conditions on \
                 matched rules need PostgreSQL.",
            )
            .query::<AuditQuery>()
            .gives_page::<AuditEntry>()
            .fails(&[ValidationError])
            .to(list),
        get("/security/audit/verify", "security.audit_verify", Guard::Ceo)
            .limit(10, 60)
            .in_flight(ONE)
            .doc(
                "Verify the audit trail",
                "Walks the whole chain: hashes, signatures, order, gaps and the signed end. A break also raises \
                 a notification.",
            )
            .gives::<Verification>(200)
            .to(verify),
        get("/security/audit/export", "security.audit_export", Guard::Approval)
            .limit(10, 60)
            .in_flight(ONE)
            .doc(
                "Export the audit trail",
                "Oldest first, with what proves the chain. The export itself is recorded.",
            )
            .query::<ExportQuery>()
            .gives_content("application/x-ndjson, text/csv")
            .fails(&[ValidationError])
            .to(export),
    ]
}

#[derive(Deserialize, IntoParams)]
struct AuditQuery {
    /// The agent it is about.
    #[serde(default, deserialize_with = "bounded::<128, _>")]
    #[param(max_length = 128)]
    agent_id: Option<String>,
    /// Tool or operation, such as `users.create`.
    #[serde(default, deserialize_with = "bounded::<256, _>")]
    #[param(max_length = 256)]
    tool_name: Option<String>,
    /// What was done, as `category:action`.
    #[serde(default, deserialize_with = "action_type")]
    #[param(max_length = 128, pattern = "^[a-z0-9_]+:[a-z0-9_]+$")]
    action_type: Option<String>,
    /// User id of who acted; `anonymous` for who did not prove who they are.
    #[serde(default, deserialize_with = "bounded::<128, _>")]
    #[param(max_length = 128)]
    actor: Option<String>,
    /// What was decided.
    #[param(inline)]
    verdict: Option<Verdict>,
    /// The first instant, with offset.
    #[param(format = DateTime)]
    since: Option<String>,
    /// The last instant, with offset.
    #[param(format = DateTime)]
    until: Option<String>,
    /// JSON array or object that the matched rules contain.
    #[serde(default, deserialize_with = "bounded::<2048, _>")]
    #[param(max_length = 2048)]
    jsonb_contains: Option<String>,
    /// One of the matched rules.
    #[serde(default, deserialize_with = "bounded::<256, _>")]
    #[param(max_length = 256)]
    jsonb_key_exists: Option<String>,
}

#[derive(Deserialize, IntoParams)]
struct ExportQuery {
    /// The form: `ndjson` or `csv`.
    #[serde(default)]
    #[param(inline, default = "ndjson")]
    format: ExportFormat,
    /// The first instant, with offset.
    #[param(format = DateTime)]
    since: Option<String>,
    /// The last instant, with offset.
    #[param(format = DateTime)]
    until: Option<String>,
}

/// A form of export.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ExportFormat {
    #[default]
    Ndjson,
    Csv,
}

/// Something that was done.
#[derive(Serialize, ToSchema)]
struct AuditEntry {
    /// Place in the chain, from 0.
    position: i64,
    #[serde(flatten)]
    entry: Entry,
}

impl AuditEntry {
    fn of(record: Record, reader: &Identity) -> Self {
        let Record { position, mut entry } = record;
        if !reader.role.approves() {
            entry.ip = None;
        }
        Self { position, entry }
    }
}

/// What a walk along the chain has found.
#[derive(Serialize, ToSchema)]
struct Verification {
    /// Whether nothing is wrong.
    intact: bool,
    /// Entries that were found to be in order.
    entries: u64,
    /// Those signed with the key in use.
    signed: u64,
    /// Those written without a key.
    unsigned: u64,
    /// Those signed with a key this server does not know, such as one that was replaced.
    unknown_key: u64,
    /// Place of the last entry in order; -1 for none.
    position: i64,
    /// The link after it: kept elsewhere, it shows later that nothing was cut off.
    link: String,
    /// The first thing that is wrong.
    fault: Option<ChainFault>,
    checked_at: DateTime<Utc>,
}

/// Where the chain is broken, and how.
#[derive(Serialize, ToSchema)]
struct ChainFault {
    /// Place of the entry that is wrong or missing.
    position: i64,
    /// What is wrong, in words that go with "the entry".
    what: &'static str,
}

fn bounded<'de, const MAX: usize, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.len() > MAX && text.chars().count() > MAX {
        return Err(D::Error::custom(format_args!("must have at most {MAX} characters")));
    }
    Ok(Some(text))
}

fn action_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = bounded::<128, _>(deserializer)?;
    let word = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    match text.as_deref().and_then(|text| text.split_once(':')) {
        Some((category, action)) if word(category) && word(action) => Ok(text),
        _ => Err(D::Error::custom("must be category:action in small letters, digits and _")),
    }
}

/// A rule over one parameter, or over two.
fn rule(pointer: &str, detail: &str) -> Error {
    let fields = vec![FieldError { pointer: pointer.to_owned(), detail: detail.to_owned() }];
    Error::rule(format!("{pointer} {detail}")).fields(fields)
}

fn instant(name: &str, text: Option<&str>) -> DomainResult<Option<DateTime<Utc>>> {
    let parse = |text| DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
    let refuse = |_| rule(name, "must be a date and time with offset (RFC 3339)");
    text.map(parse).transpose().map_err(refuse)
}

/// From when and until when.
type Span = (Option<DateTime<Utc>>, Option<DateTime<Utc>>);

/// A span of time that is not upside down.
fn span(since: Option<&str>, until: Option<&str>) -> DomainResult<Span> {
    let (since, until) = (instant("since", since)?, instant("until", until)?);
    match (since, until) {
        (Some(since), Some(until)) if since > until => Err(rule("since", "must not be after until")),
        span => Ok(span),
    }
}

fn rules(contains: Option<String>, key_exists: Option<String>) -> DomainResult<Option<Rules>> {
    match (contains, key_exists) {
        (Some(_), Some(_)) => Err(rule("jsonb_contains", "must not be combined with jsonb_key_exists")),
        (Some(text), None) => match serde_json::from_str::<Value>(&text) {
            // The database's own JSON has no character NUL.
            Ok(json @ (Value::Array(_) | Value::Object(_))) if !json.to_string().contains("\\u0000") => {
                Ok(Some(Rules::Contain(json)))
            }
            _ => Err(rule("jsonb_contains", "must be a JSON array or object")),
        },
        (None, Some(name)) => Ok(Some(Rules::Have(name))),
        (None, None) => Ok(None),
    }
}

impl AuditQuery {
    fn filter(self) -> DomainResult<Filter> {
        let (since, until) = span(self.since.as_deref(), self.until.as_deref())?;
        Ok(Filter {
            agent_id: self.agent_id,
            tool_name: self.tool_name,
            action_type: self.action_type,
            actor: self.actor,
            verdict: self.verdict,
            since,
            until,
            rules: rules(self.jsonb_contains, self.jsonb_key_exists)?,
        })
    }
}

async fn list(
    State(app): State<App>,
    Caller(caller): Caller,
    page: Page,
    Query(query): Query<AuditQuery>,
) -> Result<impl IntoResponse> {
    if app.settings.get(&security::AUDIT_RESTRICTED) && !caller.role.approves() {
        return Err(Error::forbidden("Access denied").because("audit_restricted").into());
    }
    let most = app.settings.get(&api::MAX_AUDIT_RECORDS_PER_QUERY).unsigned_abs();
    let filter = query.filter()?;
    let (records, total) = app.audit.page(&filter, most, page.offset, page.limit.into()).await?;
    let entries = records.into_iter().map(|record| AuditEntry::of(record, &caller)).collect();
    Ok(PaginatedResponse::new(entries, page.offset, page.limit, total))
}

async fn verify(State(app): State<App>) -> Result<impl IntoResponse> {
    let report = app.audit.verify().await?;
    let (intact, checked_at) = (report.is_intact(), app.clock.now());
    let Report { entries, signed, unsigned, unknown_key, position, link, fault } = report;
    let fault = fault.map(|Fault { position, what }| ChainFault { position, what });
    Ok(Data(Verification {
        intact,
        entries,
        signed,
        unsigned,
        unknown_key,
        position,
        link,
        fault,
        checked_at,
    }))
}

async fn export(
    State(app): State<App>,
    Acting(actor): Acting,
    Query(query): Query<ExportQuery>,
) -> Result<Response> {
    let (since, until) = span(query.since.as_deref(), query.until.as_deref())?;
    let (format, name) = match query.format {
        ExportFormat::Ndjson => (Format::Ndjson, "attachment; filename=\"audit.ndjson\""),
        ExportFormat::Csv => (Format::Csv, "attachment; filename=\"audit.csv\""),
    };
    let pieces = app.audit.export(Export { format, since, until }, &actor).await?;
    let headers = [(CONTENT_TYPE, format.media_type()), (CONTENT_DISPOSITION, name)];
    Ok((headers, ResponseBody::from_stream(pieces)).into_response())
}
