//! Letting a client in: every question before the first event, in the order of the contract.
//!
//! A close code cannot travel before the upgrade, and a browser sees nothing of a refused one. So a
//! refusal completes the upgrade and sends one close frame, unless the operator wants HTTP answers.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{
    CONNECTION, HOST, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;
use quarterdeck_bus::Topic;
use quarterdeck_domain::identity::Identity;
use quarterdeck_domain::{Error, ErrorCode};
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tungstenite::handshake::derive_accept_key;

use super::codec::{self, Inbound, Reader};
use super::command::{MAX_COMMAND, MAX_FILTERS, reply};
use super::connection::{Close, Connection};
use super::line::Line;
use super::metrics::Handshake;
use super::peer::{Peer, QUEUE, RECHECK};
use super::sockets::Seat;
use crate::app::App;
use crate::edge::{ClientAddr, Failure, RequestContext};
use crate::rights::{Called, Watching};
use crate::server::ConnectionSlot;

/// The subprotocol of clients that recover.
const CAPABLE: &str = "quarterdeck.v1";
/// What a ticket offered as a subprotocol begins with.
const TICKET: &str = "quarterdeck.ticket.";
const X_CLOSE: HeaderName = HeaderName::from_static("x-quarterdeck-close");
/// Longest wait for the client to take a refusal.
const REFUSAL: Duration = Duration::from_secs(2);

const MISSING: Close = Close::new(4001, "Missing ticket");
const INVALID: Close = Close::new(4001, "Invalid or expired ticket");
const FORBIDDEN: Close = Close::new(4003, "Insufficient permissions");
const MUST_CHANGE: Close = Close::new(4003, "Password change required");
const UNAVAILABLE: Close = Close::new(1011, "Internal error");
const TOO_MANY: Close = Close::new(1013, "Too many connections");
const STOPPING: Close = Close::new(1012, "Server shutdown");

#[derive(Serialize)]
struct AuthOk<'a> {
    action: &'static str,
    #[serde(flatten)]
    more: Option<Welcome<'a>>,
}

#[derive(Serialize)]
struct Welcome<'a> {
    protocol: &'static str,
    connection_id: &'a str,
    limits: LimitsOfSocket,
    features: [&'static str; 3],
}

#[derive(Serialize)]
struct LimitsOfSocket {
    message: usize,
    queue: usize,
    channels: usize,
    filters: usize,
}

/// What a client asks for with its handshake.
struct Offer {
    capable: bool,
    /// Tickets named anywhere; more than one is none.
    tickets: Vec<String>,
    /// Whether there is a `ticket` parameter, and be it an empty one.
    has_parameter: bool,
}

/// Somebody who may come in, with everything they need.
struct Guest {
    identity: Identity,
    peer: Arc<Peer>,
    own: Arc<Topic>,
    seat: Seat,
    watching: Watching,
}

impl Called for Peer {
    fn called(&self) {
        self.call(RECHECK);
    }
}

