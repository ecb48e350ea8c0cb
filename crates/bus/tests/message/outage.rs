//! A NATS server that goes, comes back, or hangs.

use std::time::Duration;

use quarterdeck_bus::message::BusError;

use crate::{PATIENCE, Test, hear, message, say, until};

/// A started bus on a server that answers within a moment.
async fn test() -> Option<Test> {
    let test = Test::nats_with(|config| {
        config.retention.max_messages_per_channel = 1000;
        config.retention.max_subscriber_queue_size = 1000;
        let nats = config.nats.as_mut().unwrap();
        nats.health_flush_timeout_seconds = 0.2;
        nats.publish_ack_wait_seconds = 1.0;
    })?;
    Some(test.started().await)
}

fn unavailable<T: std::fmt::Debug>(result: Result<T, BusError>) {
    assert!(matches!(result, Err(BusError::Unavailable(_))), "{result:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_server_fails_what_is_asked_and_a_found_one_has_everything() {
    let Some(mut test) = test().await else { return };
    test.bus.subscribe("tasks", "a").await.unwrap();
    test.bus.subscribe("tasks", "unread").await.unwrap();
    say(&test.bus, "tasks", "before").await;
    assert_eq!(hear(&test.bus, "tasks", "a").await.text(), "before");
    let waiting = tokio::spawn({
        let bus = test.bus.clone();
        async move { bus.receive("tasks", "a", None).await }
    });
    until("somebody waits", async || test.waiting().await == 1).await;

    test.server.as_mut().unwrap().kill();
    unavailable(tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap());
    unavailable(test.bus.health_check().await);
    unavailable(test.bus.publish(message("tasks", "ada", "a", ""), None).await);
    unavailable(test.bus.receive("tasks", "a", None).await);
    unavailable(test.bus.subscribe("agents", "new").await);
    unavailable(test.bus.channels().await);
    unavailable(test.bus.history("tasks", 1).await);

    test.server.as_mut().unwrap().restart();
    until("the server is found", async || test.bus.health_check().await.is_ok()).await;
    say(&test.bus, "tasks", "after").await;
    assert_eq!(hear(&test.bus, "tasks", "a").await.text(), "after");
    for text in ["before", "after"] {
        assert_eq!(hear(&test.bus, "tasks", "unread").await.text(), text);
    }
}

impl Test {
    /// Questions of one subscriber that the server keeps.
    async fn waiting(&self) -> usize {
        let client = async_nats::connect(self.server.as_ref().unwrap().url()).await.unwrap();
        let stream = async_nats::jetstream::new(client).get_stream("QUARTERDECK_BUS").await.unwrap();
        stream.consumer_info("orqxg23t__me").await.unwrap().num_waiting
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_server_that_dies_while_messages_are_published() {
    let Some(mut test) = test().await else { return };
    test.bus.subscribe("tasks", "a").await.unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let publishing = tokio::spawn({
        let bus = test.bus.clone();
        async move {
            let mut acknowledged = Vec::new();
            for number in 0..200 {
                let message = message("tasks", "ada", "a", &number.to_string());
                let id = message.id;
                match bus.publish(message, None).await {
                    Ok(()) => acknowledged.push(id),
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
                tell.send(()).unwrap();
            }
            acknowledged
        }
    });
    for _ in 0..20 {
        told.recv().await.unwrap();
    }
    test.server.as_mut().unwrap().kill();
    test.server.as_mut().unwrap().restart();
    let acknowledged = publishing.await.unwrap();
    until("the server is found", async || test.bus.health_check().await.is_ok()).await;
    say(&test.bus, "tasks", "end").await;
    let mut heard = Vec::new();
    loop {
        let message = hear(&test.bus, "tasks", "a").await;
        if message.text() == "end" {
            break;
        }
        heard.push(message.id);
    }
    // What was not acknowledged may be there too, once.
    assert!(heard.iter().collect::<std::collections::HashSet<_>>().len() == heard.len());
    heard.retain(|id| acknowledged.contains(id));
    assert_eq!(heard, acknowledged);
    assert!(acknowledged.len() >= 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_an_error_and_not_a_silence() {
    let Some(test) = test().await else { return };
    test.bus.subscribe("tasks", "a").await.unwrap();
    test.bus.receive("tasks", "a", Some(Duration::ZERO)).await.unwrap();
    test.server.as_ref().unwrap().signal("STOP");
    until("the server hangs", async || test.bus.health_check().await.is_err()).await;
    unavailable(test.bus.receive("tasks", "a", Some(Duration::from_millis(50))).await);
    unavailable(test.bus.publish(message("tasks", "ada", "a", ""), None).await);
    test.server.as_ref().unwrap().signal("CONT");
    until("the server answers", async || test.bus.health_check().await.is_ok()).await;
    say(&test.bus, "tasks", "after").await;
    until("it is heard", async || hear(&test.bus, "tasks", "a").await.text() == "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_whose_server_is_gone_stops_and_starts_again_with_it() {
    let Some(mut test) = test().await else { return };
    test.bus.subscribe("tasks", "a").await.unwrap();
    say(&test.bus, "tasks", "kept").await;
    test.server.as_mut().unwrap().kill();
    until("it is noticed", async || test.bus.health_check().await.is_err()).await;
    test.bus.stop().await.unwrap();
    unavailable(test.bus.start().await);
    test.server.as_mut().unwrap().restart();
    test.bus.start().await.unwrap();
    assert_eq!(hear(&test.bus, "tasks", "a").await.text(), "kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_the_server_forgot_ends_like_one_that_was_removed() {
    let Some(test) = test().await else { return };
    test.bus.subscribe("tasks", "a").await.unwrap();
    test.bus.receive("tasks", "a", Some(Duration::ZERO)).await.unwrap();
    let client = async_nats::connect(test.server.as_ref().unwrap().url()).await.unwrap();
    let stream = async_nats::jetstream::new(client).get_stream("QUARTERDECK_BUS").await.unwrap();
    stream.delete_consumer("orqxg23t__me").await.unwrap();
    until("it is noticed", async || {
        let heard = test.bus.receive("tasks", "a", Some(Duration::ZERO)).await;
        matches!(heard, Err(BusError::NotSubscribed { .. }))
    })
    .await;
    test.bus.subscribe("tasks", "a").await.unwrap();
    say(&test.bus, "tasks", "again").await;
    assert_eq!(hear(&test.bus, "tasks", "a").await.text(), "again");
}
