use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, UdpSocket};
use std::sync::mpsc::{Receiver, channel};

use serde_json::json;
use tracing::{error, info};

use super::*;

const SOON: Duration = Duration::from_secs(10);

struct Post {
    head: String,
    body: Value,
}

/// A collector that answers its requests with these statuses in turn, the last one for ever.
fn collector(statuses: &'static [u16]) -> (String, Receiver<Post>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (posts, received) = channel();
    std::thread::spawn(move || {
        let mut statuses = statuses.iter().chain(std::iter::repeat(statuses.last().unwrap()));
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            loop {
                let (mut head, mut length) = (String::new(), 0);
                while stream.read_line(&mut head).unwrap_or(0) > 2 {
                    let line = head.lines().last().unwrap_or_default().to_ascii_lowercase();
                    if let Some(value) = line.strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    if head.ends_with("\r\n\r\n") {
                        break;
                    }
                }
                if head.is_empty() {
                    break;
                }
                let mut body = vec![0; length];
                stream.read_exact(&mut body).unwrap();
                let status = statuses.next().unwrap();
                let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 2\r\n\r\nok");
                let body = serde_json::from_slice(&body).unwrap();
                let _ = posts.send(Post { head: head.to_ascii_lowercase(), body });
                if stream.get_mut().write_all(answer.as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    (address, received)
}

/// An address nobody listens at.
fn nobody() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_collector_gets_json_arrays_with_the_wanted_headers_and_no_secret() {
    let (address, posts) = collector(&[200]);
    let rig = Rig::new(LoggingConfig::default());
    let custom = json!([{"sink_type": "http", "url": format!("http://{address}/in?k=v"),
        "headers": {"Authorization": "Bearer of-the-collector"}, "batch_size": 2, "level": "INFO"}]);
    rig.apply("{}", &custom.to_string()).unwrap();
    rig.log(|| {
        for n in 0..3 {
            info!(n, auth.api_key = "hunter2", body = r#"{"auth":{"api_key":"hunter2"}}"#, "a.b.c");
        }
    });
    assert!(rig.logging.flush());
    let first = posts.recv_timeout(SOON).unwrap();
    assert!(first.head.starts_with("post /in?k=v http/1.1\r\n"), "{}", first.head);
    assert!(first.head.contains("authorization: bearer of-the-collector\r\n"));
    assert!(first.head.contains("content-type: application/json\r\n"));
    let second = posts.recv_timeout(SOON).unwrap();
    let numbers: Vec<_> = [&first, &second]
        .iter()
        .flat_map(|post| post.body.as_array().unwrap().iter().map(|line| line["n"].as_u64().unwrap()))
        .collect();
    assert_eq!(numbers, [0, 1, 2]);
    assert_eq!(first.body.as_array().unwrap().len(), 2);
    assert!(!first.body.to_string().contains("hunter2"));
    assert_eq!(rig.logging.dropped(), 0);
}

#[test]
fn a_collector_that_is_busy_is_asked_again() {
    let (address, posts) = collector(&[503, 200]);
    let rig = Rig::new(LoggingConfig::default());
    let custom = json!([{"sink_type": "http", "url": format!("http://{address}"), "flush_interval_ms": 10}]);
    rig.apply("{}", &custom.to_string()).unwrap();
    rig.log(|| info!("a.b.c"));
    let (first, second) = (posts.recv_timeout(SOON).unwrap(), posts.recv_timeout(SOON).unwrap());
    assert_eq!(first.body, second.body);
    assert!(rig.logging.flush());
    assert_eq!(rig.logging.dropped(), 0);
}

#[test]
fn lines_a_collector_refuses_are_counted_and_told_of() {
    let (address, posts) = collector(&[400]);
    let rig = Rig::new(LoggingConfig::default());
    let custom = json!([{"sink_type": "http", "url": format!("http://{address}/in?key=hunter2")}]);
    rig.apply("{}", &custom.to_string()).unwrap();
    rig.log(|| info!("a.b.c"));
    assert!(rig.logging.flush());
    posts.recv_timeout(SOON).unwrap();
    assert_eq!(rig.logging.dropped(), 1);
    rig.log(|| info!("a.b.d"));
    rig.lines();
    let lines = rig.lines();
    let told = lines.iter().find(|line| line["event"] == "observability.sink.failed").unwrap();
    assert_eq!(told["sink"], format!("http:{address}/in"));
    assert!(told["reason"].as_str().unwrap().contains("400"), "{told}");
}

#[test]
fn an_unreachable_collector_holds_up_nothing_but_its_own_lines() {
    let port = nobody();
    let rig = Rig::new(LoggingConfig::default());
    let custom = json!([
        {"sink_type": "http", "url": format!("http://127.0.0.1:{port}/"), "max_retries": 0},
        {"sink_type": "otlp", "url": format!("http://127.0.0.1:{port}/v1/logs"), "max_retries": 0},
    ]);
    rig.apply("{}", &custom.to_string()).unwrap();
    rig.log(|| info!("a.b.c"));
    assert_eq!(events(&rig.lines()), ["a.b.c"]);
    assert_eq!(rig.logging.dropped(), 2);
}

#[test]
fn a_full_queue_of_a_sink_drops_and_counts() {
    let port = nobody();
    let rig = Rig::new(LoggingConfig::default());
    let custom = json!([{"sink_type": "syslog", "host": "127.0.0.1", "port": port, "protocol": "tcp"}]);
    rig.apply("{}", &custom.to_string()).unwrap();
    let long = "x".repeat(16_000);
    for _ in 0..300 {
        rig.log(|| info!(long, "a.b.c"));
    }
    // The sink never sends, so its part of the flush does not end.
    assert!(!rig.logging.flush());
    assert!(rig.logging.dropped() > 0);
    assert_eq!(rig.console.lines().iter().filter(|line| line["event"] == "a.b.c").count(), 300);
}

#[test]
fn syslog_over_udp_is_one_datagram_per_line() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let rig = Rig::new(LoggingConfig::default());
    let port = socket.local_addr().unwrap().port();
    let custom = json!([{"sink_type": "syslog", "host": "127.0.0.1", "port": port, "facility": "local0"}]);
    rig.apply("{}", &custom.to_string()).unwrap();
    rig.log(|| {
        info!(token = "hunter2", "a.b.c");
        error!("a.b.d");
    });
    for (event, priority) in [("a.b.c", 16 * 8 + 6), ("a.b.d", 16 * 8 + 3)] {
        let mut buffer = [0; 2048];
        let length = socket.recv(&mut buffer).unwrap();
        let message = std::str::from_utf8(&buffer[..length]).unwrap();
        assert!(message.starts_with(&format!("<{priority}>1 2")), "{message}");
        let parts: Vec<_> = message.splitn(8, ' ').collect();
        assert!(chrono::DateTime::parse_from_rfc3339(parts[1]).is_ok(), "{message}");
        assert_eq!(parts[3..7], ["quarterdeck", &std::process::id().to_string(), "-", "-"]);
        let line: Value = serde_json::from_str(parts[7]).unwrap();
        assert_eq!(line["event"], event);
        assert!(!message.contains("hunter2"));
    }
}

fn frame(stream: &mut impl BufRead) -> Value {
    let mut length = Vec::new();
    stream.read_until(b' ', &mut length).unwrap();
    let length: usize = std::str::from_utf8(&length).unwrap().trim().parse().unwrap();
    let mut message = vec![0; length];
    stream.read_exact(&mut message).unwrap();
    let message = String::from_utf8(message).unwrap();
    serde_json::from_str(message.splitn(8, ' ').last().unwrap()).unwrap()
}

#[test]
fn syslog_over_tcp_counts_octets_and_connects_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let rig = Rig::new(LoggingConfig::default());
    let custom = json!([{"sink_type": "syslog", "host": "localhost", "port": port, "protocol": "tcp"}]);
    rig.apply("{}", &custom.to_string()).unwrap();
    rig.log(|| {
        info!(text = "é\n", "first");
        info!("second");
    });
    {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        assert_eq!(frame(&mut stream)["text"], "é\n");
        assert_eq!(frame(&mut stream)["event"], "second");
    }
    rig.log(|| info!("third"));
    let mut stream = BufReader::new(listener.accept().unwrap().0);
    assert_eq!(frame(&mut stream)["event"], "third");
}

#[test]
fn an_opentelemetry_collector_gets_log_records() {
    let (address, posts) = collector(&[200]);
    let rig = Rig::new(LoggingConfig::default());
    let custom = json!([{"sink_type": "otlp", "url": format!("http://{address}/v1/logs")}]);
    rig.apply("{}", &custom.to_string()).unwrap();
    rig.log(|| error!(n = 7, share = 0.5, ok = false, secret = "hunter2", "a.b.c"));
    assert!(rig.logging.flush());
    let body = posts.recv_timeout(SOON).unwrap().body;
    let resource = &body["resourceLogs"][0];
    assert_eq!(
        resource["resource"]["attributes"][0],
        json!({"key": "service.name", "value": {"stringValue": "quarterdeck"}})
    );
    let record = &resource["scopeLogs"][0]["logRecords"][0];
    assert_eq!(record["severityNumber"], 17);
    assert_eq!(record["severityText"], "ERROR");
    assert_eq!(record["body"], json!({"stringValue": "a.b.c"}));
    assert!(record["timeUnixNano"].as_str().unwrap().parse::<u64>().unwrap() > 1_600_000_000_000_000_000);
    let attributes = record["attributes"].as_array().unwrap();
    for expected in [
        json!({"key": "n", "value": {"intValue": "7"}}),
        json!({"key": "share", "value": {"doubleValue": 0.5}}),
        json!({"key": "ok", "value": {"boolValue": false}}),
        json!({"key": "secret", "value": {"stringValue": "**REDACTED**"}}),
        json!({"key": "logger", "value": {"stringValue": "quarterdeck::logging::tests::network"}}),
    ] {
        assert!(attributes.contains(&expected), "{expected} in {attributes:?}");
    }
}

#[test]
fn a_sink_that_stays_keeps_its_queue_when_others_change() {
    let (address, posts) = collector(&[200]);
    let rig = Rig::new(LoggingConfig::default());
    let custom =
        json!([{"sink_type": "http", "url": format!("http://{address}"), "flush_interval_ms": 60_000}])
            .to_string();
    rig.apply("{}", &custom).unwrap();
    rig.log(|| info!("before"));
    rig.apply(r#"{"console": {"level": "ERROR"}}"#, &custom).unwrap();
    rig.log(|| info!("after"));
    assert!(rig.logging.flush());
    let body = posts.recv_timeout(SOON).unwrap().body;
    assert_eq!(events(body.as_array().unwrap()), ["before", "after"]);
}

#[test]
fn a_sink_taken_away_still_sends_what_it_has() {
    let (address, posts) = collector(&[200]);
    let rig = Rig::new(LoggingConfig::default());
    let custom =
        json!([{"sink_type": "http", "url": format!("http://{address}"), "flush_interval_ms": 60_000}]);
    rig.apply("{}", &custom.to_string()).unwrap();
    rig.log(|| info!("before"));
    rig.apply("{}", "[]").unwrap();
    rig.log(|| info!("after"));
    assert_eq!(events(posts.recv_timeout(SOON).unwrap().body.as_array().unwrap()), ["before"]);
}
