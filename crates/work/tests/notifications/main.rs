//! Notifications on their way: to servers that take them, refuse them and hang.

mod mail;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::DateTime;
use hmac::{Hmac, KeyInit, Mac};
use quarterdeck_domain::clock::ManualClock;
use quarterdeck_domain::notification::{Category, Notification, Severity};
use quarterdeck_testkit::{Received, Receiver};
use quarterdeck_work::notifications::{Notifications, NotificationsConfig, Patience, try_out};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::time::timeout;

const SECRET: &str = "a secret of a webhook in a test";
const SOON: Duration = Duration::from_secs(10);

fn config(sinks: Value) -> NotificationsConfig {
    let config: NotificationsConfig = serde_json::from_value(json!({ "sinks": sinks })).unwrap();
    config.validate().unwrap();
    config
}

fn webhook(url: &str) -> Value {
    json!({"type": "webhook", "params": {"url": url, "secret": SECRET}})
}

fn clock() -> Arc<ManualClock> {
    ManualClock::at(DateTime::from_timestamp(1_800_000_000, 0).unwrap())
}

/// Hardly any patience.
fn quick() -> Patience {
    Patience {
        attempt: Duration::from_secs(5),
        pauses: vec![Duration::from_millis(1); 3],
        ..Patience::default()
    }
}

fn start(config: &NotificationsConfig, clock: &Arc<ManualClock>, patience: &Patience) -> Notifications {
    Notifications::start(config, &|_| None, Arc::clone(clock) as _, patience)
}

fn news(severity: Severity, title: &str) -> Notification {
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    Notification::new(Category::Budget, severity, "test.news", title, now)
        .body("More of it.")
        .with("cents", 5)
}

async fn next(receiver: &Receiver) -> Received {
    timeout(SOON, receiver.next()).await.expect("something arrives")
}

/// Everything logged on this thread while the guard lives.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let sink = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || sink.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_webhook_is_signed_as_the_standard_says() {
    let receiver = Receiver::answering(&[]).await;
    let told = start(&config(json!([webhook(&format!("{}/hook?a=1", receiver.url))])), &clock(), &quick());
    let notification = news(Severity::Warning, "Half of the budget is spent");
    told.send(notification.clone());
    let received = next(&receiver).await;
    assert_eq!(received.path, "/hook?a=1");
    assert_eq!(received.header("content-type"), "application/json");
    assert_eq!(received.header("webhook-id"), notification.id.to_string());
    assert_eq!(received.header("webhook-timestamp"), "1800000000");
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{}.1800000000.{}", notification.id, received.body).as_bytes());
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(received.header("webhook-signature"), signature);
    assert_eq!(
        received.json(),
        json!({
            "id": notification.id, "category": "budget", "severity": "warning",
            "title": "Half of the budget is spent", "body": "More of it.", "source": "test.news",
            "timestamp": "2027-01-15T08:00:00Z", "metadata": {"cents": 5},
        })
    );
}

#[tokio::test]
async fn what_may_pass_is_tried_again_under_the_same_id_and_what_will_not_is_left() {
    let receiver = Receiver::answering(&[500, 429, 200, 400]).await;
    let told = start(&config(json!([webhook(&receiver.url)])), &clock(), &quick());
    told.send(news(Severity::Info, "one"));
    told.send(news(Severity::Info, "two"));
    told.send(news(Severity::Info, "three"));
    let mut seen = Vec::new();
    for _ in 0..5 {
        let received = next(&receiver).await;
        seen.push((
            received.json()["title"].as_str().unwrap().to_owned(),
            received.header("webhook-id").to_owned(),
        ));
    }
    let titles: Vec<_> = seen.iter().map(|(title, _)| title.as_str()).collect();
    assert_eq!(titles, ["one", "one", "one", "two", "three"]);
    assert!(seen[0] == seen[1] && seen[1] == seen[2]);
    told.stop(SOON).await;
    assert!(receiver.waiting().await.is_none());
}

