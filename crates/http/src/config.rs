//! What an operator may decide about the front door: the section `api`.

use std::net::IpAddr;

use axum::http::Uri;
use ipnet::IpNet;
use quarterdeck_auth::config::{AuthConfig, CookieSecure, DEFAULT_COOKIE_PATH, DEFAULT_REFRESH_COOKIE_PATH};
use quarterdeck_domain::config::{between, not_blank, token};
use serde::{Deserialize, Deserializer, Serialize};

mod rate_limit;

pub use rate_limit::{RateLimitConfig, TimeUnit};

/// Prefix of every endpoint unless configured otherwise.
pub const DEFAULT_API_PREFIX: &str = "/api/v1";
/// Where the dashboard's development server runs; allowed as an origin in development.
pub const DEV_ORIGIN: &str = "http://localhost:5173";

/// The section `api`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// Prefix of every endpoint.
    pub api_prefix: String,
    /// How clients reach the server, such as `https://deck.example`; absent = from `server`.
    pub public_url: Option<String>,
    /// Base of the `type` links in errors; absent = `<public URL>/docs/errors`.
    pub error_docs_base_url: Option<String>,
    /// Signing in.
    pub auth: AuthConfig,
    /// Other origins that may call from a browser.
    pub cors: CorsConfig,
    /// How often callers may come.
    pub rate_limit: RateLimitConfig,
    /// The listener.
    pub server: ServerConfig,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            api_prefix: DEFAULT_API_PREFIX.to_owned(),
            public_url: None,
            error_docs_base_url: None,
            auth: AuthConfig::default(),
            cors: CorsConfig::default(),
            rate_limit: RateLimitConfig::default(),
            server: ServerConfig::default(),
        }
    }
}

/// The section `api.server`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Address or name to listen on; IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Fewest threads that serve requests; the machine's cores when those are more.
    pub workers: u32,
    /// Always false: a compiled program has no code to load anew.
    pub reload: bool,
    /// Time between pings on a WebSocket, seconds; 0 = none.
    pub ws_ping_interval: f64,
    /// Longest wait for the answer to a ping, seconds; 0 = for ever.
    pub ws_ping_timeout: f64,
    /// Certificate chain, PEM.
    pub ssl_certfile: Option<String>,
    /// Private key of the certificate, PEM.
    pub ssl_keyfile: Option<String>,
    /// Authorities that clients' certificates must come from, PEM.
    pub ssl_ca_certs: Option<String>,
    /// Proxies whose forwarding headers are believed.
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Smallest body that is compressed, bytes.
    pub compression_minimum_size_bytes: u32,
    /// Largest request body, bytes.
    pub request_max_body_size_bytes: u32,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 3001,
            workers: 1,
            reload: false,
            ws_ping_interval: 20.0,
            ws_ping_timeout: 20.0,
            ssl_certfile: None,
            ssl_keyfile: None,
            ssl_ca_certs: None,
            trusted_proxies: Vec::new(),
            compression_minimum_size_bytes: 1000,
            request_max_body_size_bytes: 52_428_800,
        }
    }
}

/// The section `api.cors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CorsConfig {
    /// Origins, compared exactly; `*` = every origin, without credentials only.
    pub allowed_origins: Vec<String>,
    /// Methods a preflight allows.
    pub allow_methods: Vec<String>,
    /// Request headers a preflight allows.
    pub allow_headers: Vec<String>,
    /// Whether cookies may come along.
    pub allow_credentials: bool,
}

impl Default for CorsConfig {
    fn default() -> Self {
        let owned = |texts: &[&str]| texts.iter().map(|&t| t.to_owned()).collect();
        Self {
            allowed_origins: Vec::new(),
            allow_methods: owned(&["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]),
            allow_headers: owned(&["Content-Type", "Authorization", "X-CSRF-Token", "If-Match"]),
            allow_credentials: true,
        }
    }
}

/// Files of a TLS listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsFiles<'a> {
    /// Certificate chain, PEM.
    pub cert: &'a str,
    /// Private key, PEM.
    pub key: &'a str,
    /// Authorities for clients' certificates, PEM.
    pub client_ca: Option<&'a str>,
}

/// Something allowed that an operator should know of, with the name of its log event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Name of the log event.
    pub event: &'static str,
    /// A sentence.
    pub text: String,
}

