//! What a socket answers to commands, and what becomes of it when rights change.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use quarterdeck_bus::{Form, Lost, Position, Topic};
use quarterdeck_domain::channel::Channel;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncWrite};

use super::codec;
use super::command::{self, Command, Filters, Refusal, reply};
use super::connection::{Close, Connection};
use super::metrics::Dropped;
use crate::rights::Verdict;

/// Replies that may wait for a capable client.
pub(super) const LANE: usize = 16;
/// Most events, and bytes, that one subscribe brings back.
const MAX_REPLAY: usize = 1000;
const MAX_REPLAY_BYTES: usize = 1 << 20;
/// Characters of what a client sent that a log may hold.
const PREVIEW: usize = 100;

#[derive(Serialize)]
struct Pong {
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    positions: Option<BTreeMap<String, Position>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

#[derive(Serialize)]
struct Refused {
    error: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

#[derive(Serialize)]
struct Ack {
    action: &'static str,
    channels: Vec<String>,
    #[serde(flatten)]
    more: Option<More>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

/// What only capable clients are told.
#[derive(Default, Serialize)]
struct More {
    positions: BTreeMap<String, Position>,
    recovery: BTreeMap<String, Recovery>,
    denied: Vec<Denied>,
}

#[derive(Serialize)]
struct Recovery {
    recovered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Denied {
    channel: String,
    reason: &'static str,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Carries out what a client sent and answers it with exactly one reply.
    pub(super) async fn carry_out(&mut self, text: &[u8]) {
        let (command, id) = command::parse(text);
        let id = id.filter(|_| self.peer.is_capable);
        let metrics = self.app.sockets.metrics();
        match command {
            Err(refusal) => {
                metrics.command("refused");
                self.log_refusal(refusal, text);
                let code = self.peer.is_capable.then(|| refusal.code());
                self.answer(reply(&Refused { error: refusal.text(), code, id }));
            }
            Ok(Command::Ping) => {
                metrics.command("ping");
                let positions = self.peer.is_capable.then(|| self.peer.positions().into_iter().collect());
                self.answer(reply(&Pong { action: "pong", positions, id }));
            }
            Ok(Command::Unsubscribe { channels }) => {
                metrics.command("unsubscribe");
                if !self.may_answer() {
                    return;
                }
                for channel in channels.iter().filter_map(|name| Channel::parse(name)) {
                    self.peer.leave(&channel);
                }
                tracing::info!(target: "api", user_id = %self.peer.user_id, ?channels, "api.ws.unsubscribe");
                self.acknowledge("unsubscribed", None, id);
            }
            Ok(Command::Subscribe { channels, filters, recover, batch }) => {
                metrics.command("subscribe");
                if self.may_answer() {
                    self.subscribe(channels, filters.as_ref(), &recover, batch, id).await;
                }
            }
        }
    }

    fn log_refusal(&self, refusal: Refusal, text: &[u8]) {
        // Sanitised by its Debug form, which escapes what a terminal would obey.
        let preview: String = String::from_utf8_lossy(text).chars().take(PREVIEW).collect();
        let (user_id, reason) = (&self.peer.user_id, refusal.code());
        match refusal {
            Refusal::UnknownAction => {
                tracing::warn!(target: "api", %user_id, "api.ws.unknown_action");
            }
            _ => tracing::warn!(target: "api", %user_id, reason, "api.ws.invalid_message"),
        }
        tracing::debug!(target: "api", %user_id, ?preview, "api.ws.invalid_message.preview");
    }

    /// Whether a plain client can be told of a change: state must not run ahead of what it knows.
    fn may_answer(&self) -> bool {
        let fits = self.peer.is_capable || self.peer.has_room();
        if !fits {
            self.app.sockets.metrics().dropped(Dropped::Reply, 1);
        }
        fits
    }

    fn answer(&mut self, frame: Bytes) {
        if !self.peer.is_capable {
            if !self.peer.enqueue(frame) {
                self.app.sockets.metrics().dropped(Dropped::Reply, 1);
            }
        } else if self.lane_replies == LANE {
            self.close(Close::new(1008, "Too many unread replies"));
        } else {
            self.lane.push_back(frame);
            self.lane_replies += 1;
        }
    }

    fn acknowledge(&mut self, action: &'static str, more: Option<More>, id: Option<String>) {
        let ack = Ack { action, channels: self.peer.channels(), more, id };
        self.answer(reply(&ack));
    }

    async fn subscribe(
        &mut self,
        names: Vec<String>,
        filters: Option<&Filters>,
        recover: &Map<String, Value>,
        batch: Option<bool>,
        id: Option<String>,
    ) {
        let mut more = More::default();
        let mut topics: Vec<Arc<Topic>> = Vec::new();
        for name in names {
            match self.topic(&name) {
                Ok(topic) if topics.iter().any(|known| Arc::ptr_eq(known, &topic)) => {}
                Ok(topic) => topics.push(topic),
                Err(reason) => more.denied.push(Denied { channel: name, reason }),
            }
        }
        if let (Some(batch), true) = (batch, self.peer.is_capable) {
            self.peer.set_batch(batch);
        }
        let mut replays = Vec::new();
        let mut room = (MAX_REPLAY, MAX_REPLAY_BYTES);
        for topic in &topics {
            self.peer.listen(topic, filters, true, self.app.bus.now_micros());
            if !self.peer.is_capable {
                continue;
            }
            let name = topic.channel().to_string();
            if let Some(from) = recover.get(&name) {
                let recovery = self.recover(topic, from, &mut room, &mut replays).await;
                self.app.sockets.metrics().recovery(recovery.reason.unwrap_or("recovered"));
                more.recovery.insert(name.clone(), recovery);
            }
            if let Some(position) = self.peer.position(topic.channel()) {
                more.positions.insert(name, position);
            }
        }
        let channels = self.peer.channels();
        tracing::info!(target: "api", user_id = %self.peer.user_id, ?channels, "api.ws.subscribe");
        let more = self.peer.is_capable.then_some(more);
        self.acknowledge("subscribed", more, id);
        self.lane.extend(replays);
    }

    /// The channel of a name, or why it is not for this client.
    fn topic(&self, name: &str) -> Result<Arc<Topic>, &'static str> {
        match Channel::parse(name) {
            Some(Channel::Shared(shared)) if shared.readable_by(self.peer.role()) => {
                Ok(Arc::clone(self.app.bus.shared(shared)))
            }
            Some(Channel::Shared(_)) => Err("forbidden"),
            Some(Channel::User(id)) if *id == *self.peer.user_id => Ok(Arc::clone(&self.own)),
            Some(Channel::User(_)) => {
                tracing::warn!(target: "api", user_id = %self.peer.user_id, "api.ws.user_channel_denied");
                Err("unknown")
            }
            None => Err("unknown"),
        }
    }

