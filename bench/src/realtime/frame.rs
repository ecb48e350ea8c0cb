//! As much of RFC 6455 as a subscriber needs that is meant to cost next to nothing: whole frames out of
//! what a socket gave, and short frames into it.

use crate::Failure;

pub(crate) const TEXT: u8 = 1;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// Longest payload that fits a frame without an extended length.
const SHORT: usize = 125;

/// A frame from a server.
pub(crate) struct Frame<'a> {
    pub(crate) opcode: u8,
    pub(crate) payload: &'a [u8],
}

/// Cuts the bytes of one connection into frames.
#[derive(Default)]
pub(crate) struct Frames {
    /// The beginning of a frame whose end has not come yet.
    begun: Vec<u8>,
}

impl Frames {
    /// Hands over every frame that is complete with these bytes, in order.
    ///
    /// # Errors
    /// When the server fragments, compresses or masks, which no contestant is asked to, or `take` fails.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(Frame<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut begun = std::mem::take(&mut self.begun);
        let mut rest = if begun.is_empty() {
            bytes
        } else {
            begun.extend_from_slice(bytes);
            &begun
        };
        while let Some((frame, length)) = first(rest)? {
            take(frame)?;
            rest = &rest[length..];
        }
        self.begun = rest.to_vec();
        Ok(())
    }
}

/// The first frame and its length with the header; `None` when it is not complete.
fn first(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Failure> {
    let [head, length, ..] = *bytes else { return Ok(None) };
    if head & 0xF0 != 0x80 || head & 0x0F == 0 {
        return Err("a server sent a frame that is fragmented or compressed".into());
    }
    let (start, length): (usize, usize) = match length {
        126 => match *bytes {
            [_, _, a, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10) {
            Some(wide) => (10, usize::try_from(u64::from_be_bytes(wide.try_into()?))?),
            None => return Ok(None),
        },
        128.. => return Err("a server sent a masked frame".into()),
        short => (2, usize::from(short)),
    };
    let end = start.checked_add(length).ok_or("a server announced a frame without end")?;
    let payload = bytes.get(start..end);
    Ok(payload.map(|payload| (Frame { opcode: head & 0x0F, payload }, end)))
}

/// A frame to a server. The mask is zero: it protects proxies, and there is none between.
///
/// # Errors
/// When the payload is longer than 125 bytes.
pub(crate) fn to_server(opcode: u8, payload: &[u8]) -> Result<Vec<u8>, Failure> {
    if payload.len() > SHORT {
        return Err(format!("a subscriber sends frames of {SHORT} bytes at most").into());
    }
    let mut frame = vec![0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_server(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            short @ 0..126 => frame.push(short as u8),
            long @ 126..65_536 => {
                frame.push(126);
                frame.extend_from_slice(&(long as u16).to_be_bytes());
            }
            longer => {
                frame.push(127);
                frame.extend_from_slice(&(longer as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn frames_come_out_whole_however_the_bytes_are_cut() {
        let sent = [
            (TEXT, b"first".to_vec()),
            (PING, Vec::new()),
            (TEXT, vec![b'x'; 300]),
            (2, vec![7; 70_000]),
            (CLOSE, vec![3, 232]),
        ];
        let bytes: Vec<u8> =
            sent.iter().flat_map(|(opcode, payload)| from_server(*opcode, payload)).collect();
        for size in [1, 2, 3, 7, 299, 4096, bytes.len()] {
            let (mut frames, mut got) = (Frames::default(), Vec::new());
            for chunk in bytes.chunks(size) {
                let take = |frame: Frame<'_>| {
                    got.push((frame.opcode, frame.payload.to_vec()));
                    Ok(())
                };
                frames.feed(chunk, take).unwrap();
            }
            assert_eq!(got, sent, "in chunks of {size}");
        }
    }

    #[test]
    fn frames_a_subscriber_cannot_read_are_errors() {
        for bytes in [&[0x01, 0x00][..], &[0x80, 0x00], &[0xC1, 0x00], &[0x81, 0x80]] {
            assert!(Frames::default().feed(bytes, |_| Ok(())).is_err(), "{bytes:?}");
        }
        let endless = [0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255];
        assert!(Frames::default().feed(&endless, |_| Ok(())).is_err());
        assert!(to_server(TEXT, &[b'x'; 126]).is_err());
    }
}
