//! The bridge from the bus to those who watch.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use quarterdeck_bus::message::{
    Bridge, BridgeHealth, BridgeOptions, BridgeSettings, BusError, ChannelType, MessageBus, Part, Publish,
};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use crate::{PATIENCE, SILENCE, Test, message, on_both_buses, record, say, until};

const CHANNELS: [&str; 2] = ["tasks", "agents"];

fn quick() -> BridgeOptions {
    let settings = BridgeSettings {
        poll_timeout: Duration::from_millis(20),
        max_consecutive_errors: 2,
        drain_timeout: PATIENCE,
    };
    let moment = Duration::from_millis(10);
    BridgeOptions {
        settings: Arc::new(move || settings),
        restart_after: (moment, moment),
        ..Default::default()
    }
}

/// A bridge for these channels, and what comes out of it.
fn bridge(bus: &MessageBus, channels: &[&str]) -> (Bridge, Watcher) {
    let (sender, out) = unbounded_channel();
    let bridge =
        Bridge::new(bus.clone(), channels.iter().copied(), quick(), move |channel: &str, payload| {
            let _ = sender.send((channel.to_owned(), payload));
        });
    (bridge, Watcher(out))
}

struct Watcher(UnboundedReceiver<(String, Map<String, Value>)>);

impl Watcher {
    async fn sees(&mut self) -> (String, String) {
        let (channel, payload) = timeout(PATIENCE, self.0.recv()).await.unwrap().unwrap();
        (channel, payload["content"].as_str().unwrap().to_owned())
    }

    async fn sees_nothing(&mut self) {
        assert!(timeout(SILENCE, self.0.recv()).await.is_err());
    }
}

fn healthy() -> BridgeHealth {
    BridgeHealth { running: true, dead: vec![] }
}

async fn subscribers(bus: &MessageBus) -> BTreeSet<String> {
    bus.channels().await.unwrap().into_iter().flat_map(|channel| channel.subscribers).collect()
}