impl ServerConfig {
    /// Whether only this machine can connect.
    pub fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
    }

    /// Whether every interface of the machine is listened on.
    pub fn is_wildcard(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_unspecified())
    }

    /// The files of the TLS listener; absent = plain HTTP.
    pub fn tls(&self) -> Option<TlsFiles<'_>> {
        let (cert, key) = (self.ssl_certfile.as_deref()?, self.ssl_keyfile.as_deref()?);
        Some(TlsFiles { cert, key, client_ca: self.ssl_ca_certs.as_deref() })
    }

    /// URL by which this machine reaches the listener, without a slash at the end.
    pub fn local_url(&self) -> String {
        let scheme = if self.tls().is_some() { "https" } else { "http" };
        let host = match self.host.parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() => "localhost".to_owned(),
            Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => self.host.clone(),
        };
        format!("{scheme}://{host}:{}", self.port)
    }

    fn validate(&self) -> Result<(), String> {
        not_blank("api.server.host", &self.host)?;
        let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if self.host.parse::<IpAddr>().is_err() && !self.host.bytes().all(name) {
            return Err("api.server.host must be an IP address or a host name".to_owned());
        }
        between("api.server.port", self.port, 1, u16::MAX)?;
        between("api.server.workers", self.workers, 1, 32)?;
        if self.reload {
            return Err(
                "api.server.reload must be false: a compiled program has no code to load anew".to_owned()
            );
        }
        // A day; far beyond every use, and small enough for every timer.
        between("api.server.ws_ping_interval", self.ws_ping_interval, 0.0, 86_400.0)?;
        between("api.server.ws_ping_timeout", self.ws_ping_timeout, 0.0, 86_400.0)?;
        let compression = self.compression_minimum_size_bytes;
        between("api.server.compression_minimum_size_bytes", compression, 100, 10_000)?;
        let body = self.request_max_body_size_bytes;
        between("api.server.request_max_body_size_bytes", body, 1_000_000, 536_870_912)?;
        let missing = match (&self.ssl_certfile, &self.ssl_keyfile, &self.ssl_ca_certs) {
            (Some(_), None, _) => Some(("ssl_keyfile", "ssl_certfile")),
            (None, Some(_), _) => Some(("ssl_certfile", "ssl_keyfile")),
            (None, None, Some(_)) => Some(("ssl_certfile", "ssl_ca_certs")),
            _ => None,
        };
        if let Some((missing, set)) = missing {
            return Err(format!("api.server.{missing} must be set when api.server.{set} is"));
        }
        if self.trusted_proxies.iter().any(|net| net.prefix_len() == 0) {
            return Err("api.server.trusted_proxies must not hold a network of every address".to_owned());
        }
        Ok(())
    }
}

impl CorsConfig {
    fn validate(&self) -> Result<(), String> {
        if self.allow_credentials && self.allowed_origins.iter().any(|origin| origin == "*") {
            return Err(
                "api.cors.allowed_origins must not hold \"*\" while api.cors.allow_credentials is true"
                    .to_owned(),
            );
        }
        for (i, origin) in self.allowed_origins.iter().enumerate() {
            if origin != "*" && !is_origin(origin) {
                return Err(format!(
                    "api.cors.allowed_origins[{i}] must be a scheme, a host in lower case and a port unless it \
                     is the scheme's own, such as https://deck.example or http://localhost:5173"
                ));
            }
        }
        for method in &self.allow_methods {
            token("api.cors.allow_methods", method)?;
        }
        for header in &self.allow_headers {
            token("api.cors.allow_headers", header)?;
        }
        Ok(())
    }
}

/// Whether browsers would send the text as `Origin`.
fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    !rest.contains(['/', '@', '?', '#'])
        && !text.bytes().any(|b| b.is_ascii_uppercase())
        && text.parse::<Uri>().is_ok_and(|uri| names_host(&uri) && uri.port_u16() != Some(default_port))
}

/// Whether there is a host and, behind a colon, a port.
fn names_host(uri: &Uri) -> bool {
    uri.authority().is_some_and(|authority| {
        let after_host = authority.as_str().strip_prefix(authority.host());
        !authority.host().is_empty() && (after_host == Some("") || authority.port_u16().is_some())
    })
}

