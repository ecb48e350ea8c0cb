//! What clients ask for on a socket, and the texts that answer it. No state, no I/O.

use std::sync::Arc;

use bytes::Bytes;
use quarterdeck_bus::Position;
use serde::Serialize;
use serde_json::{Map, Value};

use super::codec;

/// Longest command, in bytes of UTF-8.
pub(super) const MAX_COMMAND: usize = 4096;
/// Deepest nesting of a command.
const MAX_DEPTH: usize = 32;
/// Most keys of a filter.
pub(super) const MAX_FILTERS: usize = 10;
/// Longest text in a filter, in characters.
const MAX_FILTER_VALUE: usize = 256;
/// Longest id of a command, in characters.
const MAX_ID: usize = 64;

/// What the payload of an event must hold to be delivered: member and scalar.
pub(super) type Filters = Vec<(String, Value)>;

/// What a client asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Command {
    Ping,
    Subscribe {
        channels: Vec<String>,
        /// `None` leaves the filters as they are.
        filters: Option<Filters>,
        /// Where the client was, by name of the channel.
        recover: Map<String, Value>,
        /// Whether events may come several in a frame.
        batch: Option<bool>,
    },
    Unsubscribe {
        channels: Vec<String>,
    },
}

/// Why a command is not carried out; the state stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    TooLarge,
    InvalidJson,
    NotObject,
    BadChannels,
    BadFilters,
    UnknownAction,
    FilterBounds,
}

impl Refusal {
    /// The text, the same for all clients.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::TooLarge => "Message too large",
            Self::InvalidJson => "Invalid JSON",
            Self::NotObject => "Expected JSON object",
            Self::BadChannels => "channels must be a list of strings",
            Self::BadFilters => "filters must be an object",
            Self::UnknownAction => "Unknown action",
            Self::FilterBounds => "Filter bounds exceeded",
        }
    }

    /// The code for clients that speak `quarterdeck.v1`, and for metrics.
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::InvalidJson => "invalid_json",
            Self::NotObject => "not_object",
            Self::BadChannels => "bad_channels",
            Self::BadFilters => "bad_filters",
            Self::UnknownAction => "unknown_action",
            Self::FilterBounds => "filter_bounds",
        }
    }
}

/// Reads a command, and the id it carries; the checks come in the order of their contract.
pub(super) fn parse(text: &[u8]) -> (Result<Command, Refusal>, Option<String>) {
    if text.len() > MAX_COMMAND {
        return (Err(Refusal::TooLarge), None);
    }
    if is_deep(text) {
        return (Err(Refusal::InvalidJson), None);
    }
    let object = match serde_json::from_slice::<Value>(text) {
        Err(_) => return (Err(Refusal::InvalidJson), None),
        Ok(Value::Object(object)) => object,
        Ok(_) => return (Err(Refusal::NotObject), None),
    };
    let id = object.get("id").and_then(Value::as_str).filter(|id| id.chars().count() <= MAX_ID);
    let id = id.map(str::to_owned);
    (command(object), id)
}

fn command(mut object: Map<String, Value>) -> Result<Command, Refusal> {
    let action = object.remove("action").unwrap_or_default();
    if action == "ping" {
        return Ok(Command::Ping);
    }
    let channels = match object.remove("channels") {
        None => Vec::new(),
        Some(value) => serde_json::from_value(value).map_err(|_| Refusal::BadChannels)?,
    };
    let filters = match object.remove("filters") {
        None | Some(Value::Null) => None,
        Some(Value::Object(filters)) => Some(filters),
        Some(_) => return Err(Refusal::BadFilters),
    };
    if filters.iter().flat_map(Map::values).any(|v| v.is_null() || v.is_array() || v.is_object()) {
        return Err(Refusal::BadFilters);
    }
    match action.as_str() {
        Some("subscribe") => {}
        Some("unsubscribe") => return Ok(Command::Unsubscribe { channels }),
        _ => return Err(Refusal::UnknownAction),
    }
    let is_long = |value: &Value| value.as_str().is_some_and(|v| v.chars().count() > MAX_FILTER_VALUE);
    if filters.as_ref().is_some_and(|all| all.len() > MAX_FILTERS || all.values().any(is_long)) {
        return Err(Refusal::FilterBounds);
    }
    let recover = match object.remove("recover") {
        Some(Value::Object(recover)) => recover,
        _ => Map::new(),
    };
    let batch = object.get("batch").and_then(Value::as_bool);
    Ok(Command::Subscribe { channels, filters: filters.map(|all| all.into_iter().collect()), recover, batch })
}

/// Whether brackets nest deeper than allowed, texts left out.
fn is_deep(text: &[u8]) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return true;
        }
    }
    false
}

/// Whether an event with this payload passes; one without a payload passes no filter.
pub(super) fn matches(filters: &Filters, payload: Option<&Map<String, Value>>) -> bool {
    filters.is_empty()
        || payload.is_some_and(|payload| {
            filters.iter().all(|(key, wanted)| payload.get(key).is_some_and(|value| same(value, wanted)))
        })
}

/// Equal as JSON scalars: 1 and 1.0 are one number, "1" is none.
fn same(a: &Value, b: &Value) -> bool {
    a == b || matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if a == b)
}

