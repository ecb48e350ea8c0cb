//! How a request stands with its limits, and the headers that say so.

use std::ops::Range;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use quarterdeck_limits::{Quota, Verdict, Window};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// How a request stands with the tightest of its limits; for the response headers.
#[derive(Clone, Copy)]
pub(crate) struct Standing {
    pub(super) name: &'static str,
    pub(super) admitted: bool,
    pub(super) quota: Quota,
    pub(super) remaining: u32,
    /// Seconds.
    pub(super) reset: u32,
}

impl Standing {
    /// Keeps the tightest of what was known before and what these windows say.
    pub(super) fn update(standing: &mut Option<Self>, windows: &[Window<'_>], verdict: &Verdict) {
        let now = windows.iter().zip(verdict.iter()).map(|(window, outcome)| Self {
            name: window.scope.name(),
            admitted: outcome.admitted(),
            quota: outcome.quota,
            remaining: outcome.remaining,
            reset: outcome.reset_seconds(),
        });
        *standing =
            standing.take().into_iter().chain(now).min_by_key(|s| (s.admitted, s.remaining, s.quota.max()));
    }

    /// Sets the headers of draft-ietf-httpapi-ratelimit-headers and the older ones beside them.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        let Self { name, remaining, reset, .. } = *self;
        let (max, window) = (self.quota.max(), self.quota.window().as_secs().max(1));
        // Room for these and for what the edge adds.
        headers.reserve(20);
        // One text holds all five values: the older headers repeat numbers of the newer ones.
        let mut text = String::with_capacity(96);
        text.extend(["\"", name, "\""]);
        let remaining = labelled(&mut text, ";r=", remaining.into());
        let reset = labelled(&mut text, ";t=", reset.into());
        let state = 0..text.len();
        text.extend(["\"", name, "\""]);
        let limit = labelled(&mut text, ";q=", max.into());
        let policy = state.end..labelled(&mut text, ";w=", window).end;
        let text = Bytes::from(text);
        for (header, part) in
            [(RATE_LIMIT, state), (POLICY, policy), (LIMIT, limit), (REMAINING, remaining), (RESET, reset)]
        {
            // Names of scopes are plain ASCII.
            if let Ok(value) = HeaderValue::from_maybe_shared(text.slice(part)) {
                headers.insert(header, value);
            }
        }
    }
}

/// Adds a parameter; answers where its number stands.
fn labelled(text: &mut String, label: &str, number: u64) -> Range<usize> {
    text.push_str(label);
    let start = text.len();
    text.push_str(itoa::Buffer::new().format(number));
    start..text.len()
}
