//! Event streams of sessions and the interrupts that stop a session until a person speaks.

mod interrupts;
mod rights;
mod stream;

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use http_body_util::BodyExt;
use quarterdeck_domain::interrupt::{Ask, Interrupt};
use quarterdeck_domain::stream::{SessionEvent, SessionEventType, SessionId};
use quarterdeck_domain::text::NotBlank;
use quarterdeck_testkit::{Caller, TestServer};
use serde_json::{Value, json};
use tokio::time::timeout;

/// Longer than anything takes, and shorter than a waiter or a poll would look for itself.
const SOON: Duration = Duration::from_secs(10);

/// One frame of a stream.
#[derive(Debug, PartialEq)]
struct Frame {
    id: Option<String>,
    event: String,
    data: Value,
}

/// A stream somebody follows. Dropping it cuts the line.
struct Stream(Body);

impl Stream {
    /// Follows a session.
    async fn open(caller: &Caller, session: &str) -> Self {
        Self::after(caller, session, None).await
    }

    /// Comes back to a session.
    async fn after(caller: &Caller, session: &str, last: Option<&str>) -> Self {
        let response = ask(caller, &format!("session_id={session}"), last).await;
        assert_eq!(response.status(), 200);
        Self(response.into_body())
    }

    /// The next frame; `None` at the end.
    async fn next(&mut self) -> Option<Frame> {
        let frame = timeout(SOON, self.0.frame()).await.expect("something arrives")?;
        let text = String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap();
        let text = text.strip_suffix("\n\n").expect("a whole frame");
        let mut frame = Frame { id: None, event: String::new(), data: Value::Null };
        for line in text.lines() {
            match line.split_once(": ").expect("a field") {
                ("id", id) => frame.id = Some(id.to_owned()),
                ("event", event) => event.clone_into(&mut frame.event),
                ("data", data) => frame.data = serde_json::from_str(data).expect("JSON"),
                other => panic!("{other:?}"),
            }
        }
        Some(frame)
    }

    /// The texts of the next events.
    async fn texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        for _ in 0..count {
            let frame = self.next().await.expect("an event");
            texts.push(frame.data["payload"]["text"].as_str().expect("a text").to_owned());
        }
        texts
    }

    /// Demands that this is all, for these reasons.
    async fn ends(mut self, reasons: &[&str]) {
        let frame = self.next().await.expect("a last word");
        assert_eq!((frame.id, frame.event.as_str()), (None, "revoked"));
        let reason = frame.data["reason"].as_str().unwrap();
        assert!(reasons.contains(&reason), "{reason}");
        assert_eq!(self.next().await, None);
    }
}

/// Asks for a stream with the caller's session or key.
async fn ask(caller: &Caller, query: &str, last: Option<&str>) -> Response {
    let mut request = Request::get(format!("/api/v1/events/stream?{query}"));
    if let Some(cookie) = caller.cookie("session") {
        request = request.header("cookie", format!("session={cookie}"));
    }
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    request = request.header("accept-encoding", "gzip, br");
    caller.begin(request.body(Body::empty()).unwrap()).await
}

fn id(session: &str) -> SessionId {
    SessionId::new(session).expect("an id")
}

/// Says something in a session; the id of the event.
fn say(server: &TestServer, session: &str, text: &str) -> String {
    let payload = json!({ "text": text });
    let event = SessionEvent::new(SessionEventType::TextMessageContent, id(session), server.now(), payload);
    server.app.streams.publish(&event);
    event.id().to_owned()
}

fn words<const MAX: usize>(text: &str) -> NotBlank<MAX> {
    NotBlank::new(text).expect("a text")
}

/// An agent asks whether it may use a tool; the id of the interrupt.
async fn tool(server: &TestServer, session: &str) -> String {
    let arguments = json!({"path": "/etc", "token": "s3cret"});
    let ask = Ask::ToolApproval {
        tool_name: words("shell"),
        tool_args: arguments.as_object().cloned(),
        evidence_package_id: Some(words("e-1")),
    };
    create(server, session, ask).await
}

/// An agent asks a question; the id of the interrupt.
async fn question(server: &TestServer, session: &str) -> String {
    create(server, session, Ask::InfoRequest { question: words("why?"), context_snippet: None }).await
}

async fn create(server: &TestServer, session: &str, ask: Ask) -> String {
    let interrupt = Interrupt::new(id(session), words("agent-1"), ask, server.now()).expect("sound");
    server.app.interrupts.create(interrupt.clone()).await.expect("it is stored");
    interrupt.id.into_inner()
}

/// Another copy of the program where the database can have one.
async fn elsewhere(server: &TestServer) -> Option<TestServer> {
    if server.db.is_shared() { Some(server.second(|_| {}).await) } else { None }
}
