//! The three cookies: how they are set and how they are deleted.

use std::collections::BTreeMap;

use quarterdeck_auth::AuthConfig;
use quarterdeck_auth::config::{CookieSecure, SameSite};
use quarterdeck_testkit::{Answer, Caller, PASSWORD, TestDb, TestServer};

use crate::support::*;

/// A `Set-Cookie` header, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cookie {
    value: String,
    attributes: BTreeMap<String, String>,
}

impl Cookie {
    fn get(&self, attribute: &str) -> Option<&str> {
        self.attributes.get(attribute).map(String::as_str)
    }

    /// What decides which stored cookie it replaces, and how that one is treated.
    fn without_age(&self) -> BTreeMap<String, String> {
        let mut attributes = self.attributes.clone();
        attributes.remove("Max-Age");
        attributes
    }
}

/// The cookies of an answer by name; each has a header of its own.
fn cookies(answer: &Answer) -> BTreeMap<String, Cookie> {
    let lines = set_cookies(answer);
    let parsed: BTreeMap<_, _> = lines
        .iter()
        .map(|line| {
            let mut parts = line.split("; ");
            let (name, value) = parts.next().unwrap().split_once('=').unwrap();
            let attributes = parts
                .map(|part| part.split_once('=').unwrap_or((part, "")))
                .map(|(k, v)| (k.into(), v.into()));
            (name.to_owned(), Cookie { value: value.to_owned(), attributes: attributes.collect() })
        })
        .collect();
    assert_eq!(parsed.len(), lines.len(), "a name twice: {lines:?}");
    parsed
}

/// Whether a client sends a cookie of this path with a request (RFC 6265 §5.1.4).
fn path_matches(cookie_path: &str, request: &str) -> bool {
    request == cookie_path
        || (request.starts_with(cookie_path)
            && (cookie_path.ends_with('/') || request[cookie_path.len()..].starts_with('/')))
}

fn random(value: &str) -> bool {
    value.len() == 43 && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}

/// Everything that begins or prolongs a session, in turn, by one caller.
async fn beginnings(server: &TestServer) -> Vec<(&'static str, Answer)> {
    let mut caller: Caller = server.anonymous();
    let mut answers = vec![
        ("setup", caller.post(SETUP, &known("ceo")).await.expect(201)),
        ("login", caller.post(LOGIN, &known("ceo")).await.expect(200)),
    ];
    // Within one second two tokens of one session are the same.
    server.advance(std::time::Duration::from_secs(1));
    if caller.cookie("refresh_token").is_some() {
        answers.push(("refresh", caller.post_empty(REFRESH).await.expect(200)));
    }
    let body = new_password(PASSWORD, "another good password");
    answers.push(("change-password", caller.post(CHANGE, &body).await.expect(200)));
    answers
}

#[tokio::test]
async fn every_cookie_has_exactly_the_attributes_of_the_contract() {
    let server = refreshing(TestDb::sqlite()).await;
    for (how, answer) in beginnings(&server).await {
        let cookies = cookies(&answer);
        let expected = [
            ("csrf_token", "/", 1440 * 60, false),
            ("refresh_token", "/api/v1/auth/refresh", 10_080 * 60, true),
            ("session", "/api", 1440 * 60, true),
        ];
        assert_eq!(
            cookies.keys().collect::<Vec<_>>(),
            expected.map(|e| e.0).iter().collect::<Vec<_>>(),
            "{how}"
        );
        for (name, path, age, http_only) in expected {
            let mut attributes = BTreeMap::from([
                ("Path".to_owned(), path.to_owned()),
                ("Max-Age".to_owned(), age.to_string()),
                ("SameSite".to_owned(), "Strict".to_owned()),
                ("Secure".to_owned(), String::new()),
            ]);
            if http_only {
                attributes.insert("HttpOnly".to_owned(), String::new());
            }
            assert_eq!(cookies[name].attributes, attributes, "{how}: {name}");
        }
        assert_eq!(cookies["session"].value.split('.').count(), 3);
        assert!(random(&cookies["csrf_token"].value) && random(&cookies["refresh_token"].value));
    }
}

#[tokio::test]
async fn every_beginning_has_fresh_values_and_no_token_in_its_body() {
    let server = refreshing(TestDb::sqlite()).await;
    let mut seen = std::collections::HashSet::new();
    for (how, answer) in beginnings(&server).await {
        for (name, cookie) in cookies(&answer) {
            assert!(!answer.text().contains(&cookie.value), "{how}: {name} is in the body");
            assert!(seen.insert(cookie.value), "{how}: {name} was used before");
        }
        assert!(!answer.text().contains("eyJ"), "{how}");
        assert_eq!(answer.header("cache-control"), "no-store", "{how}");
    }
}

