//! A small HTTP server that keeps what it is sent, for whatever calls out.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

/// Something that was received.
#[derive(Clone, Debug)]
pub struct Received {
    /// Path and query.
    pub path: String,
    /// Headers that are text, by lower-case name.
    pub headers: BTreeMap<String, String>,
    /// The body as text.
    pub body: String,
}

impl Received {
    /// The body as JSON; `null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// A header, empty without it.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// A server on the loopback address, until it is dropped.
pub struct Receiver {
    /// Its address, such as `http://127.0.0.1:4711`.
    pub url: String,
    received: Mutex<mpsc::UnboundedReceiver<Received>>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    told: mpsc::UnboundedSender<Received>,
    answers: Arc<Mutex<Vec<u16>>>,
}

impl Receiver {
    /// A server that gives these answers in order, and 200 afterwards. 0 is no answer at all.
    pub async fn answering(answers: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (told, received) = mpsc::unbounded_channel();
        let answers = answers.iter().rev().copied().collect();
        let shared = Shared { told, answers: Arc::new(Mutex::new(answers)) };
        let router = Router::new().fallback(receive).with_state(shared);
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { url, received: Mutex::new(received), task }
    }

    /// Waits for the next request.
    pub async fn next(&self) -> Received {
        self.received.lock().await.recv().await.expect("the server runs")
    }

    /// The next request, if it is there already.
    pub async fn waiting(&self) -> Option<Received> {
        self.received.lock().await.try_recv().ok()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn receive(State(shared): State<Shared>, uri: Uri, headers: HeaderMap, body: Bytes) -> StatusCode {
    let headers =
        headers.iter().filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
    let received = Received {
        path: uri.to_string(),
        headers: headers.collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let answer = shared.answers.lock().await.pop().unwrap_or(200);
    let _ = shared.told.send(received);
    if answer == 0 {
        std::future::pending::<()>().await;
    }
    StatusCode::from_u16(answer).unwrap_or_default()
}
