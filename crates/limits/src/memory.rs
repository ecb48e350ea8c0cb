//! Windows and in-flight counts of one process.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;
use quarterdeck_domain::Result;
use quarterdeck_domain::clock::SharedClock;

use crate::bucket::{Bucket, Ruling};
use crate::flight::Permit;
use crate::key::{Key, Keys};
use crate::scope::Scope;
use crate::window::{Decision, Outcome, Quota, Subject, Verdict, Window};
use crate::{Store, micros};

/// Enough that two threads seldom meet, and that growing one is too short to be noticed.
const SHARDS: usize = 128;

/// After so many decisions of one shard, `SWEPT` buckets of the next shard in turn are looked at in
/// search of forgotten ones: two for every one that may have been added, so that the search outruns a
/// scan, and in all shards, however few of them are in use.
const DECISIONS: u32 = 16;
const SWEPT: usize = 32;

/// Buckets compared when one must go because there is no room.
const CANDIDATES: usize = 16;

/// Buckets of one process, in memory.
pub(crate) struct Memory {
    shards: Box<[Shard]>,
    /// Keys one shard may hold.
    room: usize,
    /// Next shard to look at.
    swept: AtomicUsize,
    evicted: AtomicU64,
    flights: Arc<Flights>,
    keys: Arc<Keys>,
    clock: SharedClock,
}

/// On cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Shard(Mutex<Table>);

#[derive(Default)]
struct Table {
    index: HashTable<u32>,
    slots: Vec<Slot>,
    /// Next slot to look at.
    cursor: usize,
    /// How many came.
    decisions: u32,
}

pub(crate) struct Slot {
    key: Key,
    bucket: Bucket,
}

