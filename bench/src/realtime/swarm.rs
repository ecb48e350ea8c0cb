//! Many WebSocket subscribers in one thread that does as little as it can for each frame.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use memchr::memmem::Finder;
use mio::{Events, Interest, Poll, Token};
use tungstenite::client::client_with_config;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{ClientRequestBuilder, Message};

use super::contestant::Contestant;
use super::frame::{CLOSE, Frame, Frames, PING, PONG, TEXT, to_server};
use super::publisher::MARKER;
use crate::Failure;

/// How long a server may take for one step of opening or closing a connection.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often somebody who waits looks whether to go on.
const GLANCE: Duration = Duration::from_millis(50);
/// Bytes of one read; several events of one connection come together when the load is heavy.
const READ: usize = 64 * 1024;
/// Connections whose addresses are asked for at once: few enough to be opened while a ticket is good.
const BATCH: u32 = 250;
/// Bytes of one read while a connection is opened.
const HANDSHAKE: usize = 4096;
/// Normal closure.
const DONE: [u8; 2] = 1000_u16.to_be_bytes();

/// Open connections of one contestant.
pub(crate) struct Swarm {
    poll: Poll,
    subscribers: Vec<Subscriber>,
    /// What the timestamps of the publisher count from.
    epoch: Instant,
}

struct Subscriber {
    stream: mio::net::TcpStream,
    frames: Frames,
    /// Timestamp of the newest event.
    newest: u64,
    is_open: bool,
}

/// What all subscribers received.
pub(crate) struct Tally {
    pub(crate) delivered: u64,
    /// Events that were no newer than the one before on the same connection.
    pub(crate) repeated: u64,
    /// Connections that the server ended.
    pub(crate) closed: u64,
    /// Reads that gave something.
    pub(crate) reads: u64,
    /// Payload bytes of the frames of events.
    pub(crate) bytes: u64,
    /// Microseconds from the publisher to the subscriber, of each event.
    pub(crate) delays: Vec<u32>,
    /// When something last came.
    pub(crate) last: Instant,
}

impl Swarm {
    /// Opens connections one after the other and subscribes each.
    pub(crate) async fn connect(
        contestant: &Contestant,
        connections: u32,
        epoch: Instant,
    ) -> Result<Self, Failure> {
        let poll = Poll::new()?;
        let mut subscribers = Vec::new();
        for begun in (0..connections).step_by(BATCH as usize) {
            for url in contestant.ws_urls(BATCH.min(connections - begun)).await? {
                let stream = subscribe(contestant, &url)?;
                stream.set_nonblocking(true)?;
                let mut stream = mio::net::TcpStream::from_std(stream);
                poll.registry().register(&mut stream, Token(subscribers.len()), Interest::READABLE)?;
                subscribers.push(Subscriber { stream, frames: Frames::default(), newest: 0, is_open: true });
            }
        }
        Ok(Self { poll, subscribers, epoch })
    }

    /// Receives until told to stop, which is asked after every look at the sockets.
    pub(crate) fn receive(&mut self, mut stop: impl FnMut(&Tally) -> bool) -> Result<Tally, Failure> {
        let mut tally = Tally::new(Instant::now());
        let marker = Finder::new(MARKER);
        let (mut events, mut buffer) = (Events::with_capacity(1024), vec![0; READ]);
        while !stop(&tally) {
            if let Err(error) = self.poll.poll(&mut events, Some(GLANCE))
                && error.kind() != ErrorKind::Interrupted
            {
                return Err(error.into());
            }
            for event in &events {
                let subscriber = self.subscribers.get_mut(event.token().0).ok_or("an unknown socket")?;
                let is_ended = event.is_read_closed();
                subscriber.read(is_ended, &mut buffer, &marker, self.epoch, &mut tally)?;
            }
        }
        Ok(tally)
    }

    /// How many subscribers there are.
    pub(crate) fn len(&self) -> usize {
        self.subscribers.len()
    }

    /// How many subscribers never got an event.
    pub(crate) fn deaf(&self) -> usize {
        self.subscribers.iter().filter(|subscriber| subscriber.newest == 0).count()
    }

    /// Closes every connection and waits until the server has done so too.
    pub(crate) fn close(mut self) -> Result<(), Failure> {
        let farewell = to_server(CLOSE, &DONE)?;
        let mut open = 0;
        for subscriber in self.subscribers.iter_mut().filter(|subscriber| subscriber.is_open) {
            answer(&mut subscriber.stream, &farewell);
            open += 1;
        }
        let tally = self.receive(|tally| tally.closed >= open || tally.last.elapsed() > PATIENCE)?;
        if tally.closed < open {
            return Err(format!("{} connections did not close", open - tally.closed).into());
        }
        Ok(())
    }
}

