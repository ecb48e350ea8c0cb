//! What strangers send.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::caller::Caller;
use crate::process::{Home, Server, patiently};

const MEGABYTE: usize = 1_000_000;

/// Sends these bytes, and then nothing more, and reads what comes back.
async fn say(server: &Server, bytes: &[u8]) -> String {
    let mut stream = server.connect().await;
    // The server may hang up before it has heard everything.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    hear(&mut stream).await
}

/// Sends a whole request and reads its answer.
async fn ask(server: &Server, bytes: &[u8]) -> String {
    let mut stream = server.connect().await;
    let _ = stream.write_all(bytes).await;
    hear(&mut stream).await
}

/// Reads until the server has said the head of an answer or hangs up.
async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = Vec::new();
    let mut part = [0; 4096];
    while !text.windows(4).any(|end| end == b"\r\n\r\n") {
        match patiently("an answer", stream.read(&mut part)).await {
            Ok(0) | Err(_) => break,
            Ok(length) => text.extend_from_slice(&part[..length]),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

async fn assert_well(server: &Server) {
    let health = Caller::new(server).get("/health").await.expect(200);
    assert_eq!(health.data()["status"], "ok");
}

const GET: &str = "GET /api/v1/auth/me HTTP/1.1\r\nhost: a\r\n";
const POST: &str = "POST /api/v1/auth/login HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";

fn assert_unmoved(server: &Server) {
    let log = server.stderr();
    assert!(!log.contains("panicked") && !log.contains("\"ERROR\""), "{log}");
}

#[tokio::test]
async fn what_is_no_request_gets_no_success_and_does_no_harm() {
    let server = Home::new().serve().await;
    let cases: [(&str, Vec<u8>); 9] = [
        ("nothing", vec![]),
        ("zeros", vec![0; 4096]),
        ("a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20)),
        ("a broken HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxxxxxxxxxxxxxxxx".to_vec()),
        ("half a head", GET.as_bytes().to_vec()),
        ("half a body", format!("{POST}content-length: 100\r\n\r\n{{\"user").into_bytes()),
        // Refused before all of it is heard, so the refusal itself may be lost.
        ("a giant header", format!("{GET}x-a: {}\r\n\r\n", "a".repeat(MEGABYTE)).into_bytes()),
        ("very many headers", format!("{GET}{}\r\n", "x-a: b\r\n".repeat(50_000)).into_bytes()),
        ("a giant path", format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(MEGABYTE)).into_bytes()),
    ];
    for (what, bytes) in cases {
        let answer = say(&server, &bytes).await;
        assert!(!answer.starts_with("HTTP/1.1 2") && !answer.starts_with("HTTP/1.1 5"), "{what}: {answer}");
        assert_well(&server).await;
    }
    assert_unmoved(&server);
}

#[tokio::test]
async fn malformed_requests_are_refused_one_by_one() {
    let server = Home::new().serve().await;
    let deep = format!("{{\"username\":{}", "[".repeat(100_000));
    let cases: [(&str, Vec<u8>, u16); 11] = [
        ("no HTTP", b"hello there\r\n\r\n".to_vec(), 400),
        ("HTTP/9.9", b"GET / HTTP/9.9\r\nhost: a\r\n\r\n".to_vec(), 400),
        ("a bad header name", format!("{GET}a b: c\r\n\r\n").into_bytes(), 400),
        ("a bad header value", [GET.as_bytes(), b"x-odd: \xff\x01\r\n\r\n"].concat(), 400),
        ("many headers", format!("{GET}{}\r\n", "x-a: b\r\n".repeat(500)).into_bytes(), 431),
        (
            "two lengths",
            format!("{POST}content-length: 2\r\ncontent-length: 40\r\n\r\n{{}}").into_bytes(),
            400,
        ),
        ("a negative length", format!("{POST}content-length: -1\r\n\r\n").into_bytes(), 400),
        ("bad chunks", format!("{POST}transfer-encoding: chunked\r\n\r\nzz\r\n{{}}\r\n").into_bytes(), 400),
        (
            "two tokens",
            format!("{GET}authorization: Bearer a\r\nauthorization: Bearer b\r\n\r\n").into_bytes(),
            401,
        ),
        (
            "three sessions",
            format!("{GET}cookie: session=a; session=b\r\ncookie: session=c\r\n\r\n").into_bytes(),
            401,
        ),
        ("deep nesting", format!("{POST}content-length: {}\r\n\r\n{deep}", deep.len()).into_bytes(), 400),
    ];
    for (what, bytes, status) in cases {
        let answer = ask(&server, &bytes).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{what}: {answer}");
        assert_well(&server).await;
    }
    assert_unmoved(&server);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_or_not_it_says_so() {
    let server = Home::new().serve().await;
    let announced = format!("{POST}content-length: {}\r\n\r\n", 53 * MEGABYTE);
    let answer = ask(&server, announced.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    let mut stream = server.connect().await;
    stream.write_all(format!("{POST}transfer-encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let chunk = [format!("{MEGABYTE:x}\r\n").into_bytes(), vec![b' '; MEGABYTE], b"\r\n".to_vec()].concat();
    let send = async {
        for _ in 0..53 {
            if writer.write_all(&chunk).await.is_err() {
                return;
            }
        }
        let _ = writer.write_all(b"0\r\n\r\n").await;
    };
    let (_, answer) = patiently("a refusal", async { tokio::join!(send, hear(&mut reader)) }).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_well(&server).await;
}

#[tokio::test]
async fn a_thousand_slow_strangers_leave_room_for_others() {
    let server = Home::new().serve().await;
    let mut slow = Vec::new();
    for _ in 0..500 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nx-slow: ").await.unwrap();
        slow.push(stream);
        slow.push(server.connect().await);
    }
    assert_well(&server).await;
    server.stop().await;
}
