//! Session events, to everyone who watches the session on this copy of the program.
//!
//! A watcher has a bounded queue; what does not fit is dropped for that watcher alone, and nobody waits
//! for anybody. What a watched session has said lately is kept a while beyond its last watcher, for those
//! who lost their line and come back with the id of the last event they saw. A session nobody has watched
//! costs nothing.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::stream::{SessionEvent, SessionId};
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};
use tokio_util::sync::CancellationToken;

/// Events that may wait for a watcher, unless the operator says otherwise.
pub const QUEUE: usize = 256;
/// Events kept of a session, and sessions of which some are kept.
const RING: usize = 256;
const RINGS: usize = 1024;
/// Most bytes kept of a session, and of all together.
const RING_BYTES: usize = 1 << 20;
const ALL_BYTES: usize = 64 << 20;
/// Ids of a session that are remembered, and for how long.
const SEEN: usize = 1024;
const SEEN_FOR: Duration = Duration::from_secs(60);
/// How often what nobody touches is looked for, and what that is.
const SWEEP: Duration = Duration::from_secs(300);
const IDLE: Duration = Duration::from_secs(86_400);

/// An event as it goes over the wire, written once for all who watch.
pub struct Told {
    id: Arc<str>,
    frame: Bytes,
    masked: Option<Bytes>,
}

impl Told {
    /// The frame of the event stream, for somebody who may decide over tools or not.
    pub fn frame(&self, decides: bool) -> &Bytes {
        match &self.masked {
            Some(masked) if !decides => masked,
            _ => &self.frame,
        }
    }

    fn of(event: &SessionEvent) -> serde_json::Result<Self> {
        let masked = event.masked().as_ref().map(frame).transpose()?;
        Ok(Self { id: event.id().into(), frame: frame(event)?, masked })
    }

    fn size(&self) -> usize {
        self.frame.len() + self.masked.as_ref().map_or(0, Bytes::len)
    }
}

fn frame(event: &SessionEvent) -> serde_json::Result<Bytes> {
    // JSON on one line: a line break inside a text is escaped.
    let data = serde_json::to_string(event)?;
    Ok(format!("id: {}\nevent: {}\ndata: {data}\n\n", event.id(), event.event_type).into())
}

/// Everyone who watches a session.
pub struct SessionHub {
    queue: usize,
    clock: SharedClock,
    state: Mutex<State>,
    next: AtomicU64,
    stopping: CancellationToken,
}

#[derive(Default)]
struct State {
    watched: HashMap<SessionId, Watched>,
    rings: Rings,
    stopped: bool,
}

/// A session somebody watches.
#[derive(Default)]
struct Watched {
    seats: Vec<Seat>,
    seen: Seen,
}

struct Seat {
    id: u64,
    queue: Sender<Arc<Told>>,
    /// Monotonic milliseconds at which its owner last asked for an event.
    touched: Arc<AtomicU64>,
    /// Whether the last event did not fit; the log has heard of it.
    full: bool,
}

/// Ids that were told lately.
#[derive(Default)]
struct Seen {
    ids: HashSet<Arc<str>>,
    order: VecDeque<(Duration, Arc<str>)>,
}

impl Seen {
    /// Whether the id is new; it is not from now on.
    fn is_new(&mut self, id: &Arc<str>, now: Duration) -> bool {
        while let Some((at, oldest)) = self.order.front() {
            if self.order.len() < SEEN && now.saturating_sub(*at) <= SEEN_FOR {
                break;
            }
            self.ids.remove(oldest);
            self.order.pop_front();
        }
        if self.ids.contains(id) {
            return false;
        }
        self.ids.insert(Arc::clone(id));
        self.order.push_back((now, Arc::clone(id)));
        true
    }
}

/// The last events of sessions that were watched, least recently used first out.
#[derive(Default)]
struct Rings {
    of: HashMap<SessionId, Ring>,
    order: BTreeMap<u64, SessionId>,
    turn: u64,
    bytes: usize,
}

#[derive(Default)]
struct Ring {
    events: VecDeque<Arc<Told>>,
    bytes: usize,
    turn: u64,
    touched: Duration,
}

impl Rings {
    fn keep(&mut self, session: &SessionId, told: &Arc<Told>, now: Duration) {
        self.touch(session, now);
        let ring = self.of.entry(session.clone()).or_default();
        if ring.events.iter().any(|kept| kept.id == told.id) {
            return;
        }
        ring.events.push_back(Arc::clone(told));
        (ring.bytes, self.bytes) = (ring.bytes + told.size(), self.bytes + told.size());
        while ring.events.len() > RING || ring.bytes > RING_BYTES {
            let Some(oldest) = ring.events.pop_front() else { break };
            (ring.bytes, self.bytes) = (ring.bytes - oldest.size(), self.bytes - oldest.size());
        }
        while self.of.len() > RINGS || self.bytes > ALL_BYTES {
            let Some((_, session)) = self.order.pop_first() else { break };
            self.remove(&session);
        }
    }

