//! What an operator may decide about signing in: the section `api.auth`.

use std::fmt;

use quarterdeck_domain::config::{between, not_blank, token};
use regex::Regex;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Fewest characters of a signing secret.
pub const MIN_SECRET_CHARS: usize = 32;
/// Where refresh cookies are sent unless configured otherwise.
pub const DEFAULT_REFRESH_COOKIE_PATH: &str = "/api/v1/auth/refresh";
/// Where session cookies are sent unless configured otherwise.
pub const DEFAULT_COOKIE_PATH: &str = "/api";

/// HMAC that signs tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are RFC 7518's")]
pub enum JwtAlgorithm {
    HS256,
    HS384,
    HS512,
}

/// `SameSite` attribute of the cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    /// Sent on requests that start on the same site.
    Strict,
    /// Also sent when a link leads here.
    Lax,
    /// Always sent; browsers demand `Secure` with it.
    None,
}

impl SameSite {
    /// Value of the attribute.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Lax => "Lax",
            Self::None => "None",
        }
    }
}

/// Whether cookies carry `Secure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieSecure {
    /// Decided from the address the server listens on; see `ApiConfig::resolve` of the front door.
    Auto,
    /// Sent over TLS only.
    Yes,
    /// Sent over plain HTTP too.
    No,
}

impl Serialize for CookieSecure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Yes => serializer.serialize_bool(true),
            Self::No => serializer.serialize_bool(false),
        }
    }
}

impl<'de> Deserialize<'de> for CookieSecure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = CookieSecure;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or \"auto\"")
            }

            fn visit_bool<E>(self, value: bool) -> Result<CookieSecure, E> {
                Ok(if value { CookieSecure::Yes } else { CookieSecure::No })
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<CookieSecure, E> {
                match text {
                    "auto" => Ok(CookieSecure::Auto),
                    "true" => Ok(CookieSecure::Yes),
                    "false" => Ok(CookieSecure::No),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// A regular expression over request paths, compiled when the configuration is read.
#[derive(Clone, Debug)]
pub struct PathPattern(Regex);

impl PathPattern {
    /// Compiles the expression; the error says only that it is none.
    pub fn new(expression: &str) -> Result<Self, String> {
        Regex::new(expression).map(Self).map_err(|_| "must be a regular expression".to_owned())
    }

    /// Searches the path; an expression without anchors matches anywhere in it.
    pub fn is_match(&self, path: &str) -> bool {
        self.0.is_match(path)
    }
}

impl Serialize for PathPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for PathPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// The section `api.auth`; does not change after the start.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// Key of every signature and keyed hash. Empty until the start has found or made one.
    #[serde(serialize_with = "masked")]
    pub jwt_secret: SecretString,
    /// HMAC of the tokens.
    pub jwt_algorithm: JwtAlgorithm,
    /// Lifetime of a session's token, minutes.
    pub jwt_expiry_minutes: u32,
    /// Fewest characters of a password.
    pub min_password_length: u32,
    /// Paths without authentication. Absent = the derived set; empty = the mandatory ones only.
    pub exclude_paths: Option<Vec<PathPattern>>,
    /// Name of the session cookie.
    pub cookie_name: String,
    /// Whether cookies carry `Secure`.
    pub cookie_secure: CookieSecure,
    /// `SameSite` of the cookies.
    pub cookie_samesite: SameSite,
    /// Path of the session cookie.
    pub cookie_path: String,
    /// `Domain` of the cookies; absent = the host alone.
    pub cookie_domain: Option<String>,
    /// Name of the cookie that scripts copy into the CSRF header.
    pub csrf_cookie_name: String,
    /// Path of the CSRF cookie; scripts on every page must be able to read it.
    pub csrf_cookie_path: String,
    /// Header that repeats the CSRF cookie; case does not matter.
    pub csrf_header_name: String,
    /// Sessions a user may hold at once; 0 = any number.
    pub max_concurrent_sessions: u32,
    /// Whether refresh tokens are issued.
    pub jwt_refresh_enabled: bool,
    /// Lifetime of a refresh token, minutes.
    pub jwt_refresh_expiry_minutes: u32,
    /// Name of the refresh cookie.
    pub refresh_cookie_name: String,
    /// Path of the refresh cookie.
    pub refresh_cookie_path: String,
    /// Failed sign-ins inside the window that lock an account.
    pub lockout_threshold: u32,
    /// Length of the window, minutes.
    pub lockout_window_minutes: u32,
    /// How long a lock holds, minutes.
    pub lockout_duration_minutes: u32,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            jwt_secret: SecretString::default(),
            jwt_algorithm: JwtAlgorithm::HS256,
            jwt_expiry_minutes: 1440,
            min_password_length: 12,
            exclude_paths: None,
            cookie_name: "session".to_owned(),
            cookie_secure: CookieSecure::Auto,
            cookie_samesite: SameSite::Strict,
            cookie_path: DEFAULT_COOKIE_PATH.to_owned(),
            cookie_domain: None,
            csrf_cookie_name: "csrf_token".to_owned(),
            csrf_cookie_path: "/".to_owned(),
            csrf_header_name: "x-csrf-token".to_owned(),
            max_concurrent_sessions: 5,
            jwt_refresh_enabled: false,
            jwt_refresh_expiry_minutes: 10_080,
            refresh_cookie_name: "refresh_token".to_owned(),
            refresh_cookie_path: DEFAULT_REFRESH_COOKIE_PATH.to_owned(),
            lockout_threshold: 10,
            lockout_window_minutes: 15,
            lockout_duration_minutes: 15,
        }
    }
}

