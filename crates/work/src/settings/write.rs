//! Changing settings: checked, compared with what the writer saw, stored all or nothing, then told.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::BoxFuture;
use quarterdeck_domain::approval::RiskLevel;
use quarterdeck_domain::audit::{self, Actor};
use quarterdeck_domain::error::FieldError;
use quarterdeck_domain::event::{Event, EventType};
use quarterdeck_domain::setting::{Definition, Entry, IfMatch, Namespace, SettingType, etag_of_all};
use quarterdeck_domain::{Error, ErrorCode, Result};
use quarterdeck_store::setting::{self, Row};
use quarterdeck_store::{Tx, from_micros, micros};
use serde_json::json;

use super::{Settings, Snapshot, failed_encryption};

/// How often a write that recomputes its value tries again after a race.
const TRIES: usize = 3;
/// Longest time a writer waits for subscribers of its change.
const PATIENCE: Duration = Duration::from_secs(2);

/// One value to be stored.
pub struct Write {
    /// Namespace.
    pub namespace: String,
    /// Key.
    pub key: String,
    /// The new value.
    pub value: String,
    /// What the writer saw before.
    pub if_match: IfMatch,
}

type Check = Box<dyn Fn(&Snapshot) -> Result<(), String> + Send + Sync>;

type Record = Box<dyn Fn(&Tx, Noted) -> BoxFuture<'_, Result<()>> + Send + Sync>;

/// What a change has made of all settings, for whoever keeps a record of it.
pub struct Noted {
    /// All values as they are now.
    pub after: Arc<Snapshot>,
    /// User id of who changed them.
    pub actor: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// A rule over several settings, asked before any of them changes.
pub struct Rule {
    watched: Vec<(Namespace, &'static str)>,
    check: Check,
    record: Option<Record>,
}

impl Rule {
    /// A rule over `watched`. `check` sees all values as they would be; its error names the broken rule,
    /// never a value.
    pub fn over<'a>(
        watched: impl IntoIterator<Item = &'a Definition>,
        check: impl Fn(&Snapshot) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        let watched = watched.into_iter().map(|d| (d.namespace, d.key)).collect();
        Self { watched, check: Box::new(check), record: None }
    }

    /// Calls `record` in the transaction of every change of a watched setting.
    pub fn recorded(
        mut self,
        record: impl Fn(&Tx, Noted) -> BoxFuture<'_, Result<()>> + Send + Sync + 'static,
    ) -> Self {
        self.record = Some(Box::new(record));
        self
    }

    fn concerns(&self, definition: &Definition) -> bool {
        self.watched.contains(&(definition.namespace, definition.key))
    }
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.watched).finish()
    }
}

/// A checked change, ready to be stored.
pub(super) struct Step {
    pub(super) position: usize,
    /// Text of the row, sealed if need be; `None` removes the row.
    pub(super) text: Option<String>,
    pub(super) if_match: IfMatch,
}

/// Steps that are stored together.
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// A condition over a whole namespace.
    pub(super) whole: Option<(Namespace, IfMatch)>,
    /// Leaves settings alone whose value in force already is the new one.
    pub(super) only_differences: bool,
}

/// What becomes of one row.
struct Move {
    position: usize,
    old: Option<Row>,
    new: Option<Row>,
}

struct Outcome {
    after: Arc<Snapshot>,
    /// Positions of what was stored (`true`) or dropped.
    done: Vec<(usize, bool)>,
}

impl Settings {
    /// Stores one value and answers the setting as it is then. Subscribers of this copy of the program
    /// have heard of it, unless they need longer than two seconds.
    ///
    /// # Errors
    /// 404/3000 not registered; 422/2000 read-only, or the value breaks a rule, which the text names;
    /// 409/4002 when `if_match` does not hold; 500/8000 when a sensitive value cannot be sealed.
    pub async fn set(&self, write: Write, actor: &Actor) -> Result<Entry> {
        let mut entries = self.set_many(vec![write], actor).await?;
        entries.pop().ok_or_else(|| Error::internal("a write without an entry"))
    }

