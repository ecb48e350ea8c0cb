//! The forms the trail is given away in.

use quarterdeck_domain::audit::Entry;
use quarterdeck_domain::{Error, ErrorCode, Result};
use quarterdeck_store::Store;
use quarterdeck_store::audit::{self, Stored};

use super::Export;

/// Entries read at once.
const PAGE: u64 = 500;
/// The columns of CSV, in order.
const COLUMNS: &str = "position,id,timestamp,action_type,verdict,risk_level,actor,actor_name,ip,request_id,\
                       tool_name,tool_category,agent_id,task_id,approval_id,reason,matched_rules,\
                       arguments_hash,confidence,evaluation_duration_ms,event_hash,previous_hash,signature,\
                       key_id\r\n";

/// A form of export. Both hold what proves the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Ndjson,
    /// Comma-separated values (RFC 4180) with a head line.
    Csv,
}

impl Format {
    /// Name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
        }
    }

    /// Media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }

    /// What comes before the first entry.
    pub const fn head(self) -> &'static str {
        match self {
            Self::Ndjson => "",
            Self::Csv => COLUMNS,
        }
    }

    /// Appends the line of an entry.
    fn write(self, row: &Stored, lines: &mut String) -> Result<()> {
        match self {
            Self::Ndjson => {
                write_json(row, lines);
                Ok(())
            }
            Self::Csv => write_csv(row, lines),
        }
    }
}

/// Lines of the next page of an export and where it ends; `None` when there is nothing more.
///
/// # Errors
/// The store's own; 500/8002 for an entry that cannot be read.
pub async fn page(store: &Store, export: Export, last: Option<&Stored>) -> Result<Option<(String, Stored)>> {
    let rows = audit::after(store.read(), export.since, export.until, last, PAGE).await?;
    let mut lines = String::new();
    for row in &rows {
        export.format.write(row, &mut lines)?;
    }
    Ok(rows.into_iter().next_back().map(|last| (lines, last)))
}

/// The payload stays as it is, byte for byte, between its place and its proof.
fn write_json(row: &Stored, lines: &mut String) {
    let Stored { position, payload, event_hash, previous_hash, signature, key_id, .. } = row;
    let members = payload.trim().trim_start_matches('{').trim_end_matches('}');
    lines.push_str(&format!(
        "{{\"position\":{position},{members},\"event_hash\":\"{event_hash}\",\
         \"previous_hash\":\"{previous_hash}\",\"signature\":\"{signature}\",\"key_id\":\"{key_id}\"}}\n"
    ));
}

fn write_csv(row: &Stored, lines: &mut String) -> Result<()> {
    let entry: Entry = serde_json::from_str(&row.payload).map_err(|_| {
        Error::new(ErrorCode::PersistenceError)
            .caused_by(format_args!("audit entry {} is unreadable; verify the chain", row.position))
    })?;
    let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
    let cells = [
        row.position.to_string(),
        entry.id,
        entry.timestamp,
        entry.action_type,
        entry.verdict.to_string(),
        entry.risk_level.to_string(),
        entry.actor,
        entry.actor_name,
        entry.ip.map(|ip| ip.to_string()).unwrap_or_default(),
        or_empty(&entry.request_id),
        entry.tool_name,
        entry.tool_category,
        or_empty(&entry.agent_id),
        or_empty(&entry.task_id),
        or_empty(&entry.approval_id),
        entry.reason,
        entry.matched_rules.join("; "),
        entry.arguments_hash,
        entry.confidence,
        entry.evaluation_duration_ms.to_string(),
        row.event_hash.clone(),
        row.previous_hash.clone(),
        row.signature.clone(),
        row.key_id.clone(),
    ];
    let cells: Vec<_> = cells.iter().map(|text| cell(text)).collect();
    lines.push_str(&cells.join(","));
    lines.push_str("\r\n");
    Ok(())
}

/// A cell that no spreadsheet takes for a formula: what begins like one gets an apostrophe before it.
fn cell(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']) {
        "'"
    } else {
        ""
    };
    if guard.is_empty() && !text.contains(['"', ',', ';', '\r', '\n']) && text.trim() == text {
        return text.to_owned();
    }
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_begins_a_formula() {
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"] {
            assert!(cell(formula).starts_with("\"'"), "{formula:?}");
        }
        assert_eq!(cell("plain text"), "plain text");
        assert_eq!(cell("a \"b\", c"), "\"a \"\"b\"\", c\"");
        assert_eq!(cell("two\nlines"), "\"two\nlines\"");
        assert_eq!(cell(" =1"), "\" =1\"");
    }
}
