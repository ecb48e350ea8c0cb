//! Security headers: three policies, one of them on every response.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

const API_CSP: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; script-src 'self'; object-src 'none'; base-uri 'self'; frame-ancestors 'none'",
);
const DOCS_CSP: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; frame-ancestors 'none'",
);
const PAGES_CSP: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; \
     font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; \
     frame-ancestors 'none'",
);
const UPLOADED_CSP: HeaderValue =
    HeaderValue::from_static("sandbox; default-src 'none'; frame-ancestors 'none'");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const A_WHILE: HeaderValue = HeaderValue::from_static("public, max-age=300");
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const SAME_ORIGIN: HeaderValue = HeaderValue::from_static("same-origin");

/// Who a path belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Area {
    Api,
    Docs,
    /// Whatever somebody has uploaded.
    Uploaded,
    Pages {
        hashed_asset: bool,
    },
}

impl Area {
    pub(super) fn of(path: &str) -> Self {
        let under =
            |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if under("/api") {
            Self::Api
        } else if under("/docs") {
            Self::Docs
        } else {
            Self::Pages { hashed_asset: path.strip_prefix("/assets/").is_some_and(is_hashed) }
        }
    }
}

/// Whether a bundler put a content hash into the name, as in `index-BkX3kd9f.js`.
fn is_hashed(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let Some((stem, _)) = name.split_once('.') else { return false };
    let Some((before, hash)) = stem.len().checked_sub(8).and_then(|at| stem.split_at_checked(at)) else {
        return false;
    };
    before.len() > 1
        && before.ends_with('-')
        && hash.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        && hash.bytes().any(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
}

/// Sets the headers of the policy, over whatever a handler set.
pub(super) fn secure(headers: &mut HeaderMap, area: Area, status: StatusCode, hsts: bool) {
    let failed = status.is_client_error() || status.is_server_error();
    let (policy, cache) = match area {
        Area::Docs if failed => (DOCS_CSP, NO_STORE),
        Area::Docs => (DOCS_CSP, A_WHILE),
        Area::Pages { .. } if failed || is_data(headers) => (API_CSP, NO_STORE),
        Area::Pages { hashed_asset: true } => (PAGES_CSP, FOR_EVER),
        Area::Pages { hashed_asset: false } => (PAGES_CSP, NO_STORE),
        Area::Api => (API_CSP, NO_STORE),
        Area::Uploaded => (UPLOADED_CSP, NO_STORE),
    };
    let opener = match area {
        Area::Docs => HeaderValue::from_static("same-origin-allow-popups"),
        _ => SAME_ORIGIN,
    };
    headers.reserve(12);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("strict-origin-when-cross-origin"));
    headers.insert(PERMISSIONS_POLICY, HeaderValue::from_static("geolocation=(), camera=(), microphone=()"));
    headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, SAME_ORIGIN);
    headers.insert(CROSS_ORIGIN_OPENER_POLICY, opener);
    headers.insert(CACHE_CONTROL, cache);
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    if hsts {
        headers.insert(
            STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=63072000; includeSubDomains"),
        );
    } else {
        headers.remove(STRICT_TRANSPORT_SECURITY);
    }
}

/// An answer for programs, wherever it was asked for: nothing to show, so the stricter policy.
fn is_data(headers: &HeaderMap) -> bool {
    match headers.get(CONTENT_TYPE) {
        Some(kind) => kind.as_bytes().starts_with(b"application/json"),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secured(path: &str, status: u16, content_type: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        secure(&mut headers, Area::of(path), StatusCode::from_u16(status).unwrap(), true);
        headers
    }

    #[test]
    fn docs_are_exactly_docs_and_below() {
        for path in ["/docs", "/docs/", "/docs/openapi.json", "/docs/api"] {
            assert_eq!(Area::of(path), Area::Docs, "{path}");
        }
        for path in ["/documents", "/docsearch", "/docs-x", "/", "/apiary", "/Docs"] {
            assert!(matches!(Area::of(path), Area::Pages { .. }), "{path}");
        }
        for path in ["/api", "/api/v1/users", "/api/docs"] {
            assert_eq!(Area::of(path), Area::Api, "{path}");
        }
    }

    #[test]
    fn docs_may_be_cached_a_while_and_open_popups() {
        let headers = secured("/docs/openapi.json", 200, "application/json");
        assert_eq!(headers[CACHE_CONTROL], "public, max-age=300");
        assert_eq!(headers[CROSS_ORIGIN_OPENER_POLICY], "same-origin-allow-popups");
        assert_eq!(headers[CONTENT_SECURITY_POLICY], DOCS_CSP);
        assert_eq!(secured("/docs/nothing", 404, "application/json")[CACHE_CONTROL], "no-store");
    }

    #[test]
    fn no_policy_lets_in_other_origins_or_inline_scripts() {
        for policy in [API_CSP, DOCS_CSP, PAGES_CSP] {
            let policy = policy.to_str().unwrap();
            assert!(!policy.contains("http"), "{policy}");
            assert!(policy.contains("script-src 'self';"), "{policy}");
            assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        }
    }

    #[test]
    fn only_hashed_assets_of_the_bundle_are_kept_for_ever() {
        let cache = |path| secured(path, 200, "text/javascript")[CACHE_CONTROL].clone();
        assert_eq!(cache("/assets/index-BkX3kd9f.js"), FOR_EVER);
        assert_eq!(cache("/assets/chunks/a_b-_-3kd9fX.css"), FOR_EVER);
        for path in ["/assets/logo.svg", "/assets/page-fragment.js", "/index.html", "/", "/x-BkX3kd9f.js"] {
            assert_eq!(cache(path), NO_STORE, "{path}");
        }
        assert_eq!(secured("/assets/index-BkX3kd9f.js", 404, "application/json")[CACHE_CONTROL], NO_STORE);
    }

    #[test]
    fn pages_have_their_own_policy_and_data_outside_the_api_has_that_of_the_api() {
        assert_eq!(secured("/", 200, "text/html")[CONTENT_SECURITY_POLICY], PAGES_CSP);
        assert_eq!(secured("/documents", 200, "application/json")[CONTENT_SECURITY_POLICY], API_CSP);
        assert_eq!(secured("/documents", 404, "application/json")[CONTENT_SECURITY_POLICY], API_CSP);
    }
}
