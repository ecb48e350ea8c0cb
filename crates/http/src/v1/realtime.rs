//! The socket, and who is connected to one.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::IntoResponse;
use chrono::{DateTime, Utc};
use quarterdeck_domain::ErrorCode;
use quarterdeck_domain::role::Guard;
use quarterdeck_store::{from_micros, presence};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::edge::{Data, Result};
use crate::endpoint::{Endpoint, get};
use crate::ws;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/ws", "ws.connect", Guard::Public)
            .always_public()
            .ungated()
            .doc(
                "Follow events over a WebSocket",
                "Answers 101 to a WebSocket handshake. A one-time ticket of `POST /auth/ws-ticket` proves who \
                 asks: as the parameter `ticket`, or as the subprotocol `quarterdeck.ticket.<ticket>` beside \
                 `quarterdeck.v1`. Refusals are close frames: 4001, 4003, 1011, 1013.",
            )
            .query::<TicketParameter>()
            .switches_protocols()
            .fails(&[ErrorCode::RequestValidationError, ErrorCode::Forbidden])
            .to(ws::connect),
        get("/ws/presence", "ws.presence", Guard::CeoOrManager)
            .doc("Show who is connected", "On every copy of the program.")
            .gives_list::<PresenceEntry>()
            .to(show_presence),
    ]
}

/// The ticket, for clients that cannot offer it as a subprotocol.
#[derive(serde::Deserialize, utoipa::IntoParams)]
#[allow(dead_code, reason = "documentation; the handshake reads the query itself")]
struct TicketParameter {
    /// 43 URL-safe characters, good once.
    ticket: Option<String>,
}

/// Somebody with a socket.
#[derive(Serialize, ToSchema)]
struct PresenceEntry {
    /// Whose.
    user_id: String,
    /// How many; 0 for a few seconds after the last one.
    connections: i64,
    /// Since when there was always one.
    since: DateTime<Utc>,
}

async fn show_presence(State(app): State<App>) -> Result<impl IntoResponse> {
    let mut all: BTreeMap<String, (i64, DateTime<Utc>)> = BTreeMap::new();
    for (user_id, present) in app.sockets.present() {
        all.insert(user_id.to_string(), (i64::from(present.connections), present.since));
    }
    if app.store.backend_name() == "postgres" {
        let others = presence::of_others(&app.store, app.sockets.instance(), app.clock.now()).await?;
        for other in others {
            let since = from_micros(other.since);
            let entry = all.entry(other.user_id).or_insert((0, since));
            *entry = (entry.0 + other.connections, entry.1.min(since));
        }
    }
    let entry = |(user_id, (connections, since))| PresenceEntry { user_id, connections, since };
    Ok(Data(all.into_iter().map(entry).collect::<Vec<_>>()))
}
