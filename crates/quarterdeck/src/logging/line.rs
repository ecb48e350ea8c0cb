//! One event as one line: JSON for programs, words for people on a terminal.

use std::fmt::{self, Write};
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use quarterdeck_domain::sink::LogLevel;
use tracing::field::{Field, Visit};

use super::redact::{self, Key, REDACTED};
use super::stamp::stamp;

/// Longest text of one value in bytes; what follows is cut off.
const VALUE_LIMIT: usize = 16 * 1024;
/// What every JSON line begins with; the time follows.
pub(super) const JSON_HEAD: &str = "{\"timestamp\":\"";

/// Fields every event of a scope carries.
pub(super) const CONTEXT: [&str; 3] = ["request_id", "task_id", "agent_id"];

/// Keys the line itself uses; a field of that name gets a prefix.
const RESERVED: [&str; 4] = ["timestamp", "level", "logger", "event"];

/// Names of fields every request logs: they need no escape and no look at their letters.
const USUAL: [&str; 5] = ["request_id", "method", "path", "status_code", "duration_ms"];

/// Fields of every request whose values this program makes, or checks by their characters.
pub(super) const OWN: [&str; 3] = ["request_id", "method", "trace_id"];

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// One JSON object.
    Json,
    /// For people; coloured or not.
    Human { colour: bool },
}

/// Writes one line into `out` from the visited fields.
pub(super) struct Render<'a> {
    out: &'a mut String,
    scratch: &'a mut String,
    style: Style,
    start: usize,
    event: Range<usize>,
    own_context: [bool; CONTEXT.len()],
}

impl<'a> Render<'a> {
    /// Begins a line at the end of `out`; `scratch` is room for values being built.
    pub(super) fn begin(
        out: &'a mut String,
        scratch: &'a mut String,
        style: Style,
        time: SystemTime,
        level: LogLevel,
        logger: &str,
    ) -> Self {
        match style {
            Style::Json => {
                out.push_str(JSON_HEAD);
                stamp(out, time);
                out.push_str("\",\"level\":\"");
                out.push_str(level.as_str());
                out.push_str("\",\"logger\":\"");
                escape(out, logger);
                out.push('"');
            }
            Style::Human { colour } => {
                stamp(out, time);
                let (on, off) = if colour { (tint(level), "\x1b[0m") } else { ("", "") };
                let _ = write!(out, " {on}{:<8}{off} ", level.as_str());
            }
        }
        let start = out.len();
        Self { out, scratch, style, start, event: start..start, own_context: [false; CONTEXT.len()] }
    }

    /// Ends the line; answers where in `out` its event name stands.
    pub(super) fn end(
        self,
        logger: &str,
        fallback: &str,
        context: &[Option<Arc<str>>; CONTEXT.len()],
    ) -> Range<usize> {
        let mut this = self;
        if this.event.is_empty() {
            this.message(fallback);
        }
        for (index, value) in context.iter().enumerate() {
            if let Some(value) = value
                && !this.own_context[index]
            {
                this.name(CONTEXT[index]);
                this.quoted(value, |out, value| out.push_str(value));
            }
        }
        match this.style {
            Style::Json => this.out.push_str("}\n"),
            Style::Human { colour } => {
                this.out.push_str(if colour { " \x1b[2m" } else { " " });
                escape(this.out, logger);
                this.out.push_str(if colour { "\x1b[0m\n" } else { "\n" });
            }
        }
        this.event
    }

    fn name(&mut self, name: &str) {
        let (before, after) = match self.style {
            Style::Json => (",\"", "\":"),
            Style::Human { .. } => (" ", "="),
        };
        self.out.push_str(before);
        if USUAL.contains(&name) {
            self.out.push_str(name);
        } else {
            self.out.push_str(if RESERVED.contains(&name) { "field_" } else { "" });
            escape(self.out, name);
        }
        self.out.push_str(after);
    }

    fn quoted(&mut self, value: &str, write: impl FnOnce(&mut String, &str)) {
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"';
        let bare = self.style != Style::Json && !value.is_empty() && value.bytes().all(plain);
        if bare {
            write(self.out, value);
        } else {
            self.out.push('"');
            write(self.out, value);
            self.out.push('"');
        }
    }

