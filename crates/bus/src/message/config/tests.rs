use serde_json::json;

use super::*;

fn load(value: serde_json::Value) -> Result<MessageBusConfig, String> {
    let config: MessageBusConfig = serde_json::from_value(value).map_err(|error| error.to_string())?;
    config.validate().map(|()| config)
}

fn nats(block: serde_json::Value) -> Result<MessageBusConfig, String> {
    load(json!({"backend": "nats", "nats": block}))
}

#[test]
fn nothing_configured_is_memory_with_seven_channels() {
    let config = load(json!({})).unwrap();
    assert_eq!(config.backend, Backend::Internal);
    assert_eq!(config.channels.len(), 7);
    assert_eq!(config.channels[0], "#all-hands");
    assert_eq!(config.retention.max_messages_per_channel, 1000);
    assert_eq!(config.retention.max_subscriber_queue_size, 1024);
}

#[test]
fn shared_channels_are_added_once() {
    let config = load(json!({"channels": ["tasks", "#a"]})).unwrap().with_channels(["tasks", "agents"]);
    assert_eq!(config.channels, ["tasks", "#a", "agents"]);
}

#[test]
fn channels_are_unique_and_no_direct_lines() {
    for (channels, rule) in [
        (json!(["#a", "#a"]), "must not hold a name twice"),
        (json!([" "]), "must not be blank"),
        (json!(["@a:b"]), "must not begin with @"),
    ] {
        let refusal = load(json!({"channels": channels})).unwrap_err();
        assert!(
            refusal.starts_with("communication.message_bus.channels") && refusal.contains(rule),
            "{refusal}"
        );
    }
}

#[test]
fn every_bound_names_its_field() {
    for (field, least, most, below, above) in [
        ("max_messages_per_channel", 1, u64::from(u32::MAX), 0, u64::MAX),
        ("max_subscriber_queue_size", 1, 65_535, 0, 65_536),
    ] {
        for value in [least, most] {
            load(json!({"retention": {field: value}})).unwrap();
        }
        for value in [below, above] {
            assert!(load(json!({"retention": {field: value}})).is_err(), "{field} {value}");
        }
    }
    for (field, value) in [
        ("connect_timeout_seconds", json!(0)),
        ("reconnect_time_wait_seconds", json!(-1.0)),
        ("publish_ack_wait_seconds", json!(0.0)),
        ("health_flush_timeout_seconds", json!(30.1)),
        ("max_reconnect_attempts", json!(-2)),
        ("max_reconnect_attempts", json!(0)),
        ("stream_name_prefix", json!("")),
        ("stream_name_prefix", json!("a.b")),
        ("credentials_path", json!("")),
    ] {
        let refusal = nats(json!({field: value})).unwrap_err();
        assert!(refusal.starts_with(&format!("communication.message_bus.nats.{field} must ")), "{refusal}");
    }
    nats(json!({"health_flush_timeout_seconds": 30, "max_reconnect_attempts": 7})).unwrap();
}

#[test]
fn the_nats_block_is_required_with_that_backend_and_ignored_otherwise() {
    let refusal = load(json!({"backend": "nats"})).unwrap_err();
    assert_eq!(refusal, "communication.message_bus.nats is required when the backend is nats");
    load(json!({"backend": "internal", "nats": {"url": "nonsense"}})).unwrap();
    nats(json!({})).unwrap();
    assert!(load(json!({"backend": "rabbit"})).is_err());
    assert!(load(json!({"backand": "nats"})).is_err());
}

#[test]
fn a_url_is_one_of_a_nats_server() {
    for url in
        ["nats://h", "tls://h:1", "nats+tls://h:65535", "nats://[::1]:4222", "nats://u:p@h/", "nats://t@h"]
    {
        nats(json!({"url": url})).unwrap_or_else(|refusal| panic!("{url}: {refusal}"));
    }
    for url in [
        "",
        "h:4222",
        "http://h",
        "ws://h",
        "nats://",
        "nats://:4222",
        "nats://h:0",
        "nats://h:65536",
        "nats://h/x",
        "nats://h?x=1",
        "nats://h\n",
        "nats://u:canary@",
        "nats://u:%ff@h",
    ] {
        let refusal = nats(json!({"url": url})).unwrap_err();
        assert!(refusal.starts_with("communication.message_bus.nats.url must "), "{url}: {refusal}");
        assert!(!refusal.contains("canary"), "{refusal}");
    }
}

#[test]
fn credentials_are_taken_off_and_never_shown() {
    let config = nats(json!({"url": "nats+tls://ada:can%40ary@h"})).unwrap();
    let address = config.nats.as_ref().unwrap().address().unwrap();
    assert_eq!(address.server, "tls://h:4222");
    let Some(Login::Password(user, password)) = &address.login else { panic!("a user and a password") };
    assert_eq!((user.as_str(), password.expose_secret()), ("ada", "can@ary"));

    for url in ["nats://ada:canary@h:1", "nats://canary@h:1", "nats://canary:@"] {
        let config = MessageBusConfig {
            nats: Some(NatsConfig { url: url.into(), ..NatsConfig::default() }),
            ..MessageBusConfig::default()
        };
        let shown = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
        assert!(!shown.contains("canary") && !shown.contains("ada"), "{shown}");
        assert!(shown.contains("********"), "{shown}");
    }
    assert!(format!("{address}").starts_with("tls://********@h"));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_url_parser_panic(url in "(nats|tls|nats\\+tls|http)?(://)?[a-z:@%/?#0-9\\[\\] ]{0,30}") {
        let _ = Address::parse(&url);
    }

    #[test]
    fn no_credentials_are_shown(user in "[A-Z]{6,9}", password in "(:[A-Z0-9]{6,9})?") {
        let address = Address::parse(&format!("nats://{user}{password}@host")).unwrap();
        proptest::prop_assert_eq!(address.to_string(), "nats://********@host:4222");
        proptest::prop_assert_eq!(address.server, "nats://host:4222");
    }
}
