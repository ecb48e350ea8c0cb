//! Event streams of sessions, and the interrupts that stop a session until a person speaks.

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body as ResponseBody;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chrono::SecondsFormat;
use futures_util::stream::unfold;
use quarterdeck_bus::sessions::Watch;
use quarterdeck_domain::error::FieldError;
use quarterdeck_domain::identity::Identity;
use quarterdeck_domain::interrupt::{Ask, Interrupt, InterruptType, MAX_ID, Resume};
use quarterdeck_domain::role::{Guard, HumanRole};
use quarterdeck_domain::setting::api::SSE_KEEPALIVE_SECONDS;
use quarterdeck_domain::stream::{self, SessionId};
use quarterdeck_domain::text::NotBlank;
use quarterdeck_domain::{Error, ErrorCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::edge::{Data, NoCompression, Result};
use crate::endpoint::{Endpoint, get, post};
use crate::extract::{Body, Path, Query};
use crate::gate::Caller;
use crate::rights::{Called, Revalidation, Verdict, Watching};

/// Where a returning client says which event it saw last.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Most characters of it.
const MAX_EVENT_ID: usize = 64;
/// Keeps proxies of the nginx family from collecting a stream.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Streams of one user at once.
const MAX_STREAMS: NonZeroU32 = NonZeroU32::new(128).unwrap();

const KEEPALIVE: Bytes = Bytes::from_static(b"event: keepalive\ndata: {}\n\n");

pub(super) fn endpoints() -> Vec<Endpoint> {
    let words = "`tool_approval` needs a `decision`, `info_request` a `response`. Of several answers the \
                 first one counts; the others get 404.";
    vec![
        get("/events/stream", "events.stream", Guard::Read)
            .limit(600, 60)
            .in_flight(MAX_STREAMS)
            .doc(
                "Follow a session",
                "A stream of server-sent events. After a silence comes `keepalive`; when the caller's rights \
                 end, `revoked` with a `reason`, and then the end. Arguments of tools are masked for roles \
                 that cannot decide.",
            )
            .query::<StreamQuery>()
            .header(
                "Last-Event-ID",
                "The last event seen, 64 characters at most: what is kept of the events after it comes first, \
                 or all that is kept if it is not known.",
            )
            .gives_content("text/event-stream")
            .fails(&[ErrorCode::ResourceNotFound])
            .to(follow),
        get("/interrupts", "interrupts.list", Guard::Read)
            .doc("List pending interrupts", "The oldest first, of all sessions or one.")
            .query::<ListQuery>()
            .gives_list::<InterruptResponse>()
            .to(list),
        post("/interrupts/{interrupt_id}/resume", "interrupts.resume", Guard::Approval)
            .limit(100, 60)
            .doc("Answer an interrupt", words)
            .body::<Resume>()
            .gives::<Resumed>(200)
            .fails(&[ErrorCode::ResourceNotFound, ErrorCode::ValidationError])
            .to(resume),
        post("/events/resume/{interrupt_id}", "events.resume", Guard::Approval)
            .limit(100, 60)
            .doc("Answer an interrupt (older path)", words)
            .body::<Resume>()
            .gives::<Resumed>(200)
            .fails(&[ErrorCode::ResourceNotFound, ErrorCode::ValidationError])
            .to(resume),
    ]
}

#[derive(Deserialize, IntoParams)]
struct StreamQuery {
    /// The session.
    #[param(value_type = String, pattern = "^[a-zA-Z0-9_-]{1,128}$", min_length = 1, max_length = 128)]
    session_id: SessionId,
}

#[derive(Deserialize, IntoParams)]
struct ListQuery {
    /// One session only.
    #[param(value_type = Option<String>, pattern = "^[a-zA-Z0-9_-]{1,128}$", min_length = 1, max_length = 128)]
    session_id: Option<SessionId>,
}

/// An agent that waits for a person.
#[derive(Serialize, ToSchema)]
struct InterruptResponse {
    id: String,
    r#type: InterruptType,
    session_id: String,
    agent_id: String,
    /// RFC 3339 with offset.
    created_at: String,
    /// How long it is worth waiting.
    timeout_seconds: f64,
    /// Of `tool_approval`, as the next two.
    tool_name: Option<String>,
    /// Masked for roles that cannot decide.
    #[schema(value_type = Option<std::collections::HashMap<String, Value>>)]
    tool_args: Option<Value>,
    evidence_package_id: Option<String>,
    /// Of `info_request`, as the next one.
    question: Option<String>,
    context_snippet: Option<String>,
}

impl InterruptResponse {
    fn of(interrupt: Interrupt, decides: bool) -> Self {
        let r#type = interrupt.kind();
        let mut response = Self {
            id: interrupt.id.into_inner(),
            r#type,
            session_id: interrupt.session_id.to_string(),
            agent_id: interrupt.agent_id.into_inner(),
            created_at: interrupt.created_at.to_rfc3339_opts(SecondsFormat::AutoSi, false),
            timeout_seconds: interrupt.timeout_seconds,
            tool_name: None,
            tool_args: None,
            evidence_package_id: None,
            question: None,
            context_snippet: None,
        };
        match interrupt.ask {
            Ask::ToolApproval { tool_name, tool_args, evidence_package_id } => {
                response.tool_name = Some(tool_name.into_inner());
                response.tool_args = tool_args.map(|arguments| shown(arguments, decides));
                response.evidence_package_id = evidence_package_id.map(NotBlank::into_inner);
            }
            Ask::InfoRequest { question, context_snippet } => {
                response.question = Some(question.into_inner());
                response.context_snippet = context_snippet.map(NotBlank::into_inner);
            }
        }
        response
    }
}

fn shown(arguments: Map<String, Value>, decides: bool) -> Value {
    let mut arguments = Value::Object(arguments);
    if !decides {
        stream::hide(&mut arguments);
    }
    arguments
}

/// The agent goes on.
#[derive(Serialize, ToSchema)]
struct Resumed {
    /// `resumed`.
    status: &'static str,
}

async fn list(
    State(app): State<App>,
    Caller(caller): Caller,
    Query(query): Query<ListQuery>,
) -> Result<impl IntoResponse> {
    let pending = app.interrupts.pending(query.session_id.as_ref()).await?;
    let decides = caller.role.approves();
    Ok(Data(pending.into_iter().map(|waits| InterruptResponse::of(waits, decides)).collect::<Vec<_>>()))
}

async fn resume(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<NotBlank<MAX_ID>>,
    Body(said): Body<Resume>,
) -> Result<impl IntoResponse> {
    app.interrupts.resolve(&id, said, &caller.username).await?;
    Ok(Data(Resumed { status: "resumed" }))
}

async fn follow(
    State(app): State<App>,
    Caller(caller): Caller,
    Query(StreamQuery { session_id }): Query<StreamQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let last = last_event_id(&headers)?;
    if !may_follow(&app, &caller, &session_id).await? {
        return Err(Error::missing("Session", session_id.as_str()).into());
    }
    let stream = EventStream::open(app, (*caller).clone(), session_id, last);
    let body = ResponseBody::from_stream(unfold(stream, EventStream::next));
    let headers =
        [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store"), (X_ACCEL_BUFFERING, "no")];
    Ok((NoCompression, headers, body).into_response())
}

/// Whether this caller may follow the session. That of a task is for whoever asked for the task and for the
/// CEO; others learn not even that it exists. A session that belongs to no task is for every reader.
async fn may_follow(app: &App, caller: &Identity, session: &SessionId) -> Result<bool, Error> {
    if !caller.role.reads() {
        return Ok(false);
    }
    if caller.role == HumanRole::Ceo {
        return Ok(true);
    }
    match app.tasks.get(session.as_str()).await {
        Ok(task) => Ok(task.created_by == *caller.user_id || task.created_by == *caller.username),
        Err(error) if error.status() == 404 => Ok(true),
        Err(error) => Err(error),
    }
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>, Error> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    match value.to_str() {
        Ok(id) if id.len() <= MAX_EVENT_ID => Ok((!id.is_empty()).then_some(id)),
        _ => Err(Error::shape("Validation failed for GET /events/stream").fields(vec![FieldError {
            pointer: "Last-Event-ID".to_owned(),
            detail: format!("must have at most {MAX_EVENT_ID} ASCII characters"),
        }])),
    }
}

/// Rung when rights may have changed.
#[derive(Default)]
struct Bell(Notify);

impl Called for Bell {
    fn called(&self) {
        self.0.notify_one();
    }
}

/// A stream from its opening to its end. Dropping it takes the caller off every list.
struct EventStream {
    app: App,
    caller: Identity,
    session: SessionId,
    watch: Watch,
    rights: Revalidation,
    bell: Arc<Bell>,
    _watching: Watching,
    silence: Duration,
    keepalive: Instant,
    is_over: bool,
}

impl EventStream {
    fn open(app: App, caller: Identity, session: SessionId, last: Option<&str>) -> Self {
        let silence = Duration::try_from_secs_f64(app.settings.get(&SSE_KEEPALIVE_SECONDS));
        let silence = silence.unwrap_or(Duration::from_secs(30));
        let bell = Arc::new(Bell::default());
        // What has changed since the gate let the caller in is found at once.
        bell.called();
        tracing::info!(target: "api", user_id = &*caller.user_id, %session, "api.sse.connected");
        Self {
            _watching: app.rights.watch(&caller, Arc::clone(&bell) as Arc<dyn Called>),
            watch: app.streams.watch(&session, last),
            rights: Revalidation::new(app.sockets.options().patience),
            bell,
            silence,
            keepalive: Instant::now() + silence,
            is_over: false,
            app,
            caller,
            session,
        }
    }

    /// The next frame. Rights come before events, so that a busy stream is no way around them.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        while !self.is_over {
            let ended = tokio::select! {
                biased;
                () = self.bell.0.notified() => self.recheck(false).await,
                () = sleep_until(self.rights.next()) => self.recheck(true).await,
                told = self.watch.next() => {
                    let frame = told?.frame(self.caller.role.approves()).clone();
                    self.keepalive = Instant::now() + self.silence;
                    return Some((Ok(frame), self));
                }
                () = sleep_until(self.keepalive) => {
                    self.keepalive = Instant::now() + self.silence;
                    return Some((Ok(KEEPALIVE), self));
                }
            };
            if let Some(reason) = ended {
                self.is_over = true;
                tracing::info!(
                    target: "api", user_id = &*self.caller.user_id, session = %self.session, reason, "api.sse.revoked"
                );
                let frame = format!("event: revoked\ndata: {{\"reason\": \"{reason}\"}}\n\n");
                return Some((Ok(frame.into()), self));
            }
        }
        None
    }

    /// Asks for the caller's rights; why they have ended.
    async fn recheck(&mut self, is_due: bool) -> Option<&'static str> {
        match self.rights.ask(&self.app.auth, &self.caller, is_due).await {
            Verdict::Stays(now) if now.must_change_password => Some("session_revoked"),
            Verdict::Stays(now) => match may_follow(&self.app, &now, &self.session).await {
                Ok(false) => Some("role_demoted"),
                // A database that does not answer takes no rights away; the next look comes soon.
                Ok(true) | Err(_) => {
                    self.caller = *now;
                    None
                }
            },
            Verdict::Goes(reason @ ("user_deleted" | "role_demoted")) => Some(reason),
            Verdict::Goes(_) => Some("session_revoked"),
            Verdict::Unknown => None,
            Verdict::Exhausted => Some("backend_unavailable"),
        }
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        tracing::info!(
            target: "api", user_id = &*self.caller.user_id, session = %self.session, "api.sse.disconnected"
        );
    }
}