    /// Stores all values or none; they share one time. Answers the settings in the order of the writes.
    ///
    /// # Errors
    /// Those of [`Settings::set`]; 422/2000 when a setting is named twice.
    pub async fn set_many(&self, writes: Vec<Write>, actor: &Actor) -> Result<Vec<Entry>> {
        let mut named = HashSet::new();
        let mut steps = Vec::with_capacity(writes.len());
        for Write { namespace, key, value, if_match } in writes {
            let position = self.writable(&namespace, &key)?;
            if !named.insert(position) {
                return Err(Error::rule("A setting must not be named twice"));
            }
            self.0.ground.registry.check(position, &value).map_err(|rule| {
                let (namespace, key) = (namespace.as_str(), key.as_str());
                tracing::info!(target: "settings", namespace, key, rule, "settings.validation.failed");
                invalid(rule)
            })?;
            steps.push(Step { position, text: Some(self.sealed(position, value)?), if_match });
        }
        let positions: Vec<_> = steps.iter().map(|step| step.position).collect();
        let after = self.commit(Plan { steps, whole: None, only_differences: false }, actor).await?;
        Ok(positions.into_iter().map(|position| after.entry(position)).collect())
    }

    /// Drops the stored value, so that the environment, the file or the definition decides again.
    /// Dropping twice is harmless.
    ///
    /// # Errors
    /// 404/3000 not registered; 422/2000 read-only, or a rule over several settings would break;
    /// 409/4002 when `if_match` does not hold.
    pub async fn reset(&self, namespace: &str, key: &str, if_match: IfMatch, actor: &Actor) -> Result<()> {
        let position = self.writable(namespace, key)?;
        let steps = vec![Step { position, text: None, if_match }];
        self.commit(Plan { steps, whole: None, only_differences: false }, actor).await.map(drop)
    }

    /// Stores what `change` makes of the value in force, for documents that several processes edit.
    /// Tries three times when somebody else was faster.
    ///
    /// # Errors
    /// Those of `change` and of [`Settings::set`]. Sensitive settings cannot be changed this way.
    pub async fn modify(
        &self,
        namespace: &str,
        key: &str,
        change: impl Fn(&str) -> Result<String>,
        actor: &Actor,
    ) -> Result<Entry> {
        let mut tried = 1;
        loop {
            let seen = self.entry(namespace, key)?;
            if seen.definition.sensitive {
                return Err(Error::internal("a sensitive setting cannot be modified unseen"));
            }
            let write = Write {
                namespace: namespace.to_owned(),
                key: key.to_owned(),
                value: change(&seen.value)?,
                if_match: IfMatch::Tags(vec![seen.etag()]),
            };
            match self.set(write, actor).await {
                Err(lost) if lost.code() == ErrorCode::VersionConflict && tried < TRIES => {
                    tried += 1;
                    self.rebuild().await?;
                }
                done => return done,
            }
        }
    }

    /// Where a setting that the API may change stands.
    pub(super) fn writable(&self, namespace: &str, key: &str) -> Result<usize> {
        let position = self.position(namespace, key)?;
        if self.definitions()[position].read_only_post_init {
            return Err(Error::rule("Setting is read-only: set it by environment or configuration file"));
        }
        Ok(position)
    }

    /// The text a value is stored as.
    pub(super) fn sealed(&self, position: usize, value: String) -> Result<String> {
        let definition = &self.definitions()[position];
        if !definition.sensitive {
            return Ok(value);
        }
        const EVENT: &str = "settings.encryption.seal_failed";
        let secret = value.into();
        match &self.0.ground.keys {
            Some(keys) => {
                keys.seal(&definition.id(), &secret).map_err(|why| failed_encryption(definition, EVENT, why))
            }
            None => Err(failed_encryption(definition, EVENT, "QUARTERDECK_SETTINGS_KEY is not set")),
        }
    }