    /// Makes the session the last to go.
    fn touch(&mut self, session: &SessionId, now: Duration) {
        self.turn += 1;
        let ring = self.of.entry(session.clone()).or_default();
        self.order.remove(&ring.turn);
        (ring.turn, ring.touched) = (self.turn, now);
        self.order.insert(self.turn, session.clone());
    }

    fn remove(&mut self, session: &SessionId) {
        if let Some(ring) = self.of.remove(session) {
            self.order.remove(&ring.turn);
            self.bytes -= ring.bytes;
        }
    }

    /// What came after this event; everything when it is not known.
    fn after(&mut self, session: &SessionId, id: &str, now: Duration) -> VecDeque<Arc<Told>> {
        if !self.of.contains_key(session) {
            return VecDeque::new();
        }
        self.touch(session, now);
        let Some(ring) = self.of.get(session) else { return VecDeque::new() };
        let known = ring.events.iter().rposition(|told| *told.id == *id);
        ring.events.iter().skip(known.map_or(0, |at| at + 1)).cloned().collect()
    }

    fn sweep(&mut self, now: Duration) {
        let idle = |ring: &Ring| now.saturating_sub(ring.touched) >= IDLE;
        let idle: Vec<_> =
            self.of.iter().filter(|(_, ring)| idle(ring)).map(|(session, _)| session.clone()).collect();
        for session in idle {
            self.remove(&session);
        }
    }
}

impl SessionHub {
    /// Nobody watches yet; `queue` events may wait for each who will. Needs a running Tokio, for what
    /// nobody touches is thrown away now and then, until the hub stops or is dropped.
    pub fn start(queue: usize, clock: SharedClock) -> Arc<Self> {
        let hub = Arc::new(Self {
            queue: queue.max(1),
            clock,
            state: Mutex::default(),
            next: AtomicU64::new(0),
            stopping: CancellationToken::new(),
        });
        let (weak, stopping) = (Arc::downgrade(&hub), hub.stopping.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stopping.cancelled() => return,
                    () = tokio::time::sleep(SWEEP) => match weak.upgrade() {
                        Some(hub) => hub.sweep(),
                        None => return,
                    },
                }
            }
        });
        hub
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Tells everyone who watches the session. Never waits; an event whose id was told within the last
    /// minute is left out.
    pub fn publish(&self, event: &SessionEvent) {
        let session = &event.session_id;
        if !self.state().cares_for(session) {
            return;
        }
        // Written outside the lock; who comes meanwhile hears it too.
        let told = match Told::of(event) {
            Ok(told) => Arc::new(told),
            Err(error) => {
                tracing::error!(target: "communication", id = event.id(), %error, "communication.event_stream.not_serialised");
                return;
            }
        };
        let now = self.clock.monotonic();
        let mut state = self.state();
        if !state.cares_for(session) {
            return;
        }
        if let Some(watched) = state.watched.get_mut(session) {
            if !watched.seen.is_new(&told.id, now) {
                return;
            }
            for seat in &mut watched.seats {
                let full = matches!(seat.queue.try_send(Arc::clone(&told)), Err(TrySendError::Full(_)));
                if full && !seat.full {
                    tracing::warn!(
                        target: "communication", %session, watcher = seat.id, event = &*told.id,
                        "communication.event_stream.dropped"
                    );
                }
                seat.full = full;
            }
        }
        state.rings.keep(session, &told, now);
    }

    /// Watches a session from now on, until what is given back is dropped. `last` is the id of the last
    /// event a returning watcher has seen: what is kept of the events after it comes first, all that is
    /// kept when the id is not known.
    pub fn watch(self: &Arc<Self>, session: &SessionId, last: Option<&str>) -> Watch {
        let now = self.clock.monotonic();
        let touched = Arc::new(AtomicU64::new(millis(now)));
        let (sender, receiver) = channel(self.queue);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        let missed = match last {
            Some(last) => state.rings.after(session, last, now),
            None => VecDeque::new(),
        };
        if !state.stopped {
            let seat = Seat { id, queue: sender, touched: Arc::clone(&touched), full: false };
            state.watched.entry(session.clone()).or_default().seats.push(seat);
        }
        drop(state);
        Watch { hub: Arc::clone(self), session: session.clone(), id, missed, queue: receiver, touched }
    }

    /// How many watch.
    pub fn watchers(&self) -> usize {
        self.state().watched.values().map(|watched| watched.seats.len()).sum()
    }

    /// How many sessions are watched.
    pub fn sessions(&self) -> usize {
        self.state().watched.len()
    }

    /// Ends every watch, and each that begins later, once it has said what waits in its queue.
    pub fn stop(&self) {
        self.stopping.cancel();
        let mut state = self.state();
        state.stopped = true;
        state.watched.clear();
        state.rings = Rings::default();
    }

    /// Ends watches nobody has asked for an event in a day, and forgets what was said before that.
    fn sweep(&self) {
        let now = self.clock.monotonic();
        let oldest = millis(now.saturating_sub(IDLE));
        let is_idle = |seat: &Seat| now >= IDLE && seat.touched.load(Ordering::Relaxed) <= oldest;
        let mut state = self.state();
        state.watched.retain(|session, watched| {
            watched.seats.retain(|seat| {
                let idle = is_idle(seat);
                if idle {
                    tracing::info!(target: "communication", %session, watcher = seat.id, "communication.event_stream.idle");
                }
                !idle
            });
            !watched.seats.is_empty()
        });
        state.rings.sweep(now);
    }

    fn leave(&self, session: &SessionId, id: u64) {
        let mut state = self.state();
        let Some(watched) = state.watched.get_mut(session) else { return };
        watched.seats.retain(|seat| seat.id != id);
        if watched.seats.is_empty() {
            state.watched.remove(session);
        }
    }
}

