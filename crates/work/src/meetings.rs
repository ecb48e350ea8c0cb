//! Meetings: who is called together, when, and what is kept of it.
//!
//! How a meeting is held is not decided here: a [`Conductor`] holds it. That a type is not held more often
//! than it may be, on however many copies of the program, is decided by one row for each type.

mod config;

use std::collections::{BTreeMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use chrono::TimeDelta;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use quarterdeck_domain::audit::{Actor, Entry};
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::meeting::{Held, Meeting, MeetingStatus};
use quarterdeck_domain::{Error, Result};
use quarterdeck_store::meeting::{self, Filter};
use quarterdeck_store::{Listed, Store};
use serde::Deserialize;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::{Frequency, MeetingType, MeetingsConfig};

/// How long after its longest time a meeting nobody has ended counts as abandoned.
const GRACE: TimeDelta = TimeDelta::seconds(60);

/// What a meeting is called together with: names, each with one value or several.
pub type Context = BTreeMap<String, Named>;

/// What a name of a [`Context`] stands for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Named {
    /// One value.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// Why a meeting has no minutes; the texts are shown to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unheld {
    /// It went wrong.
    Failed(String),
    /// Its tokens were used up before it was summed up.
    BudgetExhausted(String),
}

/// Holds meetings, and knows the agents.
pub trait Conductor: Send + Sync + 'static {
    /// The agents that a participant of the configuration stands for: `all` of the active ones, those of a
    /// department, or one by name. Nobody when it knows of none.
    fn stands_for<'a>(&'a self, participant: &'a str) -> BoxFuture<'a, Vec<String>>;

    /// Holds a meeting, whose first participant leads it.
    fn conduct<'a>(
        &'a self,
        meeting: &'a Meeting,
        context: &'a Context,
    ) -> BoxFuture<'a, std::result::Result<Held, Unheld>>;
}

/// The meetings of the company. Clones are one.
#[derive(Clone)]
pub struct Meetings(Arc<Inner>);

struct Inner {
    store: Store,
    clock: SharedClock,
    config: MeetingsConfig,
    conductor: Option<Arc<dyn Conductor>>,
    stopping: CancellationToken,
    under_way: TaskTracker,
}

/// A meeting that has begun.
struct Begun {
    meeting: Meeting,
    end: JoinHandle<Result<Meeting>>,
}

async fn all_ended(begun: Vec<Begun>) -> Result<Vec<Meeting>> {
    let ended = join_all(begun.into_iter().map(|begun| begun.end)).await;
    let panicked = |error| Error::internal(format_args!("a meeting panicked: {error}"));
    ended.into_iter().map(|ended| ended.map_err(panicked)?).collect()
}

/// How a type is kept from being held too often.
#[derive(Clone, Copy)]
enum Pace {
    Free,
    AtLeast(TimeDelta),
    Every(TimeDelta),
}

impl Meetings {
    /// Meetings of these types; without a conductor none can be held.
    pub fn new(
        store: Store,
        clock: SharedClock,
        config: MeetingsConfig,
        conductor: Option<Arc<dyn Conductor>>,
    ) -> Self {
        let (stopping, under_way) = (CancellationToken::new(), TaskTracker::new());
        Self(Arc::new(Inner { store, clock, config, conductor, stopping, under_way }))
    }

    /// Holds every meeting that this event triggers, and waits for all if `wait` says so; without, the records
    /// are those of meetings that have just begun. Types that were held too short a time ago, or for which
    /// fewer than two participants are found, are left out.
    ///
    /// # Errors
    /// 503/8001 when there is something to hold and nobody who could.
    pub async fn trigger(
        &self,
        event: &str,
        context: Context,
        wait: bool,
        actor: &Actor,
    ) -> Result<Vec<Meeting>> {
        let called = self.called_by(event);
        if called.is_empty() {
            return Ok(Vec::new());
        }
        let conductor = self.0.conductor.clone().ok_or_else(nobody_conducts)?;
        let context = Arc::new(context);
        let mut begun = Vec::new();
        for kind in called {
            let pace = kind.min_interval().map_or(Pace::Free, Pace::AtLeast);
            begun.extend(self.begin(&conductor, kind, &context, pace, actor).await?);
        }
        if wait { all_ended(begun).await } else { Ok(begun.into_iter().map(|begun| begun.meeting).collect()) }
    }

