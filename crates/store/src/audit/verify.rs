//! Proving that the chain is what was written: nothing changed, removed, added or put elsewhere.

use std::str::FromStr;

use quarterdeck_domain::Result;
use quarterdeck_domain::audit::Entry;
use sea_orm::{ConnectionTrait, FromQueryResult};
use serde::Serialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{AuditKey, Head, head, hex, next_link, recorded_at};
use crate::sql::{all, number};

/// Entries read at once.
const BATCH: u64 = 500;
/// Link before the first entry.
const GENESIS: &str = "genesis";

/// The link the chain had after an entry: whoever keeps one outside the database notices when the chain is
/// cut off behind it, or written anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Place of the entry, from 0.
    pub position: i64,
    /// 64 hex digits.
    pub link: String,
}

impl FromStr for Anchor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const RULE: &str = "must be a position, a colon and 64 hex digits";
        let (position, link) = text.split_once(':').ok_or(RULE)?;
        let position = position.parse().ok().filter(|position| *position >= 0).ok_or(RULE)?;
        let link = link.to_ascii_lowercase();
        if link.len() != 64 || !link.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(RULE);
        }
        Ok(Self { position, link })
    }
}

/// What a walk along the chain has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Entries that were found to be in order.
    pub entries: u64,
    /// Those signed with the key in use.
    pub signed: u64,
    /// Those written without a key.
    pub unsigned: u64,
    /// Those signed with a key this program does not know, such as one that was replaced.
    pub unknown_key: u64,
    /// Place of the last entry in order; -1 for none.
    pub position: i64,
    /// The link after it.
    pub link: String,
    /// The first thing that is wrong; nothing after it was looked at.
    pub fault: Option<Fault>,
}

/// Where the chain is broken, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Place of the entry that is wrong or missing.
    pub position: i64,
    /// What is wrong, in words.
    pub what: &'static str,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_intact(&self) -> bool {
        self.fault.is_none()
    }

    /// What to compare a later walk with.
    pub fn anchor(&self) -> Option<Anchor> {
        (self.position >= 0).then(|| Anchor { position: self.position, link: self.link.clone() })
    }
}

#[derive(FromQueryResult)]
struct Row {
    position: i64,
    id: String,
    recorded_at: i64,
    actor: String,
    agent_id: Option<String>,
    task_id: Option<String>,
    tool_name: String,
    action_type: String,
    verdict: String,
    payload: String,
    event_hash: String,
    previous_hash: String,
    signature: String,
    key_id: String,
}

impl Row {
    /// Whether the columns that are searched say what the signed payload says.
    fn agrees_with(&self, entry: &Entry) -> bool {
        self.id == entry.id
            && recorded_at(entry).is_ok_and(|time| time == self.recorded_at)
            && self.actor == entry.actor
            && self.agent_id == entry.agent_id
            && self.task_id == entry.task_id
            && self.tool_name == entry.tool_name
            && self.action_type == entry.action_type
            && self.verdict == entry.verdict.as_str()
    }
}

/// A walk from the first entry on.
struct Walk {
    key: Option<AuditKey>,
    report: Report,
}

impl Walk {
    fn fault(&mut self, position: i64, what: &'static str) {
        self.report.fault.get_or_insert(Fault { position, what });
    }

