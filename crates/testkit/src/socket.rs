//! A server on a real socket, and WebSocket clients that are not our own code.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use quarterdeck_http::app::App;
use quarterdeck_http::edge::EdgeService;
use quarterdeck_http::server::{ServerOptions, serve};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Request, Response};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;

use crate::Caller;

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(10);
/// Subprotocol of clients that recover.
const CAPABLE: &str = "quarterdeck.v1";

/// A server that listens.
pub struct Listening {
    /// Where.
    pub address: SocketAddr,
    app: App,
    stopping: CancellationToken,
    served: Option<tokio::task::JoinHandle<()>>,
}

impl Listening {
    pub(crate) async fn start(app: App, service: EdgeService) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let stopping = CancellationToken::new();
        let options = ServerOptions { grace: Duration::from_secs(2), ..ServerOptions::default() };
        let serving = serve(vec![listener], service, options, stopping.clone());
        let served = tokio::spawn(async move {
            serving.await;
        });
        Self { address, app, stopping, served: Some(served) }
    }

    /// Address of the socket.
    pub fn ws(&self) -> String {
        format!("ws://{}/api/v1/ws", self.address)
    }

    /// A plain client with a fresh ticket of this caller.
    pub async fn plain(&self, caller: &mut Caller) -> Socket {
        let url = format!("{}?ticket={}", self.ws(), ticket(caller).await);
        Socket::open(&url, &[]).await.expect("a WebSocket")
    }

    /// A client that recovers, with a fresh ticket of this caller, and the greeting it got.
    pub async fn capable(&self, caller: &mut Caller) -> (Socket, Value) {
        let offered = format!("{CAPABLE}, quarterdeck.ticket.{}", ticket(caller).await);
        let headers = [("sec-websocket-protocol", offered.as_str())];
        let mut socket = Socket::open(&self.ws(), &headers).await.expect("a WebSocket");
        let greeting = socket.next().await;
        assert_eq!(greeting["action"], "auth_ok");
        (socket, greeting)
    }

    /// Stops as the program does: sockets first, then the listener.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        self.app.sockets.stop().await;
        if let Some(served) = self.served.take() {
            served.await.expect("the server ends");
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

/// A fresh ticket of this caller.
pub async fn ticket(caller: &mut Caller) -> String {
    let answer = caller.post_empty("/api/v1/auth/ws-ticket").await.expect(200);
    answer.data()["ticket"].as_str().expect("a ticket").to_owned()
}

/// How a socket was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The code; 1005 for none, 1006 for a line that broke.
    pub code: u16,
    /// The reason.
    pub reason: String,
}

/// A WebSocket client.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The subprotocol the server chose.
    pub protocol: Option<String>,
}

impl Socket {
    /// Shakes hands with further headers; the HTTP answer when the server refuses.
    pub async fn open(url: &str, headers: &[(&str, &str)]) -> Result<Self, Response<Option<Vec<u8>>>> {
        let mut request: Request<()> = url.into_client_request().expect("an address");
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).expect("a header");
            request.headers_mut().append(name, HeaderValue::try_from(*value).expect("a value"));
        }
        match tokio_tungstenite::connect_async(request).await {
            Ok((stream, response)) => {
                let protocol = response.headers().get("sec-websocket-protocol");
                let protocol = protocol.map(|value| value.to_str().expect("text").to_owned());
                Ok(Self { stream, protocol })
            }
            Err(Error::Http(response)) => Err(*response),
            Err(error) => panic!("the handshake fails: {error}"),
        }
    }

    /// Sends text.
    pub async fn send(&mut self, text: impl Into<String>) {
        self.stream.send(Message::text(text.into())).await.expect("it can be sent");
    }

    /// Sends bytes.
    pub async fn send_binary(&mut self, bytes: Vec<u8>) {
        self.stream.send(Message::binary(bytes)).await.expect("it can be sent");
    }

    /// Sends a command and gives the reply, which is the next frame.
    pub async fn ask(&mut self, command: &Value) -> Value {
        self.send(command.to_string()).await;
        self.next().await
    }

    /// The next text frame as JSON.
    pub async fn next(&mut self) -> Value {
        let text = self.next_text().await;
        serde_json::from_str(&text).expect("frames are JSON")
    }

    /// The next text frame as JSON, or how the socket was closed.
    pub async fn try_next(&mut self) -> Result<Value, Closed> {
        self.receive().await.map(|text| serde_json::from_str(&text).expect("frames are JSON"))
    }

    /// The next text frame.
    pub async fn next_text(&mut self) -> String {
        match self.receive().await {
            Ok(text) => text,
            Err(closed) => panic!("the socket is closed: {closed:?}"),
        }
    }

    /// The next event or batch of this type, whatever comes before it.
    pub async fn next_event(&mut self, event_type: &str) -> Value {
        loop {
            let frame = self.next().await;
            if frame["event_type"] == event_type {
                return frame;
            }
        }
    }

    /// Waits for the end; frames before it are given back.
    pub async fn closed(&mut self) -> (Closed, Vec<String>) {
        let mut before = Vec::new();
        loop {
            match self.receive().await {
                Ok(text) => before.push(text),
                Err(closed) => return (closed, before),
            }
        }
    }

    /// Everything that is there until the answer to a ping.
    pub async fn drain(&mut self) -> Vec<Value> {
        self.send(r#"{"action":"ping"}"#).await;
        let mut all = Vec::new();
        loop {
            let frame = self.next().await;
            if frame["action"] == "pong" {
                return all;
            }
            all.push(frame);
        }
    }

    /// Says goodbye.
    pub async fn close(mut self) {
        let _ = self.stream.close(None).await;
        while let Some(Ok(_)) = self.stream.next().await {}
    }

    async fn receive(&mut self) -> Result<String, Closed> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.stream.next()).await;
            match next.expect("something comes in time") {
                Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
                Some(Ok(Message::Close(frame))) => {
                    // The answer to the close frame leaves with the next poll.
                    let _ = tokio::time::timeout(PATIENCE, self.stream.next()).await;
                    let frame = frame.map(|f| Closed { code: f.code.into(), reason: f.reason.to_string() });
                    return Err(frame.unwrap_or(Closed { code: 1005, reason: String::new() }));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(Closed { code: 1006, reason: String::new() }),
            }
        }
    }
}