    /// Stores the plan in one transaction, then makes it visible before returning.
    pub(super) async fn commit(&self, plan: Plan, actor: &Actor) -> Result<Arc<Snapshot>> {
        let (this, by) = (self.clone(), actor.clone());
        let apply = self.0.store.write(move |tx| Box::pin(async move { this.apply(tx, plan, &by).await }));
        let outcome = apply.await;
        let actor = &*actor.id;
        let Outcome { after, done } = outcome.inspect_err(|error| {
            if error.code() == ErrorCode::VersionConflict {
                tracing::info!(target: "settings", "api.concurrency.conflict");
            }
        })?;
        if done.is_empty() {
            return Ok(after);
        }
        for &(position, stored) in &done {
            let definition = &self.definitions()[position];
            let Definition { namespace, key, .. } = *definition;
            if stored {
                tracing::info!(target: "settings", %namespace, key, actor, "settings.value.set");
            } else {
                tracing::info!(target: "settings", %namespace, key, actor, "settings.value.deleted");
            }
            if namespace.audited() {
                let action = if stored { "set" } else { "delete" };
                tracing::info!(target: "security", %namespace, key, action, actor, "security.setting.changed");
            }
        }
        self.spread().await;
        Ok(after)
    }

    /// Makes what was stored visible: to readers, and to subscribers while somebody dispatches.
    pub(super) async fn spread(&self) {
        match self.rebuild().await {
            Ok(now) => {
                let mut told = self.0.told.subscribe();
                self.0.bell.notify_one();
                let done = told.wait_for(|told| told.is_none_or(|told| told >= now.generation));
                if tokio::time::timeout(PATIENCE, done).await.is_err() {
                    tracing::warn!(target: "settings", "settings.notification.slow");
                }
            }
            Err(error) => {
                // The change is stored; the dispatcher reads it as soon as the database answers again.
                tracing::error!(target: "settings", error = %error, "settings.notification.reload_failed");
                self.0.bell.notify_one();
            }
        }
    }

    async fn apply(&self, tx: &Tx, plan: Plan, actor: &Actor) -> Result<Outcome> {
        tx.lock("quarterdeck.settings").await?;
        let rows = setting::all(&**tx).await?;
        let before = self.0.ground.resolve(&rows);
        if let Some((namespace, if_match)) = &plan.whole {
            let tag = etag_of_all(&before.entries_of(*namespace));
            holds(if_match, &tag)?;
        }
        let is = |row: &Row, position: usize| {
            let Definition { namespace, key, .. } = self.definitions()[position];
            row.namespace == namespace.as_str() && row.key == key
        };
        let replaced = |row: &&Row| plan.steps.iter().any(|step| is(row, step.position));
        let stamp = self.stamp(rows.iter().filter(replaced));
        let mut next = rows.clone();
        let mut moves = Vec::with_capacity(plan.steps.len());
        for Step { position, text, if_match } in plan.steps {
            let entry = before.entry(position);
            holds(&if_match, &entry.etag())?;
            let old = rows.iter().find(|row| is(row, position)).cloned();
            let unchanged = match &text {
                Some(text) => plan.only_differences && same(&entry, text),
                None => old.is_none(),
            };
            if unchanged {
                continue;
            }
            next.retain(|row| !is(row, position));
            let Definition { namespace, key, .. } = entry.definition;
            let row = |value| Row {
                namespace: namespace.to_string(),
                key: key.to_owned(),
                value,
                updated_at: stamp,
            };
            let new = text.map(row);
            next.extend(new.clone());
            moves.push(Move { position, old, new });
        }
        let after = self.0.ground.resolve(&next);
        self.check_rules(&before, &after, &moves)?;
        let after = Arc::new(after);
        for rule in &self.0.rules {
            if let Some(record) = &rule.record
                && moves.iter().any(|one| rule.concerns(&self.definitions()[one.position]))
            {
                let noted = Noted { after: Arc::clone(&after), actor: actor.id.to_string(), at: stamp };
                record(tx, noted).await?;
            }
        }
        let mut done = Vec::with_capacity(moves.len());
        for Move { position, old, new } in moves {
            let swapped = match (&new, &old) {
                (Some(new), old) => setting::swap(tx, new, old.as_ref().map(|row| row.updated_at)).await?,
                (None, Some(old)) => setting::remove(tx, &old.namespace, &old.key, old.updated_at).await?,
                (None, None) => true,
            };
            if !swapped {
                return Err(conflict());
            }
            let Definition { namespace, key, .. } = self.definitions()[position];
            let payload = json!({"namespace": namespace.as_str(), "key": key});
            tx.publish(Event::new(EventType::SettingChanged, stamp, payload));
            tx.audit(self.recorded(actor, position, new.as_ref()));
            done.push((position, new.is_some()));
        }
        Ok(Outcome { after, done })
    }

