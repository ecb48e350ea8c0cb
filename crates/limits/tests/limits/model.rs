//! Random requests against the rule written down naively.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use quarterdeck_limits::{Limiter, OnOutage, Outcome, Quota, Subject};

use crate::{ask, clock, connection, in_memory, in_redis};
use quarterdeck_testkit::RedisServer;

/// A request of one key: how long after the one before, and its limit and window in microseconds.
#[derive(Clone, Copy, Debug)]
struct Step {
    after: u64,
    max: u32,
    window: u64,
}

/// The rule with nothing but a list.
#[derive(Default)]
struct Naive {
    now: u64,
    stamps: Vec<u64>,
    widest: u64,
}

impl Naive {
    /// Admitted, remaining, microseconds until a slot frees.
    fn ask(&mut self, step: Step) -> (bool, u32, u64) {
        self.now += step.after;
        let now = self.now;
        if self.stamps.last().is_none_or(|newest| now - newest >= (2 * self.widest).max(60_000_000)) {
            *self = Self { now, ..Self::default() };
        }
        self.widest = self.widest.max(step.window);
        self.stamps.retain(|at| now - at < self.widest);
        let inside: Vec<u64> = self.stamps.iter().copied().filter(|at| now - at < step.window).collect();
        let count = inside.len() as u32;
        if count >= step.max {
            let leaves = inside[(count - step.max) as usize];
            return (false, 0, (leaves + step.window - now).max(1_000));
        }
        self.stamps.push(now);
        let oldest = inside.first().copied().unwrap_or(now);
        (true, step.max - count - 1, oldest + step.window - now)
    }
}

fn figures(outcome: Outcome) -> (bool, u32, u64) {
    (outcome.admitted(), outcome.remaining, outcome.reset().as_micros() as u64)
}

/// Gaps around the edges of the window as well as far from them.
fn gap(window: u64) -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..=window / 4,
        2 => Just(0),
        1 => window.saturating_sub(2)..=window + 2,
        1 => 0..=window * 3,
        1 => 0..120_000_000u64,
    ]
}

/// One quota all the way, as most keys have.
fn steady() -> impl Strategy<Value = Vec<Step>> {
    let window = prop_oneof![1..20u64, Just(1_000_000), Just(60_000_000), Just(86_400_000_000)];
    (1..12u32, window).prop_flat_map(|(max, window)| {
        prop::collection::vec(gap(window).prop_map(move |after| Step { after, max, window }), 1..120)
    })
}

/// Quotas that change from request to request, as overrides may.
fn changing() -> impl Strategy<Value = Vec<Step>> {
    let window = prop_oneof![Just(5_000u64), Just(1_000_000), Just(60_000_000)];
    let step = (1..8u32, window)
        .prop_flat_map(|(max, window)| gap(window).prop_map(move |after| Step { after, max, window }));
    prop::collection::vec(step, 1..120)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

proptest! {
    #[test]
    fn the_window_never_admits_more_than_the_limit_and_never_refuses_below_it(steps in steady()) {
        run(async {
            let time = clock();
            let limiter = in_memory(&time);
            let scope = limiter.scope("tasks.create", OnOutage::LocalWindow);
            let (mut now, mut admitted) = (0, Vec::new());
            for Step { after, max, window } in steps {
                now += after;
                time.advance(Duration::from_micros(after));
                let quota = Quota::new(max, Duration::from_micros(window)).unwrap();
                let outcome = ask(&limiter, &scope, Subject::User("u"), quota).await;
                let inside = admitted.iter().filter(|at| now - **at < window).count();
                prop_assert_eq!(outcome.admitted(), inside < max as usize);
                if outcome.admitted() {
                    admitted.push(now);
                }
                // Any stretch of this length, wherever it starts.
                for (i, start) in admitted.iter().enumerate() {
                    let within = admitted[i..].iter().filter(|at| **at - start < window).count();
                    prop_assert!(within <= max as usize);
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn memory_follows_the_naive_rule_step_by_step(steps in prop_oneof![steady(), changing()]) {
        run(async {
            let time = clock();
            let limiter = in_memory(&time);
            follow(&[limiter], &time, steps).await
        })?;
    }
}

#[test]
fn memory_and_redis_agree_step_by_step_with_the_naive_rule() {
    let Some(server) = RedisServer::start() else { return };
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) };
    proptest!(config, |(steps in prop_oneof![steady(), changing()])| {
        run(async {
            let _: () = redis::cmd("FLUSHALL").query_async(&mut connection(&server).await).await.unwrap();
            let time = clock();
            let limiters = [in_memory(&time), in_redis(&server, &time).await];
            follow(&limiters, &time, steps).await
        })?;
    });
}

async fn follow(
    limiters: &[Limiter],
    time: &Arc<quarterdeck_domain::clock::ManualClock>,
    steps: Vec<Step>,
) -> Result<(), TestCaseError> {
    let mut naive = Naive::default();
    for (i, step) in steps.into_iter().enumerate() {
        time.advance(Duration::from_micros(step.after));
        let expected = naive.ask(step);
        let quota = Quota::new(step.max, Duration::from_micros(step.window)).unwrap();
        for limiter in limiters {
            let scope = limiter.scope("tasks.create", OnOutage::LocalWindow);
            let outcome = ask(limiter, &scope, Subject::User("u"), quota).await;
            prop_assert_eq!(figures(outcome), expected, "step {} on {:?}", i, limiter);
        }
    }
    Ok(())
}
