//! WebSocket frames (RFC 6455): reading what a client sends, and the bytes of what it gets.
//!
//! The layout of frames is the library's. What is here holds no buffer while a client is silent, and
//! makes the bytes of a message once for everybody who gets it.

use std::io::Cursor;

use axum::http::HeaderMap;
use axum::http::header::{CONNECTION, UPGRADE};
use bytes::{Bytes, BytesMut};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

/// Largest message a client may send, in bytes.
pub(super) const MAX_MESSAGE: usize = 65_536;
/// Largest payload of a ping, pong or close frame, in bytes (RFC 6455 §5.5).
const MAX_CONTROL: usize = 125;

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inbound {
    /// A message of text, or one that is no text and so no command either.
    Message(BytesMut),
    /// A ping with its payload.
    Ping(Bytes),
    /// An answer to a ping.
    Pong,
    /// The client closes, with its code if it gave one.
    Close(Option<u16>),
}

/// Why a connection cannot go on; the close code is the RFC's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    /// A frame no client may send.
    Protocol,
    /// A message of more than [`MAX_MESSAGE`] bytes.
    TooLarge,
}

/// Puts frames together from what arrives.
#[derive(Debug, Default)]
pub(super) struct Reader {
    raw: BytesMut,
    /// Fragments of the message that has begun.
    message: Option<BytesMut>,
}

impl Reader {
    /// Takes what arrived.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
    }

    /// The next thing the client sent, if it has arrived whole.
    pub(super) fn next(&mut self) -> Result<Option<Inbound>, Violation> {
        loop {
            if self.raw.is_empty() {
                // An idle connection holds nothing.
                self.raw = BytesMut::new();
                return Ok(None);
            }
            let mut cursor = Cursor::new(&self.raw[..]);
            let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Violation::Protocol)?;
            let Some((header, length)) = parsed else { return Ok(None) };
            let start = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
            let length = self.check(&header, length)?;
            if self.raw.len() < start + length {
                return Ok(None);
            }
            let mut payload = self.raw.split_to(start + length).split_off(start);
            if let Some(mask) = header.mask {
                for (byte, key) in payload.iter_mut().zip(mask.into_iter().cycle()) {
                    *byte ^= key;
                }
            }
            match header.opcode {
                OpCode::Control(Control::Ping) => return Ok(Some(Inbound::Ping(payload.freeze()))),
                OpCode::Control(Control::Pong) => return Ok(Some(Inbound::Pong)),
                OpCode::Control(_) => return close_code(&payload).map(|code| Some(Inbound::Close(code))),
                OpCode::Data(_) => {
                    let message = match self.message.take() {
                        Some(mut begun) => {
                            begun.unsplit(payload);
                            begun
                        }
                        None => payload,
                    };
                    if header.is_final {
                        return Ok(Some(Inbound::Message(message)));
                    }
                    self.message = Some(message);
                }
            }
        }
    }

    /// What has arrived and was not read.
    pub(super) fn rest(self) -> Vec<u8> {
        self.raw.to_vec()
    }

    fn check(&self, header: &FrameHeader, length: u64) -> Result<usize, Violation> {
        let in_order = match header.opcode {
            OpCode::Data(Data::Continue) => self.message.is_some(),
            OpCode::Data(_) => self.message.is_none(),
            OpCode::Control(_) => header.is_final && length <= MAX_CONTROL as u64,
        };
        // No extension is spoken that could give the reserved bits a meaning.
        if !in_order || header.mask.is_none() || header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Violation::Protocol);
        }
        let begun = match header.opcode {
            OpCode::Data(_) => self.message.as_ref().map_or(0, BytesMut::len),
            OpCode::Control(_) => 0,
        };
        let length = usize::try_from(length).map_err(|_| Violation::TooLarge)?;
        if begun.saturating_add(length) > MAX_MESSAGE { Err(Violation::TooLarge) } else { Ok(length) }
    }
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            let sound = CloseCode::from(code).is_allowed() && std::str::from_utf8(reason).is_ok();
            if sound { Ok(Some(code)) } else { Err(Violation::Protocol) }
        }
        [_] => Err(Violation::Protocol),
    }
}

/// The bytes of a text message.
pub(super) fn text(text: &[u8]) -> Bytes {
    frame(OpCode::Data(Data::Text), text)
}

/// The text inside the bytes of [`text`].
pub(super) fn text_of(frame: &Bytes) -> Bytes {
    let header = match frame.get(1) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    };
    frame.slice(header.min(frame.len())..)
}

/// The bytes of a ping without a payload.
pub(super) fn ping() -> Bytes {
    frame(OpCode::Control(Control::Ping), &[])
}

/// The bytes of the answer to a ping.
pub(super) fn pong(payload: &[u8]) -> Bytes {
    frame(OpCode::Control(Control::Pong), payload)
}

/// The bytes of a close frame; a code of `None` says nothing, as the client did.
pub(super) fn close(code: Option<u16>, reason: &str) -> Bytes {
    let mut payload = Vec::with_capacity(2 + reason.len());
    if let Some(code) = code {
        payload.extend_from_slice(&code.to_be_bytes());
        payload.extend_from_slice(reason.as_bytes());
    }
    payload.truncate(MAX_CONTROL);
    frame(OpCode::Control(Control::Close), &payload)
}

