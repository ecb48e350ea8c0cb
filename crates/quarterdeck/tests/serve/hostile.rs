//! What strangers send.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::caller::Caller;
use crate::process::{Home, Server, patiently};

const MEGABYTE: usize = 1_000_000;

/// Sends these bytes and reads what comes back until the server hangs up or has answered.
async fn say(server: &Server, bytes: &[u8]) -> String {
    let mut stream = server.connect().await;
    // The server may hang up before it has heard everything.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = patiently("an answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn assert_well(server: &Server) {
    let health = Caller::new(server).get("/health").await.expect(200);
    assert_eq!(health.data()["status"], "ok");
}

#[tokio::test]
async fn nothing_on_the_socket_takes_the_server_down() {
    let server = Home::new().serve().await;
    let get = "GET /api/v1/auth/me HTTP/1.1\r\nhost: a\r\n";
    let post = "POST /api/v1/auth/login HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    let deep = format!("{{\"username\":{}", "[".repeat(100_000));
    // The bytes, and the statuses they may be answered with; 0 is no answer at all.
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("nothing", vec![], &[0]),
        ("no HTTP", b"hello there\r\n\r\n".to_vec(), &[0, 400]),
        ("zeros", vec![0; 4096], &[0, 400]),
        ("a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20), &[0, 400]),
        ("HTTP/9.9", b"GET / HTTP/9.9\r\nhost: a\r\n\r\n".to_vec(), &[0, 400, 505]),
        ("a broken HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxxxxxxxxxxxxxxxx".to_vec(), &[0]),
        ("a bad header", format!("{get}a b: c\r\n\r\n").into_bytes(), &[0, 400]),
        ("a header of odd bytes", [get.as_bytes(), b"x-odd: \xff\xfe\x01\r\n\r\n"].concat(), &[0, 400, 401]),
        ("a giant header", format!("{get}x-a: {}\r\n\r\n", "a".repeat(MEGABYTE)).into_bytes(), &[0, 431]),
        ("many headers", format!("{get}{}\r\n", "x-a: b\r\n".repeat(50_000)).into_bytes(), &[0, 400, 431]),
        (
            "a giant path",
            format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(MEGABYTE)).into_bytes(),
            &[0, 414, 431],
        ),
        (
            "two lengths",
            format!("{post}content-length: 2\r\ncontent-length: 40\r\n\r\n{{}}").into_bytes(),
            &[0, 400],
        ),
        (
            "length and chunks",
            format!("{post}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n")
                .into_bytes(),
            &[0, 400],
        ),
        (
            "bad chunks",
            format!("{post}transfer-encoding: chunked\r\n\r\nzz\r\n{{}}\r\n").into_bytes(),
            &[0, 400],
        ),
        ("a negative length", format!("{post}content-length: -1\r\n\r\n").into_bytes(), &[0, 400]),
        (
            "two tokens",
            format!("{get}authorization: Bearer a\r\nauthorization: Bearer b\r\n\r\n").into_bytes(),
            &[400, 401],
        ),
        (
            "two sessions",
            format!("{get}cookie: session=a; session=b\r\ncookie: session=c\r\n\r\n").into_bytes(),
            &[400, 401],
        ),
        (
            "deep nesting",
            format!("{post}connection: close\r\ncontent-length: {}\r\n\r\n{deep}", deep.len()).into_bytes(),
            &[400],
        ),
        ("half a body", format!("{post}content-length: 100\r\n\r\n{{\"user").into_bytes(), &[0, 400, 408]),
    ];
    for (what, bytes, statuses) in cases {
        let answer = say(&server, &bytes).await;
        let status = answer.split(' ').nth(1).map_or(0, |status| status.parse().unwrap_or(0));
        assert!(statuses.contains(&status), "{what}: {answer}");
        assert_well(&server).await;
    }
    let log = server.stderr();
    assert!(!log.contains("panicked") && !log.contains("\"ERROR\""), "{log}");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_or_not_it_says_so() {
    let server = Home::new().serve().await;
    let head = "POST /api/v1/auth/login HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    let announced = format!("{head}content-length: {}\r\n\r\n", 53 * MEGABYTE);
    let answer = say(&server, announced.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    let mut stream = server.connect().await;
    stream.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
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
    let hear = async {
        let mut answer = vec![0; 1024];
        let length = reader.read(&mut answer).await.unwrap_or(0);
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    let answer = patiently("a refusal", async { tokio::join!(send, hear).1 }).await;
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
