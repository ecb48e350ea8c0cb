//! Starting, stopping, and what becomes of those who wait.

use std::time::Duration;

use quarterdeck_bus::message::{Backend, BusError, BusOptions, MessageBus, NatsConfig};
use tokio::net::TcpListener;

use crate::{PATIENCE, SILENCE, Test, bus, hear, message, on_both_buses, say, until};

on_both_buses! {
    async fn a_bus_starts_once_and_stops_once(test: Test) {
        assert_eq!(test.bus.start().await, Err(BusError::AlreadyStarted));
        test.bus.health_check().await.unwrap();
        test.bus.stop().await.unwrap();
        test.bus.stop().await.unwrap();
        assert_eq!(test.bus.health_check().await, Err(BusError::NotRunning));
        assert_eq!(test.bus.publish(message("tasks", "a", "b", ""), None).await, Err(BusError::NotRunning));
        assert_eq!(test.bus.receive("tasks", "a", None).await, Err(BusError::NotRunning));
        assert_eq!(test.bus.subscribe("tasks", "a").await, Err(BusError::NotRunning));
        test.bus.start().await.unwrap();
        test.bus.health_check().await.unwrap();
    }

    async fn stopping_wakes_everyone_who_waits_also_those_nobody_looks_after(test: Test) {
        let mut waiters = tokio::task::JoinSet::new();
        for who in ["a", "a", "b"] {
            test.bus.subscribe("tasks", who).await.unwrap();
            let bus = test.bus.clone();
            waiters.spawn(async move { bus.receive("tasks", who, None).await });
        }
        // Begun, and then left alone.
        let mut forgotten = Box::pin(test.bus.receive("tasks", "a", None));
        let begun = tokio::time::timeout(SILENCE, &mut forgotten).await;
        assert!(begun.is_err());
        tokio::time::timeout(PATIENCE, test.bus.stop()).await.unwrap().unwrap();
        assert_eq!(waiters.join_all().await, [Ok(None), Ok(None), Ok(None)]);
        assert_eq!(forgotten.await, Ok(None));
    }

    async fn removing_a_subscription_wakes_everyone_who_waits_on_it(test: Test) {
        test.bus.subscribe("tasks", "a").await.unwrap();
        let mut waiters = tokio::task::JoinSet::new();
        let copy = test.copy().await;
        for bus in [&test.bus, &test.bus, &copy] {
            let bus = bus.clone();
            waiters.spawn(async move { bus.receive("tasks", "a", None).await });
        }
        // However few of them wait already: the others learn that there is no subscription.
        let early = tokio::time::timeout(SILENCE, waiters.join_next()).await;
        assert!(early.is_err());
        test.bus.unsubscribe("tasks", "a").await.unwrap();
        let woken = tokio::time::timeout(PATIENCE, waiters.join_all()).await.unwrap();
        assert_eq!(woken, [Ok(None), Ok(None), Ok(None)]);
    }

    async fn dropping_the_wait_loses_nothing(test: Test) {
        test.bus.subscribe("tasks", "a").await.unwrap();
        for round in 0..20 {
            let text = round.to_string();
            let wait = test.bus.receive("tasks", "a", None);
            tokio::select! {
                biased;
                heard = wait => assert_eq!(heard.unwrap().unwrap().text(), text),
                () = say(&test.bus, "tasks", &text) => {
                    assert_eq!(hear(&test.bus, "tasks", "a").await.text(), text);
                }
            }
        }
    }

    async fn a_start_given_up_by_its_caller_undoes_itself(test: Test) {
        test.bus.stop().await.unwrap();
        for _ in 0..20 {
            let gone = tokio::time::timeout(Duration::from_micros(50), test.bus.start()).await;
            test.bus.stop().await.unwrap();
            drop(gone);
            assert_eq!(test.bus.health_check().await, Err(BusError::NotRunning));
        }
        test.bus.start().await.unwrap();
    }
}

