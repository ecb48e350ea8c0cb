//! Events and audit entries committed with the change they tell of, and how events leave the database.

use std::sync::RwLock;
use std::sync::atomic::{AtomicU8, Ordering};

use quarterdeck_domain::Result;
use quarterdeck_domain::event::Event;

use crate::audit::Chain;
use crate::tx::Done;
use crate::{Tx, event_log, outbox};

/// What becomes of the events of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Way {
    /// They are handed to this process after the commit; it is the only one (SQLite).
    Direct,
    /// They are rows of the shared log, which every copy of the program reads (PostgreSQL).
    Log,
    /// They are rows of the outbox until somebody has passed them on.
    Outbox,
}

type Told = Box<dyn Fn(Vec<Event>) + Send + Sync>;
type Logged = Box<dyn Fn(&str) + Send + Sync>;
type Left = Box<dyn Fn() + Send + Sync>;

/// Who is told of events.
pub(crate) struct News {
    pub(crate) chain: Chain,
    way: AtomicU8,
    told: RwLock<Option<Told>>,
    logged: RwLock<Option<Logged>>,
    left: RwLock<Option<Left>>,
}

impl News {
    pub(crate) fn new(way: Way) -> Self {
        Self {
            chain: Chain::default(),
            way: AtomicU8::new(way as u8),
            told: RwLock::default(),
            logged: RwLock::default(),
            left: RwLock::default(),
        }
    }

    pub(crate) fn set_way(&self, way: Way) {
        self.way.store(way as u8, Ordering::Release);
    }

    pub(crate) fn way(&self) -> Way {
        match self.way.load(Ordering::Acquire) {
            0 => Way::Direct,
            1 => Way::Log,
            _ => Way::Outbox,
        }
    }

    pub(crate) fn on_told(&self, told: Told) {
        *self.told.write().unwrap_or_else(|e| e.into_inner()) = Some(told);
    }

    pub(crate) fn on_logged(&self, logged: Logged) {
        *self.logged.write().unwrap_or_else(|e| e.into_inner()) = Some(logged);
    }

    pub(crate) fn on_left(&self, left: Left) {
        *self.left.write().unwrap_or_else(|e| e.into_inner()) = Some(left);
    }

    /// The shared log has grown in this channel.
    pub(crate) fn logged(&self, channel: &str) {
        if let Some(logged) = &*self.logged.read().unwrap_or_else(|e| e.into_inner()) {
            logged(channel);
        }
    }

    /// Writes audit entries and events of a job as its last statements: from here to the commit the chain
    /// and the channels are locked, by everybody in this order. What is to be done after the commit is given back.
    pub(crate) async fn write(&self, tx: &Tx) -> Result<After> {
        self.chain.append(tx, tx.take_entries()).await?;
        let mut after = After { done: tx.take_after(), ..After::default() };
        let mut events = tx.take_events();
        if events.is_empty() {
            return Ok(after);
        }
        match self.way() {
            Way::Direct => after.events = events,
            Way::Log => {
                // Everybody locks in the order of names; the order within a channel stays.
                events.sort_by(|a, b| a.channel.cmp(&b.channel));
                for event in &events {
                    event_log::append(tx, event).await?;
                }
            }
            Way::Outbox => {
                for event in &events {
                    outbox::put(tx, event).await?;
                }
                after.left = true;
            }
        }
        Ok(after)
    }

    /// A transaction has committed.
    pub(crate) fn committed(&self, After { events, left, done }: After) {
        if !events.is_empty()
            && let Some(told) = &*self.told.read().unwrap_or_else(|e| e.into_inner())
        {
            told(events);
        }
        if left && let Some(left) = &*self.left.read().unwrap_or_else(|e| e.into_inner()) {
            left();
        }
        done.into_iter().for_each(|done| done());
    }
}

/// What is to be done once a transaction has committed.
#[derive(Default)]
pub(crate) struct After {
    /// To be handed over.
    pub(crate) events: Vec<Event>,
    /// Whether something was put into the outbox.
    pub(crate) left: bool,
    /// To be called.
    pub(crate) done: Vec<Done>,
}
