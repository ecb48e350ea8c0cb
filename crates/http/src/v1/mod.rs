//! The endpoints of `/api/v1`, by resource.

mod activities;
mod analytics;
mod api_keys;
mod approvals;
mod auth;
mod backups;
mod budget;
mod coordination;
pub mod health;
mod realtime;
mod reports;
mod reviews;
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
        approvals::endpoints(),
        budget::endpoints(),
        analytics::endpoints(),
        coordination::endpoints(),
        reports::endpoints(),
        activities::endpoints(),
        reviews::endpoints(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