/// Answers the handshake and serves the socket from then on.
pub(crate) async fn connect(State(app): State<App>, mut request: Request) -> Response {
    let metrics = app.sockets.metrics();
    let accept = match check_http(request.headers()) {
        Ok(accept) => accept,
        Err(answer) => {
            metrics.handshake(Handshake::NotWebSocket);
            return *answer;
        }
    };
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        metrics.handshake(Handshake::NotWebSocket);
        return StatusCode::UPGRADE_REQUIRED.into_response();
    };
    if !is_own_origin(&app, request.headers()) {
        metrics.handshake(Handshake::ForeignOrigin);
        let refusal = Error::forbidden("Origin not allowed").because("ws_foreign_origin");
        return Failure(refusal).into_response();
    }
    let slot = request.extensions().get::<ConnectionSlot>().cloned();
    let context = request.extensions().get::<RequestContext>();
    let address = context.map_or(ClientAddr::Unknown, |context| context.client);
    let offer = Offer::of(&request);
    let capable = offer.capable;

    let waits = app.sockets.options().first_message_auth && offer.tickets.is_empty() && !offer.has_parameter;
    let admitted = if waits { Ok(None) } else { admit(&app, offer, capable).await.map(Some) };
    let admitted = match admitted {
        Err(close) => Err(refused(&app, address, close).await),
        admitted => admitted,
    };
    if let Err(close) = admitted
        && app.sockets.options().deny_by_http
    {
        return deny(close);
    }
    tokio::spawn(async move {
        let _slot = slot;
        // Upgrading ends with the HTTP connection at the latest.
        let Ok(upgraded) = upgrade.await else { return };
        let guest = match admitted {
            Ok(guest) => guest,
            Err(close) => return send_away(TokioIo::new(upgraded), close).await,
        };
        match downcast::<TokioIo<TcpStream>>(upgraded) {
            Ok(parts) => {
                let line = Line::new(parts.io.into_inner(), parts.read_buf);
                let other_end = line.other_end();
                serve(app, line, Some(other_end), guest, capable, address).await;
            }
            Err(encrypted) => serve(app, TokioIo::new(encrypted), None, guest, capable, address).await,
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if capable {
        // Also when refusing: a browser fails a handshake whose offer is not answered.
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(CAPABLE));
    }
    response
}

/// The faults of a request that is no handshake (RFC 6455 §4.2.2); none of them uses up a ticket.
fn check_http(headers: &HeaderMap) -> Result<HeaderValue, Box<Response>> {
    let upgrade_required = |name: HeaderName, value: &'static str| {
        let headers =
            [(name, HeaderValue::from_static(value)), (CONNECTION, HeaderValue::from_static("Upgrade"))];
        let error = Error::shape("Speak WebSocket here, version 13").status_override(426);
        Err(Box::new((headers, Failure(error)).into_response()))
    };
    if !codec::asks_for_upgrade(headers) {
        return upgrade_required(UPGRADE, "websocket");
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return upgrade_required(SEC_WEBSOCKET_VERSION, "13");
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let key = match (keys.next(), keys.next()) {
        (Some(key), None) => key.as_bytes(),
        _ => &[],
    };
    if STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16) {
        HeaderValue::from_str(&derive_accept_key(key)).map_err(|_| Box::default())
    } else {
        let error = Error::shape("Sec-WebSocket-Key must be 16 bytes in base64");
        Err(Box::new(Failure(error).into_response()))
    }
}

/// Whether the page that asks is one of ours, or of an origin that may read answers; programs other
/// than browsers say nothing.
fn is_own_origin(app: &App, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let same = || {
        let host = headers.get(HOST)?.to_str().ok()?;
        let (scheme, authority) = origin.to_str().ok()?.split_once("://")?;
        let port = if scheme == "https" { ":443" } else { ":80" };
        let bare = |authority: &str| authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase();
        Some(bare(authority) == bare(host))
    };
    same().unwrap_or(false) || app.edge.lets_read(headers)
}

impl Offer {
    fn of(request: &Request) -> Self {
        let query = request.uri().query().unwrap_or_default();
        let parameters = form_urlencoded::parse(query.as_bytes());
        let named: Vec<_> = parameters.filter(|(name, _)| name == "ticket").map(|(_, value)| value).collect();
        let offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).iter();
        let protocols: Vec<_> = offered
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .map(str::trim)
            .collect();
        let has_parameter = !named.is_empty();
        let mut tickets: Vec<String> = named.into_iter().map(|ticket| ticket.into_owned()).collect();
        tickets.extend(protocols.iter().filter_map(|name| name.strip_prefix(TICKET)).map(str::to_owned));
        Self { capable: protocols.contains(&CAPABLE), tickets, has_parameter }
    }
}

/// The questions of the contract, in its order. Whatever fails, the ticket stays used up.
async fn admit(app: &App, offer: Offer, capable: bool) -> Result<Guest, Close> {
    let stage = |stage: &'static str| tracing::debug!(target: "api", stage, "api.ws.auth_stage");
    stage("ticket_check");
    let found = match &offer.tickets[..] {
        [] => Err((MISSING, "missing_ticket")),
        [one] if one.is_empty() => Err((MISSING, "missing_ticket")),
        [one] => consume(app, one).await?.ok_or((INVALID, "invalid_or_expired")),
        several => {
            for ticket in several {
                consume(app, ticket).await?;
            }
            Err((INVALID, "invalid_or_expired"))
        }
    };
    let identity = found.map_err(|(close, reason)| {
        tracing::warn!(target: "api", reason, "api.ws.ticket_invalid");
        close
    })?;
    stage("ticket_valid");
    seat(app, identity, capable).await
}

