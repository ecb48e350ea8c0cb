//! One socket from its handshake to its end: a single task reads, writes and keeps time.
//!
//! It never waits for the client while something else is to be done, and holds no buffer while nothing
//! is. Whatever ends it, dropping it takes the client off every channel and out of every list.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::future::poll_fn;
use quarterdeck_bus::Topic;
use quarterdeck_domain::identity::Identity;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::codec::{self, Inbound, Reader, Violation};
use super::peer::{Peer, RECHECK, STOP};
use super::sockets::{Seat, Sockets};
use crate::app::App;
use crate::rights::Revalidation;

/// Longest wait for the client's own close frame.
const FAREWELL: Duration = Duration::from_secs(2);
/// Frames written with one call.
const GATHER: usize = 64;
/// Bytes read with one call.
const READ: usize = 4096;

/// How a socket ends: the code and the reason the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Close {
    pub(super) code: u16,
    pub(super) reason: &'static str,
}

impl Close {
    pub(super) const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason }
    }
}

/// What happened next.
enum Step {
    Heard(Inbound),
    Violated(Violation),
    Called(u8),
    Written,
    Time,
    /// The client is gone, or the line broke.
    Gone(Option<std::io::Error>),
}

/// A socket.
pub(super) struct Connection<S> {
    pub(super) app: App,
    pub(super) peer: Arc<Peer>,
    pub(super) own: Arc<Topic>,
    pub(super) identity: Identity,
    pub(super) rights: Revalidation,
    io: S,
    reader: Reader,
    /// Frames being written, the first one from `written` on.
    out: VecDeque<Bytes>,
    /// Replies to a capable client, and replays behind them; they go before further events.
    pub(super) lane: VecDeque<Bytes>,
    pub(super) lane_replies: usize,
    closing: Option<Instant>,
    is_closed: bool,
    clock: Timers,
    sleep: Pin<Box<Sleep>>,
    bucket: Bucket,
    _seat: Seat,
}

/// When something is due.
struct Timers {
    ping: Option<Instant>,
    pong: Option<Instant>,
    end: Instant,
    idle: Option<Instant>,
}

/// Commands a client may still send: what flows over makes it wait (a token bucket).
struct Bucket {
    tokens: f64,
    filled: Instant,
    rate: f64,
}

/// Seconds' worth of commands that may come at once.
const BURST: f64 = 5.0;

impl Bucket {
    /// Takes one, or says when there will be one.
    fn take(&mut self, now: Instant) {
        self.tokens =
            (self.tokens + now.duration_since(self.filled).as_secs_f64() * self.rate).min(self.rate * BURST);
        self.filled = now;
        self.tokens -= 1.0;
    }

    /// Since when the next one is there.
    fn next(&self) -> Option<Instant> {
        if self.rate <= 0.0 || self.tokens >= 1.0 {
            return None;
        }
        Some(self.filled + Duration::from_secs_f64((1.0 - self.tokens) / self.rate))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(
        io: S,
        app: App,
        peer: Arc<Peer>,
        own: Arc<Topic>,
        identity: Identity,
        lifetime: Duration,
        seat: Seat,
    ) -> Self {
        let options = app.sockets.options();
        let now = Instant::now();
        let clock = Timers {
            ping: options.ping_interval.map(|every| now + every),
            pong: None,
            end: now + lifetime,
            idle: options.frame_timeout.map(|longest| now + longest),
        };
        let rate = f64::from(options.command_rate);
        Self {
            rights: Revalidation::new(options.patience),
            bucket: Bucket { tokens: rate * BURST, filled: now, rate },
            app,
            peer,
            own,
            identity,
            io,
            reader: Reader::default(),
            out: VecDeque::new(),
            lane: VecDeque::new(),
            lane_replies: 0,
            closing: None,
            is_closed: false,
            clock,
            sleep: Box::pin(tokio::time::sleep_until(now)),
            _seat: seat,
        }
    }

    /// Bytes that came with the handshake.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.reader.feed(bytes);
    }

