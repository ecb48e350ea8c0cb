//! What stands on the server, and what others may put there.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use quarterdeck_bus::message::{ChannelType, MAX_MESSAGE_BYTES, NatsConfig};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::{PATIENCE, Test, bus, hear, hear_all, message, record, say};

/// Base32 of `tasks`, `agents`, `#new`, `@ada:grace`, `a` and `grace`.
const TASKS: &str = "orqxg23t";
const NEW: &str = "enxgk5y";
const LINE: &str = "ibqwiyj2m5zgcy3f";
const A: &str = "me";

async fn behind_the_back(test: &Test) -> Context {
    let client = async_nats::connect(test.server.as_ref().unwrap().url()).await.unwrap();
    jetstream::new(client)
}

#[tokio::test]
async fn stream_consumers_and_bucket_are_as_agreed() {
    let Some(test) =
        Test::nats_with(|config| config.nats.as_mut().unwrap().stream_name_prefix = "DECK".into())
    else {
        return;
    };
    let test = test.started().await;
    test.bus.subscribe("tasks", "a").await.unwrap();
    test.bus.subscribe_for("agents", "a", Some(Duration::from_secs(60))).await.unwrap();
    test.bus.create_channel("#new", ChannelType::Topic).await.unwrap();
    test.bus.send_direct(message("x", "grace", "ada", ""), "ada").await.unwrap();

    let server = behind_the_back(&test).await;
    let stream = server.get_stream("DECK_BUS").await.unwrap();
    let config = &stream.cached_info().config;
    assert_eq!(config.subjects, ["deck.bus.channel.*", "deck.bus.direct.*"]);
    assert_eq!((config.storage, config.retention), (StorageType::File, RetentionPolicy::Limits));
    assert_eq!(config.max_messages_per_subject, 5);
    assert_eq!(config.allow_message_ttl, test.supports_ttl(&server));

    let consumer = stream.get_consumer::<pull::Config>(&format!("{TASKS}__{A}")).await.unwrap();
    let config = &consumer.cached_info().config;
    assert_eq!(config.durable_name.as_deref(), Some("orqxg23t__me"));
    assert_eq!(config.filter_subject, format!("deck.bus.channel.{TASKS}"));
    assert_eq!((config.ack_policy, config.max_deliver), (AckPolicy::Explicit, 1));
    assert_eq!((config.ack_wait, config.max_ack_pending), (Duration::from_secs(30), 3));
    assert_eq!(config.inactive_threshold, Duration::ZERO);
    let consumer = stream.get_consumer::<pull::Config>("mftwk3tuom__me").await.unwrap();
    assert_eq!(consumer.cached_info().config.inactive_threshold, Duration::from_secs(60));

    let bucket = server.get_key_value("DECK_BUS_CHANNELS").await.unwrap();
    for (key, there) in [(NEW, true), (LINE, true), (TASKS, false)] {
        assert_eq!(bucket.get(key).await.unwrap().is_some(), there, "{key}");
    }
    assert_eq!(
        stream.get_last_raw_message_by_subject(&format!("deck.bus.direct.{LINE}")).await.unwrap().sequence,
        1
    );
}

impl Test {
    fn supports_ttl(&self, server: &Context) -> bool {
        server.client().is_server_compatible(2, 11, 0)
    }
}

#[tokio::test]
async fn a_start_brings_the_stream_up_to_date_and_leaves_the_operators_changes() {
    let Some(mut test) = Test::nats() else { return };
    test = test.started().await;
    test.bus.subscribe("tasks", "a").await.unwrap();
    test.bus.stop().await.unwrap();
    let server = behind_the_back(&test).await;
    let mut config = server.get_stream("QUARTERDECK_BUS").await.unwrap().cached_info().config.clone();
    config.max_age = Duration::from_secs(3600);
    server.update_stream(config).await.unwrap();

    test.config.retention.max_messages_per_channel = 9;
    test.config.retention.max_subscriber_queue_size = 8;
    let bus = bus(&test.config);
    bus.start().await.unwrap();
    let stream = server.get_stream("QUARTERDECK_BUS").await.unwrap();
    let config = &stream.cached_info().config;
    assert_eq!((config.max_messages_per_subject, config.max_age), (9, Duration::from_secs(3600)));
    bus.subscribe("tasks", "a").await.unwrap();
    let consumer = stream.get_consumer::<pull::Config>(&format!("{TASKS}__{A}")).await.unwrap();
    assert_eq!(consumer.cached_info().config.max_ack_pending, 8);
}

#[tokio::test]
async fn what_is_no_message_is_acknowledged_and_dropped() {
    let Some(test) = Test::nats() else { return };
    let test = test.started().await;
    let (log, _recording) = record();
    test.bus.subscribe("tasks", "a").await.unwrap();
    let server = behind_the_back(&test).await;
    let subject = format!("quarterdeck.bus.channel.{TASKS}");
    let huge = message("tasks", "eve", "a", &"x".repeat(MAX_MESSAGE_BYTES / 2));
    let no_sender =
        br#"{"id":"7f0c1f0e-3d3b-4d7e-9a39-5a1c8f6f0001","parts":[{"type":"text","text":"canary"}]}"#;
    for bytes in [b"\xff".to_vec(), Vec::new(), no_sender.to_vec(), serde_json::to_vec(&huge).unwrap()] {
        server.publish(subject.clone(), bytes.into()).await.unwrap().await.unwrap();
    }
    say(&test.bus, "tasks", "good").await;
    assert_eq!(hear(&test.bus, "tasks", "a").await.text(), "good");
    assert_eq!(test.bus.history("tasks", 10).await.unwrap().len(), 1);
    let stream = server.get_stream("QUARTERDECK_BUS").await.unwrap();
    crate::until("everything is acknowledged", async || {
        let consumer = stream.consumer_info(format!("{TASKS}__{A}")).await.unwrap();
        (consumer.num_pending, consumer.num_ack_pending) == (0, 0)
    })
    .await;
    let dropped = log.lines("communication.bus.message_unreadable");
    assert_eq!(dropped.len(), 4, "{dropped:?}");
    assert!(!dropped.concat().contains("canary"), "{dropped:?}");
}

