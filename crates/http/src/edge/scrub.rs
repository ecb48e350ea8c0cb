//! The last look at a text before it leaves: nothing shaped like a credential goes out.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

/// Longest text of a failure the edge or the parser worded, in characters.
const LONGEST: usize = 512;

static CREDENTIAL: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?i)",
        r"(?P<scheme>\b(?:bearer|basic)\s+)[a-z0-9._~+/=-]{6,}",
        r"|(?P<url>[a-z][a-z0-9+.-]*://)[^\s/@]+(?P<at>@)",
        r#"|(?P<key>["']?[a-z0-9_.-]*(?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|authorization|credential|private[_-]?key|session|cookie|bearer)[a-z0-9_.-]*["']?\s*=\s*)(?:"[^"]*"|'[^']*'|[^\s,;&]+)"#,
        r#"|(?P<json>["'][a-z0-9_.-]*(?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|authorization|credential|private[_-]?key|session|cookie|bearer)[a-z0-9_.-]*["']\s*:\s*)(?:"[^"]*"|'[^']*'|[^\s,;&}]+)"#,
        r"|\beyJ[a-z0-9_-]{6,}\.[a-z0-9_-]+\.[a-z0-9_-]*",
    ))
    .ok()
});

/// Replaces bearer and basic credentials, user info of URLs, values of secret-sounding keys, and JWTs.
pub(super) fn scrub(text: &str) -> Cow<'_, str> {
    // Every pattern needs one of these; most texts have none and are not searched.
    if !text.contains(['=', ':']) && !text.contains("eyJ") && !has_scheme(text) {
        return Cow::Borrowed(text);
    }
    match &*CREDENTIAL {
        Some(pattern) => pattern.replace_all(text, "${scheme}${url}${key}${json}[redacted]${at}"),
        None => Cow::Borrowed("[redacted]"),
    }
}

fn has_scheme(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    lower.contains("bearer") || lower.contains("basic")
}

/// A path as it may be logged: of a session id only the start.
pub(crate) fn loggable(path: &str) -> Cow<'_, str> {
    const SHOWN: usize = 8;
    match path.rsplit_once('/') {
        Some((before, id)) if before.ends_with("/auth/sessions") && id.len() > SHOWN => {
            let shown = id.char_indices().nth(SHOWN).map_or(id, |(end, _)| &id[..end]);
            Cow::Owned(format!("{before}/{shown}..."))
        }
        _ => Cow::Borrowed(path),
    }
}

/// Cuts a text to what a failure may say.
pub(super) fn cap(text: &str) -> &str {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_cut_out_of_texts() {
        for (text, clean) in [
            ("sent Bearer abc.def-123456 to it", "sent Bearer [redacted] to it"),
            ("connect to postgres://bob:hunter2@db/x failed", "connect to postgres://[redacted]@db/x failed"),
            ("password=hunter2", "password=[redacted]"),
            ("a api_key = 'x y' b", "a api_key = [redacted] b"),
            ("?access_token=abc&x=1", "?access_token=[redacted]&x=1"),
            (r#"{"client_secret": "abc", "x": 1}"#, r#"{"client_secret": [redacted], "x": 1}"#),
            ("got eyJhbGciOi.eyJzdWIi.c2ln here", "got [redacted] here"),
        ] {
            assert_eq!(scrub(text), clean);
        }
    }

    #[test]
    fn plain_words_about_credentials_stay() {
        for text in [
            "Password change required",
            "password: must have at least 12 characters",
            "Validation failed for POST /api/v1/auth/login",
            "Task 'a=b' not found",
            "see https://example.org/docs",
        ] {
            assert_eq!(scrub(text), text);
        }
    }

    #[test]
    fn a_logged_path_holds_the_start_of_a_session_id_only() {
        for (path, logged) in [
            ("/api/v1/auth/sessions/0123456789abcdef", "/api/v1/auth/sessions/01234567..."),
            ("/api/v1/auth/sessions/01234567", "/api/v1/auth/sessions/01234567"),
            ("/api/v1/auth/sessions/", "/api/v1/auth/sessions/"),
            ("/api/v1/auth/sessions", "/api/v1/auth/sessions"),
            ("/api/v1/users/0123456789abcdef", "/api/v1/users/0123456789abcdef"),
        ] {
            assert_eq!(loggable(path), logged);
        }
    }

    #[test]
    fn a_cut_text_ends_between_characters() {
        assert_eq!(cap(&"ä".repeat(600)).chars().count(), 512);
        assert_eq!(cap("short"), "short");
    }
}
