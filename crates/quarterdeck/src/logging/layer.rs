//! The `tracing` layer: decides once per call site, then turns events into lines.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use quarterdeck_domain::sink::LogLevel;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::line::{CONTEXT, OWN, Render, Style, escape};
use super::queue::{Line, Queue};
use super::redact;
use super::writer::Command;

/// Logger of the panic hook; its events are CRITICAL, a level `tracing` does not know.
pub(super) const PANIC_LOGGER: &str = "quarterdeck::panic";
/// Longest id taken from a span, in bytes.
const ID_LIMIT: usize = 128;

const JSON: u8 = 1;
const HUMAN: u8 = 2;
const COLOUR: u8 = 4;
const CORRELATE: u8 = 8;

/// Which events are wanted at all.
pub(super) struct Levels {
    /// The level the most talkative sink takes.
    pub(super) floor: LogLevel,
    /// Loggers without a level of their own.
    pub(super) root: LogLevel,
    /// Loggers, and everything below them.
    pub(super) loggers: BTreeMap<String, LogLevel>,
}

impl Levels {
    fn of_logger(&self, logger: &str) -> LogLevel {
        let below = |name: &str| {
            logger.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '.']))
        };
        let named = self.loggers.iter().filter(|(name, _)| below(name)).max_by_key(|(name, _)| name.len());
        match named {
            Some((_, level)) => *level,
            // What libraries tell below WARNING is theirs, and nobody vouches for what it contains.
            None if logger.contains("::") && !logger.starts_with("quarterdeck") => {
                self.root.max(LogLevel::Warning)
            }
            None => self.root,
        }
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.is_span() {
            return CONTEXT.iter().any(|name| metadata.fields().field(name).is_some());
        }
        let level = level_of(metadata);
        *metadata.level() != Level::TRACE && level >= self.floor && level >= self.of_logger(metadata.target())
    }

    /// Scopes are entered at INFO or above and must survive a quieter root.
    fn most_talkative(&self) -> LevelFilter {
        let wanted = self.loggers.values().copied().fold(self.root, LogLevel::min).max(self.floor);
        if wanted == LogLevel::Debug { LevelFilter::DEBUG } else { LevelFilter::INFO }
    }
}

fn level_of(metadata: &Metadata<'_>) -> LogLevel {
    match *metadata.level() {
        Level::ERROR if metadata.target() == PANIC_LOGGER => LogLevel::Critical,
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warning,
        Level::INFO => LogLevel::Info,
        Level::DEBUG | Level::TRACE => LogLevel::Debug,
    }
}

/// What the layer, the writer and the handle share.
pub(super) struct Shared {
    pub(super) queue: Queue<Command>,
    levels: RwLock<Levels>,
    forms: AtomicU8,
}

impl Shared {
    pub(super) fn new(limit: usize, levels: Levels) -> Self {
        Self { queue: Queue::new(limit), levels: RwLock::new(levels), forms: AtomicU8::new(JSON | CORRELATE) }
    }

    /// Which forms of a line some sink reads.
    pub(super) fn set_forms(&self, json: bool, human: bool, colour: bool) {
        let forms = JSON * u8::from(json) + HUMAN * u8::from(human) + COLOUR * u8::from(colour);
        self.forms.fetch_or(forms, Ordering::Relaxed);
        self.forms.fetch_and(forms | CORRELATE, Ordering::Relaxed);
    }

    pub(super) fn set_correlation(&self, on: bool) {
        match on {
            true => self.forms.fetch_or(CORRELATE, Ordering::Relaxed),
            false => self.forms.fetch_and(!CORRELATE, Ordering::Relaxed),
        };
    }

    /// Every call site decides anew.
    pub(super) fn set_levels(&self, levels: Levels) {
        *self.levels.write().unwrap_or_else(PoisonError::into_inner) = levels;
        tracing::callsite::rebuild_interest_cache();
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        self.levels.read().unwrap_or_else(PoisonError::into_inner).wants(metadata)
    }

    /// Queues one line; `fields` is called once per form. `false` when there was no room.
    pub(super) fn emit(
        &self,
        level: LogLevel,
        logger: &'static str,
        fallback: &str,
        context: &Ids,
        fields: impl Fn(&mut Render<'_>),
    ) -> bool {
        let forms = self.forms.load(Ordering::Relaxed);
        let time = SystemTime::now();
        let nothing = Ids::default();
        let context = if forms & CORRELATE == 0 { &nothing } else { context };
        // Taken, not borrowed: a value's Debug may itself log.
        let Scratch { mut json, mut human, mut value } = SCRATCH.try_with(Cell::take).unwrap_or_default();
        json.clear();
        human.clear();
        let mut event = 0..0;
        if forms & HUMAN != 0 {
            let style = Style::Human { colour: forms & COLOUR != 0 };
            let mut render = Render::begin(&mut human, &mut value, style, time, level, logger);
            fields(&mut render);
            event = render.end(logger, fallback, context);
        }
        if forms & JSON != 0 || forms & HUMAN == 0 {
            let mut render = Render::begin(&mut json, &mut value, Style::Json, time, level, logger);
            fields(&mut render);
            event = render.end(logger, fallback, context);
        }
        let taken = self.queue.push(&Line { json: &json, human: &human, event, level, logger });
        let _ = SCRATCH.try_with(|kept| kept.set(Scratch { json, human, value }));
        taken
    }
}

#[derive(Default)]
struct Scratch {
    json: String,
    human: String,
    value: String,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
    static MUTED: Cell<bool> = const { Cell::new(false) };
}

/// Keeps this thread's own events out: a sink that logs about its work would feed itself.
pub(super) fn mute_this_thread() {
    MUTED.set(true);
}

/// Ids of a scope, escaped, in the order of [`CONTEXT`].
pub(super) type Ids = [Option<Arc<str>>; CONTEXT.len()];

struct IdVisitor<'a>(&'a mut Ids);

impl IdVisitor<'_> {
    fn set(&mut self, field: &Field, text: &str) {
        let Some(index) = CONTEXT.iter().position(|name| *name == field.name()) else { return };
        let end = (0..=ID_LIMIT.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let text = &text[..end];
        let text = if OWN.contains(&field.name()) { Cow::Borrowed(text) } else { redact::scrub(text) };
        let mut escaped = String::with_capacity(text.len());
        escape(&mut escaped, &text);
        self.0[index] = Some(escaped.into());
    }
}

impl Visit for IdVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if CONTEXT.contains(&field.name()) {
            self.set(field, &format!("{value:?}"));
        }
    }
}

/// The layer; cheap to clone, all clones feed the same queue.
#[derive(Clone)]
pub(super) struct Lines(pub(super) Arc<Shared>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.0.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.0.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0.levels.read().unwrap_or_else(PoisonError::into_inner).most_talkative())
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut ids = Ids::default();
            attributes.record(&mut IdVisitor(&mut ids));
            span.extensions_mut().insert(ids);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(ids) = span.extensions_mut().get_mut::<Ids>()
        {
            values.record(&mut IdVisitor(ids));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if MUTED.get() {
            return;
        }
        let mut ids = Ids::default();
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Ids>() {
                for (id, outer) in ids.iter_mut().zip(outer) {
                    if id.is_none() {
                        id.clone_from(outer);
                    }
                }
            }
        }
        let metadata = event.metadata();
        let (level, logger) = (level_of(metadata), metadata.target());
        if !self.0.emit(level, logger, metadata.name(), &ids, |render| event.record(render)) {
            self.0.queue.drop_line();
        }
    }
}
