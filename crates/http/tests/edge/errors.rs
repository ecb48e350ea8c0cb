//! Failures: status, code, text and headers.

use quarterdeck_domain::ErrorCode;
use serde_json::Value;

use crate::support::{call, edge, edge_with, get_with, post_json, request, send};

#[tokio::test]
async fn a_success_ignores_accept() {
    let edge = edge();
    for accept in ["application/problem+json", "text/html", "nonsense"] {
        let answer = get_with(&edge, "/api/v1/thing", &[("accept", accept)]).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let keys: Vec<_> = answer.json().as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["data", "error", "error_detail", "success"]);
    }
}

#[tokio::test]
async fn every_failure_is_an_envelope_unless_a_problem_document_is_preferred() {
    let edge = edge();
    for code in ErrorCode::ALL {
        let path = format!("/api/v1/code/{}", code.number());
        let envelope = get_with(&edge, &path, &[]).await;
        let problem = get_with(&edge, &path, &[("accept", "application/problem+json")]).await;
        assert_eq!(envelope.status, code.status());
        assert_eq!(problem.status, code.status());
        assert_eq!(envelope.header("content-type"), Some("application/json"));
        assert_eq!(problem.header("content-type"), Some("application/problem+json"));
        let body = envelope.json();
        assert_eq!(body["success"], false);
        assert_eq!(body["data"], Value::Null);
        assert_eq!(body["error"], body["error_detail"]["detail"]);
        assert_eq!(problem.json()["status"], code.status());
        assert!(problem.json().get("success").is_none());
        assert_eq!(envelope.header("vary"), Some("Accept"));
    }
}

#[tokio::test]
async fn every_429_names_the_seconds_to_wait() {
    for code in ErrorCode::ALL.iter().filter(|code| code.status() == 429) {
        let answer = call("GET", &format!("/api/v1/code/{}", code.number())).await;
        let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!(seconds >= 1);
        assert_eq!(answer.json()["error_detail"]["retry_after"], seconds);
    }
}

#[tokio::test]
async fn the_text_of_a_server_failure_is_nowhere_in_the_answer() {
    for path in ["/api/v1/fail", "/api/v1/panic", "/api/v1/status/500"] {
        let answer = call("GET", path).await;
        assert_eq!(answer.status, 500);
        assert_eq!(answer.detail(), "Internal server error");
        let everything = format!("{:?}{:?}", answer.headers, answer.bytes);
        assert!(!everything.contains("hunter2") && !everything.contains("internal text"), "{everything}");
    }
}

#[tokio::test]
async fn a_panic_is_answered_completely_and_the_next_request_is_served() {
    let edge = edge();
    let panicked = get_with(&edge, "/api/v1/panic", &[]).await;
    assert_eq!(panicked.code(), (500, 8000));
    assert_eq!(panicked.json()["error_detail"]["instance"], panicked.header("x-request-id").unwrap());
    assert_eq!(get_with(&edge, "/api/v1/thing", &[]).await.status, 200);
}

#[tokio::test]
async fn credentials_are_scrubbed_from_texts_of_handlers() {
    let answer = call("GET", "/api/v1/telltale").await;
    assert_eq!(answer.code(), (422, 2000));
    assert_eq!(answer.detail(), "cannot reach https://[redacted]@db.example with token=[redacted]");
}

#[tokio::test]
async fn a_wrong_method_names_the_right_ones() {
    let answer = call("DELETE", "/api/v1/page").await;
    assert_eq!(answer.code(), (405, 2001));
    assert_eq!(answer.detail(), "Method Not Allowed");
    assert_eq!(answer.header("allow"), Some("GET,HEAD"));
}

#[tokio::test]
async fn an_unknown_path_is_not_found_inside_and_outside_of_the_api() {
    for path in ["/api/v1/nowhere", "/nowhere", "/docs/nowhere", "//api/v1/thing", "/api/v1/th%69ng/x"] {
        let answer = call("GET", path).await;
        assert_eq!(answer.code(), (404, 3002), "{path}");
        assert_eq!(answer.detail(), "Not found");
    }
}

#[tokio::test]
async fn a_trailing_slash_reaches_the_same_route() {
    for path in ["/api/v1/thing/", "/api/v1/thing//", "/api/v1/thing/?a=b/"] {
        assert_eq!(call("GET", path).await.status, 200, "{path}");
    }
    assert_eq!(call("GET", "/api/v1/filter/?count=7").await.json()["data"], 7);
    assert_eq!(call("GET", "/").await.status, 200);
}

