//! Sinks an operator adds.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{
    Collector, Destination, LogLevel, MAX_CUSTOM_SINKS, Rotation, RotationChange, SinkConfig, SinkType,
    Syslog, SyslogProtocol, quote, within,
};

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "security", "console", "clock", "local0", "local1", "local2", "local3", "local4", "local5",
    "local6", "local7",
];

#[derive(Deserialize)]
#[serde(tag = "sink_type", rename_all = "lowercase", deny_unknown_fields)]
enum Custom {
    File {
        file_path: String,
        level: Option<LogLevel>,
        #[serde(default = "yes")]
        enabled: bool,
        #[serde(default = "yes")]
        json_format: bool,
        rotation: Option<RotationChange>,
        #[serde(default)]
        routing_prefixes: Vec<String>,
    },
    Syslog {
        host: String,
        #[serde(default = "syslog_port")]
        port: u16,
        #[serde(default = "udp")]
        protocol: SyslogProtocol,
        #[serde(default = "user")]
        facility: String,
        level: Option<LogLevel>,
        #[serde(default = "yes")]
        enabled: bool,
    },
    Http {
        url: String,
        #[serde(default)]
        headers: BTreeMap<String, String>,
        batch_size: Option<u64>,
        flush_interval_ms: Option<u64>,
        timeout_ms: Option<u64>,
        max_retries: Option<u32>,
        level: Option<LogLevel>,
        #[serde(default = "yes")]
        enabled: bool,
    },
    Otlp {
        url: String,
        #[serde(default)]
        headers: BTreeMap<String, String>,
        batch_size: Option<u64>,
        flush_interval_ms: Option<u64>,
        timeout_ms: Option<u64>,
        max_retries: Option<u32>,
        level: Option<LogLevel>,
        #[serde(default = "yes")]
        enabled: bool,
    },
}

fn yes() -> bool {
    true
}

fn syslog_port() -> u16 {
    514
}

fn udp() -> SyslogProtocol {
    SyslogProtocol::Udp
}

fn user() -> String {
    "user".to_owned()
}

pub(super) fn append(sinks: &mut Vec<SinkConfig>, root: LogLevel, json: &str) -> Result<(), String> {
    let entries: Vec<Value> =
        serde_json::from_str(json).map_err(|why| format!("not a JSON array of sinks: {why}"))?;
    if entries.len() > MAX_CUSTOM_SINKS {
        return Err(format!("at most {MAX_CUSTOM_SINKS} sinks are allowed, {} were given", entries.len()));
    }
    for (index, entry) in entries.into_iter().enumerate() {
        let sink = Custom::deserialize(entry)
            .map_err(|why| why.to_string())
            .and_then(|custom| build(custom, root))
            .and_then(|sink| match sinks.iter().any(|other| other.identifier == sink.identifier) {
                true => Err(format!("{} is already a sink", quote(&sink.identifier))),
                false => Ok(sink),
            })
            .map_err(|why| format!("sink {}: {why}", index + 1))?;
        sinks.push(sink);
    }
    Ok(())
}

fn build(custom: Custom, root: LogLevel) -> Result<SinkConfig, String> {
    let network = |identifier, sink_type, level: Option<LogLevel>, enabled, destination| SinkConfig {
        identifier,
        sink_type,
        level: level.unwrap_or(root),
        json_format: true,
        rotation: None,
        is_default: false,
        enabled,
        routing_prefixes: Vec::new(),
        destination,
    };
    match custom {
        Custom::File { file_path, level, enabled, json_format, rotation, routing_prefixes } => {
            check_path(&file_path)?;
            check_prefixes(&routing_prefixes)?;
            let rotation = match rotation {
                Some(change) => change.over(Rotation::default())?,
                None => Rotation::default(),
            };
            Ok(SinkConfig {
                identifier: file_path.clone(),
                sink_type: SinkType::File,
                level: level.unwrap_or(root),
                json_format,
                rotation: Some(rotation),
                is_default: false,
                enabled,
                routing_prefixes,
                destination: Destination::File(file_path),
            })
        }
        Custom::Syslog { host, port, protocol, facility, level, enabled } => {
            let proper = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
            if host.is_empty() || host.len() > 253 || !host.chars().all(proper) {
                return Err(format!("host {} is not a host name or address", quote(&host)));
            }
            within("port", u64::from(port), 1, 65535)?;
            let facility = FACILITIES
                .iter()
                .position(|name| *name == facility)
                .and_then(|number| u8::try_from(number).ok())
                .ok_or_else(|| {
                    format!("unknown facility {}: use one of {}", quote(&facility), FACILITIES.join(", "))
                })?;
            let identifier = format!("syslog:{host}:{port}");
            let destination = Destination::Syslog(Syslog { host, port, protocol, facility });
            Ok(network(identifier, SinkType::Syslog, level, enabled, destination))
        }
        Custom::Http {
            url,
            headers,
            batch_size,
            flush_interval_ms,
            timeout_ms,
            max_retries,
            level,
            enabled,
        } => {
            let place = place(&url)?;
            let to = collector(url, headers, batch_size, flush_interval_ms, timeout_ms, max_retries)?;
            Ok(network(format!("http:{place}"), SinkType::Http, level, enabled, Destination::Http(to)))
        }
        Custom::Otlp {
            url,
            headers,
            batch_size,
            flush_interval_ms,
            timeout_ms,
            max_retries,
            level,
            enabled,
        } => {
            let place = place(&url)?;
            let to = collector(url, headers, batch_size, flush_interval_ms, timeout_ms, max_retries)?;
            Ok(network(format!("otlp:{place}"), SinkType::Otlp, level, enabled, Destination::Otlp(to)))
        }
    }
}

