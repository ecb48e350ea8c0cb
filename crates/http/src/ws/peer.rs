//! One client: what it listens to, and what waits for it.
//!
//! A plain client has a queue of its own, filled while events are handed over; what does not fit is
//! dropped. A capable one holds a cursor per channel and pulls: it learns of what it has lost. While the
//! connection's task has nothing to write, whoever hands events over writes them to the socket at once,
//! and the task sleeps on.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use quarterdeck_bus::{Form, Listener, Position, Published, Topic};
use quarterdeck_domain::channel::Channel;
use quarterdeck_domain::event::MAX_BYTES;
use quarterdeck_domain::role::HumanRole;
use serde::Serialize;
use tokio::net::TcpStream;

use super::codec;
use super::command::{Filters, matches, reply};
use super::metrics::{Dropped, Metrics};

/// Frames that may wait for a plain client.
pub(super) const QUEUE: usize = 64;
/// Events a capable client pulls from one channel at a time, and frames in all.
const PULL: usize = 64;
/// What the slot of a user's own channel is called; the shared ones go by their number.
pub(super) const OWN: u8 = 31;

/// Its rights may have changed.
pub(super) const RECHECK: u8 = 1;
/// The server stops.
pub(super) const STOP: u8 = 2;

/// A client, as those who hand over events and news of rights see it.
pub(super) struct Peer {
    pub(super) id: u64,
    pub(super) user_id: Arc<str>,
    pub(super) is_capable: bool,
    metrics: Arc<Metrics>,
    waker: AtomicWaker,
    /// Slots that have grown since they were pulled.
    grown: AtomicU32,
    calls: AtomicU8,
    state: Mutex<State>,
}

struct State {
    role: HumanRole,
    subscriptions: Vec<Subscription>,
    /// Whole frames for a plain client.
    queue: VecDeque<Bytes>,
    /// Frames taken from the queue and not yet written.
    writing: usize,
    batch: bool,
    /// The socket, if events may be written to it from here.
    line: Option<Arc<TcpStream>>,
    /// Whether the connection's task writes nothing and has nothing to write.
    is_free: bool,
    /// What is left of a frame that was written from here; goes before everything else.
    rest: Option<Bytes>,
}

struct Subscription {
    slot: u8,
    topic: Arc<Topic>,
    filters: Filters,
    /// Where a capable client has read up to; where a plain one came in.
    cursor: Position,
    /// Asked for, not only given.
    is_explicit: bool,
}

/// Loss that a capable client is told of.
#[derive(Serialize)]
struct Gap<'a> {
    action: &'static str,
    channel: &'a Channel,
    epoch: &'a str,
    from: u64,
    to: u64,
}

