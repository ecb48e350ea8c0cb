use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

#[test]
fn keys_are_read_in_any_spelling() {
    for name in [
        "password",
        "user_password",
        "secret",
        "api_secret",
        "X-Api-Key",
        "apiKey",
        "access_token",
        "Authorization",
        "credential",
        "private-key",
        "bearer",
        "session",
        "auth.api_key",
        "session_cookie",
    ] {
        assert_eq!(key(name), Key::Secret, "{name}");
    }
    for name in ["method", "path", "status_code", "user_id", "duration_ms", "author", "", "ключ"] {
        assert_eq!(key(name), Key::Plain, "{name}");
    }
    assert_eq!(key("session_id"), Key::SessionId);
    for name in ["tokens_used", "max_tokens", "prompt_tokens", "session_count", "token_limit"] {
        assert_eq!(key(name), Key::Count, "{name}");
    }
}

#[test]
fn a_session_id_shows_its_first_eight_characters() {
    assert_eq!(session_id("0123456789abcdef"), "01234567");
    assert_eq!(session_id("\"0123456789abcdef\""), "01234567");
    assert_eq!(session_id("ab"), "ab");
    assert_eq!(session_id("ééééééééé"), "éééééééé");
    assert_eq!(scrub(r#"{"session_id":"0123456789"}"#), r#"{"session_id":"01234567"}"#);
}

#[test]
fn texts_without_secrets_are_borrowed() {
    for text in ["GET", "/api/v1/users/42", "no such table: users", "2 tasks at 10:30", ""] {
        assert!(matches!(scrub(text), Cow::Borrowed(_)), "{text}");
    }
    for text in ["auth.token_issued", "session_revoked", "/api/v1/auth/sessions", "quarterdeck::session::x"] {
        assert_eq!(scrub(text), text);
    }
    assert_eq!(scrub("http://127.0.0.1:3001/docs"), "http://127.0.0.1:3001/docs");
    assert_eq!(scrub(r#"{"token":null,"tokens_used":12}"#), r#"{"token":null,"tokens_used":12}"#);
}

#[test]
fn secrets_are_known_by_their_key_in_every_notation() {
    for (text, shown) in [
        (r#"{"auth":{"api_key":"x1"}}"#, r#"{"auth":{"api_key":"**REDACTED**"}}"#),
        (r#"{"a":[{"token": "x1", "b": 2}]}"#, r#"{"a":[{"token": "**REDACTED**", "b": 2}]}"#),
        (r#"{"session":{"id":"x1"},"b":2}"#, r#"{"session":**REDACTED**,"b":2}"#),
        (r#"{"secret":123,"b":2}"#, r#"{"secret":**REDACTED**,"b":2}"#),
        (r#"Object {"api_key": String("x1"), "b": 2}"#, r#"Object {"api_key": **REDACTED**, "b": 2}"#),
        (r#"Login { password: Some("x1\"x1"), n: 1 }"#, "Login { password: **REDACTED**, n: 1 }"),
        (r#""{\"token\":\"x1\",\"b\":2}""#, r#""{\"token\":\"**REDACTED**\",\"b\":2}""#),
        ("GET /x?token=x1&b=2", "GET /x?token=**REDACTED**&b=2"),
        ("password=x1,x1 user=a", "password=**REDACTED** user=a"),
        ("Password: x1 x1", "Password: **REDACTED**"),
        ("wrong password: x1, user a", "wrong password: **REDACTED**, user a"),
        (r#"[("authorization", "Basic x1")]"#, r#"[("authorization", "**REDACTED**")]"#),
        (r#"{"authorization": "Basic x1"}"#, r#"{"authorization": "**REDACTED**"}"#),
        ("secret => x1", "secret => **REDACTED**"),
        (r#"{"password": "x1"#, r#"{"password": "**REDACTED**""#),
    ] {
        assert_eq!(scrub(text), shown, "{text}");
    }
}

#[test]
fn secrets_are_known_by_their_shape() {
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let minted = "Zk3v-8pQd1_xYwT0sRnMbGhJkLaEfCuViOo29SAqzXc";
    assert_eq!(minted.len(), MINTED);
    let pem = "-----BEGIN PRIVATE KEY-----\nMIIEx1\n-----END PRIVATE KEY-----";
    for (text, shown) in [
        ("sent Bearer x1.y/z== to".to_owned(), "sent Bearer **REDACTED** to"),
        ("BEARER  x1".to_owned(), "BEARER  **REDACTED**"),
        (format!("got {jwt} here"), "got **REDACTED** here"),
        (format!("key {minted}."), "key **REDACTED**."),
        (format!("a {pem} b"), "a **REDACTED** b"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIEx1".to_owned(), "**REDACTED**"),
        ("postgres://u:x1@db:5432/q".to_owned(), "postgres://**REDACTED**@db:5432/q"),
        ("https://x1@host".to_owned(), "https://**REDACTED**@host"),
    ] {
        assert_eq!(scrub(&text), shown, "{text}");
    }
}

/// Any JSON, with `marker` as the value of telling keys at any depth.
fn nested(marker: &'static str) -> impl Strategy<Value = Value> {
    let secret = prop_oneof![
        Just(json!(marker)),
        Just(json!([marker, {"deep": marker}])),
        Just(json!({"inner": {"more": marker}})),
        "[\"\\\\ ,})]{0,6}".prop_map(move |noise| json!(format!("{noise}{marker}{noise}"))),
    ];
    let telling = prop_oneof![Just("api_key"), Just("Password"), Just("x-secret"), Just("session")];
    let leaf = prop_oneof![
        (telling, secret).prop_map(|(name, value)| json!({ name: value })),
        any::<i64>().prop_map(Value::from),
        "[a-z\"\\\\{}: ]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-f]{1,3}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_redaction_panic(text in any::<String>()) {
        let _ = scrub(&text);
    }

    #[test]
    fn no_text_full_of_triggers_makes_redaction_panic(
        text in "(token|session_id|Bearer |eyJ|://|@|[\"':=,(){}\\[\\]\\\\ .é-]|x){0,40}"
    ) {
        let _ = scrub(&text);
    }

    #[test]
    fn a_value_under_a_telling_key_is_gone_at_any_depth_and_in_any_notation(value in nested("H0NTER")) {
        let text = value.to_string();
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        for shown in [
            text.clone(),
            pretty,
            format!("{value:?}"),
            format!("{value:#?}"),
            format!("{text:?}"),
            Value::from(text.clone()).to_string(),
            Value::from(Value::from(text).to_string()).to_string(),
        ] {
            prop_assert!(!scrub(&shown).contains("H0NTER"), "{shown}");
        }
    }
}