#[tokio::test]
async fn in_memory_a_restart_begins_empty_and_waiters_stay_with_the_former_run() {
    let Test { bus, .. } = Test::memory().started().await;
    bus.subscribe("tasks", "a").await.unwrap();
    let mut former = Box::pin(bus.receive("tasks", "a", None));
    assert!(tokio::time::timeout(Duration::ZERO, &mut former).await.is_err());
    say(&bus, "agents", "old").await;
    bus.stop().await.unwrap();
    bus.start().await.unwrap();
    assert!(matches!(bus.receive("tasks", "a", None).await, Err(BusError::NotSubscribed { .. })));
    assert_eq!(bus.history("agents", 10).await, Ok(vec![]));
    bus.subscribe("tasks", "a").await.unwrap();
    say(&bus, "tasks", "new").await;
    assert_eq!(former.await, Ok(None));
    assert_eq!(hear(&bus, "tasks", "a").await.text(), "new");
}

#[tokio::test]
async fn on_nats_what_waits_is_there_after_a_restart() {
    let Some(test) = Test::nats() else { return };
    let test = test.started().await;
    test.bus.subscribe("tasks", "a").await.unwrap();
    say(&test.bus, "tasks", "kept").await;
    test.bus.stop().await.unwrap();
    test.bus.start().await.unwrap();
    assert_eq!(hear(&test.bus, "tasks", "a").await.text(), "kept");
}

/// Accepts connections and never says a word.
async fn mute_server(test: &mut Test) -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://ada:canary@{}", listener.local_addr().unwrap());
    test.config.backend = Backend::Nats;
    test.config.nats =
        Some(NatsConfig { url: url.into(), connect_timeout_seconds: 300.0, ..Default::default() });
    listener
}

#[tokio::test]
async fn a_stop_during_the_start_ends_it() {
    let mut test = Test::memory();
    let listener = mute_server(&mut test).await;
    let bus = bus(&test.config);
    let starting = tokio::spawn({
        let bus = bus.clone();
        async move { bus.start().await }
    });
    let (connection, _) = listener.accept().await.unwrap();
    assert_eq!(bus.start().await, Err(BusError::AlreadyStarted));
    bus.stop().await.unwrap();
    assert_eq!(starting.await.unwrap(), Err(BusError::NotRunning));
    assert_eq!(bus.health_check().await, Err(BusError::NotRunning));
    // The connection was left too.
    connection.readable().await.unwrap();
    assert_eq!(connection.try_read(&mut [0]).unwrap(), 0);
}

#[tokio::test]
async fn a_server_that_is_not_there_or_says_nothing_fails_the_start_without_showing_credentials() {
    let mut test = Test::memory();
    let listener = mute_server(&mut test).await;
    if let Some(nats) = &mut test.config.nats {
        nats.connect_timeout_seconds = 0.1;
    }
    let bus = bus(&test.config);
    let silent = bus.start().await.unwrap_err();
    drop(listener);
    let absent = bus.start().await.unwrap_err();
    for error in [silent, absent] {
        let text = error.to_string();
        assert!(
            matches!(error, BusError::Unavailable(_)) && text.contains("nats://********@127.0.0.1"),
            "{text}"
        );
        assert!(!text.contains("canary") && !text.contains("ada:"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_takes_too_long_leaves_a_bus_nobody_can_use() {
    let quick = |nats: &mut NatsConfig| nats.health_flush_timeout_seconds = 0.2;
    let Some(test) = Test::nats_with(|config| config.nats.iter_mut().for_each(quick)) else { return };
    let options = BusOptions { drain_timeout: SILENCE, ..BusOptions::default() };
    let bus = MessageBus::new(test.config.clone(), options).unwrap();
    bus.start().await.unwrap();
    test.server.as_ref().unwrap().signal("STOP");
    until("the server hangs", async || bus.health_check().await.is_err()).await;
    assert_eq!(bus.stop().await, Err(BusError::Unusable));
    test.server.as_ref().unwrap().signal("CONT");
    assert_eq!(bus.stop().await, Err(BusError::Unusable));
    assert_eq!(bus.start().await, Err(BusError::Unusable));
    assert_eq!(bus.subscribe("tasks", "a").await, Err(BusError::Unusable));
}