on_both_buses! {
    async fn every_message_is_published_once_on_the_channel_of_the_same_name(test: Test) {
        let (bridge, mut watcher) = bridge(&test.bus, &CHANNELS);
        bridge.start().await.unwrap();
        let mut sent = message("tasks", "ada", "grace", "hello");
        sent.parts = vec![
            Part::Data { data: Map::from_iter([("n".to_owned(), json!(1))]) },
            Part::Text { text: "hello".to_owned() },
        ]
        .try_into()
        .unwrap();
        test.bus.publish(sent.clone(), None).await.unwrap();
        let (channel, payload) = timeout(PATIENCE, watcher.0.recv()).await.unwrap().unwrap();
        assert_eq!(channel, "tasks");
        assert_eq!(Value::Object(payload), json!({
            "message_id": sent.id, "sender": "ada", "to": "grace", "content": "hello",
            "parts": [{"type": "data", "data": {"n": 1}}, {"type": "text", "text": "hello"}], "message": sent,
        }));
        say(&test.bus, "tasks", &"long".repeat(2048)).await;
        let (_, payload) = timeout(PATIENCE, watcher.0.recv()).await.unwrap().unwrap();
        assert_eq!((payload.get("message"), payload["content"].as_str().unwrap().len()), (None, 8192));
        let mut said = BTreeSet::new();
        for number in 0..30 {
            // The queue of the tests is short.
            let channel = CHANNELS[number % 2];
            say(&test.bus, channel, &number.to_string()).await;
            assert!(said.insert(watcher.sees().await), "twice");
        }
        watcher.sees_nothing().await;
        assert_eq!(bridge.health(), healthy());
    }

    async fn a_bridge_starts_once_stops_once_and_leaves_no_subscription(test: Test) {
        let (bridge, mut watcher) = bridge(&test.bus, &CHANNELS);
        bridge.stop().await.unwrap();
        for round in ["1", "2"] {
            bridge.start().await.unwrap();
            assert_eq!(bridge.start().await, Err(BusError::AlreadyStarted));
            assert_eq!(subscribers(&test.bus).await.len(), 1);
            say(&test.bus, "tasks", round).await;
            assert_eq!(watcher.sees().await, ("tasks".to_owned(), round.to_owned()));
            bridge.stop().await.unwrap();
            bridge.stop().await.unwrap();
            assert_eq!(subscribers(&test.bus).await.len(), 0);
            assert_eq!(bridge.health(), BridgeHealth { running: false, dead: vec![] });
            say(&test.bus, "tasks", "to nobody").await;
            watcher.sees_nothing().await;
        }
    }

    async fn a_stop_during_the_start_leaves_no_subscription(test: Test) {
        for round in 0..40_u32 {
            let (bridge, _watcher) = bridge(&test.bus, &CHANNELS);
            let starting = tokio::spawn({
                let bridge = bridge.clone();
                async move { bridge.start().await }
            });
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            bridge.stop().await.unwrap();
            // The stop may have come before the start.
            if starting.await.unwrap().is_ok() {
                bridge.stop().await.unwrap();
            }
            assert!(!bridge.health().running);
            assert_eq!(subscribers(&test.bus).await, BTreeSet::new(), "round {round}");
        }
    }

    async fn a_start_given_up_by_its_caller_leaves_no_subscription(test: Test) {
        let (bridge, _watcher) = bridge(&test.bus, &CHANNELS);
        for _ in 0..20 {
            let gone = timeout(Duration::from_micros(300), bridge.start()).await;
            bridge.stop().await.unwrap();
            drop(gone);
            assert_eq!(subscribers(&test.bus).await, BTreeSet::new());
        }
    }

    async fn no_channel_at_all_is_a_failure(test: Test) {
        let (none, _watcher) = bridge(&test.bus, &[]);
        assert!(matches!(none.start().await, Err(BusError::Invalid(_))));
        let (unknown, _watcher) = bridge(&test.bus, &["#nowhere", "#neither"]);
        assert_eq!(unknown.start().await, Err(BusError::UnknownChannel("#neither".to_owned())));
        assert!(!unknown.health().running);
        test.bus.stop().await.unwrap();
        let (early, _watcher) = bridge(&test.bus, &CHANNELS);
        assert_eq!(early.start().await, Err(BusError::NotRunning));
        test.bus.start().await.unwrap();
        early.start().await.unwrap();
    }

    async fn a_dead_channel_shows_delays_nobody_and_comes_back(test: Test) {
        let (bridge, mut watcher) = bridge(&test.bus, &["#later", "tasks"]);
        bridge.start().await.unwrap();
        assert_eq!(bridge.health(), BridgeHealth { running: true, dead: vec!["#later".to_owned()] });
        say(&test.bus, "tasks", "not delayed").await;
        assert_eq!(watcher.sees().await.1, "not delayed");
        test.bus.create_channel("#later", ChannelType::Topic).await.unwrap();
        until("the channel lives", async || bridge.health() == healthy()).await;
        say(&test.bus, "#later", "at last").await;
        assert_eq!(watcher.sees().await, ("#later".to_owned(), "at last".to_owned()));
    }

    async fn settings_are_read_at_every_look(test: Test) {
        let looks = Arc::new(AtomicU32::new(0));
        let (counted, quick) = (Arc::clone(&looks), (quick().settings)());
        let options = BridgeOptions {
            settings: Arc::new(move || {
                counted.fetch_add(1, Ordering::SeqCst);
                quick
            }),
            ..Default::default()
        };
        let bridge = Bridge::new(test.bus.clone(), ["tasks"], options, |_: &str, _| {});
        bridge.start().await.unwrap();
        until("looks", async || looks.load(Ordering::SeqCst) > 3).await;
    }

    async fn a_slow_channel_delays_no_other_and_a_stop_that_takes_too_long_ends_the_bridge(test: Test) {
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let (sender, mut out) = unbounded_channel();
        let sink = Gate { gate: gate.into(), sender };
        let options = BridgeOptions {
            settings: Arc::new(|| BridgeSettings { drain_timeout: SILENCE, ..Default::default() }),
            ..Default::default()
        };
        let bridge = Bridge::new(test.bus.clone(), CHANNELS, options, sink);
        bridge.start().await.unwrap();
        say(&test.bus, "tasks", "").await;
        assert_eq!(timeout(PATIENCE, out.recv()).await.unwrap().unwrap(), "tasks");
        for _ in 0..10 {
            say(&test.bus, "agents", "").await;
            assert_eq!(timeout(PATIENCE, out.recv()).await.unwrap().unwrap(), "agents");
        }
        assert_eq!(bridge.stop().await, Err(BusError::Unusable));
        assert_eq!(bridge.start().await, Err(BusError::Unusable));
        assert_eq!(bridge.stop().await, Err(BusError::Unusable));
        assert!(!bridge.health().running);
        drop(release);
    }
}

/// Takes messages of `tasks` and lets nobody go on until it is opened.
struct Gate {
    gate: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
    sender: tokio::sync::mpsc::UnboundedSender<String>,
}

impl Publish for Gate {
    fn publish(&self, channel: &str, _: Map<String, Value>) {
        let _ = self.sender.send(channel.to_owned());
        if channel == "tasks" {
            let _ = self.gate.lock().unwrap().recv();
        }
    }
}

