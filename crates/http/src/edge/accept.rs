//! What a client asked for: the media type of errors and the coding of bodies.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// One header as a single value: the line itself, or all lines joined when there are several.
pub(super) fn joined(headers: &HeaderMap, name: HeaderName) -> Option<HeaderValue> {
    let mut lines = headers.get_all(name).into_iter();
    let first = lines.next()?;
    let Some(second) = lines.next() else { return Some(first.clone()) };
    let mut all = first.as_bytes().to_vec();
    for line in std::iter::once(second).chain(lines) {
        all.extend_from_slice(b", ");
        all.extend_from_slice(line.as_bytes());
    }
    HeaderValue::from_bytes(&all).ok()
}

/// Media type of an error body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorMedia {
    /// `application/json`, the envelope.
    Envelope,
    /// `application/problem+json`, RFC 9457.
    Problem,
}

/// How far a media range names a type: not at all, by `*/*`, by `application/*`, or by name.
type Specificity = u8;

#[derive(Clone, Copy, Default)]
struct Match {
    quality: u16,
    specificity: Specificity,
    position: usize,
}

/// Chooses the body of an error. A problem document needs to be named, with a quality above zero,
/// and to be preferred to the envelope; an unreadable header means the envelope.
pub(super) fn negotiate(accept: Option<&HeaderValue>) -> ErrorMedia {
    let Some(accept) = accept else { return ErrorMedia::Envelope };
    match preferred(accept.as_bytes()) {
        Some(media) => {
            tracing::debug!(problem = media == ErrorMedia::Problem, "api.content.negotiated");
            media
        }
        None => {
            tracing::debug!("api.accept.parse_failed");
            ErrorMedia::Envelope
        }
    }
}

fn preferred(accept: &[u8]) -> Option<ErrorMedia> {
    let accept = std::str::from_utf8(accept).ok()?;
    let (mut envelope, mut problem) = (Match::default(), Match::default());
    for (position, range) in split(accept, ',').enumerate() {
        let range = range.trim();
        if range.is_empty() {
            continue;
        }
        let mut parts = split(range, ';');
        let (main, sub) = parts.next()?.trim().split_once('/')?;
        let mut quality = 1000;
        for parameter in parts {
            let Some((name, value)) = parameter.split_once('=') else { continue };
            if name.trim().eq_ignore_ascii_case("q") {
                quality = thousandths(value.trim())?;
            }
        }
        let named = |name: &str| main.eq_ignore_ascii_case("application") && sub.eq_ignore_ascii_case(name);
        let note = |target: &mut Match, specificity| {
            if specificity > target.specificity {
                *target = Match { quality, specificity, position };
            }
        };
        if named("problem+json") {
            note(&mut problem, 3);
        } else if named("json") {
            note(&mut envelope, 3);
        } else if named("*") {
            note(&mut envelope, 2);
        } else if main == "*" && sub == "*" {
            note(&mut envelope, 1);
        } else if !token(main) || !token(sub) {
            return None;
        }
    }
    let earlier = envelope.specificity < 3 || problem.position < envelope.position;
    let wins = problem.quality > envelope.quality || (problem.quality == envelope.quality && earlier);
    Some(if problem.quality > 0 && wins { ErrorMedia::Problem } else { ErrorMedia::Envelope })
}

/// Coding of a compressed body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Brotli,
    Gzip,
    Zstd,
}

impl Coding {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// The first of brotli, gzip and zstd that the client accepts.
pub(super) fn coding(accept_encoding: &HeaderValue) -> Option<Coding> {
    let accepted = accept_encoding.to_str().ok()?;
    [Coding::Brotli, Coding::Gzip, Coding::Zstd].into_iter().find(|coding| accepts(accepted, coding.as_str()))
}

fn accepts(accepted: &str, coding: &str) -> bool {
    let mut wildcard = false;
    for element in accepted.split(',') {
        let mut parts = element.split(';');
        let name = parts.next().unwrap_or_default().trim();
        let quality = parts
            .find_map(|p| p.split_once('=').filter(|(key, _)| key.trim().eq_ignore_ascii_case("q")))
            .map_or(Some(1000), |(_, value)| thousandths(value.trim()));
        let allowed = quality.is_some_and(|q| q > 0);
        if name.eq_ignore_ascii_case(coding) {
            return allowed;
        }
        wildcard |= name == "*" && allowed;
    }
    wildcard
}

/// A quality of 0 to 1 with at most three decimals, in thousandths.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let scale = [1000, 100, 10, 1][fraction.len()];
    let fraction = if fraction.is_empty() { 0 } else { fraction.parse::<u16>().ok()? * scale };
    match (whole, fraction) {
        ("0", fraction) => Some(fraction),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

/// Splits at a separator that stands outside of quoted strings.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        if escaped {
            escaped = false;
        } else if quoted && c == '\\' {
            escaped = true;
        } else if c == '"' {
            quoted = !quoted;
        }
        !quoted && c == separator
    })
}

