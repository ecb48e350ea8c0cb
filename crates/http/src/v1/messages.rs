//! What agents say to each other, for people to read.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use chrono::{DateTime, Utc};
use quarterdeck_bus::message::{
    BusError, ChannelInfo, MAX_NAME, Message, MessageType, Metadata, Part, Priority,
};
use quarterdeck_domain::Error;
use quarterdeck_domain::channel::Channel;
use quarterdeck_domain::role::Guard;
use quarterdeck_domain::text::NotBlank;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::edge::{Data, PaginatedResponse, Result};
use crate::endpoint::{Endpoint, get};
use crate::extract::{Page, Query};
use crate::gate::Caller;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/messages", "messages.list", Guard::Read)
            .doc(
                "List messages of a channel",
                "The newest first, as far as the channel keeps them; an empty page without a channel, or for \
                 one that does not exist or that the caller may not follow.",
            )
            .query::<ListQuery>()
            .gives_page::<MessageResponse>()
            .to(list),
        get("/messages/channels", "messages.channels", Guard::Read)
            .doc("List channels of messages", "By name, with who would get a message now.")
            .gives_list::<ChannelInfo>()
            .to(channels),
    ]
}

#[derive(Deserialize, IntoParams)]
struct ListQuery {
    /// The channel, byte for byte.
    #[param(value_type = Option<String>, min_length = 1, max_length = 128)]
    channel: Option<NotBlank<MAX_NAME>>,
}

/// What an agent said.
#[derive(Serialize, ToSchema)]
#[schema(as = Message)]
struct MessageResponse {
    #[schema(format = "uuid")]
    id: String,
    timestamp: DateTime<Utc>,
    sender: String,
    /// An agent, or the channel's name.
    to: String,
    r#type: MessageType,
    priority: Priority,
    channel: String,
    #[schema(min_items = 1)]
    parts: Vec<Part>,
    metadata: Metadata,
    /// The first text part, or nothing.
    text: String,
}

impl From<Arc<Message>> for MessageResponse {
    fn from(message: Arc<Message>) -> Self {
        let text = message.text().to_owned();
        let Message { id, timestamp, sender, to, r#type, priority, channel, parts, metadata } =
            Arc::unwrap_or_clone(message);
        Self {
            id: id.to_string(),
            timestamp,
            sender: sender.into_inner(),
            to: to.into_inner(),
            r#type,
            priority,
            channel: channel.into_inner(),
            parts: parts.to_vec(),
            metadata,
            text,
        }
    }
}

async fn list(
    State(app): State<App>,
    Caller(caller): Caller,
    Query(query): Query<ListQuery>,
    page: Page,
) -> Result<impl IntoResponse> {
    // What may not be followed while it happens may not be read afterwards.
    let may_read = |name: &str| {
        Channel::parse(name).is_none_or(|channel| channel.readable_by(&caller.user_id, caller.role))
    };
    let kept = match query.channel.filter(|name| may_read(name)) {
        // A channel keeps a bounded number, so that all of them can be counted.
        Some(channel) => match app.messages.history(&channel, i64::MAX).await {
            Err(BusError::UnknownChannel(_)) => Vec::new(),
            kept => kept.map_err(Error::from)?,
        },
        None => Vec::new(),
    };
    let total = kept.len() as u64;
    let skipped = usize::try_from(page.offset).unwrap_or(usize::MAX);
    let shown = kept.into_iter().rev().skip(skipped).take(page.limit as usize);
    Ok(PaginatedResponse::new(shown.map(MessageResponse::from).collect(), page.offset, page.limit, total))
}

async fn channels(State(app): State<App>) -> Result<impl IntoResponse> {
    Ok(Data(app.messages.channels().await.map_err(Error::from)?))
}