async fn consume(app: &App, ticket: &str) -> Result<Option<Identity>, Close> {
    app.auth.consume_ticket(ticket).await.map_err(|error| {
        tracing::error!(target: "api", error = %error, cause = error.cause(), "api.ws.transport_error");
        UNAVAILABLE
    })
}

/// From a good ticket to a place: role, news, and everything that has to be undone when it ends.
async fn seat(app: &App, ticket: Identity, capable: bool) -> Result<Guest, Close> {
    // The ticket may be older than the newest news of its owner.
    let identity = match app.auth.recheck(&ticket).await {
        Ok(identity) => identity,
        Err(error) if error.status() == 401 => return Err(INVALID),
        Err(error) => {
            tracing::error!(target: "api", error = %error, cause = error.cause(), "api.ws.transport_error");
            return Err(UNAVAILABLE);
        }
    };
    tracing::debug!(target: "api", stage = "role_check", "api.ws.auth_stage");
    if !identity.role.reads() {
        tracing::warn!(target: "api", reason = "insufficient_role", "api.ws.ticket_invalid");
        return Err(FORBIDDEN);
    }
    if identity.must_change_password {
        return Err(MUST_CHANGE);
    }
    if app.sockets.is_stopping() {
        return Err(STOPPING);
    }
    if !app.bus.is_running() {
        return Err(UNAVAILABLE);
    }
    let user_id = Arc::clone(&identity.user_id);
    let own = app.bus.own(&user_id).await.map_err(|error| {
        tracing::error!(target: "api", %user_id, error = %error, cause = error.cause(), "api.ws.transport_error");
        UNAVAILABLE
    })?;
    let metrics = Arc::clone(app.sockets.metrics());
    let peer = Arc::new(Peer::new(app.sockets.next_id(), user_id, identity.role, capable, metrics));
    let seat = app.sockets.seat(&peer).ok_or(TOO_MANY)?;
    // Watched before it is believed for good: a change in between calls at once.
    let watching = app.rights.watch(&identity, Arc::clone(&peer) as Arc<dyn Called>);
    peer.call(RECHECK);
    Ok(Guest { identity, peer, own, seat, watching })
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    app: App,
    mut io: S,
    other_end: Option<Arc<TcpStream>>,
    guest: Option<Guest>,
    capable: bool,
    address: ClientAddr,
) {
    let greets = guest.is_none() || capable;
    let mut early = Vec::new();
    let guest = match guest {
        Some(guest) => guest,
        None => match first_message(&app, &mut io, capable, &mut early).await {
            Ok(guest) => guest,
            Err(close) => {
                let close = refused(&app, address, close).await;
                return send_away(io, close).await;
            }
        },
    };
    let Guest { identity, peer, own, seat, watching } = guest;
    peer.listen(&own, None, false, app.bus.now_micros());
    app.sockets.metrics().handshake(Handshake::Accepted);
    let (user_id, role) = (&peer.user_id, identity.role.as_str());
    tracing::info!(target: "api", %user_id, role, connection = peer.id, capable, "api.ws.connected");
    if greets {
        let connection_id = peer.id.to_string();
        let more = capable.then(|| Welcome {
            protocol: CAPABLE,
            connection_id: &connection_id,
            limits: LimitsOfSocket {
                message: MAX_COMMAND,
                queue: QUEUE,
                channels: quarterdeck_domain::channel::Shared::COUNT + 1,
                filters: MAX_FILTERS,
            },
            features: ["recover", "gap", "batch"],
        });
        let frame = reply(&AuthOk { action: "auth_ok", more });
        if io.write_all(&frame).await.is_err() {
            app.sockets.metrics().closed(1011);
            peer.leave_all();
            return;
        }
        tracing::info!(target: "api", %user_id, "api.ws.auth_ok");
    }
    let expiry = Duration::from_secs(u64::from(app.auth.live().jwt_expiry_minutes) * 60);
    let lifetime = app.sockets.options().max_lifetime.unwrap_or(expiry);
    if let Some(line) = other_end {
        peer.lend(line);
    }
    let mut connection = Connection::new(io, app, peer, own, identity, lifetime, seat);
    connection.feed(&early);
    // On the heap, so that the small task before and after it stays small.
    Box::pin(connection.run()).await;
    drop(watching);
}