impl Subscriber {
    fn read(
        &mut self,
        is_ended: bool,
        buffer: &mut [u8],
        marker: &Finder<'_>,
        epoch: Instant,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        while self.is_open {
            match self.stream.read(buffer) {
                Ok(length @ 1..) => {
                    tally.reads += 1;
                    tally.last = Instant::now();
                    let now = tally.last.duration_since(epoch).as_nanos() as u64;
                    let Self { stream, frames, newest, .. } = self;
                    frames.feed(&buffer[..length], |frame| {
                        match frame.opcode {
                            PING => answer(stream, &to_server(PONG, frame.payload)?),
                            _ => tally.count(&frame, marker, now, newest),
                        }
                        Ok(())
                    })?;
                    // A short read has emptied the socket, but for its end; the next bytes are a new event.
                    if length < buffer.len() && !is_ended {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => {
                    self.is_open = false;
                    tally.closed += 1;
                }
            }
        }
        Ok(())
    }
}

impl Tally {
    /// Nothing received yet.
    fn new(now: Instant) -> Self {
        Self { delivered: 0, repeated: 0, closed: 0, reads: 0, bytes: 0, delays: Vec::new(), last: now }
    }

    /// Counts a frame if it is an event.
    fn count(&mut self, frame: &Frame<'_>, marker: &Finder<'_>, now: u64, newest: &mut u64) {
        if frame.opcode != TEXT {
            return;
        }
        let Some(at) = marker.find(frame.payload) else { return };
        let digits = frame.payload[at + MARKER.len()..].iter().take_while(|byte| byte.is_ascii_digit());
        let sent =
            digits.fold(0_u64, |sent, digit| sent.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')));
        if sent <= *newest {
            self.repeated += 1;
            return;
        }
        *newest = sent;
        self.delivered += 1;
        self.bytes += frame.payload.len() as u64;
        self.delays.push(u32::try_from(now.saturating_sub(sent) / 1000).unwrap_or(u32::MAX));
    }
}

/// Writes a short frame. A connection that does not take it is about to be found closed.
fn answer(stream: &mut mio::net::TcpStream, frame: &[u8]) {
    let _ = stream.write_all(frame);
}

/// Opens a connection with the usual library; what follows the subscription is for [`Frames`].
fn subscribe(contestant: &Contestant, url: &str) -> Result<TcpStream, Failure> {
    let uri: tungstenite::http::Uri = url.parse()?;
    let authority = uri.authority().ok_or("a WebSocket address without a server")?.to_string();
    let mut request = ClientRequestBuilder::new(uri);
    if let Some(name) = contestant.subprotocol {
        request = request.with_sub_protocol(name);
    }
    let stream = TcpStream::connect(authority)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let small = WebSocketConfig::default().read_buffer_size(HANDSHAKE);
    let (mut socket, _) =
        client_with_config(request, stream, Some(small)).map_err(|error| error.to_string())?;
    if let Some(first) = &contestant.first_frame {
        socket.send(first.text.into())?;
        loop {
            match socket.read()? {
                Message::Text(text) if text.contains(first.answer) => break,
                Message::Close(why) => return Err(format!("a subscriber was refused: {why:?}").into()),
                _ => {}
            }
        }
    }
    // Nothing is lost with the library's buffer: nobody publishes before all are connected.
    Ok(socket.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_counts_once_and_other_frames_do_not() {
        let (epoch, marker) = (Instant::now(), Finder::new(MARKER));
        let (mut tally, mut newest) = (Tally::new(epoch), 0);
        let mut count = |opcode, text: &str| {
            tally.count(&Frame { opcode, payload: text.as_bytes() }, &marker, 9_000, &mut newest);
        };
        count(TEXT, r#"{"payload":{"message":"sent_ns=5000 xxx"}}"#);
        count(TEXT, "sent_ns=5000 xxx");
        count(TEXT, "sent_ns=6000 xxx");
        count(TEXT, r#"{"action":"pong"}"#);
        count(CLOSE, "sent_ns=7000 xxx");
        assert_eq!((tally.delivered, tally.repeated, newest), (2, 1, 6000));
        assert_eq!(tally.delays, [4, 3]);
    }
}