#[tokio::test]
async fn a_sink_that_hangs_delays_neither_the_others_nor_whoever_tells() {
    let (hangs, works) = (Receiver::answering(&[0; 64]).await, Receiver::answering(&[]).await);
    let patience = Patience { queue: 4, ..Patience::default() };
    let told = start(&config(json!([webhook(&hangs.url), webhook(&works.url)])), &clock(), &patience);
    let begun = std::time::Instant::now();
    for number in 0..40 {
        told.send(news(Severity::Info, &number.to_string()));
        if number < 4 {
            assert_eq!(next(&works).await.json()["title"], number.to_string());
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    next(&hangs).await;
    // What hangs is not waited for at the end either.
    let begun = std::time::Instant::now();
    told.stop(Duration::from_millis(50)).await;
    told.stop(Duration::from_millis(50)).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    told.send(news(Severity::Critical, "too late"));
}

#[tokio::test]
async fn an_attempt_has_its_time() {
    let receiver = Receiver::answering(&[0]).await;
    let patience = Patience { attempt: Duration::from_millis(50), ..quick() };
    let told = start(&config(json!([webhook(&receiver.url)])), &clock(), &patience);
    told.send(news(Severity::Info, "one"));
    assert_eq!(next(&receiver).await.header("webhook-id"), next(&receiver).await.header("webhook-id"));
    told.stop(SOON).await;
}

#[tokio::test]
async fn the_same_thing_is_told_once_in_five_minutes_unless_it_gets_worse() {
    let (receiver, clock) = (Receiver::answering(&[]).await, clock());
    let mut config = config(json!([webhook(&receiver.url)]));
    config.min_severity = Severity::Warning;
    let told = start(&config, &clock, &quick());
    let severity = |received: Received| received.json()["severity"].as_str().unwrap().to_owned();
    told.send(news(Severity::Info, "below what is told"));
    for _ in 0..5 {
        told.send(news(Severity::Warning, "again"));
    }
    told.send(news(Severity::Critical, "again"));
    told.send(news(Severity::Warning, "something else"));
    assert_eq!(severity(next(&receiver).await), "warning");
    assert_eq!(severity(next(&receiver).await), "critical");
    assert_eq!(next(&receiver).await.json()["title"], "something else");
    told.send(news(Severity::Warning, "again"));
    clock.advance(Duration::from_secs(299));
    told.send(news(Severity::Warning, "again"));
    clock.advance(Duration::from_secs(1));
    told.send(news(Severity::Warning, "again"));
    let received = next(&receiver).await.json();
    assert_eq!(received["metadata"], json!({"cents": 5, "collapsed": 2}));
    told.stop(SOON).await;
    assert!(receiver.waiting().await.is_none());
}

#[tokio::test]
async fn ntfy_and_slack_get_what_they_understand() {
    let receiver = Receiver::answering(&[]).await;
    let ntfy = json!({"type": "ntfy", "params": {"topic": "deck-4711", "server_url": receiver.url, "token": "tk_1"}});
    let told = start(&config(json!([ntfy])), &clock(), &quick());
    told.send(news(Severity::Critical, "Down"));
    let received = next(&receiver).await;
    assert_eq!((received.path.as_str(), received.header("authorization")), ("/", "Bearer tk_1"));
    let body = received.json();
    assert_eq!(
        (&body["topic"], &body["title"], &body["priority"]),
        (&json!("deck-4711"), &json!("Down"), &json!(5))
    );
    assert_eq!(body["message"], "More of it.\n\ntest.news, 2027-01-15 08:00:00 UTC\ncents: 5");

    let slack = json!({"type": "slack", "params": {"url": format!("{}/services/T/B/x", receiver.url)}});
    let told = start(&config(json!([slack])), &clock(), &quick());
    told.send(news(Severity::Error, "<!channel> & co"));
    let received = next(&receiver).await;
    assert_eq!(received.path, "/services/T/B/x");
    let text = received.json()["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("*error*: &lt;!channel&gt; &amp; co\nMore of it."), "{text}");
}

#[tokio::test]
async fn secrets_are_in_no_log_and_in_no_form_of_the_configuration() {
    let (log, _guard) = Log::start();
    let canary = "canary-0123456789-0123456789";
    let receiver = Receiver::answering(&[400; 8]).await;
    let with_canary = format!("{}/{canary}", receiver.url);
    let sinks = json!([
        {"type": "webhook", "params": {"url": with_canary, "secret": canary}},
        {"type": "slack", "params": {"url": with_canary}},
        {"type": "ntfy", "params": {"topic": canary, "server_url": receiver.url, "token": canary}},
        {"type": "email", "params": {"host": "127.0.0.1", "port": 1, "to_addrs": "a@example.org",
                                     "username": "u", "password": canary, "use_tls": false}},
        // Nobody listens there.
        {"type": "webhook", "params": {"url": format!("http://127.0.0.1:1/{canary}"), "secret": canary}},
    ]);
    let config = config(sinks);
    let told = start(&config, &clock(), &quick());
    told.send(news(Severity::Warning, "one"));
    told.stop(SOON).await;
    let trials = try_out(&config, &|_| None, &news(Severity::Info, "two"), &quick()).await;
    assert!(trials.iter().all(|trial| trial.outcome.is_err()) && trials.len() == 5, "{trials:?}");
    let text = log.text();
    assert!(text.matches("notifications.delivery.failed").count() == 5, "{text}");
    let shown = [text, format!("{trials:?}"), format!("{config:?}"), serde_json::to_string(&config).unwrap()];
    for text in shown {
        assert!(!text.contains(canary), "{text}");
    }
    assert!(config.holds_secrets());
}

#[tokio::test]
async fn variables_are_filled_in_at_the_start_and_a_missing_one_disables_its_sink_alone() {
    let (log, _guard) = Log::start();
    let receiver = Receiver::answering(&[]).await;
    let of =
        |variable: &str| json!({"type": "webhook", "params": {"url": "${DECK_URL}", "secret": variable}});
    let config = config(json!([of("${DECK_MISSING}"), of("${DECK_SECRET}")]));
    assert!(!config.holds_secrets(), "only names of variables");
    let config_of_one = NotificationsConfig { sinks: config.sinks[..1].to_vec(), ..config.clone() };
    let url = receiver.url.clone();
    let variable = move |name: &str| match name {
        "DECK_URL" => Some(format!("{url}/x")),
        "DECK_SECRET" => Some(SECRET.to_owned()),
        _ => None,
    };
    let told = Notifications::start(&config, &variable, clock() as _, &quick());
    told.send(news(Severity::Warning, "one"));
    assert_eq!(next(&receiver).await.path, "/x");
    told.stop(SOON).await;
    assert!(receiver.waiting().await.is_none());
    let text = log.text();
    assert!(text.contains("notifications.sink.disabled") && text.contains("DECK_MISSING"), "{text}");
    assert!(!text.contains(SECRET));
    let trials = try_out(&config_of_one, &|_| None, &news(Severity::Info, "two"), &quick()).await;
    assert!(trials.len() == 1 && trials[0].outcome.is_err(), "the log is no answer: {trials:?}");
}

#[tokio::test]
async fn when_no_sink_is_left_the_log_is_told() {
    for sinks in [
        json!([]),
        json!([{"type": "webhook", "enabled": false, "params": {"url": "https://example.org/", "secret": SECRET}}]),
        json!([{"type": "webhook", "params": {"url": "${DECK_MISSING}", "secret": SECRET}}]),
    ] {
        let (log, _guard) = Log::start();
        let told = start(&config(sinks), &clock(), &quick());
        told.send(news(Severity::Error, "Nobody listens"));
        told.stop(SOON).await;
        let text = log.text();
        assert!(text.contains("notifications.told") && text.contains("Nobody listens"), "{text}");
    }
}

#[test]
fn a_configuration_is_refused_with_the_name_and_the_rule() {
    let refused = |sink: Value| {
        let config: NotificationsConfig = serde_json::from_value(json!({ "sinks": [sink] })).unwrap();
        config.validate().unwrap_err()
    };
    for (sink, rule) in [
        (json!({"type": "webhook", "params": {"url": "https://example.org"}}), "needs params.secret"),
        (json!({"type": "console", "params": {"colour": "red"}}), "does not know; those are: none"),
        (
            json!({"type": "slack", "params": {"url": "http://example.org/x"}}),
            "params.url must begin with https://",
        ),
        (
            json!({"type": "slack", "params": {"url": "https://10.0.0.1/x"}}),
            "params.url must not be in a private network",
        ),
        (
            json!({"type": "webhook", "params": {"url": "https://example.org", "secret": "short"}}),
            "at least 24 bytes",
        ),
        (json!({"type": "ntfy", "params": {"topic": "a/b"}}), "params.topic must have at most 64 letters"),
        (
            json!({"type": "email", "params": {"host": "h", "to_addrs": "a@b.c", "username": "u"}}),
            "or neither",
        ),
        (
            json!({"type": "email", "params": {"host": "h", "to_addrs": "nobody"}}),
            "params.to_addrs must be mail addresses",
        ),
        (
            json!({"type": "email", "params": {"host": "h", "to_addrs": "a@b.c", "port": 0}}),
            "params.port must be between",
        ),
        (
            json!({"type": "email", "params": {"host": "h", "to_addrs": "a@b.c", "use_tls": "perhaps"}}),
            "must be true or false",
        ),
        (
            json!({"type": "email", "params": {"host": "mail.example.org", "to_addrs": "a@b.c", "use_tls": false,
                                            "username": "u", "password": "p"}}),
            "must be true where a password is sent",
        ),
    ] {
        let why = refused(sink);
        assert!(why.starts_with("notifications.sinks[0] ") && why.contains(rule), "{why}");
    }
    for bad in [json!({"type": "pigeon"}), json!({"type": "console", "more": 1}), json!({"params": {}})] {
        assert!(serde_json::from_value::<NotificationsConfig>(json!({"sinks": [bad]})).is_err());
    }
}
