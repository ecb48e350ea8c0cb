//! Log lines as an OTLP export request in its JSON encoding.

use chrono::DateTime;
use quarterdeck_domain::sink::LogLevel;
use serde_json::{Map, Value, json};

/// The request body for these lines.
pub(super) fn export(lines: &[(Box<str>, LogLevel)]) -> String {
    let records: Vec<Value> = lines.iter().map(|(line, level)| record(line, *level)).collect();
    json!({
        "resourceLogs": [{
            "resource": {"attributes": [
                {"key": "service.name", "value": {"stringValue": "quarterdeck"}},
                {"key": "service.version", "value": {"stringValue": env!("CARGO_PKG_VERSION")}},
            ]},
            "scopeLogs": [{"scope": {"name": "quarterdeck"}, "logRecords": records}],
        }]
    })
    .to_string()
}

fn record(line: &str, level: LogLevel) -> Value {
    let mut fields: Map<String, Value> = serde_json::from_str(line).unwrap_or_default();
    let mut take = |name: &str| fields.remove(name).and_then(|value| value.as_str().map(str::to_owned));
    let nanos = take("timestamp")
        .and_then(|time| DateTime::parse_from_rfc3339(&time).ok()?.timestamp_nanos_opt())
        .unwrap_or_default()
        .to_string();
    let event = take("event").unwrap_or_else(|| line.to_owned());
    fields.remove("level");
    let attributes: Vec<Value> =
        fields.iter().map(|(key, value)| json!({"key": key, "value": any_value(value)})).collect();
    json!({
        "timeUnixNano": nanos,
        "observedTimeUnixNano": nanos,
        "severityNumber": severity(level),
        "severityText": level.as_str(),
        "body": {"stringValue": event},
        "attributes": attributes,
    })
}

/// 64-bit integers are strings in this encoding.
fn any_value(value: &Value) -> Value {
    match value {
        Value::Bool(value) => json!({"boolValue": value}),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => json!({"intValue": integer.to_string()}),
            None => json!({"doubleValue": number}),
        },
        Value::String(text) => json!({"stringValue": text}),
        other => json!({"stringValue": other.to_string()}),
    }
}

const fn severity(level: LogLevel) -> u8 {
    match level {
        LogLevel::Debug => 5,
        LogLevel::Info => 9,
        LogLevel::Warning => 13,
        LogLevel::Error => 17,
        LogLevel::Critical => 21,
    }
}
