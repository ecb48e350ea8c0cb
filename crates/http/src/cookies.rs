//! Cookies in and out (RFC 6265). One reader serves authentication and CSRF, so that both see the same.

use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponseParts, ResponseParts};
use memchr::memchr;
use quarterdeck_auth::{AuthConfig, Issued};
use secrecy::ExposeSecret;
use std::convert::Infallible;

/// Value of the first cookie with this name: browsers send the one with the longest path first. Other
/// cookies may hold any bytes; a value of ours that is no text reads as empty.
pub(crate) fn find<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get_all(COOKIE).iter().find_map(|line| {
        let mut rest = line.as_bytes();
        loop {
            let end = memchr(b';', rest).unwrap_or(rest.len());
            let pair = &rest[..end];
            if let Some(equals) = memchr(b'=', pair)
                && pair[..equals].trim_ascii() == name.as_bytes()
            {
                return Some(std::str::from_utf8(pair[equals + 1..].trim_ascii()).unwrap_or_default());
            }
            rest = rest.get(end + 1..)?;
        }
    })
}

/// The three cookies of a session, to be set or to be cleared.
pub(crate) struct SessionCookies(Vec<HeaderValue>);

impl SessionCookies {
    /// Cookies that carry what was issued.
    pub(crate) fn set(config: &AuthConfig, issued: &Issued) -> Self {
        let refresh_seconds = i64::from(config.jwt_refresh_expiry_minutes) * 60;
        let mut cookies = vec![
            cookie(config, Kind::Session, issued.token.expose_secret(), issued.expires_in),
            cookie(config, Kind::Csrf, &issued.csrf, issued.expires_in),
        ];
        if let Some(refresh) = &issued.refresh {
            cookies.push(cookie(config, Kind::Refresh, refresh.expose_secret(), refresh_seconds));
        }
        Self(cookies)
    }

    /// Cookies that delete all three: same name, path, domain and attributes, no time to live.
    pub(crate) fn clear(config: &AuthConfig) -> Self {
        Self([Kind::Session, Kind::Csrf, Kind::Refresh].map(|kind| cookie(config, kind, "", 0)).into())
    }
}

impl IntoResponseParts for SessionCookies {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        for cookie in self.0 {
            parts.headers_mut().append(SET_COOKIE, cookie);
        }
        parts.extensions_mut().insert(crate::edge::NoCompression);
        Ok(parts)
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Session,
    Csrf,
    Refresh,
}

fn cookie(config: &AuthConfig, kind: Kind, value: &str, max_age: i64) -> HeaderValue {
    let (name, path, http_only) = match kind {
        Kind::Session => (&config.cookie_name, &config.cookie_path, "; HttpOnly"),
        Kind::Csrf => (&config.csrf_cookie_name, &config.csrf_cookie_path, ""),
        Kind::Refresh => (&config.refresh_cookie_name, &config.refresh_cookie_path, "; HttpOnly"),
    };
    let secure = if config.secure_cookies() { "; Secure" } else { "" };
    let same_site = config.cookie_samesite.as_str();
    let mut text =
        format!("{name}={value}; Path={path}; Max-Age={max_age}; SameSite={same_site}{http_only}{secure}");
    if let Some(domain) = &config.cookie_domain {
        text.push_str("; Domain=");
        text.push_str(domain);
    }
    // Names, paths and domains were checked when the configuration was read; values are URL-safe.
    let mut header = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
    header.set_sensitive(true);
    header
}