    async fn recover(
        &mut self,
        topic: &Arc<Topic>,
        from: &Value,
        room: &mut (usize, usize),
        replays: &mut Vec<Bytes>,
    ) -> Recovery {
        let failed = |reason| Recovery { recovered: false, count: None, reason: Some(reason) };
        // A position no server has given is of no epoch.
        let from = command::position(from).unwrap_or(Position { epoch: "".into(), seq: 0 });
        let (cut, missed) = self.app.bus.recover(topic, &from).await;
        let missed = match missed {
            Ok(missed) if missed.iter().any(|event| event.is_oversized()) => Err(Lost::Gap),
            missed => missed,
        };
        let events = match missed {
            Ok(missed) => self.peer.go_on_from(topic.channel(), cut, &missed),
            Err(lost) => {
                self.peer.go_on_from(topic.channel(), cut, &[]);
                return failed(match lost {
                    Lost::EpochChanged => "epoch_changed",
                    Lost::Gap => "gap",
                    Lost::Ahead => "ahead",
                    Lost::Disabled => "disabled",
                });
            }
        };
        let bytes: usize = events.iter().map(|event| event.size()).sum();
        if events.len() > room.0 || bytes > room.1 {
            return failed("too_large");
        }
        *room = (room.0 - events.len(), room.1 - bytes);
        replays.extend(events.iter().map(|event| event.form(Form::Replayed, codec::text).clone()));
        Recovery { recovered: true, count: Some(events.len()), reason: None }
    }

    /// Asks for the rights behind this socket and acts on them.
    pub(super) async fn recheck(&mut self, is_due: bool) {
        match self.rights.ask(&self.app.auth, &self.identity, is_due).await {
            Verdict::Stays(now) if now.must_change_password => {
                self.close(Close::new(4003, "Password change required"));
            }
            Verdict::Stays(now) => {
                let role = now.role;
                self.identity = *now;
                if self.peer.role() != role && self.peer.set_role(role) {
                    self.acknowledge("unsubscribed", None, None);
                }
            }
            Verdict::Goes(why) => {
                self.close(Close::new(
                    4003,
                    match why {
                        "user_deleted" => "Session revoked (user_deleted)",
                        "role_demoted" => "Session revoked (role_demoted)",
                        _ => "Session revoked (session_revoked)",
                    },
                ));
            }
            Verdict::Unknown => {}
            Verdict::Exhausted => self.close(Close::new(4011, "Revalidation backend unavailable")),
        }
    }
}
