//! Double submit: a mutation with a session cookie repeats another cookie in a header.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::Request;
use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{Answer, PASSWORD, TestDb, TestServer};
use serde_json::json;

use crate::support::*;

async fn send(server: &TestServer, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    server.anonymous().raw(request.body(Body::empty()).expect("a request")).await
}

async fn signed_in() -> (TestServer, String) {
    let server = TestServer::start().await;
    let token = token_of(&server.ceo().await);
    (server, token)
}

#[tokio::test]
async fn every_mutating_method_is_refused_without_the_token() {
    let (server, token) = signed_in().await;
    let cookie = format!("session={token}; csrf_token=zzz");
    for (method, path) in [
        ("POST", TICKET),
        ("POST", CHANGE),
        ("DELETE", "/api/v1/auth/sessions?scope=others"),
        ("DELETE", "/api/v1/users/x"),
        ("PATCH", "/api/v1/users/x"),
    ] {
        send(&server, method, path, &[("cookie", &cookie)]).await.refused(403, 1004);
    }
    for method in ["GET", "HEAD", "OPTIONS"] {
        let status = send(&server, method, ME, &[("cookie", &cookie)]).await.status;
        assert_ne!(status, 403, "{method}");
    }
}

#[tokio::test]
async fn cookie_and_header_must_both_be_there_and_equal() {
    let (server, token) = signed_in().await;
    let session = format!("session={token}");
    let both = format!("{session}; csrf_token=zzz");
    let empty = format!("{session}; csrf_token=");
    for headers in [
        &[("cookie", &*session)][..],
        &[("cookie", &session), ("x-csrf-token", "zzz")],
        &[("cookie", &both)],
        &[("cookie", &both), ("x-csrf-token", "")],
        &[("cookie", &empty), ("x-csrf-token", "")],
        &[("cookie", &both), ("x-csrf-token", "zzy")],
        &[("cookie", &both), ("x-csrf-token", "zz")],
        &[("cookie", &both), ("x-csrf-token", "zzzz")],
        &[("cookie", &both), ("x-csrf-token", "ZZZ")],
        &[("cookie", &both), ("x-xsrf-token", "zzz")],
        &[("cookie", &both), ("csrf_token", "zzz")],
    ] {
        let answer = send(&server, "POST", TICKET, headers).await.refused(403, 1004);
        let detail = &answer.json()["error_detail"];
        assert_eq!(detail["detail"], "CSRF token missing or invalid");
        assert_eq!((&detail["error_category"], &detail["retryable"]), (&json!("auth"), &json!(false)));
    }
    let right = [("cookie", &*both), ("X-CSRF-Token", "zzz")];
    send(&server, "POST", TICKET, &right).await.expect(200);
}

#[tokio::test]
async fn a_bad_cookie_beside_a_good_header_still_needs_the_token() {
    let (server, token) = signed_in().await;
    let bearer = format!("Bearer {token}");
    for cookie in ["session=stale", "session=a.b.c"] {
        let headers = [("cookie", cookie), ("authorization", &bearer)];
        send(&server, "POST", TICKET, &headers).await.refused(403, 1004);
    }
    for cookie in ["session=", "other=1", "csrf_token=zzz"] {
        let headers = [("cookie", cookie), ("authorization", &bearer)];
        send(&server, "POST", TICKET, &headers).await.expect(200);
    }
}

#[tokio::test]
async fn a_bad_credential_is_401_before_it_is_a_csrf_failure() {
    let (server, _) = signed_in().await;
    send(&server, "POST", TICKET, &[("cookie", "session=a.b.c")]).await.refused(401, 1000);
}

#[tokio::test]
async fn keys_and_bearer_tokens_need_no_csrf_token() {
    let server = TestServer::start().await;
    let ceo = server.ceo().await;
    let body = json!({"username": "new", "password": PASSWORD, "role": "observer"});
    server.key_of(&ceo, HumanRole::Ceo).await.post(USERS, &body).await.expect(201);
    server.bearer(&token_of(&ceo)).post_empty(TICKET).await.expect(200);
}

#[tokio::test]
async fn the_ways_in_and_out_are_exempt() {
    let (server, token) = signed_in().await;
    let mut caller = server.anonymous().with_cookie("session", &token).without_csrf();
    caller.post(SETUP, &known("x")).await.refused(409, 4000);
    caller.post(LOGIN, &credentials("x", WRONG)).await.refused(401, 1000);
    caller.post_empty(REFRESH).await.refused(401, 1005);
    send(&server, "POST", "/api/v1/auth/logout/", &[("cookie", &format!("session={token}"))])
        .await
        .expect(204);
}

#[tokio::test]
async fn a_foreign_page_cannot_use_the_exempt_paths() {
    let (server, token) = signed_in().await;
    for path in [LOGOUT, REFRESH, SETUP, LOGIN] {
        let cookie = format!("session={token}");
        let headers = [("cookie", &*cookie), ("sec-fetch-site", "cross-site")];
        send(&server, "POST", path, &headers).await.refused(403, 1004);
    }
    me(&server, &token).await.expect(200);
    for site in ["same-origin", "same-site", "none"] {
        let answer = send(&server, "POST", REFRESH, &[("sec-fetch-site", site)]).await;
        answer.refused(401, 1005);
    }
}

#[tokio::test]
async fn custom_names_are_honoured_and_the_default_ones_ignored() {
    let server = server_with(TestDb::sqlite(), |auth| {
        auth.csrf_cookie_name = "qd_csrf".to_owned();
        auth.csrf_header_name = "X-QD-Csrf".to_owned();
    })
    .await;
    let token = token_of(&server.ceo().await);
    let cookie = format!("session={token}; qd_csrf=zzz; csrf_token=zzz");
    send(&server, "POST", TICKET, &[("cookie", &cookie), ("x-csrf-token", "zzz")]).await.refused(403, 1004);
    send(&server, "POST", TICKET, &[("cookie", &cookie), ("x-qd-csrf", "zzz")]).await.expect(200);
    let default = format!("session={token}; csrf_token=zzz");
    send(&server, "POST", TICKET, &[("cookie", &default), ("x-qd-csrf", "zzz")]).await.refused(403, 1004);
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_line_names_the_reason_and_the_id_in_the_body() {
    let (server, token) = signed_in().await;
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let session = format!("session={token}");
    let mismatch = format!("{session}; csrf_token=zzz");
    for (cookie, header, reason) in [
        (&session, "", r#"reason="missing_csrf_token" has_cookie=false has_header=false"#),
        (&session, "zzz", r#"reason="missing_csrf_token" has_cookie=false has_header=true"#),
        (&mismatch, "", r#"reason="missing_csrf_token" has_cookie=true has_header=false"#),
        (&mismatch, "zzy", r#"reason="csrf_token_mismatch""#),
    ] {
        lines.0.lock().unwrap().clear();
        let answer = send(&server, "POST", TICKET, &[("cookie", cookie), ("x-csrf-token", header)]).await;
        let instance =
            answer.refused(403, 1004).json()["error_detail"]["instance"].as_str().unwrap().to_owned();
        let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let line = log.lines().find(|line| line.contains("csrf.rejected")).expect("a log line");
        assert!(line.contains(reason) && line.contains(&instance), "{line}");
        assert!(line.contains("WARN") && line.contains(&format!("path=\"{TICKET}\"")), "{line}");
        assert!(!log.contains("zzy") && !log.contains(&token), "{log}");
    }
}
