//! One channel in the memory of this copy: its newest events, and who listens.
//!
//! A reader holds a cursor, not a copy: slow ones cost nothing, and what has left the ring before they
//! came for it is announced as a gap. The idea of epoch, sequence and bounded history is Centrifugo's.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use quarterdeck_domain::channel::Channel;
use tokio::sync::Notify;

use crate::published::{Position, Published};

/// Events a ring holds whatever its bounds say: what a reader may lag behind without a gap.
const BACKLOG: usize = 64;
/// Events that may wait to be handed to listeners; beyond that the oldest are no longer handed over.
const MAX_PENDING: usize = 1024;

/// Listeners that are told in one go.
const TURN: usize = 128;

/// Bounds of the history of a channel.
#[derive(Clone, Copy, Debug)]
pub struct History {
    /// Most events; 0 switches recovery off.
    pub size: usize,
    /// Longest time an event is kept.
    pub ttl: Duration,
    /// Most bytes of all events together.
    pub max_bytes: usize,
}

/// Somebody to hand events to.
pub trait Listener: Send + Sync {
    /// A channel has grown by these events, oldest first. None of them means: look for yourself.
    /// `slot` is what the listener called the channel. Must be quick and must not block.
    fn tell(&self, slot: u8, events: &[Arc<Published>]);
}

/// Why a client's history cannot be continued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Its position is of another epoch.
    EpochChanged,
    /// Events after its position are gone.
    Gap,
    /// Its position is one this copy has not come to.
    Ahead,
    /// No history is kept.
    Disabled,
}

/// What a reader finds at its cursor.
pub struct Read {
    /// Sequences after the first up to the second are lost, in the epoch of the cursor as it is now.
    pub gap: Option<(u64, u64)>,
    /// What comes next.
    pub events: Vec<Arc<Published>>,
}

struct Log {
    epoch: Arc<str>,
    top: u64,
    floor: u64,
    ring: VecDeque<Arc<Published>>,
    bytes: usize,
    /// Not yet handed to listeners.
    pending: VecDeque<Arc<Published>>,
}

/// By their ids: what each calls the channel, and who it is.
type Listeners = HashMap<u64, (u8, Arc<dyn Listener>)>;

/// A channel.
pub struct Topic {
    channel: Channel,
    history: History,
    log: Mutex<Log>,
    listeners: Mutex<Listeners>,
    /// Whether it waits for the task that hands events over.
    pub(crate) queued: AtomicBool,
    grown: Notify,
    /// When somebody last came or something was last told, microseconds since 1970 UTC.
    touched: AtomicI64,
}

impl Topic {
    pub(crate) fn new(channel: Channel, history: History, epoch: Arc<str>, start: u64, now: i64) -> Self {
        let log = Log {
            epoch,
            top: start,
            floor: start,
            ring: VecDeque::new(),
            bytes: 0,
            pending: VecDeque::new(),
        };
        Self {
            channel,
            history,
            log: Mutex::new(log),
            listeners: Mutex::default(),
            queued: AtomicBool::new(false),
            grown: Notify::new(),
            touched: AtomicI64::new(now),
        }
    }

    /// Which one it is.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Where it stands.
    pub fn top(&self) -> Position {
        let log = self.log();
        Position { epoch: log.epoch.clone(), seq: log.top }
    }

    /// From now on `listener` is told of events, under the name `slot`. Its own `id` takes it off again.
    pub fn listen(&self, id: u64, slot: u8, listener: Arc<dyn Listener>, now_micros: i64) {
        self.touched.fetch_max(now_micros, Ordering::Relaxed);
        self.listeners().insert(id, (slot, listener));
    }

    /// Takes a listener off; one that is not there is fine.
    pub fn leave(&self, id: u64) {
        self.listeners().remove(&id);
    }

    /// How many listen.
    pub fn audience(&self) -> usize {
        self.listeners().len()
    }

    pub(crate) fn idle_since(&self) -> Option<i64> {
        self.listeners().is_empty().then(|| self.touched.load(Ordering::Relaxed))
    }

