//! The audit trail: reading it, giving it away, and proving that nobody has touched it.

mod export;

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::stream::{Stream, try_unfold};
use metrics::{Key, KeyName, Label, Level, Metadata, Recorder, SharedString};
use quarterdeck_domain::Result;
use quarterdeck_domain::audit::{Actor, Entry};
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::notification::{Category, Notification, Severity};
use quarterdeck_store::Store;
use quarterdeck_store::audit::{self, Anchor, Filter, Record, Report, Stored};
use tokio_util::sync::CancellationToken;

use crate::notifications::Notifications;

pub use export::{Format, page};

/// Pause between two verifications.
const DAILY: Duration = Duration::from_secs(24 * 60 * 60);

const APPENDS: &str = "quarterdeck_audit_chain_appends_total";
const DEPTH: &str = "quarterdeck_audit_chain_depth";
const WRITTEN: &str = "quarterdeck_audit_chain_last_append_timestamp_seconds";
const INTACT: &str = "quarterdeck_audit_chain_intact";
const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

const UNKNOWN: u8 = 2;

/// The audit trail as a service. Cheap to clone.
#[derive(Clone)]
pub struct Audit(Arc<Inner>);

struct Inner {
    store: Store,
    clock: SharedClock,
    notifications: Notifications,
    /// Where the last walk ended. It must still be there on the next one, whatever the database says then.
    seen: Mutex<Option<Anchor>>,
    /// 0 broken, 1 intact, 2 not known yet.
    intact: AtomicU8,
}

/// What is given away.
#[derive(Clone, Copy, Debug)]
pub struct Export {
    /// In which form.
    pub format: Format,
    /// The first instant; `None` = from the beginning.
    pub since: Option<DateTime<Utc>>,
    /// The last instant; now at the latest.
    pub until: Option<DateTime<Utc>>,
}

impl Audit {
    /// A trail in this store; a break is told through `notifications`.
    pub fn new(store: Store, clock: SharedClock, notifications: Notifications) -> Self {
        let (seen, intact) = (Mutex::default(), AtomicU8::new(UNKNOWN));
        Self(Arc::new(Inner { store, clock, notifications, seen, intact }))
    }

    /// Entries, newest first, and how many there are, both within the newest `most`.
    ///
    /// # Errors
    /// 422/2000 when SQLite is asked about matched rules; the store's own.
    pub async fn page(
        &self,
        filter: &Filter,
        most: u64,
        offset: u64,
        limit: u64,
    ) -> Result<(Vec<Record>, u64)> {
        audit::page(self.0.store.read(), filter, most, offset, limit).await
    }

    /// Records that this copy of the program has begun. Its entry also puts the key in use under the end of
    /// the chain, which may have been signed with an older one.
    ///
    /// # Errors
    /// The store's own.
    pub async fn started(&self, version: &str) -> Result<()> {
        let reason = format!("The server has started, version {version}");
        self.record(Entry::new(&Actor::system("serve"), "system:start", self.0.clock.now(), reason)).await
    }

    /// Walks the whole chain. A break is logged and told, once until it is mended or five minutes are over.
    ///
    /// # Errors
    /// The store's own.
    pub async fn verify(&self) -> Result<Report> {
        let anchors: Vec<_> = self.seen().clone().into_iter().collect();
        let report = self.0.store.verify_audit(&anchors).await?;
        let Report { entries, position, link, unsigned, unknown_key, .. } = &report;
        self.0.intact.store(u8::from(report.is_intact()), Ordering::Relaxed);
        match &report.fault {
            None => {
                tracing::info!(
                    target: "security", entries, position, link, unsigned, unknown_key, "security.audit.verified"
                );
                *self.seen() = report.anchor();
            }
            Some(fault) => {
                let (position, what) = (fault.position, fault.what);
                tracing::error!(target: "security", position, what, "security.audit.broken");
                self.0.notifications.send(self.alarm(position, what));
            }
        }
        Ok(report)
    }