    /// Goes on to the next entry, or says why not.
    fn step(&mut self, row: &Row) -> Result<(), &'static str> {
        if row.previous_hash != self.report.link {
            return Err("does not follow the entry before it");
        }
        if row.event_hash != hex(&Sha256::digest(&row.payload)) {
            return Err("was changed after it was written");
        }
        let entry: Entry = serde_json::from_str(&row.payload).map_err(|_| "cannot be read")?;
        if !row.agrees_with(&entry) {
            return Err("is filed under something else than it says");
        }
        let counted = match &self.key {
            _ if row.key_id.is_empty() && row.signature.is_empty() => &mut self.report.unsigned,
            Some(key) if row.key_id == key.id() => {
                if !signed(key, &[row.event_hash.as_bytes()], &row.signature) {
                    return Err("has a forged signature");
                }
                &mut self.report.signed
            }
            _ => &mut self.report.unknown_key,
        };
        *counted += 1;
        self.report.entries += 1;
        self.report.position = row.position;
        self.report.link = next_link(&row.previous_hash, &row.event_hash, &row.signature, &entry.timestamp);
        Ok(())
    }

    /// Compares what was reached with the signed end of the chain.
    fn arrive(&mut self, head: &Head) {
        let Report { position, link, .. } = &self.report;
        let (position, same) = (*position, *link == head.link);
        if position != head.position {
            return self.fault(position + 1, "is missing");
        }
        if !same {
            return self.fault(position, "is not the one the chain ended with");
        }
        let parts = [head.position.to_string(), head.link.clone()];
        let parts = [parts[0].as_bytes(), parts[1].as_bytes()];
        let is_new = position < 0 && head.signature.is_empty();
        let Some(key) = self.key.clone().filter(|_| !is_new) else { return };
        if head.key_id != key.id() {
            self.fault(position, "ends a chain that is not signed with the key of this program");
        } else if !signed(&key, &parts, &head.signature) {
            self.fault(position, "ends a chain with a forged signature");
        }
    }
}

fn signed(key: &AuditKey, parts: &[&[u8]], signature: &str) -> bool {
    key.sign(parts).as_bytes().ct_eq(signature.as_bytes()).into()
}

/// Walks the chain as it is now; entries that are written meanwhile are left for the next walk.
pub(crate) async fn verify(
    connection: &impl ConnectionTrait,
    key: Option<AuditKey>,
    anchors: &[Anchor],
) -> Result<Report> {
    let report = Report {
        entries: 0,
        signed: 0,
        unsigned: 0,
        unknown_key: 0,
        position: -1,
        link: GENESIS.to_owned(),
        fault: None,
    };
    let mut walk = Walk { key, report };
    let end = head(connection, "").await?;
    let mut before = i64::MIN;
    while walk.report.fault.is_none() {
        let batch = batch(connection, before, end.position).await?;
        let Some(last) = batch.last() else { break };
        before = last.position;
        follow(&mut walk, &batch, anchors);
    }
    if walk.report.is_intact() {
        walk.arrive(&end);
    }
    if walk.report.is_intact() {
        beyond(connection, &mut walk).await?;
    }
    let end = walk.report.position;
    if let Some(anchor) = anchors.iter().find(|anchor| anchor.position > end) {
        walk.fault(anchor.position, "is missing");
    }
    Ok(walk.report)
}

fn follow(walk: &mut Walk, batch: &[Row], anchors: &[Anchor]) {
    for row in batch {
        let expected = walk.report.position + 1;
        if row.position != expected {
            let what = if row.position < expected { "does not belong to the chain" } else { "is missing" };
            return walk.fault(row.position.min(expected), what);
        }
        if let Err(what) = walk.step(row) {
            return walk.fault(row.position, what);
        }
        let mut here = anchors.iter().filter(|anchor| anchor.position == row.position);
        if here.any(|anchor| anchor.link != walk.report.link) {
            return walk.fault(row.position, "is not the one that stood here before");
        }
    }
}

/// Nothing may stand behind the end of the chain, which every writer moves with its entry.
async fn beyond(connection: &impl ConnectionTrait, walk: &mut Walk) -> Result<()> {
    let last = number(connection, "SELECT coalesce(max(position), -1) FROM audit_entries", []).await?;
    if last > head(connection, "").await?.position {
        walk.fault(last, "does not belong to the chain");
    }
    Ok(())
}

async fn batch(connection: &impl ConnectionTrait, before: i64, until: i64) -> Result<Vec<Row>> {
    let sql = format!(
        "SELECT position, id, recorded_at, actor, agent_id, task_id, tool_name, action_type, verdict, payload, \
         event_hash, previous_hash, signature, key_id \
         FROM audit_entries WHERE position > $1 AND position <= $2 ORDER BY position LIMIT {BATCH}"
    );
    all(connection, &sql, [before.into(), until.into()]).await
}