fn collector(
    url: String,
    headers: BTreeMap<String, String>,
    batch_size: Option<u64>,
    flush_interval_ms: Option<u64>,
    timeout_ms: Option<u64>,
    max_retries: Option<u32>,
) -> Result<Collector, String> {
    let batch_size = batch_size.unwrap_or(100);
    let flush_interval_ms = flush_interval_ms.unwrap_or(1000);
    let timeout_ms = timeout_ms.unwrap_or(10_000);
    let max_retries = max_retries.unwrap_or(3);
    within("batch_size", batch_size, 1, 10_000)?;
    within("flush_interval_ms", flush_interval_ms, 10, 60_000)?;
    within("timeout_ms", timeout_ms, 100, 60_000)?;
    within("max_retries", u64::from(max_retries), 0, 10)?;
    within("the number of headers", headers.len() as u64, 0, 32)?;
    for (name, value) in &headers {
        let token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || !name.chars().all(token) {
            return Err(format!("{} is not a header name", quote(name)));
        }
        let ours = ["content-type", "content-length", "host", "transfer-encoding", "connection"];
        if ours.iter().any(|reserved| name.eq_ignore_ascii_case(reserved)) {
            return Err(format!("the header {name} is set by the program"));
        }
        if !value.chars().all(|c| matches!(c, ' '..='~')) {
            return Err(format!("the value of header {name} must be printable ASCII"));
        }
    }
    Ok(Collector {
        url,
        headers: headers.into_iter().collect(),
        batch_size: usize::try_from(batch_size).unwrap_or(100),
        flush_interval_ms,
        timeout_ms,
        max_retries,
    })
}

/// Host, port and path of a collector's address: its query may carry a key and is not shown.
fn place(url: &str) -> Result<String, String> {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))
        .ok_or("the url must start with http:// or https://")?;
    if url.len() > 2048 || !rest.chars().all(|c| matches!(c, '!'..='~')) {
        return Err("the url must be at most 2048 printable ASCII characters without spaces".to_owned());
    }
    let place = rest.split(['?', '#']).next().unwrap_or_default();
    let authority = place.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return Err("the url must not carry a user name or password; use headers".to_owned());
    }
    let host = match authority.strip_prefix('[') {
        Some(address) => address.split_once(']').map(|(host, rest)| (host, rest.strip_prefix(':'))),
        None => match authority.split_once(':') {
            Some((host, port)) => Some((host, Some(port))),
            None => Some((authority, None)),
        },
    };
    match host {
        Some((host, port)) if !host.is_empty() && port.is_none_or(|port| port.parse::<u16>().is_ok()) => {
            Ok(place.to_owned())
        }
        _ => Err("the url names no valid host and port".to_owned()),
    }
}

fn check_path(path: &str) -> Result<(), String> {
    if path.split(['/', '\\']).any(|part| part == "..") {
        return Err(format!("file_path {} must not contain ..", quote(path)));
    }
    let proper = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let part_ok = |part: &str| !part.is_empty() && part != "." && part.chars().all(proper);
    if path.len() > 255 || !path.split('/').all(part_ok) {
        return Err(format!(
            "file_path {} must be a path inside the log directory made of letters, digits, '.', '-' and '_'",
            quote(path)
        ));
    }
    let suffix = path.rsplit('.').next().unwrap_or_default();
    if suffix == "gz" || suffix.chars().all(|c| c.is_ascii_digit()) {
        return Err(format!("file_path {} is a name kept for rotated files", quote(path)));
    }
    Ok(())
}

fn check_prefixes(prefixes: &[String]) -> Result<(), String> {
    within("the number of routing_prefixes", prefixes.len() as u64, 0, 64)?;
    let proper = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.' | '-');
    match prefixes.iter().find(|p| p.is_empty() || p.len() > 128 || !p.chars().all(proper)) {
        Some(prefix) => Err(format!("{} is not a routing prefix", quote(prefix))),
        None => Ok(()),
    }
}
