//! What was said on a channel, read from the stream's beginning.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::Stream;
use futures_util::TryStreamExt;

use super::mailbox::open;
use crate::message::bus::HistorySettings;
use crate::message::error::{BusError, Result};
use crate::message::model::Message;

/// After this time the server forgets a reader that was left behind.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// The last `limit` messages of a subject, the oldest first.
pub(super) async fn read(
    stream: &Stream<()>,
    subject: String,
    limit: usize,
    settings: HistorySettings,
) -> Result<Vec<Arc<Message>>> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let failed = |error: &dyn std::fmt::Display| BusError::server("read a history", error);
    let reader = pull::Config {
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::None,
        filter_subject: subject,
        inactive_threshold: FORGOTTEN,
        ..pull::Config::default()
    };
    let reader = stream.create_consumer(reader).await.map_err(|error| failed(&error))?;
    let (mut last, mut left) = (VecDeque::new(), reader.cached_info().num_pending);
    while left > 0 {
        let batch = reader.batch().max_messages(settings.batch_size.max(1)).expires(settings.fetch_timeout);
        let mut batch = batch.messages().await.map_err(|error| failed(&error))?;
        let mut came = false;
        while left > 0
            && let Some(letter) = batch.try_next().await.map_err(|error| failed(&error))?
        {
            came = true;
            left = letter.info().map_or(0, |info| info.pending);
            if let Ok(message) = open(&letter.payload) {
                if last.len() >= limit {
                    last.pop_front();
                }
                last.push_back(Arc::new(message));
            }
        }
        if !came {
            tracing::warn!(target: "communication", left, "communication.bus.history_cut");
            break;
        }
    }
    // Only tidiness: the server would forget it by itself.
    let _ = stream.delete_consumer(&reader.cached_info().name).await;
    Ok(last.into())
}
