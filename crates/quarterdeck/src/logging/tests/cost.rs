use std::time::Instant;

use tracing::{info, info_span};

use super::*;

/// Prints what one request's two lines cost the thread that logs them.
#[test]
#[ignore = "prints a measurement: run with --release --run-ignored only --no-capture"]
fn cost_of_a_line() {
    const REQUESTS: u32 = 200_000;
    let out = Console { out: Box::new(io::sink()), human: false, colour: false };
    let (logging, dispatch) = started(LoggingConfig::default(), out, 64 * BUFFER_BYTES).unwrap();
    let started = Instant::now();
    dispatcher::with_default(&dispatch, || {
        for n in 0..REQUESTS {
            let request =
                info_span!("request", request_id = "7c9e6679-7425-40de-944b-e07fc1f90ae7").entered();
            info!(method = "GET", path = "/api/v1/auth/me", "api.request.started");
            info!(
                method = "GET",
                path = "/api/v1/auth/me",
                status_code = 200,
                duration_ms = f64::from(n % 1000) / 100.0,
                "api.request.completed"
            );
            drop(request);
        }
    });
    let each = started.elapsed() / (2 * REQUESTS);
    assert!(logging.flush());
    let mut report = io::stderr();
    writeln!(report, "{} ns per line, {} dropped", each.as_nanos(), logging.dropped()).unwrap();
}