    fn message(&mut self, text: &str) {
        // The name of an event says what happened, not what with, and needs no escape.
        let named = text.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'.' | b'_'));
        let write = |out: &mut String| match named {
            true => out.push_str(text),
            false => escape(out, &redact::scrub(text)),
        };
        match self.style {
            Style::Json => {
                self.out.push_str(",\"event\":\"");
                let start = self.out.len();
                write(self.out);
                self.event = start..self.out.len();
                self.out.push('"');
            }
            // Fields may have been visited before; the event is still what is read first.
            Style::Human { .. } => {
                let fields = self.out.split_off(self.start);
                write(self.out);
                self.event = self.start..self.out.len();
                self.out.push_str(&fields);
            }
        }
    }

    /// A field whose value is text.
    pub(super) fn text(&mut self, name: &str, value: &str) {
        let value = cut(value);
        if name == "message" {
            return self.message(value);
        }
        if let Some(index) = CONTEXT.iter().position(|known| *known == name) {
            self.own_context[index] = true;
        }
        self.name(name);
        match key(name) {
            Key::Plain if OWN.contains(&name) => self.quoted(value, escape),
            Key::Plain => self.quoted(&redact::scrub(value), escape),
            Key::Secret | Key::Count => self.quoted(REDACTED, escape),
            Key::SessionId => self.quoted(redact::session_id(value), escape),
        }
        if value.len() == VALUE_LIMIT {
            self.name("cut");
            self.out.push_str("true");
        }
    }

    /// A field whose value is a number.
    pub(super) fn number(&mut self, name: &str, value: impl fmt::Display) {
        self.figure(name, |out| {
            let _ = write!(out, "{value}");
        });
    }

    fn integer(&mut self, name: &str, value: impl itoa::Integer) {
        self.figure(name, |out| out.push_str(itoa::Buffer::new().format(value)));
    }

    fn figure(&mut self, name: &str, write: impl FnOnce(&mut String)) {
        self.name(name);
        match key(name) {
            Key::Plain | Key::Count => write(self.out),
            Key::Secret | Key::SessionId => self.quoted(REDACTED, escape),
        }
    }

    fn formatted(&mut self, name: &str, value: fmt::Arguments<'_>) {
        // An event name without arguments needs no copy.
        if let Some(text) = value.as_str() {
            return self.text(name, text);
        }
        let mut scratch = std::mem::take(self.scratch);
        scratch.clear();
        let _ = Limited(&mut scratch).write_fmt(value);
        self.text(name, &scratch);
        *self.scratch = scratch;
    }
}

impl Visit for Render<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.formatted(field.name(), format_args!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.formatted(field.name(), format_args!("{}", Chain(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        // One bit is no secret, and `password_changed=true` is worth reading.
        self.name(field.name());
        self.out.push_str(if value { "true" } else { "false" });
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.integer(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.integer(field.name(), value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.number(field.name(), value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.number(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if let Some(hundredths) = hundredths(value) {
            self.figure(field.name(), |out| decimal(out, hundredths));
        // JSON has no word for what is not finite.
        } else if value.is_finite() {
            self.number(field.name(), value);
        } else {
            self.formatted(field.name(), format_args!("{value}"));
        }
    }
}

/// How a field of this name is treated.
fn key(name: &str) -> Key {
    if USUAL.contains(&name) { Key::Plain } else { redact::key(name) }
}

/// The value in hundredths, if it is a whole number of them and of at most fifteen digits: then no other
/// text of as few digits is the same number.
fn hundredths(value: f64) -> Option<u64> {
    let whole = (value * 100.0).round();
    (value.is_sign_positive() && whole < 1e15 && whole / 100.0 == value).then_some(whole as u64)
}

/// Writes hundredths as `Display` writes the number, in a tenth of its time.
fn decimal(out: &mut String, hundredths: u64) {
    out.push_str(itoa::Buffer::new().format(hundredths / 100));
    let (tenth, hundredth) = (hundredths / 10 % 10, hundredths % 10);
    let text = [b'.', b'0' + tenth as u8, b'0' + hundredth as u8];
    let shown = match (tenth, hundredth) {
        (0, 0) => 0,
        (_, 0) => 2,
        _ => 3,
    };
    out.push_str(std::str::from_utf8(&text[..shown]).unwrap_or_default());
}

/// An error with the errors it came from.
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// Takes the beginning of what is written and forgets the rest.
struct Limited<'a>(&'a mut String);

impl Write for Limited<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = VALUE_LIMIT.saturating_sub(self.0.len());
        self.0.push_str(&text[..floor(text, room)]);
        Ok(())
    }
}

fn cut(text: &str) -> &str {
    &text[..floor(text, VALUE_LIMIT)]
}

/// The last character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    if at >= text.len() {
        return text.len();
    }
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// Bytes that cannot stand in a JSON string as they are, or might be part of what cannot.
const SPECIAL: [bool; 256] = {
    let mut table = [true; 256];
    let mut byte = 0x20;
    while byte <= 0x7e {
        table[byte] = matches!(byte as u8, b'"' | b'\\');
        byte += 1;
    }
    table
};

/// The text as the inside of a JSON string; also keeps terminals from obeying it.
pub(super) fn escape(out: &mut String, text: &str) {
    // Without an early end and without branches: most texts need nothing.
    if !text.bytes().fold(false, |special, byte| special | SPECIAL[usize::from(byte)]) {
        return out.push_str(text);
    }
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Control characters, line separators, and marks that turn the reading direction.
            '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

const fn tint(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "\x1b[34m",
        LogLevel::Info => "\x1b[32m",
        LogLevel::Warning => "\x1b[33m",
        LogLevel::Error => "\x1b[31m",
        LogLevel::Critical => "\x1b[1;31m",
    }
}

#[cfg(test)]
mod tests;
