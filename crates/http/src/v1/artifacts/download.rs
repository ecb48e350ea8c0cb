//! A content on its way out: as a file to save, never as a page to open.

use std::ops::Range;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use quarterdeck_domain::Error;
use quarterdeck_domain::artifact::Artifact;
use quarterdeck_store::artifact::Content;
use quarterdeck_work::artifacts::ByteStream;

use crate::edge::{Failure, NoCompression, Sandboxed};

const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
/// What a name may hold besides letters and digits (RFC 8187).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');
/// Most characters of the name of a file.
const MAX_FILE_NAME: usize = 120;

/// What is given of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it.
    Whole(u64),
    /// These bytes of it.
    Part(Range<u64>),
    /// None: the caller has it.
    Unchanged,
    /// None: it does not reach that far.
    OutOfRange,
}

impl Wanted {
    /// The bytes to read.
    pub(super) fn part(self) -> Option<Range<u64>> {
        match self {
            Self::Whole(size) => Some(0..size),
            Self::Part(part) => Some(part),
            Self::Unchanged | Self::OutOfRange => None,
        }
    }
}

/// What a request wants of a content (RFC 9110, sections 13 and 14).
pub(super) fn wanted(headers: &HeaderMap, content: &Content) -> Wanted {
    let tag = tag(content);
    let has = headers.get_all(IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
    let mut has = has.flat_map(|tags| tags.split(',')).map(str::trim);
    if has.any(|has| has == "*" || has.strip_prefix("W/").unwrap_or(has) == tag) {
        return Wanted::Unchanged;
    }
    let is_current = headers.get(IF_RANGE).is_none_or(|has| has.as_bytes() == tag.as_bytes());
    let mut ranges = headers.get_all(RANGE).iter();
    match (ranges.next().and_then(|range| range.to_str().ok()), ranges.next()) {
        (Some(range), None) if is_current => part(range, content.size),
        _ => Wanted::Whole(content.size),
    }
}

/// What one range of bytes means; what is no such range means nothing.
fn part(range: &str, size: u64) -> Wanted {
    let whole = Wanted::Whole(size);
    let Some((unit, range)) = range.split_once('=') else { return whole };
    let Some((first, last)) = range.split_once('-') else { return whole };
    let number = |text: &str| {
        let text = text.trim();
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return whole;
    }
    let (start, end) = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(size)),
        (Some(first), None) if last.trim().is_empty() => (first, size),
        (None, Some(last)) if first.trim().is_empty() => (size - last.min(size), size),
        _ => return whole,
    };
    if start < end { Wanted::Part(start..end) } else { Wanted::OutOfRange }
}

fn tag(content: &Content) -> String {
    format!("\"{}\"", content.sha256)
}

/// The answer with these bytes.
pub(super) fn answer(
    artifact: &Artifact,
    content: &Content,
    wanted: Wanted,
    bytes: Option<ByteStream>,
) -> Response {
    let size = content.size;
    let (mut response, length) = match (wanted, bytes) {
        (Wanted::OutOfRange, _) => {
            let refusal = Failure(Error::shape("Range Not Satisfiable").status_override(416));
            return ([(CONTENT_RANGE, format!("bytes */{size}"))], refusal).into_response();
        }
        (Wanted::Part(part), Some(bytes)) => {
            let range = format!("bytes {}-{}/{size}", part.start, part.end - 1);
            let body = Body::from_stream(bytes);
            (
                (StatusCode::PARTIAL_CONTENT, [(CONTENT_RANGE, range)], body).into_response(),
                part.end - part.start,
            )
        }
        (_, Some(bytes)) => (Body::from_stream(bytes).into_response(), size),
        (_, None) => (StatusCode::NOT_MODIFIED.into_response(), 0),
    };
    let unchanged = response.status() == StatusCode::NOT_MODIFIED;
    let mut set = |name, value: String| {
        // Everything here is ASCII by its making.
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    };
    set(ETAG, tag(content));
    set(ACCEPT_RANGES, "bytes".to_owned());
    if !unchanged {
        set(CONTENT_LENGTH, length.to_string());
        set(CONTENT_TYPE, artifact.served_type().to_owned());
        set(CONTENT_DISPOSITION, disposition(&artifact.path));
        set(REPR_DIGEST, digest(&content.sha256));
    }
    // A tag is of these very bytes, and ranges are counted in them.
    (NoCompression, Sandboxed, response).into_response()
}

