//! How often callers may come: the section `api.rate_limit`.

use quarterdeck_domain::config::between;
use serde::{Deserialize, Serialize};

use super::DEFAULT_API_PREFIX;

/// Length of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the words are plain")]
pub enum TimeUnit {
    Second,
    Minute,
    Hour,
    Day,
}

impl TimeUnit {
    /// Length in seconds.
    pub const fn seconds(self) -> u32 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => 86_400,
        }
    }
}

/// The section `api.rate_limit`: three windows over all requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimitConfig {
    /// Requests per window and client address, whatever becomes of them.
    pub floor_max_requests: u32,
    /// Requests per window and client address without an identity.
    pub unauth_max_requests: u32,
    /// Requests per window and user.
    pub auth_max_requests: u32,
    /// Length of the windows.
    pub time_unit: TimeUnit,
    /// Paths that are not counted, compared exactly; the WebSocket's is never counted.
    pub exclude_paths: Vec<String>,
    /// Calls per minute to an outside service that names no limit of its own.
    pub max_rpm_default: u32,
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        Self {
            floor_max_requests: 10_000,
            unauth_max_requests: 20,
            auth_max_requests: 6000,
            time_unit: TimeUnit::Minute,
            exclude_paths: probes(DEFAULT_API_PREFIX),
            max_rpm_default: 60,
        }
    }
}

fn probes(prefix: &str) -> Vec<String> {
    ["health", "healthz", "readyz"].map(|probe| format!("{prefix}/{probe}")).into()
}

impl RateLimitConfig {
    /// Moves the excluded paths to the prefix, when they were left at their default.
    pub(super) fn follow_prefix(&mut self, prefix: &str) {
        if self.exclude_paths == probes(DEFAULT_API_PREFIX) {
            self.exclude_paths = probes(prefix);
        }
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        let (floor, unauth, auth) =
            (self.floor_max_requests, self.unauth_max_requests, self.auth_max_requests);
        between("api.rate_limit.floor_max_requests", floor, 1, u32::MAX)?;
        between("api.rate_limit.unauth_max_requests", unauth, 1, u32::MAX)?;
        between("api.rate_limit.auth_max_requests", auth, 1, u32::MAX)?;
        between("api.rate_limit.max_rpm_default", self.max_rpm_default, 1, 100_000)?;
        for (name, limit) in [("unauth_max_requests", unauth), ("auth_max_requests", auth)] {
            if floor < limit {
                return Err(format!(
                    "api.rate_limit.floor_max_requests ({floor}) must be at least api.rate_limit.{name} ({limit})"
                ));
            }
        }
        if self.exclude_paths.iter().any(|path| !path.starts_with('/')) {
            return Err("api.rate_limit.exclude_paths must hold paths that start with /".to_owned());
        }
        Ok(())
    }
}
