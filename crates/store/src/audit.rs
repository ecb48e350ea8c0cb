//! The audit chain: entries are written with the change they record, each linked to the one before.
//!
//! `event_hash` is the SHA-256 of the payload, `signature` an HMAC-SHA-256 of it, and the link the next
//! entry names as `previous_hash` is SHA-256(`previous|event_hash|signature|timestamp`). The head row holds
//! the newest link, signed too.

use std::sync::RwLock;

use hmac::{Hmac, KeyInit, Mac};
use quarterdeck_domain::audit::Entry;
use quarterdeck_domain::{Error, Result};
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};
use sha2::{Digest, Sha256};

use crate::Tx;
use crate::sql::{execute, one};

/// What entries are signed with. Its id is stored beside every signature, so that a key that was replaced
/// is not taken for a forged entry.
#[derive(Clone)]
pub struct AuditKey {
    key: zeroize::Zeroizing<Vec<u8>>,
    id: String,
}

impl AuditKey {
    /// The key that belongs to a secret of the installation.
    pub fn derive(secret: &[u8]) -> Self {
        let key = mac(secret, &[b"quarterdeck.audit.v1"]);
        let id = hex(&Sha256::digest(&key)[..8]);
        Self { key: key.into(), id }
    }

    /// Names the key without giving it away.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn sign(&self, parts: &[&[u8]]) -> String {
        hex(&mac(&self.key, parts))
    }
}

impl std::fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditKey").field("id", &self.id).finish_non_exhaustive()
    }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    // HMAC takes keys of any length; the fallback is never reached.
    let Ok(mut mac) = <Hmac<Sha256> as KeyInit>::new_from_slice(key) else { return Vec::new() };
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            mac.update(b"|");
        }
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// The writing end of the chain.
#[derive(Default)]
pub(crate) struct Chain {
    key: RwLock<Option<AuditKey>>,
}

#[derive(FromQueryResult)]
struct Head {
    position: i64,
    link: String,
}

impl Chain {
    pub(crate) fn set_key(&self, key: AuditKey) {
        *self.key.write().unwrap_or_else(|e| e.into_inner()) = Some(key);
    }

    pub(crate) fn key(&self) -> Option<AuditKey> {
        self.key.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Appends entries as the last statements of a job: from here to the commit the chain is locked.
    pub(crate) async fn append(&self, tx: &Tx, entries: Vec<Entry>) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let key = self.key();
        let sign = |parts: &[&[u8]]| key.as_ref().map(|key| key.sign(parts)).unwrap_or_default();
        let key_id = key.as_ref().map(AuditKey::id).unwrap_or_default();
        let lock = if tx.get_database_backend() == DbBackend::Postgres { " FOR UPDATE" } else { "" };
        let sql = format!("SELECT position, link FROM audit_head WHERE id = 1{lock}");
        let head = one::<Head>(&**tx, &sql, []).await?;
        let Head { mut position, mut link } =
            head.ok_or_else(|| Error::internal("the audit chain has lost its head"))?;
        for entry in &entries {
            let payload = serde_json::to_string(entry).map_err(Error::internal)?;
            let event_hash = hex(&Sha256::digest(&payload));
            let signature = sign(&[event_hash.as_bytes()]);
            position += 1;
            insert(tx, position, entry, &payload, &event_hash, &link, &signature, key_id).await?;
            link = next_link(&link, &event_hash, &signature, &entry.timestamp);
        }
        let signature = sign(&[position.to_string().as_bytes(), link.as_bytes()]);
        let sql = "UPDATE audit_head SET position = $1, link = $2, signature = $3, key_id = $4 WHERE id = 1";
        execute(&**tx, sql, [position.into(), link.into(), signature.into(), key_id.into()]).await?;
        Ok(())
    }
}

#[allow(clippy::too_many_arguments, reason = "the columns of one row")]
async fn insert(
    tx: &Tx,
    position: i64,
    entry: &Entry,
    payload: &str,
    event_hash: &str,
    previous: &str,
    signature: &str,
    key_id: &str,
) -> Result<()> {
    let recorded_at = chrono::DateTime::parse_from_rfc3339(&entry.timestamp).map_err(Error::internal)?;
    let sql = "INSERT INTO audit_entries (position, id, recorded_at, actor, agent_id, task_id, tool_name, \
               action_type, verdict, payload, event_hash, previous_hash, signature, key_id) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
    let values = [
        position.into(),
        entry.id.as_str().into(),
        recorded_at.timestamp_micros().into(),
        entry.actor.as_str().into(),
        entry.agent_id.clone().into(),
        entry.task_id.clone().into(),
        entry.tool_name.as_str().into(),
        entry.action_type.as_str().into(),
        entry.verdict.as_str().into(),
        payload.into(),
        event_hash.into(),
        previous.into(),
        signature.into(),
        key_id.into(),
    ];
    execute(&**tx, sql, values).await.map(drop)
}

/// What the entry after this one names as its predecessor.
pub(crate) fn next_link(previous: &str, event_hash: &str, signature: &str, timestamp: &str) -> String {
    hex(&Sha256::digest(format!("{previous}|{event_hash}|{signature}|{timestamp}")))
}