fn frame(opcode: OpCode, payload: &[u8]) -> Bytes {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    let mut bytes = Vec::with_capacity(10 + payload.len());
    // Writing into memory cannot fail.
    let _ = header.format(payload.len() as u64, &mut bytes);
    bytes.extend_from_slice(payload);
    bytes.into()
}

/// Whether a request asks to speak WebSocket at all.
pub(super) fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    let names = |name, wanted: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    names(CONNECTION, "upgrade") && names(UPGRADE, "websocket")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tungstenite::protocol::frame::Frame;

    fn from_client(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
        let mask = [7, 1, 200, 13];
        let header = FrameHeader { opcode, is_final, mask: Some(mask), ..FrameHeader::default() };
        let mut bytes = Vec::new();
        header.format(payload.len() as u64, &mut bytes).unwrap();
        bytes.extend(payload.iter().zip(mask.into_iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }

    fn read_all(reader: &mut Reader, bytes: &[u8]) -> Result<Vec<Inbound>, Violation> {
        reader.feed(bytes);
        let mut all = Vec::new();
        while let Some(inbound) = reader.next()? {
            all.push(inbound);
        }
        Ok(all)
    }

    const TEXT: OpCode = OpCode::Data(Data::Text);
    const MORE: OpCode = OpCode::Data(Data::Continue);
    const PING: OpCode = OpCode::Control(Control::Ping);

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let wire = [
            from_client(TEXT, false, b"he"),
            from_client(PING, true, b"!"),
            from_client(MORE, false, b"l"),
            from_client(MORE, true, b"lo"),
            from_client(TEXT, true, &[b'x'; 300]),
        ]
        .concat();
        for size in [1, 2, 3, 7, wire.len()] {
            let mut reader = Reader::default();
            let read: Vec<_> =
                wire.chunks(size).flat_map(|part| read_all(&mut reader, part).unwrap()).collect();
            let expected = [
                Inbound::Ping(Bytes::from_static(b"!")),
                Inbound::Message(BytesMut::from("hello")),
                Inbound::Message(BytesMut::from(&[b'x'; 300][..])),
            ];
            assert_eq!(read, expected, "in pieces of {size}");
            assert_eq!(reader.raw.capacity(), 0, "a silent connection holds no buffer");
        }
    }

    #[test]
    fn what_no_client_may_send_ends_the_connection() {
        let unmasked = text(b"{}").to_vec();
        let mut reserved = from_client(TEXT, true, b"{}");
        reserved[0] |= 0x40;
        for (wire, why) in [
            (unmasked, Violation::Protocol),
            (reserved, Violation::Protocol),
            (from_client(MORE, true, b""), Violation::Protocol),
            ([from_client(TEXT, false, b""), from_client(TEXT, true, b"")].concat(), Violation::Protocol),
            (from_client(PING, false, b""), Violation::Protocol),
            (from_client(PING, true, &[0; 126]), Violation::Protocol),
            (from_client(OpCode::Control(Control::Close), true, &[3]), Violation::Protocol),
            (from_client(OpCode::Control(Control::Close), true, &[3, 237]), Violation::Protocol),
            (vec![0x83, 0x80, 0, 0, 0, 0], Violation::Protocol),
            (from_client(TEXT, true, &[b' '; MAX_MESSAGE + 1]), Violation::TooLarge),
            (
                vec![0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
                Violation::TooLarge,
            ),
            (
                [from_client(TEXT, false, &[b' '; MAX_MESSAGE]), from_client(MORE, true, b" ")].concat(),
                Violation::TooLarge,
            ),
        ] {
            assert_eq!(read_all(&mut Reader::default(), &wire).unwrap_err(), why, "{:?}", &wire[..4]);
        }
        let largest = from_client(TEXT, true, &[b' '; MAX_MESSAGE]);
        assert_eq!(read_all(&mut Reader::default(), &largest).unwrap().len(), 1);
    }

    #[test]
    fn what_is_sent_is_what_the_library_would_send() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![b'a'; length];
            let mut expected = Vec::new();
            Frame::message(payload.clone(), TEXT, true).format(&mut expected).unwrap();
            assert_eq!(text(&payload), expected);
            assert_eq!(text_of(&text(&payload)), payload);
        }
        assert_eq!(close(Some(4001), "x"), [0x88, 3, 0x0f, 0xa1, b'x'][..]);
        assert_eq!(close(None, ""), [0x88, 0][..]);
    }

    proptest! {
        #[test]
        fn noise_never_panics_and_never_grows_a_message_beyond_its_bound(noise: Vec<u8>, cut in 1usize..64) {
            let mut reader = Reader::default();
            for part in noise.chunks(cut) {
                let Ok(read) = read_all(&mut reader, part) else { break };
                for inbound in read {
                    if let Inbound::Message(message) = inbound {
                        prop_assert!(message.len() <= MAX_MESSAGE);
                    }
                }
            }
        }
    }
}