impl Peer {
    pub(super) fn new(
        id: u64,
        user_id: Arc<str>,
        role: HumanRole,
        is_capable: bool,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            id,
            user_id,
            is_capable,
            metrics,
            waker: AtomicWaker::new(),
            grown: AtomicU32::new(0),
            calls: AtomicU8::new(0),
            state: Mutex::new(State {
                role,
                subscriptions: Vec::with_capacity(1),
                queue: VecDeque::new(),
                writing: 0,
                batch: false,
                line: None,
                is_free: false,
                rest: None,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Asks for attention.
    pub(super) fn call(&self, what: u8) {
        self.calls.fetch_or(what, Ordering::AcqRel);
        self.waker.wake();
    }

    /// What attention was asked for since the last question.
    pub(super) fn take_calls(&self) -> u8 {
        // Mostly there is none, and then nothing is written.
        if self.calls.load(Ordering::Acquire) == 0 { 0 } else { self.calls.swap(0, Ordering::AcqRel) }
    }

    pub(super) fn wake_by(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    /// Says that the task has written everything, and lends the socket to whoever hands over events; unless
    /// something waits to be sent.
    pub(super) fn release(&self) -> bool {
        let mut state = self.state();
        let waits = state.rest.is_some()
            || !state.queue.is_empty()
            || (self.is_capable && self.grown.load(Ordering::Acquire) != 0);
        state.is_free = !waits;
        !waits
    }

    /// Takes the socket back until the next [`release`](Self::release).
    pub(super) fn hold(&self) {
        self.state().is_free = false;
    }

    /// Lets events be written to this socket by whoever hands them over.
    pub(super) fn lend(&self, line: Arc<TcpStream>) {
        self.state().line = Some(line);
    }

    /// Takes the socket back for good.
    pub(super) fn hang_up(&self) {
        self.state().line = None;
    }

    /// Takes the socket for writing `out`, behind what is left of a frame.
    pub(super) fn claim(&self, out: &mut VecDeque<Bytes>) {
        let mut state = self.state();
        state.is_free = false;
        if let Some(rest) = state.rest.take() {
            out.push_front(rest);
        }
    }

    pub(super) fn role(&self) -> HumanRole {
        self.state().role
    }

    /// Takes a new role and leaves the channels it may not receive; whether there were any.
    pub(super) fn set_role(&self, role: HumanRole) -> bool {
        let left: Vec<_> = {
            let mut state = self.state();
            state.role = role;
            let user_id = &self.user_id;
            let may = |s: &mut Subscription| !s.topic.channel().readable_by(user_id, role);
            state.subscriptions.extract_if(.., may).collect()
        };
        for subscription in &left {
            subscription.topic.leave(self.id);
        }
        !left.is_empty()
    }

    /// Listens to a channel from here on; filters of `None` stay as they are.
    pub(super) fn listen(
        self: &Arc<Self>,
        topic: &Arc<Topic>,
        filters: Option<&Filters>,
        is_explicit: bool,
        now: i64,
    ) {
        let slot = slot(topic.channel());
        // Told before it is remembered: nothing that comes after this is missed.
        topic.listen(self.id, slot, Arc::clone(self) as Arc<dyn Listener>, now);
        let mut state = self.state();
        match state.subscriptions.iter_mut().find(|s| s.slot == slot) {
            Some(known) => {
                known.is_explicit |= is_explicit;
                if let Some(filters) = filters {
                    known.filters.clone_from(filters);
                }
            }
            None => state.subscriptions.push(Subscription {
                slot,
                topic: Arc::clone(topic),
                filters: filters.cloned().unwrap_or_default(),
                cursor: topic.top(),
                is_explicit,
            }),
        }
    }

    /// Listens no more; a channel that was not listened to is fine.
    pub(super) fn leave(&self, channel: &Channel) {
        let left = {
            let mut state = self.state();
            let found = state.subscriptions.iter().position(|s| s.topic.channel() == channel);
            found.map(|at| state.subscriptions.swap_remove(at))
        };
        if let Some(subscription) = left {
            subscription.topic.leave(self.id);
        }
    }

    /// Leaves every channel.
    pub(super) fn leave_all(&self) {
        let left = std::mem::take(&mut self.state().subscriptions);
        for subscription in left {
            subscription.topic.leave(self.id);
        }
    }

    /// Names of the channels that were asked for, in order.
    pub(super) fn channels(&self) -> Vec<String> {
        let state = self.state();
        let explicit = state.subscriptions.iter().filter(|s| s.is_explicit);
        let mut names: Vec<_> = explicit.map(|s| s.topic.channel().to_string()).collect();
        names.sort_unstable();
        names
    }

    /// Up to where each channel has been handed to the socket.
    pub(super) fn positions(&self) -> Vec<(String, Position)> {
        let state = self.state();
        state.subscriptions.iter().map(|s| (s.topic.channel().to_string(), s.cursor.clone())).collect()
    }

    /// Up to where a channel has been handed to the socket.
    pub(super) fn position(&self, channel: &Channel) -> Option<Position> {
        let state = self.state();
        let found = state.subscriptions.iter().find(|s| s.topic.channel() == channel);
        found.map(|s| s.cursor.clone())
    }

    /// Goes on from this position, and gives those of the events before it that pass the filters.
    pub(super) fn go_on_from(
        &self,
        channel: &Channel,
        cut: Position,
        missed: &[Arc<Published>],
    ) -> Vec<Arc<Published>> {
        let mut state = self.state();
        let found = state.subscriptions.iter_mut().find(|s| s.topic.channel() == channel);
        let Some(subscription) = found else { return Vec::new() };
        subscription.cursor = cut;
        // What came in meanwhile is found by looking.
        self.grown.fetch_or(1 << subscription.slot, Ordering::AcqRel);
        missed.iter().filter(|event| subscription.passes(event)).cloned().collect()
    }

    pub(super) fn set_batch(&self, batch: bool) {
        self.state().batch = batch;
    }

    /// Whether a reply would fit into the queue of a plain client.
    pub(super) fn has_room(&self) -> bool {
        let state = self.state();
        state.queue.len() + state.writing < QUEUE
    }

    /// Puts a reply to a plain client behind the events that wait; whether it fitted.
    pub(super) fn enqueue(&self, frame: Bytes) -> bool {
        let mut state = self.state();
        let fits = state.queue.len() + state.writing < QUEUE;
        if fits {
            state.queue.push_back(frame);
        }
        fits
    }

    /// Says how many of the frames taken are still unwritten.
    pub(super) fn still_writing(&self, frames: usize) {
        if !self.is_capable {
            self.state().writing = frames;
        }
    }

    /// Takes what is to be sent next.
    pub(super) fn take(&self, out: &mut VecDeque<Bytes>, now: i64) {
        if self.is_capable {
            self.pull(out, now);
        } else {
            let mut state = self.state();
            state.is_free = false;
            out.extend(state.rest.take());
            out.append(&mut state.queue);
            state.writing = out.len();
            // An idle connection holds no queue.
            state.queue = VecDeque::new();
        }
    }

    fn pull(&self, out: &mut VecDeque<Bytes>, now: i64) {
        let mut grown = self.grown.swap(0, Ordering::AcqRel);
        let mut guard = self.state();
        let state = &mut *guard;
        state.is_free = false;
        out.extend(state.rest.take());
        if grown == 0 {
            return;
        }
        let (role, batch) = (state.role, state.batch);
        let mut sent = 0;
        let mut frames = Frames { out, batch: batch.then(BytesMut::new), events: 0 };
        while grown != 0 && sent < PULL {
            let slot = grown.trailing_zeros();
            grown &= grown - 1;
            let found = state.subscriptions.iter_mut().find(|s| u32::from(s.slot) == slot);
            let Some(subscription) = found else { continue };
            let channel = subscription.topic.channel();
            if !channel.readable_by(&self.user_id, role) {
                continue;
            }
            let read = subscription.topic.read(&mut subscription.cursor, PULL, now);
            let epoch = subscription.cursor.epoch.clone();
            let gap = |from, to, frames: &mut Frames<'_>| {
                self.metrics.dropped(Dropped::Gap, 1);
                let gap = Gap { action: "gap", channel, epoch: &epoch, from, to };
                frames.push(reply(&gap));
            };
            if let Some((from, to)) = read.gap {
                gap(from, to, &mut frames);
            }
            for event in &read.events {
                if event.is_oversized() {
                    gap(event.seq() - 1, event.seq(), &mut frames);
                } else if subscription.passes(event) {
                    frames.push_event(event.form(Form::Positioned, codec::text));
                    sent += 1;
                }
            }
            if read.events.len() == PULL {
                grown |= 1 << slot;
                break;
            }
        }
        frames.flush();
        self.metrics.sent(sent as u64);
        if grown != 0 {
            self.grown.fetch_or(grown, Ordering::AcqRel);
        }
    }

    fn queue(&self, slot: u8, events: &[Arc<Published>]) {
        let mut guard = self.state();
        let state = &mut *guard;
        let Some(subscription) = state.subscriptions.iter().find(|s| s.slot == slot) else { return };
        let channel = subscription.topic.channel();
        if !channel.readable_by(&self.user_id, state.role) {
            return;
        }
        let was_idle = state.queue.is_empty();
        let (mut sent, mut written) = (0, 0);
        for event in events {
            let here = event.position();
            if here.epoch == subscription.cursor.epoch && here.seq <= subscription.cursor.seq {
                continue;
            }
            if event.is_oversized() {
                self.metrics.dropped(Dropped::Oversized, 1);
                tracing::warn!(target: "api", %channel, bytes = event.size(), "api.ws.event_dropped");
            } else if event.parsed().event_type.is_empty() {
                self.metrics.dropped(Dropped::Invalid, 1);
                tracing::warn!(target: "api", %channel, "api.ws.invalid_message");
            } else if !subscription.passes(event) {
            } else if state.is_free
                && state.queue.is_empty()
                && write(&state.line, event.form(Form::Plain, codec::text), &mut state.rest)
            {
                state.is_free = state.rest.is_none();
                written += 1;
            } else if state.queue.len() + state.writing >= QUEUE {
                self.metrics.dropped(Dropped::Backpressure, 1);
                tracing::warn!(
                    target: "api", %channel, event_type = event.parsed().event_type,
                    depth = QUEUE, "api.ws.backpressure_dropped"
                );
            } else {
                state.is_free = false;
                state.queue.push_back(event.form(Form::Plain, codec::text).clone());
                sent += 1;
            }
        }
        let wakes = (was_idle && sent > 0) || state.rest.is_some();
        drop(guard);
        self.metrics.sent(sent + written);
        if wakes {
            self.waker.wake();
        }
    }

    /// Writes events that come right after the cursor to the socket; whether that was all there is to do.
    fn write_through(&self, slot: u8, events: &[Arc<Published>]) -> bool {
        let mut guard = self.state();
        let state = &mut *guard;
        if !state.is_free || state.batch || self.grown.load(Ordering::Acquire) != 0 || events.is_empty() {
            return false;
        }
        let Some(subscription) = state.subscriptions.iter_mut().find(|s| s.slot == slot) else { return true };
        if !subscription.topic.channel().readable_by(&self.user_id, state.role) {
            return true;
        }
        let mut written = 0;
        let mut done = true;
        for event in events {
            let (here, cursor) = (event.position(), &mut subscription.cursor);
            if here.epoch == cursor.epoch && here.seq <= cursor.seq {
                continue;
            }
            let is_next = here.epoch == cursor.epoch && here.seq == cursor.seq + 1 && !event.is_oversized();
            if !is_next || !state.is_free {
                (state.is_free, done) = (false, false);
                break;
            }
            if subscription.passes(event) {
                if !write(&state.line, event.form(Form::Positioned, codec::text), &mut state.rest) {
                    (state.is_free, done) = (false, false);
                    break;
                }
                state.is_free = state.rest.is_none();
                written += 1;
            }
            subscription.cursor.seq = here.seq;
        }
        let has_rest = state.rest.is_some();
        drop(guard);
        self.metrics.sent(written);
        if done && has_rest {
            self.waker.wake();
        }
        done
    }
}

/// Writes a frame to a socket that takes it; whether it took any. What it did not take is the rest.
fn write(line: &Option<Arc<TcpStream>>, frame: &Bytes, rest: &mut Option<Bytes>) -> bool {
    let Some(Ok(taken)) = line.as_ref().map(|line| line.try_write(frame)) else { return false };
    if taken < frame.len() {
        *rest = Some(frame.slice(taken..));
    }
    taken > 0
}

impl Listener for Peer {
    fn tell(&self, slot: u8, events: &[Arc<Published>]) {
        if !self.is_capable {
            self.queue(slot, events);
        } else if self.write_through(slot, events) {
        } else if self.grown.fetch_or(1 << slot, Ordering::AcqRel) == 0 {
            self.waker.wake();
        }
    }
}

impl Subscription {
    fn passes(&self, event: &Published) -> bool {
        self.filters.is_empty() || matches(&self.filters, event.parsed().payload.as_ref())
    }
}

/// Frames on their way out, several events to a frame where the client wants that.
struct Frames<'a> {
    out: &'a mut VecDeque<Bytes>,
    batch: Option<BytesMut>,
    events: usize,
}

const BATCH: &[u8] = br#"{"action":"batch","events":["#;

impl Frames<'_> {
    fn push(&mut self, frame: Bytes) {
        self.flush();
        self.out.push_back(frame);
    }

    fn push_event(&mut self, frame: &Bytes) {
        let Some(batch) = &mut self.batch else {
            self.out.push_back(frame.clone());
            return;
        };
        let text = codec::text_of(frame);
        if self.events > 0 && batch.len() + text.len() + 3 > MAX_BYTES {
            self.flush();
        }
        // Flushing left it in place.
        let Some(batch) = &mut self.batch else { return };
        batch.put_slice(if self.events == 0 { BATCH } else { b"," });
        batch.put_slice(&text);
        self.events += 1;
    }

    fn flush(&mut self) {
        let Some(batch) = &mut self.batch else { return };
        if self.events == 1 {
            // One event is no batch.
            self.out.push_back(codec::text(&batch[BATCH.len()..]));
        } else if self.events > 1 {
            batch.put_slice(b"]}");
            self.out.push_back(codec::text(batch));
        }
        batch.clear();
        self.events = 0;
    }
}

/// What a channel is called among those of one client.
pub(super) fn slot(channel: &Channel) -> u8 {
    match channel {
        Channel::Shared(shared) => *shared as u8,
        Channel::User(_) => OWN,
    }
}
