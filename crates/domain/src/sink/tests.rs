use proptest::prelude::*;
use serde_json::json;

use super::*;

fn refusal(overrides: &str, custom: &str) -> String {
    resolve("INFO", overrides, custom).unwrap_err()
}

fn named(sinks: &[SinkConfig], identifier: &str) -> SinkConfig {
    sinks.iter().find(|sink| sink.identifier == identifier).cloned().unwrap()
}

#[test]
fn nothing_changed_is_the_default_set() {
    let sinks = resolve("INFO", "{}", "[]").unwrap();
    let names: Vec<_> = sinks.iter().map(|sink| sink.identifier.as_str()).collect();
    assert_eq!(
        names,
        [
            "console",
            "quarterdeck.log",
            "audit.log",
            "errors.log",
            "agent_activity.log",
            "cost_usage.log",
            "debug.log",
            "access.log",
            "persistence.log",
            "configuration.log",
            "backup.log"
        ]
    );
    assert!(sinks.iter().all(|sink| sink.is_default && sink.enabled));
}

#[test]
fn a_sink_is_shown_with_exactly_the_fields_of_the_contract() {
    let sinks = resolve("INFO", "{}", "[]").unwrap();
    assert_eq!(
        serde_json::to_value(named(&sinks, "errors.log")).unwrap(),
        json!({
            "identifier": "errors.log", "sink_type": "file", "level": "ERROR", "json_format": true,
            "rotation": {"strategy": "builtin", "max_bytes": 10_485_760, "backup_count": 5},
            "is_default": true, "enabled": true, "routing_prefixes": []
        })
    );
    let console = serde_json::to_value(named(&sinks, CONSOLE)).unwrap();
    assert_eq!(console["rotation"], json!(null));
    assert_eq!(console["level"], json!("INFO"));
}

#[test]
fn an_override_changes_only_what_it_names() {
    let sinks = resolve(
        "INFO",
        r#"{"access.log": {"enabled": false}, "console": {"level": "warning"},
            "debug.log": {"rotation": {"strategy": "external"}},
            "backup.log": {"rotation": {"max_bytes": 2048, "compress_rotated": true}}}"#,
        "[]",
    )
    .unwrap();
    assert!(!named(&sinks, "access.log").enabled);
    assert_eq!(named(&sinks, "access.log").level, LogLevel::Info);
    assert_eq!(named(&sinks, "console").level, LogLevel::Warning);
    let debug = named(&sinks, "debug.log").rotation.unwrap();
    assert_eq!((debug.strategy, debug.max_bytes), (RotationStrategy::External, DEFAULT_MAX_BYTES));
    let backup = named(&sinks, "backup.log").rotation.unwrap();
    assert_eq!((backup.max_bytes, backup.backup_count, backup.compress_rotated), (2048, 5, true));
}