/// Waits for the ticket in the first message.
async fn first_message<S: AsyncRead + AsyncWrite + Unpin>(
    app: &App,
    io: &mut S,
    capable: bool,
    early: &mut Vec<u8>,
) -> Result<Guest, Close> {
    let refuse = |reason, text| {
        tracing::warn!(target: "api", reason, "api.ws.ticket_invalid");
        Err(Close::new(4001, text))
    };
    let mut reader = Reader::default();
    let first = tokio::time::timeout(app.sockets.options().auth_timeout, read_message(io, &mut reader)).await;
    let text = match first {
        Err(_) => return refuse("auth_timeout", "Auth timeout"),
        Ok(None) => return refuse("invalid_auth_json", "Invalid auth message"),
        Ok(Some(text)) => text,
    };
    if text.len() > MAX_COMMAND {
        return refuse("auth_too_large", "Auth message too large");
    }
    let Ok(message) = serde_json::from_slice::<Value>(&text) else {
        return refuse("invalid_auth_json", "Invalid auth message");
    };
    if message.get("action").and_then(Value::as_str) != Some("auth") {
        return refuse("expected_auth_action", "Expected auth action");
    }
    let ticket = message.get("ticket").and_then(Value::as_str).unwrap_or_default();
    if ticket.is_empty() {
        return refuse("missing_ticket_in_auth", "Missing ticket");
    }
    let Some(identity) = consume(app, ticket).await? else {
        return refuse("invalid_or_expired", "Invalid or expired ticket");
    };
    tracing::debug!(target: "api", stage = "first_message_ticket_valid", "api.ws.auth_stage");
    *early = reader.rest();
    seat(app, identity, capable).await
}

/// The first message; pings before it are answered by silence. `None` when there will be none.
async fn read_message<S: AsyncRead + Unpin>(io: &mut S, reader: &mut Reader) -> Option<Vec<u8>> {
    let mut buffer = [0; 1024];
    loop {
        match reader.next().ok()? {
            Some(Inbound::Message(text)) => return Some(text.to_vec()),
            Some(Inbound::Close(_)) => return None,
            Some(_) => continue,
            None => {}
        }
        match io.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => reader.feed(&buffer[..read]),
        }
    }
}

/// Counts a refusal, and replaces it when its address has had too many.
async fn refused(app: &App, address: ClientAddr, close: Close) -> Close {
    let options = app.sockets.options();
    let many = !app.limits.allows_refused_handshake(address, options.refused_per_minute).await;
    let close = if many { TOO_MANY } else { close };
    app.sockets.metrics().handshake(match close.code {
        4001 => Handshake::Unauthenticated,
        4003 => Handshake::Forbidden,
        1013 => Handshake::TooMany,
        _ => Handshake::Unavailable,
    });
    close
}

/// The refusal as an HTTP answer.
fn deny(close: Close) -> Response {
    let code = match close.code {
        4001 => ErrorCode::Unauthorized,
        4003 => ErrorCode::Forbidden,
        _ => ErrorCode::ServiceUnavailable,
    };
    let error = Error::with(code, close.reason);
    ([(X_CLOSE, HeaderValue::from(close.code))], Failure(error)).into_response()
}

/// The refusal as the only frame.
async fn send_away<S: AsyncRead + AsyncWrite + Unpin>(mut io: S, close: Close) {
    let farewell = async {
        io.write_all(&codec::close(Some(close.code), close.reason)).await?;
        io.flush().await?;
        // Waiting for the client's answer first keeps the frame from being lost to a reset.
        let (mut buffer, mut reader) = ([0; 512], Reader::default());
        while !matches!(reader.next(), Ok(Some(Inbound::Close(_))) | Err(_)) {
            match io.read(&mut buffer).await? {
                0 => break,
                read => reader.feed(&buffer[..read]),
            }
        }
        io.shutdown().await
    };
    let _ = tokio::time::timeout(REFUSAL, farewell).await;
}
