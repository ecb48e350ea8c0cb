//! Extractors: what is refused, where, and in which words.

use proptest::prelude::*;

use crate::support::{call, edge, post_json, request, send};

async fn refused(body: &str) -> (String, String) {
    let answer = post_json("/api/v1/thing", body).await;
    assert_eq!(answer.code(), (400, 2001), "{body}");
    answer.field()
}

fn at(pointer: &str, detail: &str) -> (String, String) {
    (pointer.to_owned(), detail.to_owned())
}

#[tokio::test]
async fn a_good_body_is_read_whatever_else_it_holds() {
    let answer =
        post_json("/api/v1/thing", r#"{"name":"a","parts":[{"count":7}],"kind":"square","x":{"y":[1]}}"#)
            .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["data"], serde_json::json!({"name": "a", "parts": [7], "square": true}));
}

#[tokio::test]
async fn a_refusal_names_the_member_and_the_rule() {
    for (body, pointer, detail) in [
        (r#"{}"#, "/name", "is required"),
        (r#"{"name":"  "}"#, "/name", "must not be blank"),
        (r#"{"name":"123456789"}"#, "/name", "must have at most 8 characters"),
        (r#"{"name":1}"#, "/name", "must be a string"),
        (r#"{"name":null}"#, "/name", "must be a string"),
        (r#"{"name":"a","kind":"oval"}"#, "/kind", "must be one of round, square"),
        (r#"{"name":"a","parts":{}}"#, "/parts", "must be an array"),
        (
            r#"{"name":"a","parts":[{"count":1},{"count":-1}]}"#,
            "/parts/1/count",
            "must be an integer between 0 and 255",
        ),
        (r#"{"name":"a","parts":[{"count":256}]}"#, "/parts/0/count", "must be an integer between 0 and 255"),
        (r#"{"name":"a","parts":[{"count":1.5}]}"#, "/parts/0/count", "must be an integer between 0 and 255"),
        (r#"{"name":"a","parts":[{}]}"#, "/parts/0/count", "is required"),
        (r#"{"name":"a","name":"b"}"#, "/name", "must not appear twice"),
        (r#"{"name":"a","x":{"a/b":1,"a/b":2}}"#, "/x/a~1b", "must not appear twice"),
        (r#"{"name":"a\u0000"}"#, "/name", "must not hold the character NUL"),
        (r#"{"name":"a","x":[{"y":["\u0000"]}]}"#, "/x/0/y/0", "must not hold the character NUL"),
        (r#"{"name":"a","x":{"\u0000":1}}"#, "/x/\0", "must not hold the character NUL"),
        (r#"[]"#, "", "must be an object"),
        (r#""text""#, "", "must be an object"),
        (r#"{"name":"a"} x"#, "", "is not valid JSON at line 1, column 14"),
        (r#"{"name":"a",}"#, "", "is not valid JSON at line 1, column 13"),
        (r#"{"name":"a","x":1e999}"#, "", "is not valid JSON at line 1, column 21"),
        (r#"{"name":"a","x":NaN}"#, "", "is not valid JSON at line 1, column 17"),
        ("{", "", "ends too early at line 1, column 1"),
        ("", "", "ends too early at line 1, column 0"),
    ] {
        assert_eq!(refused(body).await, at(pointer, detail), "{body}");
    }
}

#[tokio::test]
async fn deep_nesting_is_refused_wherever_it_stands() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for body in [deep.clone(), format!(r#"{{"name":"a","ignored":{deep}}}"#)] {
        assert_eq!(refused(&body).await, at("", "is nested too deeply"));
    }
}

#[tokio::test]
async fn a_refused_value_is_never_repeated() {
    for body in [
        r#"{"name":1,"hunter2":1}"#,
        r#"{"name":"a","kind":"hunter2"}"#,
        r#"{"name":"a","kind":"`, expected one of `hunter2"}"#,
        r#"{"name":"a","parts":"hunter2"}"#,
        r#"{"name":"a","parts":[{"count":"hunter2"}]}"#,
        r#"{"name":"a","parts":[{"count":"x, expected hunter2"}]}"#,
        r#"{"name":"hunter2 hunter2"}"#,
        r#""hunter2""#,
        r#"hunter2"#,
    ] {
        let answer = post_json("/api/v1/thing", body).await;
        assert_eq!(answer.code(), (400, 2001), "{body}");
        assert!(!String::from_utf8_lossy(&answer.bytes).contains("hunter2"), "{:?}", answer.bytes);
    }
}

#[tokio::test]
async fn a_body_of_another_type_is_not_read() {
    let edge = edge();
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
        let answer =
            send(&edge, request("POST", "/api/v1/thing", &[("content-type", kind)], r#"{"name":"a"}"#)).await;
        assert_eq!(answer.code(), (415, 2001), "{kind}");
        assert_eq!(answer.detail(), "Unsupported Media Type");
    }
    for kind in ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"] {
        let answer =
            send(&edge, request("POST", "/api/v1/thing", &[("content-type", kind)], r#"{"name":"a"}"#)).await;
        assert_eq!(answer.status, 200, "{kind}");
    }
    assert_eq!(send(&edge, request("POST", "/api/v1/thing", &[], r#"{"name":"a"}"#)).await.status, 200);
}

#[tokio::test]
async fn parameters_of_the_path_are_checked() {
    assert_eq!(call("GET", "/api/v1/things/7").await.json()["data"], 7);
    for id in ["-1", "abc", "4294967296", "7%20"] {
        let answer = call("GET", &format!("/api/v1/things/{id}")).await;
        assert_eq!(answer.code(), (400, 2001), "{id}");
        assert_eq!(answer.field().1, "must be an integer between 0 and 4294967295");
    }
    assert_eq!(call("GET", "/api/v1/things/%ff").await.code(), (400, 2001));
}

#[tokio::test]
async fn parameters_of_the_query_are_checked() {
    for (query, name, detail) in [
        ("", "count", "is required"),
        ("?count=x", "count", "must be an integer"),
        ("?count=256", "count", "is out of range"),
        ("?count=1&count=2", "count", "must not appear twice"),
    ] {
        let answer = call("GET", &format!("/api/v1/filter{query}")).await;
        assert_eq!(answer.code(), (400, 2001), "{query}");
        assert_eq!(answer.field(), at(name, detail), "{query}");
    }
}

#[tokio::test]
async fn a_page_has_bounds_and_defaults() {
    for (query, page) in [("", [0, 50]), ("?limit=1", [0, 1]), ("?offset=7&limit=200&x=1", [7, 200])] {
        assert_eq!(
            call("GET", &format!("/api/v1/page{query}")).await.json()["data"],
            serde_json::json!(page)
        );
    }
    for (query, name) in [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=-1", "limit"),
        ("limit=abc", "limit"),
        ("limit=", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("offset=-1", "offset"),
        ("offset=1.5", "offset"),
    ] {
        let answer = call("GET", &format!("/api/v1/page?{query}")).await;
        assert_eq!(answer.code(), (400, 2001), "{query}");
        assert_eq!(answer.field().0, name, "{query}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_body_panics_or_fails_the_server(
        bytes in prop::collection::vec(any::<u8>(), 0..60),
        text in r#"[{}\[\]":,a-z0-9eE.+\\-]{0,60}"#,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for body in [bytes, text.into_bytes()] {
            let answer = runtime.block_on(send(&edge(), request("POST", "/api/v1/thing", &[], body)));
            prop_assert!(matches!(answer.status, 200 | 400));
        }
    }
}
