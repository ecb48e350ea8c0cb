//! Values by dotted name.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use toml::{Table, Value};

use super::{Config, SECRETS};

/// Every value of a configuration by dotted name, secrets masked.
pub(super) fn leaves(config: &Config) -> BTreeMap<String, Json> {
    fn walk(value: Json, path: String, leaves: &mut BTreeMap<String, Json>) {
        match value {
            Json::Object(members) => {
                for (name, value) in members {
                    walk(value, join(&path, &name), leaves);
                }
            }
            leaf => drop(leaves.insert(path, leaf)),
        }
    }
    let mut leaves = BTreeMap::new();
    walk(serde_json::to_value(config).unwrap_or_default(), String::new(), &mut leaves);
    leaves
}

pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Reads the text of a variable as what stands in the place of `default`. Text that does not fit is
/// kept as text, for the configuration's own types to refuse.
pub(super) fn typed(default: &Json, text: &str) -> Value {
    let keep = || Value::String(text.to_owned());
    match default {
        Json::Number(_) => text
            .parse::<i64>()
            .map(Value::Integer)
            .or_else(|_| text.parse::<f64>().map(Value::Float))
            .unwrap_or_else(|_| keep()),
        Json::Bool(_) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" => Value::Boolean(true),
            "false" | "0" | "no" => Value::Boolean(false),
            _ => keep(),
        },
        Json::Array(_) => list(text).or_else(|| tables(text)).unwrap_or_else(|| {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
        }),
        Json::Null => list(text).unwrap_or_else(keep),
        _ => keep(),
    }
}

fn list(text: &str) -> Option<Value> {
    let items: Vec<String> = serde_json::from_str(text).ok()?;
    Some(Value::Array(items.into_iter().map(Value::String).collect()))
}

fn tables(text: &str) -> Option<Value> {
    let items: Vec<Table> = serde_json::from_str(text).ok()?;
    Some(Value::Array(items.into_iter().map(Value::Table).collect()))
}

/// The text of a value as run-time settings are written.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Datetime(date) => date.to_string(),
        other => serde_json::to_string(other).unwrap_or_default(),
    }
}

/// Builds a configuration from values by dotted name.
///
/// The error is the dotted name and a sentence that begins with it and holds the rule, not the value.
pub(super) fn build(values: &BTreeMap<String, Value>) -> Result<Config, (String, String)> {
    let mut root = Table::new();
    for (path, value) in values {
        let mut table = &mut root;
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            if names.peek().is_none() {
                table.insert(name.to_owned(), value.clone());
                break;
            }
            let next = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(next) = next else {
                return Err((path.clone(), format!("{path} is set together with a part of it")));
            };
            table = next;
        }
    }
    serde_path_to_error::deserialize(Value::Table(root)).map_err(|error| {
        let path = error.path().to_string();
        let name = path.split('[').next().unwrap_or(&path).to_owned();
        let rule = rule(error.inner().message());
        let secret = SECRETS.contains(&name.as_str());
        let rule = if secret { "must be text".to_owned() } else { rule };
        (name, format!("{path} {rule}"))
    })
}

/// Turns a message of serde into a rule; what stands before the expectation repeats the value.
fn rule(message: &str) -> String {
    let message = message.lines().next().unwrap_or_default();
    if message.starts_with("must ") {
        return message.to_owned();
    }
    let Some((_, expected)) = message.split_once("expected ") else {
        return "is not valid".to_owned();
    };
    let expected = match expected {
        "u16" => "a whole number between 0 and 65535",
        "u32" => "a whole number between 0 and 4294967295",
        "u64" => "a whole number of at least 0",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "path string" => "text",
        "a sequence" => "a list",
        other if other.starts_with("struct ") => "a section",
        other => other,
    };
    format!("must be {expected}")
}

/// The candidate a slip of the finger or a forgotten section away.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a String>) -> Option<&'a str> {
    let last = |path: &str| path.rsplit('.').next().map(str::to_owned);
    let distance = |candidate: &&'a String| {
        let whole = strsim::damerau_levenshtein(name, candidate);
        if name.contains('.') && last(name) == last(candidate) { whole.min(1) } else { whole }
    };
    let bound = 1 + name.len() / 8;
    candidates
        .map(|c| (distance(&c), c))
        .filter(|(d, _)| *d <= bound)
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| &**c)
}