impl State {
    /// Whether anybody watches the session, or may come back to it.
    fn cares_for(&self, session: &SessionId) -> bool {
        self.watched.contains_key(session) || self.rings.of.contains_key(session)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A place among those who watch a session.
pub struct Watch {
    hub: Arc<SessionHub>,
    session: SessionId,
    id: u64,
    missed: VecDeque<Arc<Told>>,
    queue: Receiver<Arc<Told>>,
    touched: Arc<AtomicU64>,
}

impl Watch {
    /// The next event; `None` when there will be no more. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Arc<Told>> {
        self.touched.store(millis(self.hub.clock.monotonic()), Ordering::Relaxed);
        match self.missed.pop_front() {
            Some(told) => Some(told),
            None => self.queue.recv().await,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.hub.leave(&self.session, self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use futures_util::FutureExt;
    use quarterdeck_domain::clock::ManualClock;
    use quarterdeck_domain::stream::SessionEventType;
    use serde_json::json;
    use tokio::task::coop::unconstrained;

    fn hub(queue: usize) -> (Arc<SessionHub>, Arc<ManualClock>) {
        let clock = ManualClock::at(DateTime::default());
        (SessionHub::start(queue, Arc::clone(&clock) as SharedClock), clock)
    }

    fn id(session: &str) -> SessionId {
        SessionId::new(session).unwrap()
    }

    fn event(session: &str, text: &str) -> SessionEvent {
        let payload = json!({ "text": text });
        SessionEvent::new(SessionEventType::TextMessageContent, id(session), DateTime::default(), payload)
    }

    /// What has arrived, by the text it carries.
    fn heard(watch: &mut Watch) -> Vec<String> {
        let mut all = Vec::new();
        // Without the budget by which Tokio makes a busy task pause.
        while let Some(Some(told)) = unconstrained(watch.next()).now_or_never() {
            let frame = String::from_utf8(told.frame(true).to_vec()).unwrap();
            let text = frame.split("\"text\":\"").nth(1).unwrap().split('"').next().unwrap();
            all.push(text.to_owned());
        }
        all
    }

    fn say(hub: &SessionHub, session: &str, texts: impl IntoIterator<Item = usize>) -> Vec<String> {
        let say = |text: usize| {
            let event = event(session, &text.to_string());
            hub.publish(&event);
            event.id().to_owned()
        };
        texts.into_iter().map(say).collect()
    }

    fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
        range.map(|number| number.to_string()).collect()
    }

    #[tokio::test]
    async fn sessions_are_apart_and_a_slow_watcher_costs_only_itself() {
        let (hub, _) = hub(16);
        let (mut slow, mut quick) = (hub.watch(&id("a"), None), hub.watch(&id("a"), None));
        let mut other = hub.watch(&id("b"), None);
        let mut all = Vec::new();
        for text in 0..40 {
            say(&hub, "a", [text]);
            all.append(&mut heard(&mut quick));
        }
        assert_eq!(all, numbers(0..40));
        assert_eq!(heard(&mut slow), numbers(0..16), "the newest are dropped");
        assert!(heard(&mut other).is_empty());
    }

    #[tokio::test]
    async fn frames_are_those_of_an_event_stream() {
        let (hub, _) = hub(QUEUE);
        let mut watch = hub.watch(&id("a"), None);
        let event = event("a", "one\ntwo\r\u{2028}");
        hub.publish(&event);
        let told = watch.next().await.unwrap();
        let frame = std::str::from_utf8(told.frame(false)).unwrap();
        let lines: Vec<_> = frame.split(['\n', '\r']).collect();
        assert_eq!(lines[..2], [format!("id: {}", event.id()), "event: text_message_content".to_owned()]);
        let data: serde_json::Value = serde_json::from_str(lines[2].strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data, serde_json::to_value(&event).unwrap());
        assert_eq!(lines[3..], ["", ""]);
    }

    #[tokio::test]
    async fn an_event_told_twice_is_heard_once_within_a_minute() {
        let (hub, clock) = hub(QUEUE);
        let event = event("a", "x");
        hub.publish(&event);
        let mut watch = hub.watch(&id("a"), None);
        hub.publish(&event);
        assert_eq!(heard(&mut watch).len(), 1, "nobody had heard it before");
        clock.advance(Duration::from_secs(60));
        hub.publish(&event);
        assert!(heard(&mut watch).is_empty());
        clock.advance(Duration::from_millis(1));
        hub.publish(&event);
        assert_eq!(heard(&mut watch).len(), 1);
        say(&hub, "a", 0..SEEN);
        heard(&mut watch);
        hub.publish(&event);
        assert_eq!(heard(&mut watch).len(), 1, "1024 ids later it is forgotten");
    }

    #[tokio::test]
    async fn who_comes_back_gets_what_was_missed() {
        let (hub, _) = hub(QUEUE);
        let watch = hub.watch(&id("a"), None);
        let ids = say(&hub, "a", 0..3);
        drop(watch);
        say(&hub, "a", 3..5);
        assert_eq!((hub.watchers(), hub.sessions()), (0, 0));
        let mut back = hub.watch(&id("a"), Some(&ids[1]));
        say(&hub, "a", 5..6);
        assert_eq!(heard(&mut back), numbers(2..6));
        assert_eq!(heard(&mut hub.watch(&id("a"), Some("evt-unknown"))), numbers(0..6));
        assert!(heard(&mut hub.watch(&id("a"), None)).is_empty());
        assert!(heard(&mut hub.watch(&id("b"), Some(&ids[1]))).is_empty());
        say(&hub, "a", 6..300);
        assert_eq!(heard(&mut hub.watch(&id("a"), Some(&ids[1]))), numbers(300 - RING..300));
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded_in_sessions_and_bytes() {
        let (hub, _) = hub(QUEUE);
        for number in 0..RINGS + 10 {
            let session = number.to_string();
            let _watch = hub.watch(&id(&session), None);
            say(&hub, &session, [number]);
        }
        let state = hub.state();
        assert_eq!((state.rings.of.len(), state.rings.order.len()), (RINGS, RINGS));
        assert!(!state.rings.of.contains_key("9") && state.rings.of.contains_key("10"));
        drop(state);
        let _watch = hub.watch(&id("large"), None);
        for _ in 0..20 {
            hub.publish(&event("large", &"x".repeat(100_000)));
        }
        let state = hub.state();
        assert!(state.rings.of["large"].bytes <= RING_BYTES);
        let bytes: usize =
            state.rings.of.values().flat_map(|ring| &ring.events).map(|told| told.size()).sum();
        assert_eq!(state.rings.bytes, bytes);
    }

    #[tokio::test]
    async fn a_session_nobody_watches_costs_nothing() {
        let (hub, _) = hub(QUEUE);
        say(&hub, "a", 0..10);
        drop(hub.watch(&id("a"), Some("evt-x")));
        say(&hub, "a", 0..10);
        let state = hub.state();
        assert!(state.watched.is_empty() && state.rings.of.is_empty() && state.rings.order.is_empty());
    }

    #[tokio::test]
    async fn what_nobody_touches_for_a_day_is_thrown_away() {
        let (hub, clock) = hub(QUEUE);
        let (mut idle, mut alive) = (hub.watch(&id("a"), None), hub.watch(&id("b"), None));
        say(&hub, "a", 0..1);
        clock.advance(IDLE - Duration::from_secs(1));
        hub.sweep();
        heard(&mut alive);
        assert_eq!(hub.watchers(), 2);
        clock.advance(Duration::from_secs(1));
        hub.sweep();
        assert_eq!(hub.watchers(), 1);
        assert!(hub.state().rings.of.is_empty());
        assert_eq!(heard(&mut idle), ["0"]);
        assert!(idle.next().await.is_none(), "its owner learns of it");
    }

    #[tokio::test]
    async fn a_stop_ends_watches_and_those_that_come_later() {
        let (hub, _) = hub(QUEUE);
        let mut watch = hub.watch(&id("a"), None);
        hub.stop();
        assert!(watch.next().await.is_none());
        assert!(hub.watch(&id("a"), None).next().await.is_none());
        assert_eq!(hub.watchers(), 0);
    }
}
