//! The bounded buffer between the threads that log and the one that writes.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quarterdeck_domain::sink::LogLevel;

/// Longest time a line waits for company.
const FLUSH_EVERY: Duration = Duration::from_millis(20);
/// Amount of waiting text that is written without waiting longer.
const FLUSH_BYTES: usize = 64 * 1024;
/// Room a drained batch may keep.
const KEPT_BYTES: usize = 1024 * 1024;

/// A finished line; at least one of its two forms is not empty.
pub(super) struct Line<'a> {
    /// For programs.
    pub(super) json: &'a str,
    /// For people.
    pub(super) human: &'a str,
    /// Where the event name stands in the first form that is not empty.
    pub(super) event: Range<usize>,
    pub(super) level: LogLevel,
    pub(super) logger: &'static str,
}

/// Lines of one round, back to back in one allocation.
#[derive(Default)]
pub(super) struct Batch {
    text: String,
    entries: Vec<Entry>,
}

struct Entry {
    start: usize,
    json_end: usize,
    human_end: usize,
    event: Range<usize>,
    level: LogLevel,
    logger: &'static str,
}

impl Batch {
    fn push(&mut self, line: &Line<'_>) {
        let start = self.text.len();
        self.text.push_str(line.json);
        let json_end = self.text.len();
        self.text.push_str(line.human);
        self.entries.push(Entry {
            start,
            json_end,
            human_end: self.text.len(),
            event: start + line.event.start..start + line.event.end,
            level: line.level,
            logger: line.logger,
        });
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = (Line<'_>, &str)> {
        self.entries.iter().map(|entry| {
            let line = Line {
                json: &self.text[entry.start..entry.json_end],
                human: &self.text[entry.json_end..entry.human_end],
                event: 0..0,
                level: entry.level,
                logger: entry.logger,
            };
            (line, &self.text[entry.event.clone()])
        })
    }

    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.entries.clear();
        self.text.shrink_to(KEPT_BYTES);
        self.entries.shrink_to(KEPT_BYTES / size_of::<Entry>());
    }
}

struct State<C> {
    batch: Batch,
    commands: Vec<C>,
    /// The writer sleeps without a time limit.
    idle: bool,
    /// The writer must not wait for more.
    urgent: bool,
    closed: bool,
}

/// What waits for the writer: lines, and commands that act after the lines before them.
pub(super) struct Queue<C> {
    state: Mutex<State<C>>,
    wake: Condvar,
    dropped: AtomicU64,
    limit: usize,
}

impl<C> Queue<C> {
    /// A queue that holds `limit` bytes of text.
    pub(super) fn new(limit: usize) -> Self {
        let state = State {
            batch: Batch::default(),
            commands: Vec::new(),
            idle: false,
            urgent: false,
            closed: false,
        };
        Self { state: Mutex::new(state), wake: Condvar::new(), dropped: AtomicU64::new(0), limit }
    }

    fn lock(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a line; `false` when there is no room. Never waits for the writer.
    pub(super) fn push(&self, line: &Line<'_>) -> bool {
        let mut state = self.lock();
        let size = line.json.len() + line.human.len();
        if state.closed || state.batch.text.len() + size > self.limit {
            return false;
        }
        state.batch.push(line);
        let urgent = line.level >= LogLevel::Error || state.batch.text.len() >= FLUSH_BYTES;
        let newly_urgent = urgent && !state.urgent;
        state.urgent |= urgent;
        let wake = std::mem::take(&mut state.idle) || newly_urgent;
        drop(state);
        if wake {
            self.wake.notify_one();
        }
        true
    }

    /// Counts a line that found no room.
    pub(super) fn drop_line(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Hands the writer something to do; `false` when it is gone.
    pub(super) fn command(&self, command: C) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        state.commands.push(command);
        drop(state);
        self.wake.notify_one();
        true
    }

    /// Takes no more lines; the writer leaves once it has written what is here.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// Lines that found no room.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits for the next round and swaps it with the empty `spare`; `None` when closed and drained.
    pub(super) fn next(&self, spare: &mut Batch) -> Option<Vec<C>> {
        let mut state = self.lock();
        while state.batch.entries.is_empty() && state.commands.is_empty() {
            if state.closed {
                return None;
            }
            state.idle = true;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle = false;
        let more = |state: &mut State<C>| !state.urgent && !state.closed && state.commands.is_empty();
        let (mut state, _) =
            self.wake.wait_timeout_while(state, FLUSH_EVERY, more).unwrap_or_else(PoisonError::into_inner);
        state.urgent = false;
        std::mem::swap(&mut state.batch, spare);
        Some(std::mem::take(&mut state.commands))
    }
}
