//! What headers say about a change: the version it is good for, and the key by which it is recognised.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::IF_MATCH;
use axum::http::request::Parts;
use quarterdeck_domain::audit::Actor;
use quarterdeck_domain::error::FieldError;
use quarterdeck_domain::setting::IfMatch;
use quarterdeck_store::idempotency::IdempotencyKey;
use serde::{Deserialize, Deserializer, Serialize};

use super::refused;
use crate::edge::Failure;

/// How `If-Match` is documented.
pub const IF_MATCH_DOC: (&str, &str) =
    ("If-Match", "Entity tags the change is good for; absent = whatever is there.");

/// The condition a change is asked for under (RFC 9110 section 13.1.1).
#[derive(Clone, Debug)]
pub struct Condition(pub IfMatch);

impl<S: Sync> FromRequestParts<S> for Condition {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        Ok(Self(condition(&parts.headers)))
    }
}

fn condition(headers: &HeaderMap) -> IfMatch {
    // Bytes that are no text become characters no tag has, so that they match nothing.
    let lines: Vec<_> =
        headers.get_all(IF_MATCH).iter().map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    IfMatch::parse(&lines.join(","))
}

/// The version a change is good for, counted from 1.
#[derive(Clone, Copy, Debug)]
pub struct Version(i64);

impl Version {
    /// The number.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match i64::deserialize(deserializer)? {
            version @ 1.. => Ok(Self(version)),
            _ => Err(serde::de::Error::custom("must be at least 1")),
        }
    }
}

/// What a client puts into `Idempotency-Key`, if anything.
#[derive(Clone, Debug)]
pub struct RepeatKey(Option<String>);

/// Longest `Idempotency-Key`, in characters.
pub const MAX_KEY: usize = 255;

impl<S: Sync> FromRequestParts<S> for RepeatKey {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let mut lines = parts.headers.get_all("idempotency-key").iter();
        let Some(line) = lines.next() else { return Ok(Self(None)) };
        let key = line.to_str().ok().filter(|key| (1..=MAX_KEY).contains(&key.len()));
        match (key, lines.next()) {
            (Some(key), None) => Ok(Self(Some(key.to_owned()))),
            _ => Err(refused(
                parts,
                FieldError {
                    pointer: "Idempotency-Key".to_owned(),
                    detail: format!("must be one line of 1 to {MAX_KEY} ASCII characters"),
                },
            )),
        }
    }
}

impl RepeatKey {
    /// The key, with who uses it and for what.
    pub fn of(&self, actor: &Actor, request: &impl Serialize) -> Option<IdempotencyKey> {
        let key = self.0.as_deref()?;
        let request = serde_json::to_vec(request).unwrap_or_default();
        Some(IdempotencyKey::new(format!("{}:{}", actor.operation, actor.id), key, &request))
    }
}