    fn called_by(&self, event: &str) -> Vec<&MeetingType> {
        let MeetingsConfig { enabled, types, .. } = &self.0.config;
        types.iter().filter(|kind| *enabled && kind.trigger.as_deref() == Some(event)).collect()
    }

    /// Holds what is due by its frequency, and waits for it; how many were held by this call. The first of a
    /// type comes a whole pause after the type was first seen.
    ///
    /// # Errors
    /// The store's own; what is due stays due.
    pub async fn hold_due(&self) -> Result<usize> {
        Ok(all_ended(self.begin_due().await?).await?.len())
    }

    async fn begin_due(&self) -> Result<Vec<Begun>> {
        let Some(conductor) = self.0.conductor.clone().filter(|_| self.0.config.enabled) else {
            return Ok(Vec::new());
        };
        let (actor, context) = (Actor::system("meetings.schedule"), Arc::new(Context::new()));
        let mut begun = Vec::new();
        for kind in &self.0.config.types {
            if let Some(frequency) = kind.frequency {
                let pace = Pace::Every(frequency.pause());
                begun.extend(self.begin(&conductor, kind, &context, pace, &actor).await?);
            }
        }
        Ok(begun)
    }

    async fn begin(
        &self,
        conductor: &Arc<dyn Conductor>,
        kind: &MeetingType,
        context: &Arc<Context>,
        pace: Pace,
        actor: &Actor,
    ) -> Result<Option<Begun>> {
        let participants = participants(&**conductor, kind, context).await;
        if participants.len() < 2 {
            tracing::warn!(target: "communication", kind = kind.name, "communication.meeting.too_few");
            return Ok(None);
        }
        let now = self.0.clock.now();
        let meeting =
            Meeting::begin(kind.name.clone(), kind.protocol, kind.duration_tokens, participants, now);
        if !self.claim(&meeting, pace, actor).await? {
            return Ok(None);
        }
        // A task of its own: what has begun goes on when whoever called goes away.
        let conducted = self.clone().conduct(Arc::clone(conductor), meeting.clone(), Arc::clone(context));
        Ok(Some(Begun { meeting, end: self.0.under_way.spawn(conducted) }))
    }

    /// Claims the meeting and puts it on record, in one step; whether it may be held.
    async fn claim(&self, meeting: &Meeting, pace: Pace, actor: &Actor) -> Result<bool> {
        let sentence = format!("Meeting '{}' was called together", meeting.id);
        let entry = Entry::new(actor, "meeting:start", meeting.started_at, sentence);
        let meeting = meeting.clone();
        let claim = self.0.store.write(move |tx| {
            Box::pin(async move {
                let (kind, now) = (&meeting.type_name, meeting.started_at);
                let claimed = match pace {
                    Pace::Free => true,
                    Pace::AtLeast(pause) => meeting::claim(tx, kind, pause, now).await?,
                    Pace::Every(pause) => meeting::claim_next(tx, kind, pause, now).await?,
                };
                if claimed {
                    meeting::insert(tx, &meeting).await?;
                    tx.audit(entry);
                }
                Ok(claimed)
            })
        });
        claim.await
    }

    async fn conduct(
        self,
        conductor: Arc<dyn Conductor>,
        meeting: Meeting,
        context: Arc<Context>,
    ) -> Result<Meeting> {
        let conducted = tokio::time::timeout(
            self.0.config.timeout(),
            AssertUnwindSafe(conductor.conduct(&meeting, &context)).catch_unwind(),
        );
        let outcome = match self.0.stopping.run_until_cancelled(conducted).await {
            Some(Ok(Ok(outcome))) => outcome,
            Some(Ok(Err(_))) => Err(Unheld::Failed("The meeting ended unexpectedly".to_owned())),
            Some(Err(_)) => Err(Unheld::Failed("The meeting took too long".to_owned())),
            None => Err(Unheld::Failed("The server stopped".to_owned())),
        };
        let now = self.0.clock.now();
        let ended = match outcome {
            Ok(held) => meeting.clone().complete(held, now).unwrap_or_else(|error| {
                let id = &meeting.id;
                tracing::error!(target: "communication", id, error = %error, "communication.meeting.broken_minutes");
                meeting.fail(MeetingStatus::Failed, "The minutes contradict themselves".to_owned())
            }),
            Err(Unheld::Failed(why)) => meeting.fail(MeetingStatus::Failed, spoken(why)),
            Err(Unheld::BudgetExhausted(why)) => meeting.fail(MeetingStatus::BudgetExhausted, spoken(why)),
        };
        // Whoever was faster has written how it ended.
        if self.finish(&ended).await? { Ok(ended) } else { self.get(&ended.id).await }
    }

