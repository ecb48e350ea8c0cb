//! Words for what a parser refused: the place and the rule, never the value.

use quarterdeck_domain::error::FieldError;
use serde_path_to_error::{Path, Segment};

/// What is said when the parser's words would repeat input, or are not understood.
const NOT_VALID: &str = "is not valid";

/// Refusal of a member of a body.
pub(super) fn of_member(path: &Path, message: &str) -> FieldError {
    FieldError {
        pointer: pointer(path) + &missing(message).map(step).unwrap_or_default(),
        detail: rule(message),
    }
}

/// Refusal of a parameter.
pub(super) fn of_parameter(path: &Path, message: &str) -> FieldError {
    let pointer = match missing(message) {
        Some(name) => name.to_owned(),
        None => path.iter().next().map(ToString::to_string).unwrap_or_default(),
    };
    FieldError { pointer, detail: rule(message) }
}

/// JSON pointer (RFC 6901) of a place.
pub(super) fn pointer(path: &Path) -> String {
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => step(key),
            Segment::Enum { .. } | Segment::Unknown => String::new(),
        })
        .collect()
}

fn step(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Name of the member a message misses or has twice: the parser reports those at the parent.
fn missing(message: &str) -> Option<&str> {
    let rest =
        message.strip_prefix("missing field `").or_else(|| message.strip_prefix("duplicate field `"))?;
    rest.split_once('`').map(|(name, _)| name)
}

/// The broken rule in words of ours.
pub(super) fn rule(message: &str) -> String {
    let message = strip_position(message);
    let expected = || message.rsplit_once(", expected ").map(|(_, expected)| expected);
    let starts = |prefix| message.starts_with(prefix);
    if starts("must ") || starts("is ") || starts("has ") {
        message.to_owned()
    } else if starts("missing field") {
        "is required".to_owned()
    } else if starts("duplicate field") {
        "must not appear twice".to_owned()
    } else if starts("unknown field") {
        "has a member that is not known".to_owned()
    } else if starts("unknown variant") {
        expected().map_or(NOT_VALID.to_owned(), one_of)
    } else if starts("invalid type") || starts("invalid value") {
        expected().map_or(NOT_VALID.to_owned(), wanted)
    } else if starts("invalid length") {
        "has the wrong number of elements".to_owned()
    } else {
        number(message).to_owned()
    }
}

/// What should have been there, given the name a parser has for it.
pub(super) fn wanted(expected: &str) -> String {
    let integer = |bits: u32, signed: bool| {
        let (low, high) = match (bits, signed) {
            (64.., true) => return "must be an integer".to_owned(),
            (64.., false) => return "must be an integer that is not negative".to_owned(),
            (_, true) => (-(1i64 << (bits - 1)), (1i64 << (bits - 1)) - 1),
            (_, false) => (0, (1i64 << bits) - 1),
        };
        format!("must be an integer between {low} and {high}")
    };
    match expected {
        "a string" | "a borrowed string" | "a str" | "str" | "String" | "&str" => "must be a string",
        "a boolean" | "bool" => "must be true or false",
        "a character" | "char" => "must be one character",
        "f32" | "f64" => "must be a number",
        "unit" | "null" => "must be null",
        "i8" => return integer(8, true),
        "i16" => return integer(16, true),
        "i32" => return integer(32, true),
        "i64" | "i128" | "isize" => return integer(64, true),
        "u8" => return integer(8, false),
        "u16" => return integer(16, false),
        "u32" => return integer(32, false),
        "u64" | "u128" | "usize" => return integer(64, false),
        other if other.starts_with("a sequence") || other.starts_with("an array") => "must be an array",
        other if other.starts_with("a map") || other.starts_with("struct ") => "must be an object",
        other if other.contains("UUID") || other.contains("Uuid") => "must be a UUID",
        other if other.contains("date and time") => "must be a date and time with offset (RFC 3339)",
        other if other.contains("enum") || other.contains("variant") => "must be one of the known values",
        _ => NOT_VALID,
    }
    .to_owned()
}

fn one_of(expected: &str) -> String {
    let names: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    match names.as_slice() {
        [] => NOT_VALID.to_owned(),
        [only] => format!("must be {only}"),
        several => format!("must be one of {}", several.join(", ")),
    }
}

/// Messages of the standard library's parsers, which query strings and paths go through.
fn number(message: &str) -> &'static str {
    match message {
        "invalid digit found in string" | "cannot parse integer from empty string" => "must be an integer",
        "number too large to fit in target type" | "number too small to fit in target type" => {
            "is out of range"
        }
        "invalid float literal" | "cannot parse float from empty string" => "must be a number",
        "provided string was not `true` or `false`" => "must be true or false",
        other if other.contains("UUID") => "must be a UUID",
        _ => NOT_VALID,
    }
}

/// Cuts off where in the text the parser was.
fn strip_position(message: &str) -> &str {
    message.rsplit_once(" at line ").map_or(message, |(before, _)| before)
}