impl Memory {
    pub(crate) fn new(clock: SharedClock, keys: Arc<Keys>, max_keys: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            room: max_keys.div_ceil(SHARDS).clamp(1, u32::MAX as usize),
            swept: AtomicUsize::new(0),
            evicted: AtomicU64::new(0),
            flights: Arc::default(),
            keys,
            clock,
        }
    }

    /// Microseconds on the clock.
    pub(crate) fn now(&self) -> u64 {
        micros(self.clock.monotonic())
    }

    /// Decides one window of a request that came at `now`.
    pub(crate) fn decide(&self, window: &Window<'_>, now: u64) -> Outcome {
        let key = window.scope.key(window.subject, &self.keys);
        let shard = &self.shards[key.check as usize % SHARDS];
        let mut table = lock(&shard.0);
        let (ruling, evicted) = table.decide(key, window.quota, now, self.room);
        table.decisions = table.decisions.wrapping_add(1);
        let due = table.decisions.is_multiple_of(DECISIONS);
        drop(table);
        if evicted {
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
        if due {
            self.sweep_next(now);
        }
        Outcome {
            decision: if ruling.admitted { Decision::Admitted } else { Decision::Exhausted },
            quota: window.quota,
            remaining: ruling.remaining,
            reset: ruling.wait,
        }
    }

    /// Looks for forgotten buckets in the next shard, unless somebody is there.
    fn sweep_next(&self, now: u64) {
        let next = self.swept.fetch_add(1, Ordering::Relaxed) % SHARDS;
        if let Ok(mut table) = self.shards[next].0.try_lock() {
            table.sweep(now, SWEPT);
        }
    }

    /// Takes one of `max` places, held until the permit is dropped.
    pub(crate) fn board(&self, scope: &Scope, subject: Subject<'_>, max: u32) -> Option<Place> {
        Flights::board(&self.flights, scope.key(subject, &self.keys), max)
    }

    /// Drops forgotten buckets, one shard after the other.
    pub(crate) fn sweep(&self) {
        let now = self.now();
        for shard in &self.shards {
            let mut table = lock(&shard.0);
            let held = table.slots.len();
            table.sweep(now, held);
        }
    }

    pub(crate) fn held(&self) -> usize {
        self.shards.iter().map(|shard| lock(&shard.0).slots.len()).sum()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    pub(crate) fn in_flight(&self) -> u64 {
        lock(&self.flights.0).values().map(|count| u64::from(*count)).sum()
    }
}

impl Store for Memory {
    async fn check(&self, windows: &[Window<'_>]) -> Verdict {
        let (mut verdict, now) = (Verdict::new(), self.now());
        for window in windows {
            if !verdict.push(self.decide(window, now)) {
                break;
            }
        }
        verdict
    }

    async fn enter(&self, scope: &Scope, subject: Subject<'_>, max: u32) -> Result<Permit, Decision> {
        self.board(scope, subject, max).map(Permit::local).ok_or(Decision::Exhausted)
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }
}

impl Table {
    fn decide(&mut self, key: Key, quota: Quota, now: u64, room: usize) -> (Ruling, bool) {
        let slots = &mut self.slots;
        let found = self.index.find(key.index, |slot| slots[*slot as usize].key == key);
        match found {
            Some(slot) => (slots[*slot as usize].bucket.rule(quota, now), false),
            None => {
                let evicted = slots.len() >= room && self.make_room(now);
                let (bucket, ruling) = Bucket::first(quota, now);
                let slot = self.slots.len() as u32;
                self.slots.push(Slot { key, bucket });
                let slots = &self.slots;
                self.index.insert_unique(key.index, slot, |slot| slots[*slot as usize].key.index);
                (ruling, evicted)
            }
        }
    }

    /// Looks at the next `count` buckets and drops those that are forgotten.
    fn sweep(&mut self, now: u64, count: usize) {
        for _ in 0..count {
            if self.cursor >= self.slots.len() {
                self.cursor = 0;
                self.shrink();
            }
            match self.slots.get(self.cursor) {
                None => return,
                // What takes the freed place is looked at next.
                Some(slot) if slot.bucket.forgotten(now) => self.remove(self.cursor),
                Some(_) => self.cursor += 1,
            }
        }
    }

    /// Gives memory back after a flood, once per round.
    fn shrink(&mut self) {
        let held = self.slots.len();
        if self.slots.capacity() > 1024 && held < self.slots.capacity() / 4 {
            self.slots.shrink_to(held * 2);
            let slots = &self.slots;
            self.index.shrink_to(held * 2, |slot| slots[*slot as usize].key.index);
        }
    }

    /// Drops one of the next few buckets: a forgotten one, or else the one that has used the smallest
    /// share of its budget, the longest unseen among equals. Who is at a limit stays while others are not:
    /// filling the table with fresh keys does not buy anyone a second budget.
    fn make_room(&mut self, now: u64) -> bool {
        let held = self.slots.len();
        let mut least = (self.cursor % held, (u64::MAX, u64::MAX));
        for step in 0..CANDIDATES.min(held) {
            let place = (self.cursor + step) % held;
            let bucket = &mut self.slots[place].bucket;
            if bucket.forgotten(now) {
                self.remove(place);
                return false;
            }
            let weight = bucket.weight(now);
            if weight < least.1 {
                least = (place, weight);
            }
        }
        self.cursor = (self.cursor + CANDIDATES) % held;
        self.remove(least.0);
        true
    }

    fn remove(&mut self, place: usize) {
        let gone = self.slots.swap_remove(place);
        if let Ok(entry) = self.index.find_entry(gone.key.index, |slot| *slot as usize == place) {
            entry.remove();
        }
        if let Some(moved) = self.slots.get(place) {
            let last = self.slots.len();
            if let Some(slot) = self.index.find_mut(moved.key.index, |slot| *slot as usize == last) {
                *slot = place as u32;
            }
        }
    }
}

/// Requests under way by key. A key without any is not held, so nothing needs sweeping.
#[derive(Default)]
pub(crate) struct Flights(Mutex<HashMap<Key, u32>>);

/// A place among the requests under way, given back on drop.
pub(crate) struct Place {
    flights: Arc<Flights>,
    key: Key,
}

impl Flights {
    fn board(flights: &Arc<Self>, key: Key, max: u32) -> Option<Place> {
        let mut counts = lock(&flights.0);
        let count = counts.entry(key).or_default();
        if *count >= max {
            // A limit is at least 1, so the entry was there before.
            return None;
        }
        *count += 1;
        Some(Place { flights: Arc::clone(flights), key })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = lock(&self.flights.0);
        match counts.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                counts.remove(&self.key);
            }
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

/// Nothing panics while it holds a lock here, and if something did, the data would still be whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
