//! Logging as the run-time settings want it.

use quarterdeck_domain::setting::observability;
use quarterdeck_domain::sink;
use quarterdeck_work::settings::{Rule, Settings};

use crate::logging::Logging;

/// Sinks are checked as a whole before any of their settings is stored.
pub(crate) fn rule() -> Rule {
    let watched = [
        observability::ROOT_LOG_LEVEL.definition(),
        observability::SINK_OVERRIDES.definition(),
        observability::CUSTOM_SINKS.definition(),
    ];
    Rule::over(watched, |values| {
        sink::resolve(
            &values.get(&observability::ROOT_LOG_LEVEL),
            &values.get(&observability::SINK_OVERRIDES).to_string(),
            &values.get(&observability::CUSTOM_SINKS).to_string(),
        )
        .map(drop)
    })
}

/// Rebuilds the pipeline from the values in force.
///
/// # Errors
/// A sentence; the pipeline then goes on as it was.
pub(crate) fn apply(settings: &Settings, logging: &Logging) -> Result<(), String> {
    let root = settings.get(&observability::ROOT_LOG_LEVEL);
    let sinks = sink::resolve_with(
        logging.defaults(),
        &root,
        &settings.get(&observability::SINK_OVERRIDES).to_string(),
        &settings.get(&observability::CUSTOM_SINKS).to_string(),
    )?;
    let levels = settings.get(&observability::PER_LOGGER_LEVELS);
    let levels = levels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(logger, level)| Ok((logger.clone(), level.as_str().unwrap_or_default().parse()?)))
        .collect::<Result<_, String>>()?;
    logging.correlate(settings.get(&observability::ENABLE_CORRELATION));
    logging.apply(sinks, levels, root.parse()?)
}
