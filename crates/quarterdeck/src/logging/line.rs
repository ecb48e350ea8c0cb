//! One event as one line: JSON for programs, words for people on a terminal.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::ops::Range;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use quarterdeck_domain::sink::LogLevel;
use tracing::field::{Field, Visit};

use super::redact::{self, Key, REDACTED};

/// Longest text of one value in bytes; what follows is cut off.
const VALUE_LIMIT: usize = 16 * 1024;
/// Length of [`stamp`]'s text.
pub(super) const STAMP: usize = 27;
/// What every JSON line begins with; the time follows.
pub(super) const JSON_HEAD: &str = "{\"timestamp\":\"";

/// Fields every event of a scope carries.
pub(super) const CONTEXT: [&str; 3] = ["request_id", "task_id", "agent_id"];

/// Keys the line itself uses; a field of that name gets a prefix.
const RESERVED: [&str; 4] = ["timestamp", "level", "logger", "event"];

/// Fields of every request whose values this program makes, or checks by their characters.
const OWN: [&str; 3] = ["request_id", "method", "trace_id"];

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
        let prefix = if RESERVED.contains(&name) { "field_" } else { "" };
        match self.style {
            Style::Json => {
                self.out.push_str(",\"");
                self.out.push_str(prefix);
                escape(self.out, name);
                self.out.push_str("\":");
            }
            Style::Human { .. } => {
                self.out.push(' ');
                self.out.push_str(prefix);
                escape(self.out, name);
                self.out.push('=');
            }
        }
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
        // The name of an event says what happened, not what with.
        let named = text.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'.' | b'_'));
        let text = if named { Cow::Borrowed(text) } else { redact::scrub(text) };
        match self.style {
            Style::Json => {
                self.out.push_str(",\"event\":\"");
                let start = self.out.len();
                escape(self.out, &text);
                self.event = start..self.out.len();
                self.out.push('"');
            }
            // Fields may have been visited before; the event is still what is read first.
            Style::Human { .. } => {
                let fields = self.out.split_off(self.start);
                escape(self.out, &text);
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
        match redact::key(name) {
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
        self.name(name);
        match redact::key(name) {
            Key::Plain | Key::Count => {
                let _ = write!(self.out, "{value}");
            }
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
        self.number(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field.name(), value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.number(field.name(), value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.number(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no word for what is not finite.
        if value.is_finite() {
            self.number(field.name(), value);
        } else {
            self.formatted(field.name(), format_args!("{value}"));
        }
    }
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

/// RFC 3339 in UTC with microseconds. By hand: a calendar library costs more than the rest of a line.
pub(super) fn stamp(out: &mut String, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, micros) = (since.as_secs(), since.subsec_micros());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to civil date, counting years from March so that the leap day comes last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let mut digits = |from: usize, to: usize, mut value: u64| {
        for place in text[from..to].iter_mut().rev() {
            *place = b'0' + u8::try_from(value % 10).unwrap_or(0);
            value /= 10;
        }
    };
    digits(0, 4, year);
    digits(5, 7, month);
    digits(8, 10, day);
    digits(11, 13, rest / 3600);
    digits(14, 16, rest / 60 % 60);
    digits(17, 19, rest % 60);
    digits(20, 26, u64::from(micros));
    out.push_str(std::str::from_utf8(&text).unwrap_or_default());
}

#[cfg(test)]
mod tests;