    fn alarm(&self, position: i64, what: &str) -> Notification {
        let title = "The audit trail is broken";
        Notification::new(Category::Security, Severity::Critical, "audit.chain", title, self.0.clock.now())
            .body(format!(
                "Entry {position} {what}. Somebody has changed the database by other means than this program, \
                 or it was restored wrongly. Keep a copy of it as it is before anything else."
            ))
            .with("position", position)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Option<Anchor>> {
        self.0.seen.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Verifies now and then once a day, until told to stop.
    pub async fn watch(self, stopping: CancellationToken) {
        loop {
            let verified = tokio::select! {
                () = stopping.cancelled() => return,
                verified = self.verify() => verified,
            };
            if let Err(error) = verified {
                tracing::error!(target: "security", error = %error, cause = error.cause(), "security.audit.unverified");
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(DAILY) => {}
            }
        }
    }

    /// Gives the trail away, oldest first, in pieces of whole lines. That it was given away is recorded
    /// before the first of them.
    ///
    /// # Errors
    /// The store's own, at once or in the middle.
    pub async fn export(
        &self,
        export: Export,
        actor: &Actor,
    ) -> Result<impl Stream<Item = Result<String>> + Send + use<>> {
        let now = self.0.clock.now();
        let reason = format!("Took a copy of the audit trail as {}", export.format.as_str());
        self.record(Entry::new(actor, "audit:export", now, reason)).await?;
        // Without an end, a busy trail would never be given away as a whole.
        let export = Export { until: Some(export.until.map_or(now, |until| until.min(now))), ..export };
        Ok(pieces(self.0.store.clone(), export))
    }

    async fn record(&self, entry: Entry) -> Result<()> {
        let write = self.0.store.write(move |tx| {
            Box::pin(async move {
                tx.audit(entry);
                Ok(())
            })
        });
        write.await
    }

    /// Writes the figures of the chain.
    pub fn publish(&self, recorder: &impl Recorder) {
        let describe = SharedString::const_str;
        recorder.describe_counter(
            KeyName::from(APPENDS),
            None,
            describe("Audit entries by what became of them."),
        );
        recorder.describe_gauge(
            KeyName::from(DEPTH),
            None,
            describe("Audit entries when this copy wrote last."),
        );
        recorder.describe_gauge(
            KeyName::from(WRITTEN),
            None,
            describe("When this copy wrote the last audit entry."),
        );
        recorder.describe_gauge(
            KeyName::from(INTACT),
            None,
            describe("Whether the last verification found no break."),
        );
        let stats = self.0.store.audit_stats();
        for (status, count) in
            [("signed", stats.signed), ("fallback", stats.unsigned), ("error", stats.failed)]
        {
            let labels = vec![Label::from_static_parts("status", status)];
            recorder.register_counter(&Key::from_parts(APPENDS, labels), &METADATA).absolute(count);
        }
        recorder.register_gauge(&Key::from_static_name(DEPTH), &METADATA).set(stats.depth as f64);
        recorder.register_gauge(&Key::from_static_name(WRITTEN), &METADATA).set(stats.written_at);
        let intact = self.0.intact.load(Ordering::Relaxed);
        if intact != UNKNOWN {
            recorder.register_gauge(&Key::from_static_name(INTACT), &METADATA).set(f64::from(intact));
        }
    }
}

/// The lines of an export, page by page.
fn pieces(store: Store, export: Export) -> impl Stream<Item = Result<String>> + Send {
    try_unfold(Some(None::<Stored>), move |place| {
        let store = store.clone();
        async move {
            let Some(last) = place else { return Ok(None) };
            let page = page(&store, export, last.as_ref()).await?;
            let head = if last.is_none() { export.format.head() } else { "" };
            Ok(match page {
                None if head.is_empty() => None,
                None => Some((head.to_owned(), None)),
                Some((lines, last)) => Some((format!("{head}{lines}"), Some(Some(last)))),
            })
        }
    })
}