/// The log is recorded on one thread.
async fn a_success_ends_the_row_of_errors(test: Test) {
    let (log, _recording) = record();
    let (bridge, mut watcher) = bridge(&test.bus, &["tasks"]);
    bridge.start().await.unwrap();
    let who = test.bus.channel("tasks").await.unwrap().subscribers.remove(0);
    // Each time one error, more often than may come in a row.
    for round in 0..5 {
        test.bus.unsubscribe("tasks", &who).await.unwrap();
        until("subscribed again", async || !subscribers(&test.bus).await.is_empty()).await;
        say(&test.bus, "tasks", &round.to_string()).await;
        assert_eq!(watcher.sees().await.1, round.to_string());
        assert_eq!(bridge.health(), healthy());
    }
    assert!(log.lines("api.bus_bridge.poll_failed").len() >= 5);
    assert_eq!(log.lines("api.bus_bridge.channel_dead").len(), 0);
}

#[tokio::test]
async fn in_memory_a_success_ends_the_row_of_errors() {
    a_success_ends_the_row_of_errors(Test::memory().started().await).await;
}

#[tokio::test]
async fn on_nats_a_success_ends_the_row_of_errors() {
    if let Some(test) = Test::nats() {
        a_success_ends_the_row_of_errors(test.started().await).await;
    }
}

#[tokio::test]
async fn partial_coverage_and_dead_channels_are_errors_in_the_log() {
    let (log, _recording) = record();
    let test = Test::memory().started().await;
    let (bridge, _watcher) = bridge(&test.bus, &["#nowhere", "tasks"]);
    bridge.start().await.unwrap();
    let partial = log.lines("api.bus_bridge.partial");
    assert!(
        partial.len() == 1 && partial[0].contains("ERROR") && partial[0].contains("#nowhere"),
        "{partial:?}"
    );
    test.bus.stop().await.unwrap();
    until("dead", async || bridge.health().dead.len() == 2).await;
    let dead = log.lines("api.bus_bridge.channel_dead");
    assert!(dead.len() == 1 && dead[0].contains("ERROR") && dead[0].contains("tasks"), "{dead:?}");
    bridge.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_nats_every_copy_gets_every_message_once() {
    let Some(test) = Test::nats() else { return };
    let test = test.started().await;
    let (one, mut first) = bridge(&test.bus, &CHANNELS);
    let (other, mut second) = bridge(&test.copy().await, &CHANNELS);
    one.start().await.unwrap();
    other.start().await.unwrap();
    let who = test.bus.channel("tasks").await.unwrap().subscribers;
    assert!(who.len() == 2 && who.iter().all(|who| who.starts_with("__api_bridge__.")), "{who:?}");
    for number in 0..10 {
        say(&test.bus, "tasks", &number.to_string()).await;
        for watcher in [&mut first, &mut second] {
            assert_eq!(watcher.sees().await.1, number.to_string());
        }
    }
    first.sees_nothing().await;
    second.sees_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bridge_outlives_the_server_of_the_bus() {
    let Some(test) = Test::nats() else { return };
    let mut test = test.started().await;
    let (bridge, mut watcher) = bridge(&test.bus, &CHANNELS);
    bridge.start().await.unwrap();
    for _ in 0..2 {
        test.server.as_mut().unwrap().kill();
        until("every channel is dead", async || bridge.health().dead == ["agents", "tasks"]).await;
        test.server.as_mut().unwrap().restart();
        until("every channel lives", async || bridge.health() == healthy()).await;
        say(&test.bus, "tasks", "again").await;
        assert_eq!(watcher.sees().await, ("tasks".to_owned(), "again".to_owned()));
    }
    test.server.as_mut().unwrap().kill();
    until("every channel is dead", async || bridge.health().dead.len() == 2).await;
    bridge.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_poisons_no_bridge() {
    let Some(test) = Test::nats() else { return };
    let test = test.started().await;
    let (bridge, mut watcher) = bridge(&test.bus, &CHANNELS);
    bridge.start().await.unwrap();
    let client = async_nats::connect(test.server.as_ref().unwrap().url()).await.unwrap();
    for bytes in [vec![0xff], vec![b'x'; 5 << 20]] {
        let server = async_nats::jetstream::new(client.clone());
        server.publish("quarterdeck.bus.channel.orqxg23t", bytes.into()).await.unwrap().await.unwrap();
    }
    say(&test.bus, "tasks", "good").await;
    assert_eq!(watcher.sees().await.1, "good");
    assert_eq!(bridge.health(), healthy());
}