    async fn finish(&self, ended: &Meeting) -> Result<bool> {
        let now = self.0.clock.now();
        let sentence = format!("Meeting '{}' ended as {}", ended.id, ended.status);
        let entry = Entry::new(&Actor::system("meetings.conduct"), "meeting:end", now, sentence);
        let ended = ended.clone();
        let finish = self.0.store.write(move |tx| {
            Box::pin(async move {
                let finished = meeting::finish(tx, &ended, now).await?;
                if finished {
                    tx.audit(entry);
                }
                Ok(finished)
            })
        });
        finish.await
    }

    /// Records as failed what nobody holds any more, because the copy of the program that did is gone; how
    /// many.
    ///
    /// # Errors
    /// The store's own.
    pub async fn sweep(&self) -> Result<usize> {
        let longest = TimeDelta::seconds(self.0.config.timeout_seconds.into()) + GRACE;
        let abandoned = meeting::abandoned(self.0.store.read(), self.0.clock.now() - longest).await?;
        let mut swept = 0;
        for meeting in abandoned {
            let failed =
                meeting.fail(MeetingStatus::Failed, "The server ended during the meeting".to_owned());
            swept += usize::from(self.finish(&failed).await?);
        }
        Ok(swept)
    }

    /// Sweeps, and begins what is due; to be called now and then. Failures are logged.
    pub async fn upkeep(&self) {
        for done in [self.sweep().await.map(drop), self.begin_due().await.map(drop)] {
            if let Err(error) = done {
                tracing::error!(target: "work", error = %error, cause = error.cause(), "meetings.upkeep.failed");
            }
        }
    }

    /// Breaks off what is being held here; it is recorded as failed.
    pub async fn stop(&self) {
        self.0.stopping.cancel();
        self.0.under_way.close();
        self.0.under_way.wait().await;
    }

    /// Meetings in the order of their beginning.
    ///
    /// # Errors
    /// The store's own.
    pub async fn list(&self, filter: &Filter, offset: u64, limit: u64) -> Result<Listed<Meeting>> {
        meeting::page(self.0.store.read(), filter, offset, limit).await
    }

    /// One meeting.
    ///
    /// # Errors
    /// 404/3000 when there is none; 500/8002 when its row cannot be read.
    pub async fn get(&self, id: &str) -> Result<Meeting> {
        meeting::by_id(self.0.store.read(), id).await?.ok_or_else(|| Error::missing("Meeting", id))
    }
}

/// Who takes part, each once: what the context says a name stands for, else what the conductor knows it as,
/// else the name itself.
async fn participants(conductor: &dyn Conductor, kind: &MeetingType, context: &Context) -> Vec<String> {
    let mut all = Vec::new();
    for name in &kind.participants {
        match context.get(name) {
            Some(Named::One(agent)) => all.push(agent.clone()),
            Some(Named::Many(agents)) => all.extend_from_slice(agents),
            None => {
                let agents = conductor.stands_for(name).await;
                match agents.is_empty() && name != "all" {
                    true => all.push(name.clone()),
                    false => all.extend(agents),
                }
            }
        }
    }
    let mut seen = HashSet::new();
    all.retain(|agent| !agent.trim().is_empty() && seen.insert(agent.clone()));
    all
}

/// A reason that is never blank, and that every database can store.
fn spoken(why: String) -> String {
    let why = why.replace('\0', "");
    if why.trim().is_empty() { "No reason was given".to_owned() } else { why }
}

fn nobody_conducts() -> Error {
    Error::unavailable("no conductor of meetings is wired", 60)
}
