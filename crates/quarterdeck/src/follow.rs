//! What follows the run-time settings while the server runs: brought in line once at the start, and
//! after every change, whichever copy of the program made it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use quarterdeck_auth::{Auth, Live};
use quarterdeck_domain::setting::{Definition, api, observability, security};
use quarterdeck_http::limits::{Limits, Overrides};
use quarterdeck_http::v1;
use quarterdeck_work::settings::{Dispatcher, Settings};

use crate::log_settings;
use crate::logging::Logging;

const IDENTITY: [&Definition; 8] = [
    api::JWT_EXPIRY_MINUTES.definition(),
    api::MIN_PASSWORD_LENGTH.definition(),
    api::WS_TICKET_MAX_PENDING_PER_USER.definition(),
    api::TICKET_CLEANUP_INTERVAL_SECONDS.definition(),
    security::MAX_CONCURRENT_SESSIONS.definition(),
    security::LOCKOUT_THRESHOLD.definition(),
    security::LOCKOUT_WINDOW_MINUTES.definition(),
    security::LOCKOUT_DURATION_MINUTES.definition(),
];
const LIMITS: [&Definition; 4] = [
    api::PER_OP_RATE_LIMIT_ENABLED.definition(),
    api::PER_OP_RATE_LIMIT_OVERRIDES.definition(),
    api::PER_OP_CONCURRENCY_ENABLED.definition(),
    api::PER_OP_CONCURRENCY_OVERRIDES.definition(),
];
const LOGGING: [&Definition; 5] = [
    observability::ROOT_LOG_LEVEL.definition(),
    observability::PER_LOGGER_LEVELS.definition(),
    observability::ENABLE_CORRELATION.definition(),
    observability::SINK_OVERRIDES.definition(),
    observability::CUSTOM_SINKS.definition(),
];

/// Lockout, sessions, passwords, tickets; `sweep` is the pause between two sweeps of what has ended.
pub(crate) fn identity(
    settings: &Settings,
    dispatcher: &Dispatcher,
    auth: &Arc<Auth>,
    sweep: &Arc<Mutex<Duration>>,
) {
    apply_identity(settings, auth, sweep);
    let (auth, sweep) = (Arc::clone(auth), Arc::clone(sweep));
    dispatcher.subscribe("auth", IDENTITY, move |settings, _| {
        apply_identity(&settings, &auth, &sweep);
        async { Ok(()) }
    });
}

fn apply_identity(settings: &Settings, auth: &Auth, sweep: &Mutex<Duration>) {
    // Bounds of the definitions keep every value in range.
    let number = |value: i64| u32::try_from(value).unwrap_or_default();
    auth.set_live(Live {
        jwt_expiry_minutes: number(settings.get(&api::JWT_EXPIRY_MINUTES)),
        min_password_length: number(settings.get(&api::MIN_PASSWORD_LENGTH)),
        max_concurrent_sessions: number(settings.get(&security::MAX_CONCURRENT_SESSIONS)),
        lockout_threshold: number(settings.get(&security::LOCKOUT_THRESHOLD)),
        lockout_window_minutes: number(settings.get(&security::LOCKOUT_WINDOW_MINUTES)),
        lockout_duration_minutes: number(settings.get(&security::LOCKOUT_DURATION_MINUTES)),
    });
    auth.set_max_pending_tickets(number(settings.get(&api::WS_TICKET_MAX_PENDING_PER_USER)) as usize);
    let seconds = settings.get(&api::TICKET_CLEANUP_INTERVAL_SECONDS);
    *sweep.lock().unwrap_or_else(|e| e.into_inner()) = Duration::from_secs_f64(seconds);
}

/// Limits of single operations.
pub(crate) fn limits(settings: &Settings, dispatcher: &Dispatcher, limits: &Arc<Limits>) {
    apply_limits(settings, limits);
    let limits = Arc::clone(limits);
    dispatcher.subscribe("limits", LIMITS, move |settings, _| {
        apply_limits(&settings, &limits);
        async { Ok(()) }
    });
}

fn apply_limits(settings: &Settings, limits: &Limits) {
    let overrides = Overrides::new(
        settings.get(&api::PER_OP_RATE_LIMIT_ENABLED),
        &settings.get(&api::PER_OP_RATE_LIMIT_OVERRIDES),
        settings.get(&api::PER_OP_CONCURRENCY_ENABLED),
        &settings.get(&api::PER_OP_CONCURRENCY_OVERRIDES),
    );
    for name in overrides.names() {
        if !v1::endpoints().iter().any(|endpoint| endpoint.docs().operation == name) {
            tracing::warn!(target: "settings", operation = name, "settings.limits.unknown_operation");
        }
    }
    limits.set_overrides(overrides);
}

/// Levels and sinks.
pub(crate) fn logging(settings: &Settings, dispatcher: &Dispatcher, logging: &Arc<Logging>) {
    if let Err(why) = log_settings::apply(settings, logging) {
        tracing::error!(target: "settings", why, "settings.observability.refused");
    }
    let logging = Arc::clone(logging);
    dispatcher.subscribe("logging", LOGGING, move |settings, _| {
        let logging = Arc::clone(&logging);
        async move {
            // New sinks may open files and sockets.
            tokio::task::spawn_blocking(move || log_settings::apply(&settings, &logging))
                .await
                .unwrap_or_else(|e| Err(e.to_string()))
        }
    });
}