#[tokio::test]
async fn a_slow_subscriber_is_reported_once_and_loses_nothing() {
    let Some(test) = Test::nats_with(|config| config.retention.max_messages_per_channel = 50) else { return };
    let test = test.started().await;
    let (log, _recording) = record();
    for who in ["slow", "quick"] {
        test.bus.subscribe("tasks", who).await.unwrap();
    }
    for text in 0..20 {
        say(&test.bus, "tasks", &text.to_string()).await;
        hear(&test.bus, "tasks", "quick").await;
    }
    let said: Vec<_> = (0..20).map(|text| text.to_string()).collect();
    assert_eq!(hear_all(&test.bus, "tasks", "slow").await, said);
    let reports = log.lines("communication.bus.subscriber_slow");
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("WARN") && reports[0].contains("slow\" behind=19"), "{reports:?}");
}

#[tokio::test]
async fn in_memory_the_newest_is_dropped_for_a_slow_subscriber_alone_and_logged() {
    let test = Test::memory().started().await;
    let (log, _recording) = record();
    for who in ["slow", "quick"] {
        test.bus.subscribe("tasks", who).await.unwrap();
    }
    for text in ["1", "2", "3", "4", "5"] {
        say(&test.bus, "tasks", text).await;
        hear(&test.bus, "tasks", "quick").await;
    }
    assert_eq!(hear_all(&test.bus, "tasks", "slow").await, ["1", "2", "3"]);
    let drops = log.lines("communication.bus.message_dropped");
    assert_eq!(drops.len(), 2, "{drops:?}");
    assert!(drops.iter().all(|line| line.contains("drop_policy=\"newest\"") && line.contains("\"slow\"")));
}

#[tokio::test]
async fn a_message_with_a_time_to_live_goes_where_the_server_can_forget_it_and_stays_elsewhere() {
    let Some(test) = Test::nats() else { return };
    let test = test.started().await;
    test.bus.subscribe("tasks", "a").await.unwrap();
    test.bus.publish(message("tasks", "ada", "a", "brief"), Some(Duration::from_millis(1))).await.unwrap();
    assert_eq!(hear(&test.bus, "tasks", "a").await.text(), "brief");
    if test.supports_ttl(&behind_the_back(&test).await) {
        let gone = async || test.bus.history("tasks", 1).await.unwrap().is_empty();
        crate::until("it is forgotten", gone).await;
    } else {
        assert_eq!(test.bus.history("tasks", 1).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn one_server_serves_two_organisations_with_prefixes_of_their_own() {
    let Some(mut test) = Test::nats() else { return };
    test = test.started().await;
    test.config.nats.as_mut().unwrap().stream_name_prefix = "OTHER".to_owned();
    let other = bus(&test.config);
    other.start().await.unwrap();
    for bus in [&test.bus, &other] {
        bus.subscribe("tasks", "a").await.unwrap();
        bus.create_channel("#same", ChannelType::Topic).await.unwrap();
    }
    say(&test.bus, "tasks", "ours").await;
    assert_eq!(hear_all(&other, "tasks", "a").await, [""; 0]);
    assert_eq!(hear_all(&test.bus, "tasks", "a").await, ["ours"]);
}

#[tokio::test]
async fn the_server_learns_who_calls() {
    for (login, expected) in [
        ("ada:p%40ss@", [r#""user":"ada""#, r#""pass":"p@ss""#]),
        ("t%40ken@", [r#""auth_token":"t@ken""#, r#""user":null"#]),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut test = Test::memory();
        test.config.backend = quarterdeck_bus::message::Backend::Nats;
        let url = format!("nats://{login}{}", listener.local_addr().unwrap()).into();
        test.config.nats = Some(NatsConfig { url, ..NatsConfig::default() });
        let bus = bus(&test.config);
        let starting = tokio::spawn({
            let bus = bus.clone();
            async move { bus.start().await }
        });
        let (connection, _) = listener.accept().await.unwrap();
        let mut connection = BufReader::new(connection);
        let info = "INFO {\"server_id\":\"x\",\"server_name\":\"x\",\"version\":\"2.9.10\",\"go\":\"\",\"host\":\"\",\
                    \"port\":1,\"max_payload\":1024,\"proto\":1,\"headers\":true}\r\n";
        connection.write_all(info.as_bytes()).await.unwrap();
        let mut line = String::new();
        tokio::time::timeout(PATIENCE, connection.read_line(&mut line)).await.unwrap().unwrap();
        for expected in expected {
            assert!(line.starts_with("CONNECT") && line.contains(expected), "{line}");
        }
        bus.stop().await.unwrap();
        assert!(starting.await.unwrap().is_err());
    }
}
