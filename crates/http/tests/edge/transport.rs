//! Security headers, CORS, compression, limits of bodies, and client addresses.

use std::io::Read;

use axum::body::Body;
use quarterdeck_http::edge::{CorsPolicy, DEFAULT_HEADERS, DEFAULT_METHODS, EdgeService, TrustedProxies};

use crate::support::{Answer, call, chunked, edge, edge_with, from_peer, get_with, request, send};

fn assert_secured(answer: &Answer, context: &str) {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "strict-origin-when-cross-origin"),
        ("strict-transport-security", "max-age=63072000; includeSubDomains"),
        ("permissions-policy", "geolocation=(), camera=(), microphone=()"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cache-control", "no-store"),
        (
            "content-security-policy",
            "default-src 'self'; script-src 'self'; object-src 'none'; base-uri 'self'; frame-ancestors 'none'",
        ),
    ] {
        assert_eq!(answer.header(name), Some(value), "{context}");
    }
    assert_eq!(answer.header("server"), None);
    assert_eq!(answer.header("x-powered-by"), None);
}

#[tokio::test]
async fn every_answer_carries_the_security_headers_once() {
    for (status, path) in [
        (200, "/api/v1/thing"),
        (204, "/api/v1/empty"),
        (304, "/api/v1/unchanged"),
        (400, "/api/v1/page?limit=0"),
        (401, "/api/v1/code/1000"),
        (403, "/api/v1/code/1001"),
        (404, "/api/v1/nowhere"),
        (404, "/nowhere"),
        (404, "/assets/index-BkX3kd9f.js"),
        (429, "/api/v1/code/5000"),
        (500, "/api/v1/fail"),
        (500, "/api/v1/panic"),
        (503, "/api/v1/unready"),
        (503, "/api/v1/status/503"),
        (200, "/api/v1/own-headers"),
        (200, "/documents"),
    ] {
        let answer = call("GET", path).await;
        assert_eq!(answer.status, status, "{path}");
        assert_secured(&answer, path);
        assert!(answer.header("x-request-id").is_some());
    }
    assert_secured(&call("DELETE", "/api/v1/page").await, "405");
    let large = request("POST", "/api/v1/read", &[("content-length", "99999999999")], Body::empty());
    let answer = send(&edge(), large).await;
    assert_eq!(answer.status, 413);
    assert_secured(&answer, "413");
    assert_secured(&preflight(&open_edge(), "https://a.example").await, "preflight");
}

#[tokio::test]
async fn docs_and_pages_have_policies_of_their_own() {
    let docs = call("GET", "/docs/openapi.json").await;
    assert_eq!(docs.header("cache-control"), Some("public, max-age=300"));
    assert_eq!(docs.header("cross-origin-opener-policy"), Some("same-origin-allow-popups"));
    assert!(docs.header("content-security-policy").unwrap().contains("connect-src 'self'"));
    let page = call("GET", "/").await;
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert!(page.header("content-security-policy").unwrap().contains("form-action 'self'"));
}

#[tokio::test]
async fn hsts_can_be_left_out() {
    let answer = get_with(&edge_with(|config| config.hsts = false), "/api/v1/thing", &[]).await;
    assert_eq!(answer.header("strict-transport-security"), None);
}

fn open_edge() -> EdgeService {
    let origins = ["https://a.example", "http://localhost:5173"];
    let policy = CorsPolicy::new(&origins, &DEFAULT_METHODS, &DEFAULT_HEADERS, true).unwrap();
    edge_with(|config| config.cors = policy)
}

async fn preflight(edge: &EdgeService, origin: &str) -> Answer {
    let headers = [("origin", origin), ("access-control-request-method", "PUT")];
    send(edge, request("OPTIONS", "/api/v1/thing", &headers, Body::empty())).await
}