#[tokio::test]
async fn odd_request_targets_are_refused_without_a_panic() {
    for (method, target) in
        [("OPTIONS", "*"), ("CONNECT", "example.org:443"), ("GET", "http://host/api/v1/nowhere/")]
    {
        let answer = call(method, target).await;
        assert_eq!(answer.status, 404, "{method} {target}");
        assert!(answer.header("x-request-id").is_some());
    }
}

#[tokio::test]
async fn a_bare_status_becomes_a_failure_and_its_own_headers_stay_inside() {
    let answer = call("GET", "/api/v1/status/418").await;
    assert_eq!(answer.code(), (418, 2001));
    assert_eq!(answer.detail(), "I'm a teapot");
    assert_eq!(answer.header("x-internal"), None);
    assert_eq!(answer.header("allow"), Some("GET"));
}

#[tokio::test]
async fn every_401_challenges_and_says_whether_the_credential_was_the_problem() {
    for code in [1000, 1002, 1005] {
        let answer = call("GET", &format!("/api/v1/code/{code}")).await;
        assert_eq!(answer.header("www-authenticate"), Some(r#"Bearer realm="quarterdeck""#));
    }
    let presented = call("GET", "/api/v1/presented").await;
    assert_eq!(
        presented.header("www-authenticate"),
        Some(r#"Bearer realm="quarterdeck", error="invalid_token""#)
    );
    assert_eq!(call("GET", "/api/v1/code/1001").await.header("www-authenticate"), None);
}

#[tokio::test]
async fn a_failure_keeps_the_headers_its_handler_gave_it() {
    let answer = call("GET", "/api/v1/cookies").await;
    assert_eq!(answer.code(), (401, 1002));
    assert_eq!(answer.header("set-cookie"), Some("a=; Max-Age=0"));
}

#[tokio::test]
async fn an_answer_marked_as_it_is_keeps_its_body() {
    let answer = call("GET", "/api/v1/unready").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["data"], "unavailable");
    assert_eq!(answer.json()["success"], true);
}

#[tokio::test]
async fn two_refusals_differ_in_nothing_but_the_instance() {
    let edge = edge();
    let mut bodies = Vec::new();
    for _ in 0..2 {
        let mut body = get_with(&edge, "/api/v1/code/1001", &[]).await.json();
        bodies.push((body["error_detail"]["instance"].take(), body));
    }
    assert_eq!(bodies[0].1, bodies[1].1);
    assert_ne!(bodies[0].0, bodies[1].0);
}

#[tokio::test]
async fn the_type_links_to_the_configured_page() {
    let edge = edge_with(|config| config.error_base = "https://deck.example/docs/errors/".to_owned());
    let answer = get_with(&edge, "/nowhere", &[]).await;
    assert_eq!(answer.json()["error_detail"]["type"], "https://deck.example/docs/errors#not_found");
    assert_eq!(call("GET", "/nowhere").await.json()["error_detail"]["type"], "/docs/errors#not_found");
}

#[tokio::test]
async fn a_failure_answers_head_without_a_body() {
    let answer = call("HEAD", "/nowhere").await;
    assert_eq!(answer.status, 404);
    assert!(answer.bytes.is_empty());
    assert!(answer.header("content-length").unwrap().parse::<usize>().unwrap() > 100);
}

#[tokio::test]
async fn while_draining_new_requests_are_told_to_come_back() {
    let edge = edge();
    edge.edge().drain();
    let answer = get_with(&edge, "/api/v1/thing", &[]).await;
    assert_eq!(answer.code(), (503, 8001));
    assert_eq!(answer.detail(), "Service unavailable");
    assert!(answer.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
}

#[tokio::test]
async fn a_refused_shape_never_shows_the_query_string() {
    let answer = call("GET", "/api/v1/page?limit=0&token=hunter2").await;
    assert_eq!(answer.detail(), "Validation failed for GET /api/v1/page");
    assert!(!String::from_utf8_lossy(&answer.bytes).contains("hunter2"));
    let answer = send(&edge(), request("POST", "/api/v1/thing?token=hunter2", &[], "{")).await;
    assert_eq!(answer.detail(), "Validation failed for POST /api/v1/thing");
}

#[tokio::test]
async fn a_long_path_does_not_make_a_long_text() {
    let answer = call("GET", &format!("/api/v1/things/{}", "a".repeat(5000))).await;
    assert_eq!(answer.code(), (400, 2001));
    assert_eq!(answer.detail().chars().count(), 512);
}

#[tokio::test]
async fn a_broken_body_is_400_and_a_broken_rule_422() {
    assert_eq!(post_json("/api/v1/thing", "{").await.code(), (400, 2001));
    assert_eq!(post_json("/api/v1/thing", "{}").await.code(), (400, 2001));
    assert_eq!(call("GET", "/api/v1/telltale").await.code(), (422, 2000));
}
