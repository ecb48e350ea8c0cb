//! The endpoints of `/api/v1`, by resource.

mod activities;
mod analytics;
mod api_keys;
mod approvals;
mod artifacts;
mod audit;
mod auth;
mod autonomy;
mod backups;
mod budget;
mod coordination;
mod escalations;
pub mod health;
mod meetings;
mod messages;
mod projects;
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
        escalations::endpoints(),
        messages::endpoints(),
        meetings::endpoints(),
        autonomy::endpoints(),
        audit::endpoints(),
        projects::endpoints(),
        artifacts::endpoints(),
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