#[tokio::test]
async fn an_allowed_origin_may_read_answers_and_failures() {
    let edge = open_edge();
    for path in ["/api/v1/thing", "/api/v1/code/1000", "/nowhere"] {
        let answer = get_with(&edge, path, &[("origin", "https://a.example")]).await;
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"));
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
        let exposed = answer.header("access-control-expose-headers").unwrap();
        for name in ["ETag", "Retry-After", "RateLimit-Remaining", "X-Request-ID"] {
            assert!(exposed.contains(name), "{name}");
        }
        assert!(answer.headers.get_all("vary").iter().any(|value| value == "Origin"));
    }
}

#[tokio::test]
async fn another_origin_gets_its_answer_without_cors_headers() {
    let edge = open_edge();
    for origin in
        ["https://b.example", "http://a.example", "https://a.example:8443", "https://a.example.evil", "null"]
    {
        for answer in
            [get_with(&edge, "/api/v1/thing", &[("origin", origin)]).await, preflight(&edge, origin).await]
        {
            assert!(matches!(answer.status, 200 | 204));
            assert!(
                !answer.headers.keys().any(|name| name.as_str().starts_with("access-control")),
                "{origin}"
            );
            assert!(answer.headers.get_all("vary").iter().any(|v| v.to_str().unwrap().contains("Origin")));
        }
    }
}

#[tokio::test]
async fn a_preflight_is_answered_without_a_body_and_before_the_router() {
    let answer = preflight(&open_edge(), "https://a.example").await;
    assert_eq!(answer.status, 204);
    assert!(answer.bytes.is_empty());
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET, POST, PUT, PATCH, DELETE, OPTIONS"));
    assert_eq!(
        answer.header("access-control-allow-headers"),
        Some("Content-Type, Authorization, X-CSRF-Token, If-Match")
    );
    let plain = send(&open_edge(), request("OPTIONS", "/api/v1/thing", &[], Body::empty())).await;
    assert_eq!(plain.status, 405);
}