#[tokio::test]
async fn without_refresh_there_is_no_refresh_cookie() {
    let server = TestServer::start().await;
    for (how, answer) in beginnings(&server).await {
        assert_eq!(cookies(&answer).keys().collect::<Vec<_>>(), ["csrf_token", "session"], "{how}");
    }
}

#[tokio::test]
async fn a_conforming_client_sends_the_refresh_cookie_to_its_one_path_only() {
    let server = refreshing(TestDb::sqlite()).await;
    let answer = server.anonymous().post(SETUP, &known("ceo")).await.expect(201);
    let cookies = cookies(&answer);
    let sent = |name: &str, path| path_matches(cookies[name].get("Path").unwrap(), path);
    assert!(sent("refresh_token", REFRESH));
    for path in [ME, LOGIN, LOGOUT, CHANGE, SESSIONS, "/", "/api/v1/auth", "/api/v1/auth/refreshed", "/login"]
    {
        assert!(!sent("refresh_token", path), "{path}");
        assert!(sent("csrf_token", path), "{path}");
        assert_eq!(sent("session", path), path.starts_with("/api/"), "{path}");
    }
}

#[tokio::test]
async fn clearing_names_the_very_cookies_that_were_set() {
    let custom = |auth: &mut AuthConfig| {
        auth.jwt_refresh_enabled = true;
        auth.cookie_domain = Some("example.org".to_owned());
        auth.cookie_samesite = SameSite::Lax;
        auth.cookie_secure = CookieSecure::No;
        auth.cookie_path = "/api/v1".to_owned();
        auth.csrf_cookie_name = "qd_csrf".to_owned();
        auth.refresh_cookie_name = "qd_refresh".to_owned();
    };
    for change in [(|auth: &mut AuthConfig| auth.jwt_refresh_enabled = true) as fn(&mut AuthConfig), custom] {
        let server = server_with(TestDb::sqlite(), change).await;
        let mut caller = server.anonymous();
        let set = cookies(&caller.post(SETUP, &known("ceo")).await.expect(201));
        let cleared = cookies(&caller.post_empty(LOGOUT).await.expect(204));
        assert_eq!(set.keys().collect::<Vec<_>>(), cleared.keys().collect::<Vec<_>>());
        for (name, cookie) in &cleared {
            assert_eq!((cookie.value.as_str(), cookie.get("Max-Age")), ("", Some("0")), "{name}");
            assert_eq!(cookie.without_age(), set[name].without_age(), "{name}");
        }
    }
}

#[tokio::test]
async fn names_paths_domain_and_flags_come_from_the_configuration() {
    let server = server_with(TestDb::sqlite(), |auth| {
        auth.jwt_refresh_enabled = true;
        auth.cookie_name = "a".to_owned();
        auth.csrf_cookie_name = "b".to_owned();
        auth.refresh_cookie_name = "c".to_owned();
        auth.cookie_path = "/x".to_owned();
        auth.csrf_cookie_path = "/y".to_owned();
        auth.refresh_cookie_path = "/z".to_owned();
        auth.cookie_domain = Some("deck.example.org".to_owned());
        auth.cookie_samesite = SameSite::None;
        auth.cookie_secure = CookieSecure::Yes;
        auth.jwt_expiry_minutes = 7;
        auth.jwt_refresh_expiry_minutes = 9;
    })
    .await;
    let cookies = cookies(&server.anonymous().post(SETUP, &known("ceo")).await.expect(201));
    for (name, path, age) in [("a", "/x", "420"), ("b", "/y", "420"), ("c", "/z", "540")] {
        let cookie = &cookies[name];
        assert_eq!((cookie.get("Path"), cookie.get("Max-Age")), (Some(path), Some(age)), "{name}");
        assert_eq!(cookie.get("Domain"), Some("deck.example.org"));
        assert_eq!((cookie.get("SameSite"), cookie.get("Secure")), (Some("None"), Some("")));
        assert_eq!(cookie.get("HttpOnly").is_some(), name != "b");
    }
}

#[tokio::test]
async fn answers_that_carry_cookies_are_not_compressed() {
    let server = TestServer::start().await;
    let mut caller = server.anonymous().with_header("accept-encoding", "gzip, br, zstd");
    let answer = caller.post(SETUP, &known("ceo")).await.expect(201);
    assert_eq!(answer.header("content-encoding"), "");
}
