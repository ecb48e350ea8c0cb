//! Names of one request: its correlation id and the trace it belongs to.

use std::cell::RefCell;
use std::fmt;

use arrayvec::ArrayString;
use axum::http::{HeaderMap, HeaderValue};
use uuid::Uuid;

/// Longest accepted foreign id, in bytes.
const LONGEST: usize = 64;
const SHORTEST: usize = 8;

/// Correlation id of a request, stored inline: a fresh UUIDv4, or what a trusted proxy handed on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId(ArrayString<LONGEST>);

impl RequestId {
    /// A new random id.
    pub fn fresh() -> Self {
        let mut buffer = Uuid::encode_buffer();
        Self::of(random_uuid().hyphenated().encode_lower(&mut buffer))
    }

    /// Takes a foreign id of 8 to 64 characters out of `[A-Za-z0-9_-]`.
    pub fn foreign(value: &HeaderValue) -> Option<Self> {
        let text = value.to_str().ok()?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        ((SHORTEST..=LONGEST).contains(&text.len()) && text.bytes().all(plain)).then(|| Self::of(text))
    }

    /// Takes a text that is not too long.
    fn of(text: &str) -> Self {
        Self(ArrayString::from(text).unwrap_or_default())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn header(&self) -> HeaderValue {
        HeaderValue::from_str(self.as_str()).unwrap_or(HeaderValue::from_static(""))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Trace id of a valid W3C `traceparent`: 32 lower-case hexadecimal digits, not all zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceId([u8; 32]);

impl TraceId {
    /// Reads the header; anything the recommendation calls invalid is no trace.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get("traceparent")?.as_bytes();
        let hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let set = |part: &[u8]| hex(part) && part.iter().any(|b| *b != b'0');
        let dashes = |at: &[usize]| at.iter().all(|i| value.get(*i) == Some(&b'-'));
        let version = value.get(..2)?;
        // Later versions may append fields; version ff is forbidden.
        let length = value.len() == 55 || (version != b"00" && dashes(&[55]));
        if !length || !hex(version) || version == b"ff" || !dashes(&[2, 35, 52]) {
            return None;
        }
        if !set(value.get(3..35)?) || !set(value.get(36..52)?) || !hex(value.get(53..55)?) {
            return None;
        }
        value[3..35].try_into().ok().map(Self)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const POOL: usize = 64 * 16;

thread_local! {
    static RANDOM: RefCell<(usize, [u8; POOL])> = const { RefCell::new((POOL, [0; POOL])) };
}

/// A UUIDv4 from bytes drawn from the system sixty-four ids at a time: ids are unique, not secret.
fn random_uuid() -> Uuid {
    RANDOM.with_borrow_mut(|(used, pool)| {
        if *used == POOL {
            if getrandom::fill(pool).is_err() {
                return Uuid::new_v4();
            }
            *used = 0;
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&pool[*used..*used + 16]);
        *used += 16;
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn fresh_ids_are_distinct_version_four_uuids() {
        let ids: HashSet<_> = (0..1000).map(|_| RequestId::fresh().to_string()).collect();
        assert_eq!(ids.len(), 1000);
        for id in ids {
            assert_eq!(id.parse::<Uuid>().unwrap().get_version_num(), 4);
        }
    }

    #[test]
    fn a_foreign_id_has_eight_to_sixty_four_plain_characters() {
        let foreign = |text: &str| RequestId::foreign(&HeaderValue::from_str(text).unwrap());
        assert_eq!(foreign("abc_DEF-9").unwrap().as_str(), "abc_DEF-9");
        assert!(foreign(&"a".repeat(64)).is_some());
        for refused in ["1234567", &"a".repeat(65), "has space", "semi;colon", "dotted.id"] {
            assert!(foreign(refused).is_none(), "{refused}");
        }
    }

    #[test]
    fn only_a_valid_traceparent_names_a_trace() {
        let of = |text: &str| {
            TraceId::of(&HeaderMap::from_iter([("traceparent".parse().unwrap(), text.parse().unwrap())]))
                .map(|id| id.as_str().to_owned())
        };
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(of(&format!("00-{trace}-00f067aa0ba902b7-01")).as_deref(), Some(trace));
        assert_eq!(of(&format!("01-{trace}-00f067aa0ba902b7-01-more")).as_deref(), Some(trace));
        for refused in [
            format!("ff-{trace}-00f067aa0ba902b7-01"),
            format!("00-{trace}-00f067aa0ba902b7-01-more"),
            format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{trace}-0000000000000000-01"),
            "00".to_owned(),
        ] {
            assert_eq!(of(&refused), None, "{refused}");
        }
    }
}
