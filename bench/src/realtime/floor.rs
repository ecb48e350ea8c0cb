//! What the machine itself takes for a delivery: one loop that writes the same bytes to every socket, and
//! does nothing else. No server can be cheaper, so this is what the others are measured against.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tungstenite::handshake::derive_accept_key;

use crate::Failure;

/// Longest head of a request, in bytes.
const MAX_HEAD: usize = 4096;

/// Serves until it is killed, and prints where: `GET` opens a WebSocket, every `POST` goes to all of them.
#[allow(clippy::print_stdout, reason = "the parent reads the address")]
pub(crate) async fn serve() -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    let mut sockets: Vec<TcpStream> = Vec::new();
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let mut input = Vec::new();
        let Some(head) = head(&mut stream, &mut input).await? else { continue };
        if !head.starts_with("GET ") {
            publish(stream, head, input, &mut sockets).await?;
            continue;
        }
        let key = field(&head, "sec-websocket-key").unwrap_or_default();
        let accept = derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await?;
        sockets.push(stream);
    }
}

/// Serves one publisher until it goes away; sockets that open meanwhile have to wait.
async fn publish(
    mut stream: TcpStream,
    mut head: String,
    mut input: Vec<u8>,
    sockets: &mut Vec<TcpStream>,
) -> Result<(), Failure> {
    loop {
        let length: usize = field(&head, "content-length").unwrap_or("0").parse()?;
        while input.len() < length {
            if stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        }
        let body: Vec<u8> = input.drain(..length).collect();
        let mut frame = vec![0x81, 126];
        frame.extend_from_slice(&u16::try_from(length)?.to_be_bytes());
        frame.extend_from_slice(&body);
        // Who does not take a whole frame at once is no longer a subscriber.
        sockets.retain(|socket| matches!(socket.try_write(&frame), Ok(taken) if taken == frame.len()));
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
        match self::head(&mut stream, &mut input).await? {
            Some(next) => head = next,
            None => return Ok(()),
        }
    }
}

/// The head of the next request; what was read behind it stays in `input`.
async fn head(stream: &mut TcpStream, input: &mut Vec<u8>) -> Result<Option<String>, Failure> {
    loop {
        if let Some(end) = input.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head: Vec<u8> = input.drain(..end + 4).collect();
            return Ok(Some(String::from_utf8(head)?));
        }
        if input.len() > MAX_HEAD || stream.read_buf(input).await? == 0 {
            return Ok(None);
        }
    }
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}