fn token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROBLEM: &str = "application/problem+json";

    fn problem(accept: &str) -> bool {
        negotiate(Some(&HeaderValue::from_str(accept).unwrap())) == ErrorMedia::Problem
    }

    #[test]
    fn a_problem_document_needs_to_be_preferred_to_the_envelope() {
        for accept in [
            "application/problem+json",
            "Application/Problem+JSON",
            "application/problem+json;charset=utf-8",
            "application/problem+json, application/json",
            "application/json;q=0.5, application/problem+json",
            "application/json;q=0.5, application/problem+json;q=0.501",
            "application/problem+json, */*;q=0.8",
            "*/*, application/problem+json",
            "text/html, application/problem+json;q=0.1",
            "text/html;x=\"a,b;q=0\", application/problem+json",
        ] {
            assert!(problem(accept), "{accept}");
        }
    }

    #[test]
    fn everything_else_means_the_envelope() {
        for accept in [
            "",
            "*/*",
            "application/*",
            "text/html",
            "application/json",
            "application/json, application/problem+json",
            "application/problem+json;q=0.5, application/json",
            "application/problem+json;q=0.5, */*",
            "application/problem+json;q=0.5, application/*;q=0.6",
            "application/problem+json;q=0",
            "application/problem+json;q=0, text/html",
            "application/problem+json;q=2",
            "application/problem+json;q=high",
            "application/problem+json, nonsense",
            "application/problem+json, te xt/html",
            ",,,",
        ] {
            assert!(!problem(accept), "{accept}");
        }
        assert_eq!(negotiate(None), ErrorMedia::Envelope);
        assert_eq!(negotiate(HeaderValue::from_bytes(b"\xff").ok().as_ref()), ErrorMedia::Envelope);
    }

    #[test]
    fn several_lines_are_one_list() {
        let mut headers = HeaderMap::new();
        headers.append("accept", HeaderValue::from_static("application/json;q=0.5"));
        headers.append("accept", HeaderValue::from_static(PROBLEM));
        let accept = joined(&headers, axum::http::header::ACCEPT);
        assert_eq!(negotiate(accept.as_ref()), ErrorMedia::Problem);
    }

    #[test]
    fn brotli_comes_before_gzip_before_zstd() {
        let of = |text: &str| coding(&HeaderValue::from_str(text).unwrap()).map(Coding::as_str);
        assert_eq!(of("gzip, deflate, br, zstd"), Some("br"));
        assert_eq!(of("br;q=0.1, gzip"), Some("br"));
        assert_eq!(of("zstd, gzip;q=0.1"), Some("gzip"));
        assert_eq!(of("zstd"), Some("zstd"));
        assert_eq!(of("*"), Some("br"));
        assert_eq!(of("br;q=0, *"), Some("gzip"));
        assert_eq!(of("br;q=0, gzip;q=0.000, zstd; q=0"), None);
        assert_eq!(of("identity"), None);
        assert_eq!(of("*;q=0"), None);
        assert_eq!(of(""), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn no_accept_header_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..80),
            text in "[a-z/*+;=q0-9.,\" \\\\]{0,80}",
        ) {
            for value in [&bytes[..], text.as_bytes()] {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    let unnamed = !String::from_utf8_lossy(value.as_bytes()).to_lowercase().contains(PROBLEM);
                    let media = negotiate(Some(&value));
                    prop_assert!(!unnamed || media == ErrorMedia::Envelope);
                    coding(&value);
                }
            }
        }

        #[test]
        fn the_higher_quality_wins_in_any_order(a in 0..=1000u16, b in 0..=1000u16, problem_first: bool) {
            let quality = |q: u16| format!("{}.{:03}", q / 1000, q % 1000);
            let json = format!("application/json;q={}", quality(a));
            let named = format!("{PROBLEM};q={}", quality(b));
            let accept = if problem_first { format!("{named},{json}") } else { format!("{json},{named}") };
            let wins = b > 0 && (b > a || (a == b && problem_first));
            prop_assert_eq!(problem(&accept), wins);
        }
    }
}
