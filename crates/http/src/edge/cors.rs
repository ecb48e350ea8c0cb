//! Cross-origin requests: which origins may read answers.

use axum::body::Body;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::Response;

const ANY: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");
const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
const VARY_PREFLIGHT: HeaderValue =
    HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers");
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "ETag, Retry-After, RateLimit, RateLimit-Policy, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, X-Request-ID",
);
/// Seconds a browser may remember the answer to a preflight.
const PREFLIGHT_AGE: HeaderValue = HeaderValue::from_static("600");

/// Methods that other origins may use, unless configured otherwise.
pub const DEFAULT_METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Request headers that other origins may send, unless configured otherwise.
pub const DEFAULT_HEADERS: [&str; 4] = ["Content-Type", "Authorization", "X-CSRF-Token", "If-Match"];

/// Which origins may read answers, and how they may ask.
#[derive(Clone, Debug)]
pub struct CorsPolicy {
    origins: Vec<HeaderValue>,
    any: bool,
    methods: HeaderValue,
    headers: HeaderValue,
    credentials: bool,
}

impl Default for CorsPolicy {
    /// No foreign origin may read anything.
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            any: false,
            methods: HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE, OPTIONS"),
            headers: HeaderValue::from_static("Content-Type, Authorization, X-CSRF-Token, If-Match"),
            credentials: true,
        }
    }
}

impl CorsPolicy {
    /// Checks the lists; the error says which entry is wrong.
    pub fn new<S: AsRef<str>>(
        origins: &[S],
        methods: &[S],
        headers: &[S],
        credentials: bool,
    ) -> Result<Self, String> {
        let any = origins.iter().any(|origin| origin.as_ref() == "*");
        if any && credentials {
            return Err("allowed_origins cannot contain '*' while allow_credentials is true".to_owned());
        }
        let named = origins.iter().map(AsRef::as_ref).filter(|origin| *origin != "*");
        for method in methods {
            let method = method.as_ref();
            Method::from_bytes(method.as_bytes()).map_err(|_| format!("'{method}' is not an HTTP method"))?;
        }
        for header in headers {
            let header = header.as_ref();
            HeaderName::from_bytes(header.as_bytes())
                .map_err(|_| format!("'{header}' is not a header name"))?;
        }
        Ok(Self {
            origins: named.map(origin).collect::<Result<_, _>>()?,
            any,
            methods: list(methods)?,
            headers: list(headers)?,
            credentials,
        })
    }

    /// Whether some foreign origin may read answers.
    pub fn is_open(&self) -> bool {
        self.any || !self.origins.is_empty()
    }

    /// The origin to name in the answer, when the request comes from one that may read it.
    pub(super) fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if !self.is_open() {
            return None;
        }
        let origin = headers.get(ORIGIN)?;
        if self.any {
            return Some(ANY);
        }
        self.origins.contains(origin).then(|| origin.clone())
    }

    /// Lets an allowed origin read the answer.
    pub(super) fn apply(&self, headers: &mut HeaderMap, allowed: Option<HeaderValue>) {
        if !self.is_open() {
            return;
        }
        if !self.any {
            headers.append(VARY, VARY_ORIGIN);
        }
        if let Some(origin) = allowed {
            self.allow(headers, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }

    /// Answers a preflight; an origin that may not read learns nothing from it.
    pub(super) fn preflight(&self, allowed: Option<HeaderValue>) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(VARY, VARY_PREFLIGHT);
        if let Some(origin) = allowed {
            self.allow(headers, origin);
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.headers.clone());
            headers.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE);
        }
        response
    }

    fn allow(&self, headers: &mut HeaderMap, origin: HeaderValue) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
    }
}

/// Whether a browser asks for permission instead of doing something.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// An origin as browsers write it: scheme, host and port in lower case, nothing behind.
fn origin(text: &str) -> Result<HeaderValue, String> {
    let refused =
        || format!("allowed origin '{text}' is not of the form 'https://host' or 'https://host:port'");
    let uri: Uri = text.parse().map_err(|_| refused())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(refused()) };
    if text != format!("{scheme}://{authority}")
        || authority.as_str().contains('@')
        || text != text.to_lowercase()
    {
        return Err(refused());
    }
    HeaderValue::from_str(text).map_err(|_| refused())
}

fn list<S: AsRef<str>>(entries: &[S]) -> Result<HeaderValue, String> {
    let joined = entries.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    HeaderValue::from_str(&joined).map_err(|_| format!("'{joined}' cannot be sent in a header"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(origins: &[&str], credentials: bool) -> Result<CorsPolicy, String> {
        CorsPolicy::new(origins, &DEFAULT_METHODS, &DEFAULT_HEADERS, credentials)
    }

    #[test]
    fn a_wildcard_with_credentials_is_refused() {
        assert!(policy(&["*"], true).unwrap_err().contains("allow_credentials"));
        assert!(policy(&["https://a.example", "*"], true).is_err());
        assert!(policy(&["*"], false).is_ok());
    }

    #[test]
    fn an_origin_has_scheme_host_and_port_only() {
        for origin in ["https://a.example", "http://localhost:5173", "http://[::1]:8080"] {
            assert!(policy(&[origin], true).is_ok(), "{origin}");
        }
        for origin in
            ["https://a.example/", "https://A.example", "a.example", "null", "https://u@a.example", ""]
        {
            assert!(policy(&[origin], true).is_err(), "{origin}");
        }
    }

    #[test]
    fn methods_and_headers_must_be_such() {
        assert!(CorsPolicy::new(&["https://a.example"], &["GE T"], &["X"], true).is_err());
        assert!(CorsPolicy::new(&["https://a.example"], &["GET"], &["X Y"], true).is_err());
    }

    #[test]
    fn the_default_is_the_documented_list_for_nobody() {
        let named = policy(&[], true).unwrap();
        let default = CorsPolicy::default();
        assert!(!default.is_open());
        assert_eq!((named.methods, named.headers), (default.methods, default.headers));
    }
}