/// The digest in the form of RFC 9530.
fn digest(sha256: &str) -> String {
    let bytes = data_encoding::HEXLOWER.decode(sha256.as_bytes()).unwrap_or_default();
    format!("sha-256=:{}:", STANDARD.encode(bytes))
}

/// Saves under the last part of the path, in plain letters for clients that know no others.
fn disposition(path: &str) -> String {
    let name = file_name(path);
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ' ') { c } else { '_' })
        .collect();
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", utf8_percent_encode(&name, ENCODED))
}

/// The last part of a path without what a file system, a shell or a reader's eye could take for something
/// else.
fn file_name(path: &str) -> String {
    let last = path.rsplit(['/', '\\']).next().unwrap_or_default();
    let kept: String = last
        .chars()
        .filter(|c| !c.is_control() && !is_invisible(*c))
        .map(|c| if matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*' | '%') { '_' } else { c })
        .take(MAX_FILE_NAME)
        .collect();
    let name = kept.trim_matches(|c: char| c == '.' || c.is_whitespace());
    if name.is_empty() { "artifact".to_owned() } else { name.to_owned() }
}

/// Marks that change the direction of text, or take no room: `exe.txt` must not read as `txt.exe`.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use quarterdeck_domain::artifact::{ArtifactId, ContentName};

    use super::*;

    fn content() -> Content {
        Content { name: ContentName::fresh(ArtifactId::fresh()), size: 10, sha256: "ab".to_owned() }
    }

    fn asked(lines: &[(HeaderName, &'static str)]) -> Wanted {
        let lines = lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        wanted(&lines.collect(), &content())
    }

    #[test]
    fn one_range_is_understood_and_everything_else_is_the_whole() {
        for (range, part) in [
            ("bytes=0-0", 0..1),
            ("bytes=2-5", 2..6),
            ("bytes=2-", 2..10),
            ("bytes=9-99999999999999999999999", 9..10),
            ("bytes=-3", 7..10),
            ("bytes=-99", 0..10),
            ("Bytes= 1-2 ", 1..3),
        ] {
            assert_eq!(asked(&[(RANGE, range)]), Wanted::Part(part), "{range}");
        }
        for range in ["bytes=10-", "bytes=10-12", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(asked(&[(RANGE, range)]), Wanted::OutOfRange, "{range}");
        }
        for range in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5-2",
            "bytes=a-b",
            "bytes=1-x",
            "bytes=+1-2",
            "lines=1-2",
            "bytes=0-1,3-4",
            "bytes=--1",
            "bytes=1--2",
        ] {
            assert_eq!(asked(&[(RANGE, range)]), Wanted::Whole(10), "{range}");
        }
    }

    #[test]
    fn tags_are_compared_as_they_should_be() {
        for tags in ["\"ab\"", "*", "W/\"ab\"", "\"x\" , \"ab\""] {
            assert_eq!(asked(&[(IF_NONE_MATCH, tags), (RANGE, "bytes=0-1")]), Wanted::Unchanged, "{tags}");
        }
        assert_eq!(asked(&[(IF_NONE_MATCH, "\"abc\"")]), Wanted::Whole(10));
        let range = (RANGE, "bytes=0-1");
        assert_eq!(asked(&[range.clone(), (IF_RANGE, "\"ab\"")]), Wanted::Part(0..2));
        for other in ["\"x\"", "W/\"ab\"", "Sat, 28 Nov 2026 00:00:00 GMT"] {
            assert_eq!(asked(&[range.clone(), (IF_RANGE, other)]), Wanted::Whole(10), "{other}");
        }
    }

    #[test]
    fn names_of_files_are_names_of_files() {
        for (path, name) in [
            ("src/main.rs", "main.rs"),
            ("..", "artifact"),
            ("../../etc/passwd", "passwd"),
            (r"C:\temp\a.txt", "a.txt"),
            ("a/", "artifact"),
            (".bashrc", "bashrc"),
            ("a\r\nSet-Cookie: x", "aSet-Cookie_ x"),
            ("\u{202e}gnp.exe", "gnp.exe"),
            ("a\"; filename=\"b", "a_; filename=_b"),
        ] {
            assert_eq!(file_name(path), name, "{path:?}");
        }
        assert_eq!(file_name(&"ü".repeat(400)).chars().count(), MAX_FILE_NAME);
        assert_eq!(
            disposition("docs/Größe \"1\".md"),
            "attachment; filename=\"Gr__e _1_.md\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe%20_1_.md"
        );
    }
}
