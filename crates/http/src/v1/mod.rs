//! The endpoints of `/api/v1`, by resource.

mod analytics;
mod api_keys;
mod auth;
mod backups;
mod budget;
mod coordination;
pub mod health;
mod realtime;
mod reports;
mod sessions;
mod settings;
mod setup;
mod sinks;
mod streams;
mod tasks;
mod users;

use crate::endpoint::Endpoint;

/// Every endpoint.
pub fn endpoints() -> Vec<Endpoint> {
    [
        health::endpoints(),
        setup::endpoints(),
        settings::endpoints(),
        sinks::endpoints(),
        auth::endpoints(),
        sessions::endpoints(),
        api_keys::endpoints(),
        users::endpoints(),
        backups::endpoints(),
        realtime::endpoints(),
        streams::endpoints(),
        tasks::endpoints(),
        budget::endpoints(),
        analytics::endpoints(),
        coordination::endpoints(),
        reports::endpoints(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
