//! One subscription on this copy: takes turns in fetching, so that no message is lost when somebody stops
//! waiting.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::consumer::{PullConsumer, pull};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::{Context, Message as Letter};
use async_nats::{StatusCode, Subject};
use futures_util::StreamExt;
use tokio::sync::Mutex as Turn;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::link::{Link, lost};
use crate::message::bus::MAX_MESSAGE_BYTES;
use crate::message::error::{BusError, Result};
use crate::message::model::Message;

/// Longest time the server keeps one question.
const LONGEST_FETCH: Duration = Duration::from_secs(60);
/// How often the server says that it still has a question; told only about longer ones.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Shortest time between two reports of one slow subscriber.
const REPORTS: Duration = Duration::from_secs(60);

pub(super) struct Mailbox {
    pub(super) channel: String,
    pub(super) subscriber: String,
    /// Only messages addressed to the subscriber are for it.
    pub(super) addressed: bool,
    pub(super) jetstream: Context,
    pub(super) consumer: PullConsumer,
    pub(super) link: Arc<Link>,
    /// How long an answer may take once it is due.
    pub(super) patience: Duration,
    /// More messages behind than this is slow.
    pub(super) queue_size: u64,
    pub(super) work: TaskTracker,
    /// The subscription is gone.
    pub(super) closed: CancellationToken,
    /// The question under way. Whoever holds the turn waits for it; when they leave, the next takes over, and
    /// with it the message that may have come.
    pub(super) fetch: Turn<Option<JoinHandle<Fetched>>>,
    pub(super) reported: Mutex<Option<Instant>>,
}

/// What became of a question.
pub(super) enum Fetched {
    Message(Arc<Message>),
    /// Something came that is not to be given to anyone.
    Skipped,
    Nothing,
    /// The subscription was removed, here or elsewhere.
    Gone,
    Failed(BusError),
}

impl Mailbox {
    pub(super) async fn receive(
        self: &Arc<Self>,
        patience: Option<Duration>,
    ) -> Result<Option<Arc<Message>>> {
        // A time beyond the clock's end is no end.
        let deadline = patience.and_then(|patience| Instant::now().checked_add(patience));
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Ok(None),
            received = self.take(deadline) => received,
        }
    }

    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    async fn take(self: &Arc<Self>, deadline: Option<Instant>) -> Result<Option<Arc<Message>>> {
        let mut turn = tokio::select! {
            biased;
            turn = self.fetch.lock() => turn,
            () = end(deadline) => return Ok(None),
        };
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let taken_over = turn.is_some();
            let fetch = turn.get_or_insert_with(|| {
                let wait = left.unwrap_or(LONGEST_FETCH).min(LONGEST_FETCH);
                self.work.spawn(Arc::clone(self).fetch(wait))
            });
            let fetched = tokio::select! {
                biased;
                fetched = &mut *fetch => fetched,
                // A question of one's own ends by itself, with the server's word that there was nothing.
                () = end(deadline), if taken_over => return Ok(None),
            };
            *turn = None;
            match fetched.unwrap_or_else(|error| Fetched::Failed(BusError::server("receive", error))) {
                Fetched::Message(message) => return Ok(Some(message)),
                Fetched::Gone => {
                    self.close();
                    return Ok(None);
                }
                Fetched::Failed(error) => return Err(error),
                Fetched::Nothing if !taken_over && left.is_some_and(|left| left <= LONGEST_FETCH) => {
                    return Ok(None);
                }
                Fetched::Skipped | Fetched::Nothing => {}
            }
        }
    }

    /// Asks for one message and acknowledges it. Ends within `wait` and the time an answer may take, earlier
    /// when the server falls silent, and at once when the subscription or the connection goes.
    async fn fetch(self: Arc<Self>, wait: Duration) -> Fetched {
        if let Err(error) = self.link.check() {
            return Fetched::Failed(error);
        }
        let loss = self.link.loss();
        tokio::select! {
            biased;
            fetched = self.ask(wait) => fetched.unwrap_or_else(Fetched::Failed),
            () = self.closed.cancelled() => Fetched::Gone,
            () = loss => Fetched::Failed(lost()),
        }
    }

    async fn ask(&self, wait: Duration) -> Result<Fetched> {
        let failed = |error: &dyn std::fmt::Display| BusError::server("receive", error);
        let client = &self.link.client;
        let inbox = Subject::from(client.new_inbox());
        let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| failed(&error))?;
        let long = wait >= HEARTBEAT * 2;
        let question = pull::BatchConfig {
            batch: 1,
            expires: Some(wait).filter(|wait| !wait.is_zero()),
            no_wait: wait.is_zero(),
            idle_heartbeat: if long { HEARTBEAT } else { Duration::ZERO },
            ..pull::BatchConfig::default()
        };
        let silence = if long { HEARTBEAT } else { wait }.saturating_add(self.patience);
        self.consumer.request_batch(question, inbox).await.map_err(|error| failed(&error))?;
        let message = loop {
            let answer = match timeout(silence, answers.next()).await {
                Ok(answer) => answer.ok_or_else(lost)?,
                // A server before 2.10 says nothing to who asks a consumer that is gone.
                Err(_) => return Ok(self.explain("no answer in time").await),
            };
            match answer.status {
                None | Some(StatusCode::OK) => break answer,
                Some(StatusCode::IDLE_HEARTBEAT) => {}
                Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => return Ok(Fetched::Nothing),
                Some(status) => {
                    let why = answer.description.as_deref().unwrap_or_default();
                    // Said while the consumer can still be found.
                    if why == "Consumer Deleted" {
                        return Ok(Fetched::Gone);
                    }
                    return Ok(self.explain(&format!("{status} {why}")).await);
                }
            }
        };
        let letter = Letter { message, context: self.jetstream.clone() };
        letter.ack().await.map_err(|error| failed(&error))?;
        self.report(letter.info().map_or(0, |info| info.pending));
        Ok(match open(&letter.payload) {
            Ok(message) if self.addressed && message.to.as_str() != self.subscriber => Fetched::Skipped,
            Ok(message) => Fetched::Message(Arc::new(message)),
            Err(reason) => {
                tracing::warn!(
                    target: "communication", channel = self.channel, subscriber = self.subscriber, reason,
                    bytes = letter.payload.len(), "communication.bus.message_unreadable"
                );
                Fetched::Skipped
            }
        })
    }

    /// The server does not answer the question: because the subscription is gone, or for another reason.
    async fn explain(&self, why: &str) -> Fetched {
        match timeout(self.patience, self.consumer.get_info()).await {
            Ok(Err(error)) if error.kind() == ConsumerInfoErrorKind::NotFound => Fetched::Gone,
            _ => Fetched::Failed(BusError::server("receive", why)),
        }
    }

    fn report(&self, behind: u64) {
        if behind < self.queue_size {
            return;
        }
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.is_none_or(|at| at.elapsed() >= REPORTS) {
            *reported = Some(Instant::now());
            tracing::warn!(
                target: "communication", channel = self.channel, subscriber = self.subscriber, behind,
                "communication.bus.subscriber_slow"
            );
        }
    }
}

/// Resolves at the deadline, or never.
async fn end(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Reads a message, or says why it cannot be given to anyone, without what it says.
pub(super) fn open(json: &[u8]) -> std::result::Result<Message, &'static str> {
    if json.len() > MAX_MESSAGE_BYTES {
        return Err("too large");
    }
    serde_json::from_slice(json).map_err(|_| "no message")
}