impl ApiConfig {
    /// Decides what was left open and checks everything; the last step of loading.
    ///
    /// - A path or URL of white space counts as not set.
    /// - A cookie path left at its default follows the prefix, or browsers would not send the cookie.
    /// - `cookie_secure = "auto"` becomes true, unless only this machine can connect and neither TLS
    ///   nor a trusted proxy is configured.
    ///
    /// # Errors
    /// A sentence with the dotted field and the broken rule.
    pub fn resolve(&mut self) -> Result<(), String> {
        let server = &mut self.server;
        for text in [
            &mut self.public_url,
            &mut self.error_docs_base_url,
            &mut server.ssl_certfile,
            &mut server.ssl_keyfile,
            &mut server.ssl_ca_certs,
        ] {
            text.take_if(|text| text.trim().is_empty());
        }
        prefix(&self.api_prefix)?;
        if self.auth.refresh_cookie_path == DEFAULT_REFRESH_COOKIE_PATH {
            self.auth.refresh_cookie_path = format!("{}/auth/refresh", self.api_prefix);
        }
        let below_default = self.api_prefix.strip_prefix(DEFAULT_COOKIE_PATH);
        if self.auth.cookie_path == DEFAULT_COOKIE_PATH
            && !below_default.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        {
            self.auth.cookie_path.clone_from(&self.api_prefix);
        }
        self.rate_limit.follow_prefix(&self.api_prefix);
        if self.auth.cookie_secure == CookieSecure::Auto {
            let plain =
                server.is_loopback() && server.ssl_certfile.is_none() && server.trusted_proxies.is_empty();
            self.auth.cookie_secure = if plain { CookieSecure::No } else { CookieSecure::Yes };
        }
        self.validate()
    }

    fn validate(&self) -> Result<(), String> {
        prefix(&self.api_prefix)?;
        for (field, url) in
            [("public_url", &self.public_url), ("error_docs_base_url", &self.error_docs_base_url)]
        {
            if url.as_deref().is_some_and(|url| !is_base_url(url)) {
                return Err(format!(
                    "api.{field} must be an http or https URL without user, query and fragment"
                ));
            }
        }
        self.server.validate()?;
        self.cors.validate()?;
        self.rate_limit.validate()?;
        self.auth.validate()
    }

    /// What `--dev` stands for: the dashboard's development server may call, over plain HTTP.
    pub fn allow_development(&mut self) {
        if !self.cors.allowed_origins.iter().any(|origin| origin == DEV_ORIGIN) {
            self.cors.allowed_origins.push(DEV_ORIGIN.to_owned());
        }
        self.auth.cookie_secure = CookieSecure::No;
    }

    /// How clients reach the server, without a slash at the end.
    pub fn public_url(&self) -> String {
        match &self.public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => self.server.local_url(),
        }
    }

    /// Base of the `type` links in errors, without a slash at the end.
    pub fn error_docs_base_url(&self) -> String {
        match &self.error_docs_base_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("{}/docs/errors", self.public_url()),
        }
    }

    /// What the start logs as warnings.
    pub fn warnings(&self) -> Vec<Warning> {
        let server = &self.server;
        if server.is_loopback() {
            return Vec::new();
        }
        let mut warnings = Vec::new();
        let mut warn = |event, text: &str| warnings.push(Warning { event, text: text.to_owned() });
        if server.trusted_proxies.is_empty() {
            let exposed = server.is_wildcard() && server.tls().is_none();
            if exposed {
                warn(
                    "api.network.exposure_warning",
                    "The server listens on every interface without TLS and without trusted proxies: whoever \
                     reaches this machine reads and writes in clear.",
                );
            }
            warn(
                "api.network.exposure_warning",
                "The server can be reached from other machines and trusts no proxy: clients behind a proxy \
                 share one anonymous rate limit. Name the proxies in api.server.trusted_proxies.",
            );
        }
        if !self.auth.secure_cookies() {
            warn(
                "api.auth.insecure_cookies",
                "api.auth.cookie_secure is false and the server can be reached from other machines: session \
                 cookies travel in clear.",
            );
        }
        warnings
    }
}

fn prefix(text: &str) -> Result<(), String> {
    not_blank("api.api_prefix", text)?;
    let segment = |segment: &str| {
        !segment.is_empty()
            && !matches!(segment, "." | "..")
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
    };
    if text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment)) {
        Ok(())
    } else {
        Err("api.api_prefix must be a path such as /api/v1, without a slash at the end".to_owned())
    }
}

fn is_base_url(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    matches!(uri.scheme_str(), Some("http" | "https"))
        && names_host(&uri)
        && !text.contains(['@', '?', '#', '"', '<', '>'])
}

/// Reads addresses and networks. IPv4 in IPv6 clothes becomes IPv4, the form clients are compared in.
fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let refuse = || serde::de::Error::custom("must hold IP addresses or networks such as 10.0.0.0/8");
    let read = |text: &str| {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()?;
        let IpNet::V6(six) = net else { return Some(net) };
        match (six.addr().to_ipv4_mapped(), six.prefix_len().checked_sub(96)) {
            (Some(four), Some(length)) => IpNet::new(four.into(), length).ok(),
            _ => Some(net),
        }
    };
    Vec::<String>::deserialize(deserializer)?
        .iter()
        .map(|text| read(text.trim()).ok_or_else(refuse))
        .collect()
}

#[cfg(test)]
mod tests;