fn masked<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if secret.expose_secret().is_empty() { "" } else { "********" })
}

impl AuthConfig {
    /// Whether cookies carry `Secure`; an undecided `auto` counts as yes.
    pub fn secure_cookies(&self) -> bool {
        self.cookie_secure != CookieSecure::No
    }

    /// Checks every bound and every rule between fields.
    ///
    /// # Errors
    /// A sentence with the dotted field and the broken rule.
    pub fn validate(&self) -> Result<(), String> {
        validate_secret(&self.jwt_secret)?;
        between("api.auth.jwt_expiry_minutes", self.jwt_expiry_minutes, 1, 43_200)?;
        between("api.auth.min_password_length", self.min_password_length, 8, 128)?;
        between("api.auth.max_concurrent_sessions", self.max_concurrent_sessions, 0, 100)?;
        between("api.auth.jwt_refresh_expiry_minutes", self.jwt_refresh_expiry_minutes, 1, 43_200)?;
        between("api.auth.lockout_threshold", self.lockout_threshold, 1, 100)?;
        between("api.auth.lockout_window_minutes", self.lockout_window_minutes, 1, 1440)?;
        between("api.auth.lockout_duration_minutes", self.lockout_duration_minutes, 1, 1440)?;
        token("api.auth.cookie_name", &self.cookie_name)?;
        token("api.auth.csrf_cookie_name", &self.csrf_cookie_name)?;
        token("api.auth.csrf_header_name", &self.csrf_header_name)?;
        token("api.auth.refresh_cookie_name", &self.refresh_cookie_name)?;
        cookie_path("api.auth.cookie_path", &self.cookie_path)?;
        cookie_path("api.auth.csrf_cookie_path", &self.csrf_cookie_path)?;
        cookie_path("api.auth.refresh_cookie_path", &self.refresh_cookie_path)?;
        if let Some(domain) = &self.cookie_domain {
            cookie_domain("api.auth.cookie_domain", domain)?;
        }
        if self.jwt_refresh_enabled && self.jwt_refresh_expiry_minutes <= self.jwt_expiry_minutes {
            return Err("api.auth.jwt_refresh_expiry_minutes must be greater than \
                        api.auth.jwt_expiry_minutes when api.auth.jwt_refresh_enabled is true"
                .to_owned());
        }
        if self.cookie_samesite == SameSite::None && !self.secure_cookies() {
            return Err("api.auth.cookie_samesite = \"none\" needs api.auth.cookie_secure = true".to_owned());
        }
        let names = [&self.cookie_name, &self.csrf_cookie_name, &self.refresh_cookie_name];
        if names[0] == names[1] || names[0] == names[2] || names[1] == names[2] {
            return Err("api.auth.cookie_name, api.auth.csrf_cookie_name and api.auth.refresh_cookie_name \
                        must be three different names"
                .to_owned());
        }
        Ok(())
    }
}

