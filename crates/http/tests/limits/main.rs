//! Limits as a caller of the whole server meets them.

mod credentials;
mod flights;
mod headers;
mod operations;
mod shared;
mod tiers;

use std::sync::Arc;
use std::time::Duration;

use quarterdeck_http::limits::{Overrides, Tiers};
use quarterdeck_testkit::{Answer, Caller, Options, TestDb, TestServer};
use tokio::sync::Barrier;

const OPEN: &str = "/api/v1/setup/status";
const ME: &str = "/api/v1/auth/me";
const LOGIN: &str = "/api/v1/auth/login";
const USERS: &str = "/api/v1/users";
const HEALTH: &str = "/api/v1/health";
const MINUTE: Duration = Duration::from_secs(60);

/// Limits as the program has them out of the box.
fn out_of_the_box(options: &mut Options) {
    options.tiers = Tiers {
        floor: 10_000,
        anonymous: 20,
        authenticated: 6_000,
        window: MINUTE,
        excluded: vec![HEALTH.to_owned()],
        credential_checks: true,
    };
    options.overrides = Overrides::default();
}

async fn server_with(change: impl FnOnce(&mut Tiers)) -> TestServer {
    TestServer::with(TestDb::sqlite(), |options| {
        out_of_the_box(options);
        change(&mut options.tiers);
    })
    .await
}

/// Demands a refusal whose body and header name the same wait, of at least a second; the wait.
#[track_caller]
fn wait_of(answer: &Answer, code: u16) -> u64 {
    assert_eq!((answer.status, answer.code()), (429, code), "{}", answer.text());
    let detail = &answer.json()["error_detail"];
    let wait = answer.header("retry-after").parse().expect("whole seconds");
    assert_eq!(detail["retry_after"], wait);
    assert_eq!(detail["retryable"], true);
    assert!(wait >= 1);
    wait
}

/// Sends `n` requests at once; how many were not refused with 429.
async fn race(callers: &[Caller], n: usize, path: &'static str) -> usize {
    let start = Arc::new(Barrier::new(n));
    let mut running = tokio::task::JoinSet::new();
    for i in 0..n {
        let (mut caller, start) = (callers[i % callers.len()].clone(), Arc::clone(&start));
        running.spawn(async move {
            start.wait().await;
            caller.get(path).await.status
        });
    }
    running.join_all().await.into_iter().filter(|status| *status != 429).count()
}