    /// Adds an event at the end; one that is there already is left out. `seq` of `None` takes the next.
    pub(crate) fn append(&self, position: Option<Position>, body: Bytes, at_micros: i64, now_micros: i64) {
        let mut log = self.log();
        let position = match position {
            Some(position) => {
                if position.epoch != log.epoch {
                    log.begin(position.epoch.clone(), position.seq.saturating_sub(1));
                }
                position
            }
            None => Position { epoch: log.epoch.clone(), seq: log.top + 1 },
        };
        if position.seq <= log.top {
            return;
        }
        log.top = position.seq;
        let published = Arc::new(Published::new(position, body, at_micros));
        log.bytes += published.size();
        log.ring.push_back(Arc::clone(&published));
        if log.pending.len() == MAX_PENDING {
            log.pending.pop_front();
        }
        log.pending.push_back(published);
        log.evict(&self.history, now_micros);
        drop(log);
        self.touched.fetch_max(now_micros, Ordering::Relaxed);
        self.grown.notify_waiters();
    }

    /// History goes on from nothing: readers learn that they missed what came before.
    pub(crate) fn restart(&self, epoch: Arc<str>, floor: u64) {
        self.log().begin(epoch, floor);
    }

    /// Goes on from this place if it holds nothing.
    pub(crate) fn settle(&self, start: u64) {
        let mut log = self.log();
        if log.ring.is_empty() && log.top < start {
            log.top = start;
            log.floor = start;
        }
    }

    /// Hands what was appended since the last call to everyone who listens; how often an event was handed
    /// over. Listeners come and go meanwhile, and others have their turn.
    pub(crate) async fn hand_over(&self) -> usize {
        let events: Vec<_> = self.log().pending.drain(..).collect();
        let listeners: Vec<_> = self.listeners().values().cloned().collect();
        for some in listeners.chunks(TURN) {
            for (slot, listener) in some {
                listener.tell(*slot, &events);
            }
            tokio::task::yield_now().await;
        }
        events.len() * listeners.len()
    }

    /// What comes after a cursor, at most `most` events; the cursor moves past them.
    pub fn read(&self, cursor: &mut Position, most: usize, now_micros: i64) -> Read {
        let mut log = self.log();
        log.evict(&self.history, now_micros);
        let mut gap = None;
        if cursor.epoch != log.epoch {
            gap = Some((0, log.floor));
            *cursor = Position { epoch: log.epoch.clone(), seq: log.floor };
        } else if cursor.seq < log.floor {
            gap = Some((cursor.seq, log.floor));
            cursor.seq = log.floor;
        }
        let events: Vec<_> = log.since(cursor.seq).take(most).cloned().collect();
        if let Some(last) = events.last() {
            cursor.seq = last.seq();
        }
        Read { gap, events }
    }

    /// Where the channel stands, and what a client that was here before has missed since `from`.
    pub fn recover(&self, from: &Position, now_micros: i64) -> (Position, Result<Vec<Arc<Published>>, Lost>) {
        let mut log = self.log();
        log.evict(&self.history, now_micros);
        let cut = Position { epoch: log.epoch.clone(), seq: log.top };
        let missed = if self.history.size == 0 {
            Err(Lost::Disabled)
        } else if from.epoch != log.epoch {
            Err(Lost::EpochChanged)
        } else if from.seq > log.top {
            Err(Lost::Ahead)
        } else if from.seq < log.floor {
            Err(Lost::Gap)
        } else {
            Ok(log.since(from.seq).cloned().collect())
        };
        (cut, missed)
    }

    /// Done when the channel has come to this position, or to another epoch.
    pub async fn reached(&self, position: &Position) {
        loop {
            let mut grown = std::pin::pin!(self.grown.notified());
            grown.as_mut().enable();
            let top = self.top();
            if top.epoch != position.epoch || top.seq >= position.seq {
                return;
            }
            grown.await;
        }
    }
}

impl Log {
    fn begin(&mut self, epoch: Arc<str>, floor: u64) {
        self.epoch = epoch;
        self.top = floor;
        self.floor = floor;
        self.ring.clear();
        self.bytes = 0;
    }