/// Refuses a secret that is set but too short to sign with; also asked when the start fills it in.
///
/// # Errors
/// A sentence with the rule, without the secret.
pub fn validate_secret(secret: &SecretString) -> Result<(), String> {
    match secret.expose_secret().chars().count() {
        0 | MIN_SECRET_CHARS.. => Ok(()),
        _ => Err(format!("api.auth.jwt_secret must have at least {MIN_SECRET_CHARS} characters")),
    }
}

fn cookie_path(field: &str, path: &str) -> Result<(), String> {
    not_blank(field, path)?;
    if path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b';') {
        Ok(())
    } else {
        Err(format!("{field} must start with / and hold neither spaces nor semicolons"))
    }
}

fn cookie_domain(field: &str, domain: &str) -> Result<(), String> {
    not_blank(field, domain)?;
    if domain.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-')) {
        Ok(())
    } else {
        Err(format!("{field} must be a host name"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Set = fn(&mut AuthConfig, u32);

    fn with(change: impl FnOnce(&mut AuthConfig)) -> Result<(), String> {
        let mut config = AuthConfig::default();
        change(&mut config);
        config.validate()
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let config = AuthConfig::default();
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(
            serde_json::to_value(config).unwrap(),
            serde_json::json!({
                "jwt_secret": "", "jwt_algorithm": "HS256", "jwt_expiry_minutes": 1440,
                "min_password_length": 12, "exclude_paths": null, "cookie_name": "session",
                "cookie_secure": "auto", "cookie_samesite": "strict", "cookie_path": "/api",
                "cookie_domain": null, "csrf_cookie_name": "csrf_token", "csrf_cookie_path": "/",
                "csrf_header_name": "x-csrf-token", "max_concurrent_sessions": 5,
                "jwt_refresh_enabled": false, "jwt_refresh_expiry_minutes": 10080,
                "refresh_cookie_name": "refresh_token", "refresh_cookie_path": "/api/v1/auth/refresh",
                "lockout_threshold": 10, "lockout_window_minutes": 15, "lockout_duration_minutes": 15,
            })
        );
    }

    #[test]
    fn every_bound_is_accepted_on_the_edge_and_refused_one_step_outside() {
        let bounds: [(&str, Set, u32, u32); 7] = [
            ("jwt_expiry_minutes", |c, n| c.jwt_expiry_minutes = n, 1, 43_200),
            ("min_password_length", |c, n| c.min_password_length = n, 8, 128),
            ("max_concurrent_sessions", |c, n| c.max_concurrent_sessions = n, 0, 100),
            ("jwt_refresh_expiry_minutes", |c, n| c.jwt_refresh_expiry_minutes = n, 1, 43_200),
            ("lockout_threshold", |c, n| c.lockout_threshold = n, 1, 100),
            ("lockout_window_minutes", |c, n| c.lockout_window_minutes = n, 1, 1440),
            ("lockout_duration_minutes", |c, n| c.lockout_duration_minutes = n, 1, 1440),
        ];
        for (field, set, min, max) in bounds {
            let refusal = Err(format!("api.auth.{field} must be between {min} and {max}"));
            for inside in [min, max] {
                assert_eq!(with(|c| set(c, inside)), Ok(()), "{field} = {inside}");
            }
            assert_eq!(with(|c| set(c, max + 1)), refusal);
            if let Some(below) = min.checked_sub(1) {
                assert_eq!(with(|c| set(c, below)), refusal);
            }
        }
        assert!(serde_json::from_str::<AuthConfig>(r#"{"max_concurrent_sessions": -1}"#).is_err());
    }

    #[test]
    fn a_secret_is_absent_or_has_at_least_32_characters() {
        for (length, fits) in [(0, true), (1, false), (31, false), (32, true), (64, true)] {
            let result = with(|c| c.jwt_secret = "ä".repeat(length).into());
            assert_eq!(result.is_ok(), fits, "{length}");
        }
        let refusal = with(|c| c.jwt_secret = "canary-too-short".into()).unwrap_err();
        assert_eq!(refusal, "api.auth.jwt_secret must have at least 32 characters");
    }

    #[test]
    fn a_refresh_token_outlives_the_session_token_when_it_is_issued() {
        let equal = |c: &mut AuthConfig| c.jwt_refresh_expiry_minutes = c.jwt_expiry_minutes;
        assert_eq!(with(equal), Ok(()), "refresh is off");
        let refusal = with(|c| {
            equal(c);
            c.jwt_refresh_enabled = true;
        });
        assert!(refusal.unwrap_err().starts_with("api.auth.jwt_refresh_expiry_minutes must be greater"));
        let longer = with(|c| {
            c.jwt_refresh_enabled = true;
            c.jwt_refresh_expiry_minutes = c.jwt_expiry_minutes + 1;
        });
        assert_eq!(longer, Ok(()));
    }

    #[test]
    fn cross_site_cookies_must_be_secure() {
        for (secure, fits) in
            [(CookieSecure::Yes, true), (CookieSecure::No, false), (CookieSecure::Auto, true)]
        {
            let result = with(|c| {
                c.cookie_samesite = SameSite::None;
                c.cookie_secure = secure;
            });
            assert_eq!(result.is_ok(), fits, "{secure:?}");
        }
        assert_eq!(with(|c| c.cookie_secure = CookieSecure::No), Ok(()));
    }

    #[test]
    fn the_three_cookies_have_three_names() {
        assert!(with(|c| c.cookie_name = "csrf_token".to_owned()).is_err());
        assert!(with(|c| c.cookie_name = "refresh_token".to_owned()).is_err());
        assert!(with(|c| c.refresh_cookie_name = "csrf_token".to_owned()).is_err());
    }

    #[test]
    fn names_and_paths_of_cookies_cannot_break_the_header() {
        type SetText = fn(&mut AuthConfig, String);
        let fields: [(SetText, &[&str]); 8] = [
            (|c, t| c.cookie_name = t, &["", " ", "a b", "a;b", "a=b", "a\r\nb"]),
            (|c, t| c.csrf_cookie_name = t, &["", "\t", "a,b"]),
            (|c, t| c.csrf_header_name = t, &["", " ", "a:b"]),
            (|c, t| c.refresh_cookie_name = t, &["", " "]),
            (|c, t| c.cookie_path = t, &["", " ", "api", "/a;b", "/a b"]),
            (|c, t| c.csrf_cookie_path = t, &["", " ", "x"]),
            (|c, t| c.refresh_cookie_path = t, &["", " ", "x"]),
            (|c, t| c.cookie_domain = Some(t), &["", " ", "a;b", "a b"]),
        ];
        for (set, refused) in fields {
            for &text in refused {
                assert!(with(|c| set(c, text.to_owned())).is_err(), "{text:?}");
            }
        }
        assert_eq!(with(|c| c.cookie_domain = Some("example.com".to_owned())), Ok(()));
    }

    #[test]
    fn an_excluded_path_that_is_no_expression_is_refused_when_read() {
        let read = |json| serde_json::from_str::<AuthConfig>(json);
        let error = read(r#"{"exclude_paths": ["^/a$", "("]}"#).unwrap_err();
        assert!(error.to_string().contains("must be a regular expression"));
        let config = read(r#"{"exclude_paths": ["^/a$"]}"#).unwrap();
        let patterns = config.exclude_paths.unwrap();
        assert!(patterns[0].is_match("/a") && !patterns[0].is_match("/ab"));
        assert!(read(r#"{"exclude_paths": []}"#).unwrap().exclude_paths.unwrap().is_empty());
    }

    #[test]
    fn secure_is_a_truth_value_or_auto() {
        for (json, value) in [
            ("true", CookieSecure::Yes),
            ("false", CookieSecure::No),
            ("\"true\"", CookieSecure::Yes),
            ("\"auto\"", CookieSecure::Auto),
        ] {
            assert_eq!(serde_json::from_str::<CookieSecure>(json).unwrap(), value);
        }
        assert!(serde_json::from_str::<CookieSecure>("\"maybe\"").is_err());
        assert!(serde_json::from_str::<CookieSecure>("1").is_err());
    }

    #[test]
    fn unknown_fields_are_refused() {
        assert!(serde_json::from_str::<AuthConfig>(r#"{"lockout_treshold": 3}"#).is_err());
    }

    #[test]
    fn the_secret_shows_neither_in_debug_nor_when_serialised() {
        let secret = "canary-0123456789-0123456789-012345";
        let config = AuthConfig { jwt_secret: secret.into(), ..AuthConfig::default() };
        assert!(!format!("{config:?}").contains("canary"));
        assert!(!serde_json::to_string(&config).unwrap().contains("canary"));
    }
}
