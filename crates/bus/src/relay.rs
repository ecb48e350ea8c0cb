//! Passing on what waits in the outbox: events of visitors beside a server with SQLite, and all events
//! where a broker carries them.

use std::sync::Arc;
use std::time::Duration;

use quarterdeck_domain::channel::Channel;
use quarterdeck_domain::{Error, Result};
use quarterdeck_store::outbox::{self, Waiting};
use quarterdeck_store::{Signal, Store, Tx, Way};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Hub;
use crate::nats::Link;

/// How often it is looked into without being called, as when a process ended between commit and call.
const LOOK: Duration = Duration::from_secs(1);
/// Events passed on in one go.
const BATCH: u32 = 256;

/// Where events go.
#[derive(Clone)]
pub(crate) enum Sink {
    /// Into the channels of this process.
    Local(Arc<Hub>),
    /// To the broker.
    Nats(Arc<Link>),
}

impl Sink {
    async fn pass_on(&self, waiting: &[Waiting]) -> Result<()> {
        match self {
            Self::Local(hub) => {
                for Waiting { channel, body, .. } in waiting {
                    let Some(channel) = Channel::parse(channel) else { continue };
                    hub.append(&hub.topic(&channel), None, body.clone().into(), hub.now());
                }
                Ok(())
            }
            Self::Nats(link) => link.publish(waiting).await,
        }
    }
}

/// Starts to pass events on.
pub(crate) fn start(store: &Store, sink: Sink, stopping: &CancellationToken, tasks: &TaskTracker) {
    let called = Arc::new(Notify::new());
    match sink {
        Sink::Local(_) => {
            // Another process has changed the file, and may have left something.
            let called = Arc::clone(&called);
            store.on_signal(move |signal| {
                if matches!(signal, Signal::Everything) {
                    called.notify_one();
                }
            });
        }
        Sink::Nats(_) => {
            store.publish_by(Way::Outbox);
            let called = Arc::clone(&called);
            store.on_outbox(move || called.notify_one());
        }
    }
    // What an earlier process has left.
    called.notify_one();
    tasks.spawn(run(store.clone(), sink, called, stopping.clone()));
}

async fn run(store: Store, sink: Sink, called: Arc<Notify>, stopping: CancellationToken) {
    let mut failing = false;
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = called.notified() => {}
            () = tokio::time::sleep(LOOK), if matches!(sink, Sink::Nats(_)) => {}
        }
        let drained = drain(&store, &sink).await;
        match drained {
            Ok(()) if failing => tracing::info!(target: "bus", "bus.relay.recovered"),
            Err(ref error) if !failing => {
                tracing::warn!(target: "bus", error = %error, cause = error.cause(), "bus.relay.failed");
            }
            _ => {}
        }
        failing = drained.is_err();
        if failing {
            called.notify_one();
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

async fn drain(store: &Store, sink: &Sink) -> Result<()> {
    loop {
        let passed = if store.backend_name() == "postgres" {
            // Other copies pass on too; the order of rows must be the order of the broker.
            let sink = sink.clone();
            store
                .write(move |tx| {
                    Box::pin(async move {
                        let waiting = outbox::claim(tx, BATCH).await?;
                        sink.pass_on(&waiting).await?;
                        forget(tx, &waiting).await
                    })
                })
                .await?
        } else {
            // The writer must not wait for a broker, and there is no other copy.
            let waiting = outbox::waiting(store, BATCH).await?;
            sink.pass_on(&waiting).await?;
            if waiting.is_empty() {
                return Ok(());
            }
            store.write(move |tx| Box::pin(async move { forget(tx, &waiting).await })).await?
        };
        if passed < BATCH as usize {
            return Ok(());
        }
    }
}

async fn forget(tx: &Tx, waiting: &[Waiting]) -> Result<usize, Error> {
    if let Some(last) = waiting.last() {
        outbox::done(tx, last.id).await?;
    }
    Ok(waiting.len())
}