    fn since(&self, seq: u64) -> impl Iterator<Item = &Arc<Published>> {
        let first = self.ring.partition_point(|event| event.seq() <= seq);
        self.ring.range(first..)
    }

    fn evict(&mut self, history: &History, now_micros: i64) {
        let ttl = i64::try_from(history.ttl.as_micros()).unwrap_or(i64::MAX);
        let oldest = now_micros.saturating_sub(ttl);
        let most = history.size.max(BACKLOG);
        while let Some(first) = self.ring.front() {
            let excess = self.ring.len() > most || self.bytes > history.max_bytes;
            if !excess && first.at_micros() >= oldest {
                break;
            }
            self.bytes -= first.size();
            self.floor = first.seq();
            self.ring.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quarterdeck_domain::channel::Shared;

    fn topic(size: usize) -> Topic {
        let history = History { size, ttl: Duration::from_secs(600), max_bytes: 1 << 20 };
        Topic::new(Shared::Tasks.into(), history, "e".into(), 0, 0)
    }

    fn grow(topic: &Topic, events: usize) {
        for _ in 0..events {
            topic.append(None, Bytes::from_static(b"{}"), 0, 0);
        }
    }

    fn at(seq: u64) -> Position {
        Position { epoch: "e".into(), seq }
    }

    #[test]
    fn a_reader_that_falls_behind_the_ring_learns_how_far() {
        let topic = topic(100);
        let mut cursor = topic.top();
        grow(&topic, 250);
        let read = topic.read(&mut cursor, 10, 0);
        assert_eq!(read.gap, Some((0, 150)));
        assert_eq!(read.events.iter().map(|e| e.seq()).collect::<Vec<_>>(), (151..=160).collect::<Vec<_>>());
        let read = topic.read(&mut cursor, 1000, 0);
        assert_eq!((read.gap, read.events.len(), cursor.seq), (None, 90, 250));
    }

    #[test]
    fn recovery_says_what_was_missed_or_why_it_cannot() {
        let topic = topic(100);
        grow(&topic, 250);
        let lost = |from| topic.recover(&from, 0).1.err();
        assert_eq!(lost(at(149)), Some(Lost::Gap));
        assert_eq!(lost(at(251)), Some(Lost::Ahead));
        assert_eq!(lost(Position { epoch: "f".into(), seq: 200 }), Some(Lost::EpochChanged));
        for (from, missed) in [(150, 100), (249, 1), (250, 0)] {
            let (cut, events) = topic.recover(&at(from), 0);
            assert_eq!((cut, events.ok().map(|e| e.len())), (at(250), Some(missed)));
        }
        assert_eq!(super::tests::topic(0).recover(&at(0), 0).1.err(), Some(Lost::Disabled));
    }

    #[test]
    fn events_leave_by_age_and_by_size_too() {
        let history = History { size: 100, ttl: Duration::from_secs(1), max_bytes: 100 };
        let topic = Topic::new(Shared::Tasks.into(), history, "e".into(), 0, 0);
        topic.append(None, vec![b' '; 60].into(), 0, 0);
        topic.append(None, vec![b' '; 60].into(), 0, 0);
        assert_eq!(topic.recover(&at(0), 0).1.err(), Some(Lost::Gap), "more bytes than the ring may hold");
        assert!(topic.recover(&at(1), 1_000_000).1.is_ok());
        assert_eq!(topic.recover(&at(1), 1_000_001).1.err(), Some(Lost::Gap), "too old");
    }

    #[test]
    fn a_new_epoch_is_a_gap_for_everybody() {
        let topic = topic(100);
        grow(&topic, 3);
        let mut cursor = topic.top();
        topic.append(Some(Position { epoch: "f".into(), seq: 2 }), Bytes::from_static(b"{}"), 0, 0);
        let read = topic.read(&mut cursor, 10, 0);
        assert_eq!((read.gap, read.events.len()), (Some((0, 1)), 1));
        assert_eq!(cursor, Position { epoch: "f".into(), seq: 2 });
        topic.append(Some(cursor.clone()), Bytes::from_static(b"{}"), 0, 0);
        assert!(topic.read(&mut cursor, 10, 0).events.is_empty(), "what is there already is left out");
    }
}
