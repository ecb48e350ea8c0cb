//! How a server ends.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::caller::{Caller, PASSWORD};
use crate::process::{Home, Server, patiently, until};

/// Reads until `end` has been read, or the connection ends.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(end.as_bytes()) && patiently(end, stream.read(&mut byte)).await.unwrap_or(0) > 0 {
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

/// A sign-in whose body the server waits for.
async fn begin_login(server: &Server) -> (TcpStream, String) {
    let body = format!(r#"{{"username":"ada","password":"{PASSWORD}"}}"#);
    let mut stream = server.connect().await;
    let head = format!(
        "POST /api/v1/auth/login HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nexpect: 100-continue\r\n\r\n",
        server.address,
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let asked = read_until(&mut stream, "\r\n\r\n").await;
    assert!(asked.starts_with("HTTP/1.1 100"), "the server asks for the body: {asked}");
    (stream, body)
}

/// A connection that has been used once and stays open.
async fn keep_alive(server: &Server) -> TcpStream {
    let mut stream = server.connect().await;
    let request = format!("GET /api/v1/setup/status HTTP/1.1\r\nhost: {}\r\n\r\n", server.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "\"success\":true}").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stream
}

#[tokio::test]
async fn a_request_under_way_is_finished_and_a_new_one_is_refused() {
    let server = Home::new().serve().await;
    Caller::owner(&server).await;
    let (mut stream, body) = begin_login(&server).await;
    server.signal("TERM").await;
    until("the end of listening", async || !server.listens().await).await;
    stream.write_all(body.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}{}", server.stderr());
    assert!(answer.contains("set-cookie: session="), "{answer}");
    let run = server.ended().await;
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.stderr.contains("\"api.app.shutdown\""), "{}", run.stderr);
    assert!(!run.stderr.contains("connections_cut"), "{}", run.stderr);
}

#[tokio::test]
async fn a_request_on_an_old_connection_is_not_served_once_the_stop_has_begun() {
    let server = Home::new().serve().await;
    Caller::owner(&server).await;
    let mut idle = keep_alive(&server).await;
    let (mut busy, body) = begin_login(&server).await;
    server.signal("TERM").await;
    until("the end of listening", async || !server.listens().await).await;
    let request = format!("GET /api/v1/setup/status HTTP/1.1\r\nhost: {}\r\n\r\n", server.address);
    // Where the connection is gone already there is nothing to write to.
    let _ = idle.write_all(request.as_bytes()).await;
    let answer = read_until(&mut idle, "\r\n\r\n").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 503"), "{answer}");
    busy.write_all(body.as_bytes()).await.unwrap();
    assert!(read_until(&mut busy, "\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    assert_eq!(server.ended().await.code, Some(0));
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_stop() {
    let server = Home::new().serve().await;
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(keep_alive(&server).await);
        // One that has not said a word yet.
        idle.push(server.connect().await);
    }
    // Shorter than the grace for requests under way, so none of them was waited for.
    server.stop().await;
    for mut stream in idle {
        assert_eq!(read_until(&mut stream, "\r\n\r\n").await, "");
    }
}

#[tokio::test]
async fn a_second_signal_ends_at_once_whatever_is_under_way() {
    for second in ["TERM", "INT"] {
        let server = Home::new().serve().await;
        Caller::owner(&server).await;
        let _under_way = begin_login(&server).await;
        server.signal("TERM").await;
        until("the end of listening", async || !server.listens().await).await;
        server.signal(second).await;
        assert_eq!(server.ended().await.code, Some(130));
    }
}

#[tokio::test]
async fn ctrl_c_stops_as_the_service_manager_does() {
    let server = Home::new().serve().await;
    server.signal("INT").await;
    assert_eq!(server.ended().await.code, Some(0));
}