#[tokio::test]
async fn without_origins_nobody_may_read() {
    let answer = get_with(&edge(), "/api/v1/thing", &[("origin", "http://localhost:5173")]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn a_wildcard_without_credentials_is_sent_as_such() {
    let policy = CorsPolicy::new(&["*"], &DEFAULT_METHODS, &DEFAULT_HEADERS, false).unwrap();
    let answer = get_with(
        &edge_with(|config| config.cors = policy),
        "/api/v1/thing",
        &[("origin", "https://b.example")],
    )
    .await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
}

#[tokio::test]
async fn a_thousand_bytes_are_compressed_and_999_are_not() {
    let edge = edge();
    let small = get_with(&edge, "/api/v1/size/999", &[("accept-encoding", "br")]).await;
    assert_eq!((small.header("content-encoding"), small.bytes.len()), (None, 999));
    for (accept, coding) in
        [("br", "br"), ("gzip, br", "br"), ("gzip", "gzip"), ("zstd", "zstd"), ("*", "br")]
    {
        let large = get_with(&edge, "/api/v1/size/1000", &[("accept-encoding", accept)]).await;
        assert_eq!(large.header("content-encoding"), Some(coding));
        assert_eq!(large.header("vary"), Some("Accept-Encoding"));
        assert_eq!(large.header("content-length"), None);
        assert!(large.bytes.len() < 200, "{accept}");
    }
    for accept in ["identity", "br;q=0", ""] {
        let plain = get_with(&edge, "/api/v1/size/1000", &[("accept-encoding", accept)]).await;
        assert_eq!((plain.header("content-encoding"), plain.bytes.len()), (None, 1000));
    }
}

#[tokio::test]
async fn a_compressed_body_unpacks_to_the_same_bytes() {
    let answer = get_with(&edge(), "/api/v1/size/5000", &[("accept-encoding", "gzip")]).await;
    assert_eq!(answer.bytes[..2], [0x1f, 0x8b]);
    let mut text = String::new();
    flate(&answer.bytes).read_to_string(&mut text).unwrap();
    assert_eq!(text, "x".repeat(5000));
}

fn flate(bytes: &[u8]) -> impl Read + '_ {
    flate2::read::GzDecoder::new(bytes)
}

#[tokio::test]
async fn streams_secrets_and_finished_bodies_are_not_compressed() {
    let edge = edge();
    for path in ["/api/v1/events", "/api/v1/secret"] {
        let answer = get_with(&edge, path, &[("accept-encoding", "br")]).await;
        assert_eq!((answer.header("content-encoding"), answer.bytes.len()), (None, 5000), "{path}");
    }
    assert_eq!(
        get_with(&edge, "/api/v1/encoded", &[("accept-encoding", "br")]).await.header("content-encoding"),
        Some("gzip")
    );
    for path in ["/api/v1/empty", "/api/v1/unchanged"] {
        assert_eq!(
            get_with(&edge, path, &[("accept-encoding", "br")]).await.header("content-encoding"),
            None
        );
    }
    let head = request("HEAD", "/api/v1/size/5000", &[("accept-encoding", "br")], Body::empty());
    let answer = send(&edge, head).await;
    assert_eq!((answer.header("content-encoding"), answer.header("content-length")), (None, Some("5000")));
}

#[tokio::test]
async fn a_declared_length_over_the_limit_is_refused_before_anything_is_read() {
    let edge = edge_with(|config| config.max_body_bytes = 1_000_000);
    let unread = Body::from_stream(futures_util::stream::poll_fn(
        |_| -> std::task::Poll<Option<Result<&str, String>>> { panic!("the body is read") },
    ));
    let answer = send(&edge, request("POST", "/api/v1/read", &[("content-length", "1000001")], unread)).await;
    assert_eq!(answer.code(), (413, 2001));
    assert_eq!(answer.detail(), "Request Entity Too Large");
}

#[tokio::test]
async fn a_chunked_body_is_cut_at_the_limit() {
    let edge = edge_with(|config| config.max_body_bytes = 3_000_000);
    let within = send(&edge, request("POST", "/api/v1/read", &[], chunked(3))).await;
    assert_eq!(within.json()["data"], 3_000_000);
    for path in ["/api/v1/read", "/api/v1/thing"] {
        let beyond = send(&edge, request("POST", path, &[], chunked(4))).await;
        assert_eq!(beyond.code(), (413, 2001));
        assert_eq!(beyond.detail(), "Request Entity Too Large");
    }
}

fn proxied() -> EdgeService {
    edge_with(|config| config.trusted_proxies = TrustedProxies::parse(["10.0.0.0/8"]).unwrap())
}

#[tokio::test]
async fn the_context_knows_the_client_behind_a_trusted_proxy() {
    let headers = [
        ("x-forwarded-for", "9.9.9.9, 203.0.113.7, 10.1.1.1"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "from-the-proxy"),
    ];
    let behind = |peer| from_peer(request("GET", "/api/v1/context", &headers, Body::empty()), peer);
    let trusted = send(&proxied(), behind("10.0.0.1")).await;
    assert_eq!(
        trusted.json()["data"],
        serde_json::json!({"id": "from-the-proxy", "client": "203.0.113.7", "secure": true})
    );
    assert_eq!(trusted.header("x-request-id"), Some("from-the-proxy"));
    let direct = send(&proxied(), behind("198.51.100.9")).await;
    assert_eq!(direct.json()["data"]["client"], "198.51.100.9");
    assert_eq!(direct.json()["data"]["secure"], false);
    assert_ne!(direct.header("x-request-id"), Some("from-the-proxy"));
}

#[tokio::test]
async fn a_foreign_id_that_is_no_plain_word_is_replaced() {
    for id in ["short", "with space in it", "semi;colon-id"] {
        let asked =
            from_peer(request("GET", "/api/v1/context", &[("x-request-id", id)], Body::empty()), "10.0.0.1");
        let answer = send(&proxied(), asked).await;
        let given = answer.header("x-request-id").unwrap();
        assert_eq!(given.len(), 36);
        assert_eq!(answer.json()["data"]["id"], given);
    }
}

#[tokio::test]
async fn without_a_peer_the_client_is_unknown() {
    assert_eq!(call("GET", "/api/v1/context").await.json()["data"]["client"], "unknown");
}