    fn sockets(&self) -> &Sockets {
        &self.app.sockets
    }

    /// Speaks with the client until one of both ends it.
    pub(super) async fn run(mut self) {
        while !self.is_closed {
            self.gather();
            self.arm();
            let step = poll_fn(|cx| self.step(cx)).await;
            self.peer.hold();
            match step {
                Step::Heard(inbound) => self.heard(inbound).await,
                Step::Violated(Violation::Protocol) => self.close(Close::new(1002, "")),
                Step::Violated(Violation::TooLarge) => self.close(Close::new(1009, "Message too large")),
                Step::Called(calls) => self.called(calls).await,
                Step::Written => {}
                Step::Time => self.due().await,
                Step::Gone(error) => {
                    if let Some(error) = error {
                        tracing::debug!(target: "api", %error, user_id = %self.peer.user_id, "api.ws.transport_error");
                    }
                    self.is_closed = true;
                }
            }
        }
    }

    /// Takes what is to be sent next, once everything before it is written.
    fn gather(&mut self) {
        if !self.out.is_empty() || self.closing.is_some() {
            return;
        }
        if !self.lane.is_empty() {
            self.out.append(&mut self.lane);
            self.lane_replies = 0;
            return;
        }
        self.peer.take(&mut self.out, self.app.bus.now_micros());
        if self.out.is_empty() {
            // An idle connection holds no queue.
            self.out = VecDeque::new();
        }
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        self.peer.wake_by(cx.waker());
        if self.closing.is_none() {
            let calls = self.peer.take_calls();
            if calls != 0 {
                return Poll::Ready(Step::Called(calls));
            }
        }
        match self.write(cx) {
            Poll::Ready(Ok(())) => {
                let more = !self.lane.is_empty() || !self.peer.release();
                if more && self.closing.is_none() {
                    return Poll::Ready(Step::Written);
                }
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Step::Gone(Some(error))),
            Poll::Pending => {}
        }
        if self.bucket.next().is_none_or(|then| then <= Instant::now()) || self.closing.is_some() {
            loop {
                match self.reader.next() {
                    Ok(Some(inbound)) => return Poll::Ready(Step::Heard(inbound)),
                    Err(violation) => return Poll::Ready(Step::Violated(violation)),
                    Ok(None) => {}
                }
                // On the stack, so that waiting for a silent client holds no buffer.
                let mut buffer = [std::mem::MaybeUninit::uninit(); READ];
                let mut buffer = ReadBuf::uninit(&mut buffer);
                match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                    Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                        return Poll::Ready(Step::Gone(None));
                    }
                    Poll::Ready(Ok(())) => self.reader.feed(buffer.filled()),
                    Poll::Ready(Err(error)) => return Poll::Ready(Step::Gone(Some(error))),
                    Poll::Pending => break,
                }
            }
        }
        self.sleep.as_mut().poll(cx).map(|()| Step::Time)
    }

    /// Writes all of `out`; ready when nothing is left.
    fn write(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if self.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.peer.claim(&mut self.out);
        while !self.out.is_empty() {
            let mut slices = [IoSlice::new(&[]); GATHER];
            let mut count = 0;
            for (slice, frame) in slices.iter_mut().zip(&self.out) {
                *slice = IoSlice::new(frame);
                count += 1;
            }
            let written = match count {
                1 => Pin::new(&mut self.io).poll_write(cx, &slices[0]),
                _ => Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..count]),
            };
            let mut written = match written {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => written,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            };
            while let Some(first) = self.out.front_mut() {
                if written < first.len() {
                    first.advance(written);
                    break;
                }
                written -= first.len();
                self.out.pop_front();
            }
            self.peer.still_writing(self.out.len());
        }
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        Poll::Ready(Ok(()))
    }

    /// Sets the alarm to what is due first.
    fn arm(&mut self) {
        let Timers { ping, pong, end, idle } = self.clock;
        let next = match self.closing {
            Some(deadline) => deadline,
            None => [ping, pong, idle, self.bucket.next(), Some(self.rights.next())]
                .into_iter()
                .flatten()
                .fold(end, Instant::min),
        };
        if self.sleep.deadline() != next {
            self.sleep.as_mut().reset(next);
        }
    }

    async fn due(&mut self) {
        let now = Instant::now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if self.closing.is_some() {
            self.is_closed = true;
        } else if is_due(self.clock.pong) {
            self.close(Close::new(1011, "Ping timeout"));
        } else if is_due(self.clock.idle) {
            self.close(Close::new(1008, "Idle"));
        } else if self.clock.end <= now {
            self.close(Close::new(4001, "Connection lifetime reached"));
        } else if self.rights.next() <= now {
            self.recheck(true).await;
        } else if is_due(self.clock.ping) {
            let options = *self.sockets().options();
            let pong = options.ping_timeout.map(|longest| now + longest);
            self.clock.pong = self.clock.pong.or(pong);
            self.clock.ping = options.ping_interval.map(|every| now + every);
            self.out.push_back(codec::ping());
        }
    }

    async fn heard(&mut self, inbound: Inbound) {
        if let Inbound::Close(code) = inbound {
            if self.closing.is_none() {
                // The answer is the client's own code (RFC 6455 §5.5.1).
                self.say_farewell(codec::close(code, ""), code.unwrap_or(1000));
            }
            // What is written is all there is to say; the line may close behind it.
            let _ = tokio::time::timeout(FAREWELL, poll_fn(|cx| self.write(cx))).await;
            let _ =
                tokio::time::timeout(FAREWELL, poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx))).await;
            self.is_closed = true;
            return;
        }
        if self.closing.is_some() {
            return;
        }
        if let Some(longest) = self.sockets().options().frame_timeout {
            self.clock.idle = Some(Instant::now() + longest);
        }
        match inbound {
            Inbound::Pong => self.clock.pong = None,
            Inbound::Ping(payload) => {
                self.bucket.take(Instant::now());
                // A client that pings without reading keeps only the newest answers waiting.
                if self.out.len() < GATHER {
                    self.out.push_back(codec::pong(&payload));
                }
            }
            Inbound::Message(text) => {
                self.bucket.take(Instant::now());
                self.carry_out(&text).await;
            }
            Inbound::Close(_) => {}
        }
    }

    async fn called(&mut self, calls: u8) {
        if calls & STOP != 0 {
            // What was told before the end is still sent.
            self.out.append(&mut self.lane);
            let mut rest = VecDeque::new();
            self.peer.take(&mut rest, self.app.bus.now_micros());
            self.out.append(&mut rest);
            self.close(Close::new(1012, "Server shutdown"));
        } else if calls & RECHECK != 0 {
            self.recheck(false).await;
        }
    }

    /// Begins to close: what is on its way is still sent, and nothing behind it.
    pub(super) fn close(&mut self, close: Close) {
        if self.closing.is_none() {
            if close.code == 4003 {
                // Whoever lost the right gets no more; a frame that is half written must be finished.
                self.out.truncate(1);
            }
            self.say_farewell(codec::close(Some(close.code), close.reason), close.code);
            tracing::debug!(
                target: "api", user_id = %self.peer.user_id, code = close.code, reason = close.reason, "api.ws.closing"
            );
        }
    }

    fn say_farewell(&mut self, frame: Bytes, code: u16) {
        self.out.push_back(frame);
        self.lane.clear();
        self.closing = Some(Instant::now() + FAREWELL);
        self.peer.leave_all();
        self.sockets().metrics().closed(code);
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        self.peer.hang_up();
        self.peer.leave_all();
        tracing::info!(target: "api", user_id = %self.peer.user_id, connection = self.peer.id, "api.ws.disconnected");
    }
}