#[test]
fn the_console_cannot_be_disabled() {
    assert_eq!(
        refusal(r#"{"console": {"enabled": false}}"#, "[]"),
        "sink_overrides: console: the console sink cannot be disabled"
    );
    assert!(resolve("INFO", r#"{"console": {"enabled": true}}"#, "[]").is_ok());
}

#[test]
fn what_is_unknown_is_refused_by_name() {
    for (overrides, word) in [
        (r#"{"nosuch.log": {}}"#, "nosuch.log"),
        (r#"{"access.log": {"colour": 1}}"#, "unknown field `colour`"),
        (r#"{"access.log": {"level": "LOUD"}}"#, "unknown log level \"LOUD\""),
        (r#"{"access.log": {"rotation": {"strategy": "lunar"}}}"#, "unknown variant `lunar`"),
        (r#"{"access.log": {"rotation": {"when": "midnight"}}}"#, "unknown field `when`"),
        (r#"{"console": {"rotation": {}}}"#, "only files are rotated"),
        (r#"{"access.log": {"rotation": {"max_bytes": 1023}}}"#, "rotation.max_bytes"),
        (r#"{"access.log": {"rotation": {"backup_count": 101}}}"#, "rotation.backup_count"),
        ("[]", "not a JSON object"),
        ("{", "not a JSON object"),
    ] {
        let why = refusal(overrides, "[]");
        assert!(why.starts_with("sink_overrides: ") && why.contains(word), "{why}");
    }
    assert!(resolve("verbose", "{}", "[]").unwrap_err().starts_with("root_level: unknown log level"));
}

#[test]
fn compressing_what_another_program_rotates_is_refused() {
    let why =
        refusal(r#"{"access.log": {"rotation": {"strategy": "external", "compress_rotated": true}}}"#, "[]");
    assert!(why.contains("compress_rotated cannot be used with the external strategy"), "{why}");
    let nothing_kept = r#"{"access.log": {"rotation": {"backup_count": 0, "compress_rotated": true}}}"#;
    assert!(refusal(nothing_kept, "[]").contains("backup_count"));
}

#[test]
fn every_kind_of_custom_sink_is_accepted() {
    let sinks = resolve(
        "WARNING",
        "{}",
        r#"[{"sink_type": "file", "file_path": "team/agents.log", "routing_prefixes": ["engine."], "level": "DEBUG"},
            {"sink_type": "syslog", "host": "10.0.0.1", "protocol": "tcp", "facility": "local3"},
            {"sink_type": "http", "url": "https://logs.example/in?key=abc", "headers": {"X-Api-Key": "s3cret"}},
            {"sink_type": "otlp", "url": "http://127.0.0.1:4318/v1/logs", "enabled": false}]"#,
    )
    .unwrap();
    let custom: Vec<_> = sinks.iter().filter(|sink| !sink.is_default).collect();
    let names: Vec<_> = custom.iter().map(|sink| sink.identifier.as_str()).collect();
    assert_eq!(
        names,
        ["team/agents.log", "syslog:10.0.0.1:514", "http:logs.example/in", "otlp:127.0.0.1:4318/v1/logs"]
    );
    assert_eq!(custom[0].level, LogLevel::Debug);
    assert_eq!(custom[1].level, LogLevel::Warning, "the root level is the default of custom sinks");
    assert!(matches!(&custom[1].destination, Destination::Syslog(to) if to.facility == 19));
    assert!(!custom[3].enabled);
    let shown = format!("{} {custom:?}", serde_json::to_string(&custom).unwrap());
    assert!(!shown.contains("s3cret") && !shown.contains("abc"), "{shown}");
}

#[test]
fn a_bad_custom_sink_is_refused_with_its_place_and_reason() {
    for (custom, word) in [
        (r#"{"sink_type": "console"}"#, "unknown variant `console`"),
        (r#"{"sink_type": "file"}"#, "missing field `file_path`"),
        (r#"{"sink_type": "file", "file_path": "a.log", "mode": 1}"#, "unknown field `mode`"),
        (r#"{"sink_type": "file", "file_path": "../a.log"}"#, "must not contain .."),
        (r#"{"sink_type": "file", "file_path": "a/../../b.log"}"#, "must not contain .."),
        (r#"{"sink_type": "file", "file_path": "/etc/a.log"}"#, "inside the log directory"),
        (r#"{"sink_type": "file", "file_path": "a\\..\\b.log"}"#, "must not contain .."),
        (r#"{"sink_type": "file", "file_path": "a b.log"}"#, "inside the log directory"),
        (r#"{"sink_type": "file", "file_path": ""}"#, "inside the log directory"),
        (r#"{"sink_type": "file", "file_path": "access.log"}"#, "already a sink"),
        (r#"{"sink_type": "file", "file_path": "access.log.1"}"#, "kept for rotated files"),
        (r#"{"sink_type": "file", "file_path": "a.log", "routing_prefixes": [""]}"#, "routing prefix"),
        (r#"{"sink_type": "syslog", "host": "a b"}"#, "host name"),
        (r#"{"sink_type": "syslog", "host": "a", "port": 0}"#, "port must be"),
        (r#"{"sink_type": "syslog", "host": "a", "protocol": "tls"}"#, "unknown variant `tls`"),
        (r#"{"sink_type": "syslog", "host": "a", "facility": "moon"}"#, "unknown facility"),
        (
            r#"{"sink_type": "syslog", "host": "a", "routing_prefixes": []}"#,
            "unknown field `routing_prefixes`",
        ),
        (r#"{"sink_type": "http", "url": "ftp://a"}"#, "http:// or https://"),
        (r#"{"sink_type": "http", "url": "http://"}"#, "valid host"),
        (r#"{"sink_type": "http", "url": "http://a:99999/"}"#, "valid host and port"),
        (r#"{"sink_type": "http", "url": "http://u:hunter2@a/"}"#, "user name or password"),
        (r#"{"sink_type": "http", "url": "http://a", "batch_size": 0}"#, "batch_size"),
        (r#"{"sink_type": "http", "url": "http://a", "headers": {"A B": "x"}}"#, "not a header name"),
        (r#"{"sink_type": "http", "url": "http://a", "headers": {"A": "x\r\ny"}}"#, "printable ASCII"),
        (r#"{"sink_type": "http", "url": "http://a", "headers": {"Host": "x"}}"#, "set by the program"),
        (r#"{"sink_type": "otlp", "url": "http://a", "protocol": "grpc"}"#, "unknown field `protocol`"),
    ] {
        let why = refusal("{}", &format!("[{custom}]"));
        assert!(why.starts_with("custom_sinks: sink 1: ") && why.contains(word), "{custom} → {why}");
        assert!(!why.contains("hunter2"), "{why}");
    }
    let one = r#"{"sink_type": "syslog", "host": "a"}"#;
    assert!(refusal("{}", &format!("[{one},{one}]")).contains("sink 2: \"syslog:a:514\" is already a sink"));
    let many = vec![one; MAX_CUSTOM_SINKS + 1].join(",");
    assert!(refusal("{}", &format!("[{many}]")).contains("at most 16"));
}

#[test]
fn events_are_routed_by_the_start_of_their_name_or_logger() {
    let sinks = default_sinks();
    let goes_to = |event: &str, logger: &str| -> Vec<String> {
        let prefixed = sinks.iter().filter(|sink| !sink.routing_prefixes.is_empty());
        prefixed.filter(|s| s.routes(event, logger)).map(|s| s.identifier.clone()).collect()
    };
    assert_eq!(goes_to("api.request.started", "quarterdeck_http::edge"), ["access.log"]);
    assert_eq!(goes_to("api_key.issued", "quarterdeck_auth"), ["audit.log"]);
    assert_eq!(goes_to("auth.failed", "quarterdeck_auth"), ["audit.log"]);
    assert_eq!(goes_to("slow statement", "sqlx::query"), ["persistence.log"]);
    assert!(goes_to("apical", "x").is_empty());
}

#[test]
fn logger_levels_are_read_and_checked() {
    let levels = logger_levels(r#"{"sqlx::query": "debug", "quarterdeck_http": "ERROR"}"#).unwrap();
    assert_eq!(levels["sqlx::query"], LogLevel::Debug);
    assert!(logger_levels("{}").unwrap().is_empty());
    for bad in [r#"{"a b": "INFO"}"#, r#"{"": "INFO"}"#, r#"{"a": "LOUD"}"#, "[]", "nonsense"] {
        assert!(logger_levels(bad).unwrap_err().starts_with("per_logger_levels: "));
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_check_panic(overrides in ".{0,80}", custom in ".{0,80}", level in ".{0,10}") {
        let _ = resolve(&level, &overrides, &custom);
        let _ = logger_levels(&custom);
    }

    #[test]
    fn an_accepted_file_path_stays_inside_the_log_directory(path in "[a-z./\\\\ ]{0,12}") {
        let custom = json!([{"sink_type": "file", "file_path": path}]).to_string();
        if resolve("INFO", "{}", &custom).is_ok() {
            let path = std::path::Path::new(&path);
            prop_assert!(path.components().all(|c| matches!(c, std::path::Component::Normal(_))));
        }
    }
}
