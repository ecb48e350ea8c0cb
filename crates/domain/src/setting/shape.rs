//! Rules for the documents of `json` settings. Messages name the rule, never what was found.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use crate::approval::TimeoutPolicy;
use crate::review::MAX_STAGE;

fn strings(value: &Value) -> Result<Vec<&str>, String> {
    let list = value.as_array().map(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
    match list {
        Some(Some(list)) if list.iter().all(|text| !text.trim().is_empty()) => Ok(list),
        _ => Err("must be a list of non-blank strings".to_owned()),
    }
}

pub(super) fn origins(value: &Value) -> Result<(), String> {
    let fits = |origin: &&str| {
        *origin == "*"
            || ["http://", "https://"].iter().any(|scheme| {
                origin.strip_prefix(scheme).is_some_and(|host| !host.is_empty() && !host.contains('/'))
            })
    };
    if strings(value)?.iter().all(fits) {
        Ok(())
    } else {
        Err("every origin must be scheme, host and optional port, or *".to_owned())
    }
}

pub(super) fn networks(value: &Value) -> Result<(), String> {
    let network = |text: &&str| {
        let prefix = text.parse::<IpNet>().map(|net| net.prefix_len());
        prefix.or_else(|_| text.parse::<IpAddr>().map(|_| 1)).ok()
    };
    match strings(value)?.iter().map(network).min() {
        Some(None) => Err("every entry must be an IP address or a CIDR network".to_owned()),
        Some(Some(0)) => Err("a network must not cover every address".to_owned()),
        _ => Ok(()),
    }
}

pub(super) fn paths(value: &Value) -> Result<(), String> {
    if strings(value)?.iter().all(|path| path.starts_with('/')) {
        Ok(())
    } else {
        Err("every path must begin with /".to_owned())
    }
}

/// A list of regular expressions, or null for the built-in list.
pub(super) fn patterns(value: &Value) -> Result<(), String> {
    if value.is_null() || strings(value)?.iter().all(|pattern| Regex::new(pattern).is_ok()) {
        Ok(())
    } else {
        Err("every entry must be a regular expression".to_owned())
    }
}

fn by_operation(value: &Value, fits: fn(&Value) -> bool, rule: &str) -> Result<(), String> {
    let Some(map) = value.as_object() else {
        return Err("must be an object with operation names as keys".to_owned());
    };
    if map.keys().any(|name| name.is_empty() || name.trim() != name) {
        return Err("an operation name must not be blank or surrounded by white space".to_owned());
    }
    if map.values().all(fits) { Ok(()) } else { Err(rule.to_owned()) }
}

/// Operation → `[most requests, window in seconds]`; 0 in either place switches the limit off.
pub(super) fn rate_limits(value: &Value) -> Result<(), String> {
    let fits = |limit: &Value| {
        limit.as_array().is_some_and(|pair| pair.len() == 2 && pair.iter().all(|n| n.as_u64().is_some()))
    };
    by_operation(value, fits, "every limit must be [max_requests, window_seconds], two whole numbers from 0")
}

/// Operation → most at once; 0 switches the cap off.
pub(super) fn caps(value: &Value) -> Result<(), String> {
    by_operation(value, |cap| cap.as_u64().is_some(), "every cap must be a whole number from 0")
}

/// Logger → level.
pub(super) fn levels(value: &Value) -> Result<(), String> {
    let fits =
        |level: &Value| level.as_str().is_some_and(|level| super::observability::LEVELS.contains(&level));
    match value.as_object() {
        Some(map) if map.keys().all(|logger| !logger.trim().is_empty()) && map.values().all(fits) => Ok(()),
        _ => Err(format!(
            "must be an object of logger names and levels, a level being one of {}",
            super::observability::LEVELS.join(", ")
        )),
    }
}

/// Pairs of model names: every first one differs from all others and from its second.
pub(super) fn downgrades(value: &Value) -> Result<(), String> {
    let rule = || "must be a list of pairs of non-blank strings".to_owned();
    let mut sources = HashSet::new();
    for pair in value.as_array().ok_or_else(rule)? {
        let [from, to] = strings(pair).map_err(|_| rule())?[..] else { return Err(rule()) };
        if from == to {
            return Err("no model may be replaced by itself".to_owned());
        }
        if !sources.insert(from) {
            return Err("no model may be replaced twice".to_owned());
        }
    }
    Ok(())
}

/// Names of stages, each once.
pub(super) fn stages(value: &Value) -> Result<(), String> {
    let names = strings(value)?;
    if names.iter().any(|name| name.chars().count() > MAX_STAGE || name.contains('/')) {
        return Err(format!("the name of a stage must have at most {MAX_STAGE} characters and no /"));
    }
    let unique: HashSet<_> = names.iter().collect();
    if unique.len() == names.len() { Ok(()) } else { Err("every stage may be named once".to_owned()) }
}

/// What becomes of approvals nobody decides.
pub(super) fn timeout_policy(value: &Value) -> Result<(), String> {
    let policy = TimeoutPolicy::deserialize(value)
        .map_err(|_| "must be wait, deny with after_seconds, or tiered with tiers".to_owned())?;
    policy.check()
}

pub(super) fn object_of_objects(value: &Value) -> Result<(), String> {
    match value.as_object() {
        Some(map) if map.values().all(Value::is_object) => Ok(()),
        _ => Err("must be an object whose members are objects".to_owned()),
    }
}

pub(super) fn list_of_objects(value: &Value) -> Result<(), String> {
    match value.as_array() {
        Some(list) if list.iter().all(Value::is_object) => Ok(()),
        _ => Err("must be a list of objects".to_owned()),
    }
}

/// Parts of a backup, each at most once, at least one.
pub(super) fn components(value: &Value) -> Result<(), String> {
    let names = strings(value)?;
    let known = |name: &&str| crate::backup::Component::parse(name).is_some();
    let twice = names.iter().enumerate().any(|(at, name)| names[..at].contains(name));
    if names.is_empty() || twice || !names.iter().all(known) {
        return Err("must list persistence, memory and config, or some of them, each once".to_owned());
    }
    Ok(())
}

/// A path that does not climb, in the notation of POSIX or Windows.
pub(super) fn no_climbing(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    if text.split(['/', '\\']).any(|part| part == "..") {
        return Err("must not contain ..".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rate_limit_override_is_two_whole_numbers_under_a_clean_name() {
        for good in [json!({}), json!({"tasks.create": [1, 60]}), json!({"tasks.create": [0, 60]})] {
            assert!(rate_limits(&good).is_ok(), "{good}");
        }
        for bad in [
            json!(null),
            json!([]),
            json!({"tasks.create": [-1, 60]}),
            json!({"tasks.create": [true, 60]}),
            json!({"tasks.create": [1]}),
            json!({"tasks.create": [1, 2, 3]}),
            json!({"tasks.create": [1.0, 60]}),
            json!({"tasks.create": null}),
            json!({" tasks.create ": [1, 60]}),
            json!({"": [1, 60]}),
        ] {
            assert!(rate_limits(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cap_is_a_whole_number() {
        assert!(caps(&json!({"memory.fine_tune": 0})).is_ok());
        for bad in [json!({"a": -1}), json!({"a": true}), json!({"a": 1.5}), json!({"a": "1"})] {
            assert!(caps(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_trusted_network_never_covers_every_address() {
        assert!(networks(&json!(["10.0.0.0/8", "::1", "192.168.1.7"])).is_ok());
        assert!(networks(&json!([])).is_ok());
        for bad in
            [json!(["10.0.0.1", "0.0.0.0/0"]), json!(["::/0"]), json!(["nowhere"]), json!([1]), json!({})]
        {
            assert!(networks(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_does_not_climb_in_either_notation() {
        for good in ["/data/backups", "a..b", "", "C:\\backups\\..a"] {
            assert!(no_climbing(&json!(good)).is_ok(), "{good}");
        }
        for bad in ["..", "../x", "/data/../x", "a\\..\\b", "a/.."] {
            assert!(no_climbing(&json!(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_model_is_replaced_once_and_by_another() {
        assert!(downgrades(&json!([])).is_ok() && downgrades(&json!([["a", "b"], ["b", "c"]])).is_ok());
        for bad in [
            json!({}),
            json!([["a"]]),
            json!([["a", "a"]]),
            json!([["a", "b"], ["a", "c"]]),
            json!([["a", " "]]),
        ] {
            assert!(downgrades(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn parts_of_a_backup_are_named_once() {
        assert!(components(&json!(["config", "persistence"])).is_ok());
        for bad in [json!([]), json!(["config", "config"]), json!(["logs"]), json!("config"), json!([1])] {
            assert!(components(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_stage_is_named_once() {
        assert!(stages(&json!(["legal", "acceptance_criteria"])).is_ok() && stages(&json!([])).is_ok());
        for bad in [json!(["a", "a"]), json!([" "]), json!(["a/b"]), json!(["a".repeat(129)]), json!("a")] {
            assert!(stages(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_hold_what_their_name_says() {
        assert!(origins(&json!(["http://localhost:5173", "*"])).is_ok());
        assert!(origins(&json!(["localhost"])).is_err() && origins(&json!(["http://a/b"])).is_err());
        assert!(paths(&json!(["/api/v1/health"])).is_ok() && paths(&json!(["health"])).is_err());
        assert!(patterns(&json!(null)).is_ok() && patterns(&json!(["^/docs"])).is_ok());
        assert!(patterns(&json!(["("])).is_err() && patterns(&json!([" "])).is_err());
        assert!(levels(&json!({"sqlx": "WARNING"})).is_ok() && levels(&json!({"sqlx": "loud"})).is_err());
        assert!(
            object_of_objects(&json!({"console": {}})).is_ok()
                && object_of_objects(&json!({"a": 1})).is_err()
        );
        assert!(list_of_objects(&json!([{}])).is_ok() && list_of_objects(&json!([1])).is_err());
    }
}