/// Where a client says it was; `None` for what no server has said.
pub(super) fn position(value: &Value) -> Option<Position> {
    let epoch: Arc<str> = value.get("epoch")?.as_str()?.into();
    Some(Position { epoch, seq: value.get("seq")?.as_u64()? })
}

/// The bytes of a reply.
pub(super) fn reply(reply: &impl Serialize) -> Bytes {
    // Replies are made of texts and numbers, which cannot fail to serialise.
    codec::text(&serde_json::to_vec(reply).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn refused(text: &str) -> Option<&'static str> {
        parse(text.as_bytes()).0.err().map(Refusal::text)
    }

    #[test]
    fn refusals_come_in_the_order_of_the_contract() {
        let long = format!(r#"{{"action":"ping","x":"{}"}}"#, "a".repeat(5000));
        for (text, expected) in [
            (long.as_str(), Some("Message too large")),
            ("", Some("Invalid JSON")),
            ("{", Some("Invalid JSON")),
            (r#"{"action":"ping","x":"\ud800"}"#, Some("Invalid JSON")),
            (r#"{"action":"ping","x":1e999}"#, Some("Invalid JSON")),
            ("[]", Some("Expected JSON object")),
            ("null", Some("Expected JSON object")),
            ("1", Some("Expected JSON object")),
            (r#"{"action":"ping","channels":1,"filters":2}"#, None),
            (r#"{"action":"nonsense","channels":1}"#, Some("channels must be a list of strings")),
            (r#"{"action":"subscribe","channels":null}"#, Some("channels must be a list of strings")),
            (r#"{"action":"subscribe","channels":["a",1]}"#, Some("channels must be a list of strings")),
            (r#"{"action":"subscribe","filters":[]}"#, Some("filters must be an object")),
            (r#"{"action":"subscribe","filters":{"task_id":null}}"#, Some("filters must be an object")),
            (r#"{"action":"subscribe","filters":{"task_id":[]}}"#, Some("filters must be an object")),
            (r#"{"action":"nonsense"}"#, Some("Unknown action")),
            (r#"{"action":1}"#, Some("Unknown action")),
            ("{}", Some("Unknown action")),
            (r#"{"action":"auth","ticket":"x"}"#, Some("Unknown action")),
            (r#"{"action":"subscribe"}"#, None),
            (r#"{"action":"unsubscribe","surprise":1}"#, None),
        ] {
            assert_eq!(refused(text), expected, "{text}");
        }
    }

    #[test]
    fn bounds_hold_on_both_sides() {
        let frame = |padding: usize| format!(r#"{{"action":"ping","x":"{}"}}"#, "a".repeat(padding));
        let room = MAX_COMMAND - frame(0).len();
        assert_eq!(refused(&frame(room)), None);
        assert_eq!(refused(&frame(room + 1)), Some("Message too large"));

        let deep = |depth: usize| format!(r#"{{"x":{}{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert_eq!(refused(&deep(32)), Some("Unknown action"));
        assert_eq!(refused(&deep(33)), Some("Invalid JSON"));

        let filters = |keys: usize, length: usize| {
            let filters: Map<_, _> = (0..keys).map(|i| (i.to_string(), json!("ä".repeat(length)))).collect();
            json!({"action": "subscribe", "channels": ["tasks"], "filters": filters}).to_string()
        };
        assert_eq!(refused(&filters(10, 20)), None);
        assert_eq!(refused(&filters(11, 20)), Some("Filter bounds exceeded"));
        assert_eq!(refused(&filters(1, 256)), None);
        assert_eq!(refused(&filters(1, 257)), Some("Filter bounds exceeded"));
    }

    #[test]
    fn absent_and_null_filters_leave_alone_and_an_empty_object_clears() {
        let filters = |text: &str| match parse(text.as_bytes()).0 {
            Ok(Command::Subscribe { filters, .. }) => filters,
            other => panic!("{other:?}"),
        };
        assert_eq!(filters(r#"{"action":"subscribe"}"#), None);
        assert_eq!(filters(r#"{"action":"subscribe","filters":null}"#), None);
        assert_eq!(filters(r#"{"action":"subscribe","filters":{}}"#), Some(vec![]));
    }

    #[test]
    fn filters_compare_scalars() {
        let payload = json!({"a": "1", "n": 1, "b": true, "o": {}});
        let payload = payload.as_object();
        for (key, wanted, passes) in [
            ("a", json!("1"), true),
            ("a", json!(1), false),
            ("n", json!(1.0), true),
            ("n", json!("1"), false),
            ("b", json!(true), true),
            ("missing", json!(""), false),
            ("o", json!("x"), false),
        ] {
            assert_eq!(matches(&vec![(key.to_owned(), wanted)], payload), passes, "{key}");
        }
        assert!(matches(&vec![], None));
        assert!(!matches(&vec![("a".to_owned(), json!(1))], None));
    }

    proptest! {
        #[test]
        fn noise_is_refused_and_never_panics(noise: Vec<u8>) {
            let (command, _) = parse(&noise);
            prop_assert!(command.is_err());
        }

        #[test]
        fn json_of_any_shape_is_answered(text in r#"\{("(action|channels|filters|id|recover)":("subscribe"|"ping"|null|\[\]|\{\}|\["a"\]|1e5),?){0,4}\}"#) {
            let (command, _) = parse(text.as_bytes());
            prop_assert!(command.is_ok() || command.is_err_and(|refusal| refusal != Refusal::NotObject));
        }
    }
}
