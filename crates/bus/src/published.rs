//! An event in a channel, and the forms it is sent in: each made once and shared by everyone who gets it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use quarterdeck_domain::event::MAX_BYTES;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A place in a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The stretch of unbroken history the sequence belongs to.
    pub epoch: Arc<str>,
    /// Ascending within the epoch, not necessarily without holes; below 2^53.
    pub seq: u64,
}

/// How an event is written for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As everybody knows it.
    Plain,
    /// With its `position`.
    Positioned,
    /// With its `position`, marked as `replayed`.
    Replayed,
}

/// An event in a channel.
pub struct Published {
    position: Position,
    body: Bytes,
    at_micros: i64,
    forms: [OnceLock<Bytes>; 3],
    parsed: OnceLock<Parsed>,
}

/// What delivery asks of an event's text.
#[derive(Default, Deserialize)]
pub struct Parsed {
    /// Its type; empty in a text that is no event.
    #[serde(default)]
    pub event_type: String,
    /// Its payload; `None` when it is no object.
    #[serde(default)]
    pub payload: Option<Map<String, Value>>,
}

impl Published {
    pub(crate) fn new(position: Position, body: Bytes, at_micros: i64) -> Self {
        Self { position, body, at_micros, forms: Default::default(), parsed: OnceLock::new() }
    }

    /// Its place in the channel.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Its place in the epoch.
    pub fn seq(&self) -> u64 {
        self.position.seq
    }

    /// Bytes of its text.
    pub fn size(&self) -> usize {
        self.body.len()
    }

    /// Whether it is too large to be delivered to anybody.
    pub fn is_oversized(&self) -> bool {
        self.body.len() > MAX_BYTES
    }

    /// When it happened, microseconds since 1970 UTC.
    pub fn at_micros(&self) -> i64 {
        self.at_micros
    }

    /// Type and payload.
    pub fn parsed(&self) -> &Parsed {
        self.parsed.get_or_init(|| serde_json::from_slice(&self.body).unwrap_or_default())
    }

    /// The bytes of a form; `wrap` turns the text into what goes over the wire and is called once.
    pub fn form(&self, form: Form, wrap: impl FnOnce(&[u8]) -> Bytes) -> &Bytes {
        self.forms[form as usize].get_or_init(|| match form {
            Form::Plain => wrap(&self.body),
            Form::Positioned => wrap(&self.with_position("")),
            Form::Replayed => wrap(&self.with_position(r#","replayed":true"#)),
        })
    }

    /// The text with further members before its closing brace.
    fn with_position(&self, more: &str) -> Vec<u8> {
        let open = self.body.strip_suffix(b"}").unwrap_or(&self.body);
        let mut text = Vec::with_capacity(open.len() + 80);
        text.extend_from_slice(open);
        text.extend_from_slice(br#","position":{"epoch":""#);
        // Epochs are made of letters, digits and dashes.
        text.extend_from_slice(self.position.epoch.as_bytes());
        text.extend_from_slice(format!(r#"","seq":{}}}{more}}}"#, self.position.seq).as_bytes());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_form_is_the_event_with_what_it_adds_and_is_made_once() {
        let position = Position { epoch: "e1".into(), seq: 7 };
        let event = Published::new(position, Bytes::from_static(br#"{"payload":{"a":1},"event_id":"x"}"#), 0);
        let read =
            |form| -> Value { serde_json::from_slice(event.form(form, Bytes::copy_from_slice)).unwrap() };
        assert_eq!(read(Form::Plain), json!({"payload": {"a": 1}, "event_id": "x"}));
        let placed = json!({"payload": {"a": 1}, "event_id": "x", "position": {"epoch": "e1", "seq": 7}});
        assert_eq!(read(Form::Positioned), placed);
        assert_eq!(read(Form::Replayed)["replayed"], true);
        event.form(Form::Plain, |_| panic!("made twice"));
        assert_eq!(event.parsed().payload.as_ref().unwrap()["a"], 1);
    }
}