    /// The change for the audit trail. A secret value leaves nothing there, not even its fingerprint, from
    /// which a short one could be guessed.
    fn recorded(&self, actor: &Actor, position: usize, new: Option<&Row>) -> audit::Entry {
        let definition = &self.definitions()[position];
        let id = definition.id();
        let (action, reason) = match new {
            Some(_) => ("setting:update", format!("Changed the setting {id}")),
            None => ("setting:reset", format!("Dropped the stored value of the setting {id}")),
        };
        let value = new.filter(|_| !definition.sensitive).map(|row| &row.value);
        let risk = if definition.namespace.audited() || definition.sensitive {
            RiskLevel::High
        } else {
            RiskLevel::Medium
        };
        audit::Entry::new(actor, action, self.0.clock.now(), reason)
            .risk(risk)
            .arguments(&json!({"setting": id, "value": value}))
    }

    /// A time later than that of every row it replaces, even if the clock stepped back: it is their
    /// version.
    fn stamp<'a>(&self, replaced: impl Iterator<Item = &'a Row>) -> DateTime<Utc> {
        let now = from_micros(micros(self.0.clock.now()));
        let latest = replaced.map(|row| row.updated_at).max();
        latest.map_or(now, |latest| now.max(latest + TimeDelta::microseconds(1)))
    }

    fn check_rules(&self, before: &Snapshot, after: &Snapshot, moves: &[Move]) -> Result<()> {
        for rule in &self.0.rules {
            let concerned = moves.iter().filter(|one| rule.concerns(&self.definitions()[one.position]));
            let Some(only_removals) = concerned.map(|one| one.new.is_none()).reduce(|a, b| a && b) else {
                continue;
            };
            if let Err(broken) = (rule.check)(after) {
                // A removal may be a step out of a state that is broken already.
                if only_removals && (rule.check)(before).is_err() {
                    continue;
                }
                return Err(invalid(broken));
            }
        }
        Ok(())
    }

    /// Seals with the current key what an older one sealed, so that the older one can be retired.
    pub(super) async fn seal_anew(&self) -> Result<()> {
        let Some(keys) = &self.0.ground.keys else { return Ok(()) };
        let mut renewed = Vec::new();
        for row in setting::all(self.0.store.read()).await? {
            let Ok(position) = self.position(&row.namespace, &row.key) else { continue };
            let definition = &self.definitions()[position];
            if !definition.sensitive || keys.is_current(&row.value) {
                continue;
            }
            // What does not open has been logged already and stays as it is.
            let Ok(secret) = keys.open(&definition.id(), &row.value) else { continue };
            let text = keys
                .seal(&definition.id(), &secret)
                .map_err(|why| failed_encryption(definition, "settings.encryption.seal_failed", why))?;
            renewed.push((row, text));
        }
        if renewed.is_empty() {
            return Ok(());
        }
        let count = renewed.len();
        self.0
            .store
            .write(move |tx| {
                Box::pin(async move {
                    for (row, text) in &renewed {
                        setting::exchange(tx, row, text).await?;
                    }
                    Ok(())
                })
            })
            .await?;
        tracing::info!(target: "settings", count, "settings.encryption.sealed_anew");
        Ok(())
    }
}

/// Whether storing `text` would leave the value in force as it is.
fn same(entry: &Entry, text: &str) -> bool {
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    entry.value == text
        || (entry.definition.kind == SettingType::Json
            && json(text).is_some_and(|new| json(&entry.value) == Some(new)))
}

fn holds(if_match: &IfMatch, tag: &str) -> Result<()> {
    if if_match.allows(tag) { Ok(()) } else { Err(conflict()) }
}

fn conflict() -> Error {
    Error::new(ErrorCode::VersionConflict)
}

/// 422/2000 with the broken rule.
pub(super) fn invalid(rule: String) -> Error {
    let fields = vec![FieldError { pointer: "/value".to_owned(), detail: rule.clone() }];
    Error::rule(format!("Invalid setting value: {rule}")).fields(fields)
}
