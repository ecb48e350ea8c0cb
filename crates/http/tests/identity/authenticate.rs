//! From the headers of a request to who sends it.

use axum::body::Body;
use axum::http::{HeaderValue, Request};
use proptest::prelude::*;
use quarterdeck_auth::config::PathPattern;
use quarterdeck_domain::role::HumanRole;
use quarterdeck_testkit::{Answer, Caller, TestDb, TestServer};

use crate::support::*;

/// A request with these header lines and nothing else.
async fn send(caller: &Caller, method: &str, path: &str, headers: &[(&str, &[u8])]) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, HeaderValue::from_bytes(value).expect("a header value"));
    }
    caller.raw(request.body(Body::empty()).expect("a request")).await
}

async fn get(server: &TestServer, headers: &[(&str, &str)]) -> Answer {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    send(&server.anonymous(), "GET", ME, &headers).await
}

async fn two_people() -> (TestServer, String, String) {
    let server = TestServer::start().await;
    let ann = token_of(&server.person("ann", HumanRole::Observer).await);
    let bob = token_of(&server.person("bob", HumanRole::Manager).await);
    (server, ann, bob)
}

#[tokio::test]
async fn the_cookie_beats_the_header() {
    let (server, ann, bob) = two_people().await;
    let headers = [("cookie", &*format!("session={ann}")), ("authorization", &*format!("Bearer {bob}"))];
    assert_eq!(get(&server, &headers).await.expect(200).data()["username"], "ann");
    let headers = [("cookie", &*format!("session={ann}")), ("authorization", "Basic nonsense")];
    assert_eq!(get(&server, &headers).await.expect(200).data()["username"], "ann");
}

#[tokio::test]
async fn a_bad_cookie_gives_way_to_a_good_header() {
    let (server, ann, _) = two_people().await;
    let bearer = format!("Bearer {ann}");
    for bad in ["session=nodots", "session=a.b.c", "session=", "session", "other=1"] {
        get(&server, &[("cookie", bad), ("authorization", &bearer)]).await.expect(200);
    }
}

#[tokio::test]
async fn every_refusal_says_what_was_wrong_with_the_credential() {
    let (server, ann, _) = two_people().await;
    for (headers, text) in [
        (&[][..], "Missing authentication"),
        (&[("cookie", "session=")], "Missing authentication"),
        (&[("cookie", "session=nodots")], "Invalid session cookie"),
        (&[("cookie", "session=a.b.c")], "Invalid session cookie"),
        (&[("authorization", "Basic YTpi")], "Invalid authorization scheme"),
        (&[("authorization", "Bearer")], "Invalid authorization scheme"),
        (&[("authorization", "Bearer ")], "Invalid authorization scheme"),
        (&[("authorization", "")], "Invalid authorization scheme"),
        (&[("authorization", "a.b.c")], "Invalid authorization scheme"),
        (&[("authorization", "Bearer a.b.c")], "Invalid JWT token"),
        (&[("authorization", "Bearer abc")], "Invalid credentials"),
        (&[("cookie", "session=a.b.c"), ("authorization", "Bearer abc")], "Invalid credentials"),
    ] {
        let answer = get(&server, headers).await.refused(401, 1000);
        assert_eq!(answer.error(), text, "{headers:?}");
        let presented = headers.iter().any(|(name, _)| *name == "authorization");
        let challenge = match presented {
            true => r#"Bearer realm="quarterdeck", error="invalid_token""#,
            false => r#"Bearer realm="quarterdeck""#,
        };
        assert_eq!(answer.header("www-authenticate"), challenge, "{headers:?}");
    }
    let two = [("authorization", &*format!("Bearer {ann}")), ("authorization", &*format!("Bearer {ann}"))];
    get(&server, &two).await.refused(401, 1000);
}

#[tokio::test]
async fn the_scheme_is_read_in_any_case_and_spacing() {
    let (server, ann, _) = two_people().await;
    for header in [format!("bearer {ann}"), format!("BEARER   {ann}"), format!("bEaReR\t{ann} ")] {
        get(&server, &[("authorization", &header)]).await.expect(200);
    }
    for header in [format!("Bearer{ann}"), format!("Token {ann}"), format!("Bearer {ann} {ann}")] {
        get(&server, &[("authorization", &header)]).await.refused(401, 1000);
    }
}

#[tokio::test]
async fn a_bearer_with_a_dot_never_reaches_the_api_keys() {
    let server = TestServer::start().await;
    let ann = server.person("ann", HumanRole::Observer).await;
    plant_key(&server, &user_of(&ann), "dotless").await;
    plant_key(&server, &user_of(&ann), "with.dots.inside").await;
    me(&server, "dotless").await.expect(200);
    me(&server, "with.dots.inside").await.refused(401, 1000);
}

#[tokio::test]
async fn a_revoked_session_answers_1002_and_every_other_refusal_1000() {
    let (server, ann, bob) = two_people().await;
    server.bearer(&ann).post_empty(LOGOUT).await.expect(204);
    let cookie = format!("session={ann}");
    get(&server, &[("cookie", &cookie)]).await.refused(401, 1002);
    get(&server, &[("authorization", &format!("Bearer {ann}"))]).await.refused(401, 1002);
    get(&server, &[("cookie", &cookie), ("authorization", "Bearer a.b.c")]).await.refused(401, 1000);
    get(&server, &[("cookie", &cookie), ("authorization", &format!("Bearer {bob}"))]).await.expect(200);
    // A revoked token that has also expired is only expired.
    server.advance(std::time::Duration::from_secs(1440 * 60));
    get(&server, &[("cookie", &cookie)]).await.refused(401, 1000);
}

#[tokio::test]
async fn a_custom_cookie_name_is_honoured_and_the_default_one_ignored() {
    let server = server_with(TestDb::sqlite(), |auth| auth.cookie_name = "qd_session".to_owned()).await;
    let answer = server.anonymous().post(SETUP, &known("ceo")).await.expect(201);
    let token = set_cookies(&answer)[0].split(['=', ';']).nth(1).unwrap().to_owned();
    get(&server, &[("cookie", &format!("qd_session={token}"))]).await.expect(200);
    let default = get(&server, &[("cookie", &format!("session={token}"))]).await.refused(401, 1000);
    assert_eq!(default.error(), "Missing authentication");
    get(&server, &[("cookie", &format!("QD_SESSION={token}"))]).await.refused(401, 1000);
}

#[tokio::test]
async fn of_several_session_cookies_the_first_counts() {
    let (server, ann, bob) = two_people().await;
    for cookies in [
        format!("session={ann}; session={bob}"),
        format!("session={ann}; session=stray"),
        format!("a=b;session={ann};session="),
        format!(" ;; =x; session = {ann} ; c"),
    ] {
        let answer = get(&server, &[("cookie", &cookies)]).await.expect(200);
        assert_eq!(answer.data()["username"], "ann", "{cookies}");
    }
    let split = [("cookie", &*format!("session={ann}")), ("cookie", &*format!("session={bob}"))];
    assert_eq!(get(&server, &split).await.expect(200).data()["username"], "ann");
    get(&server, &[("cookie", &format!("session=stray; session={ann}"))]).await.refused(401, 1000);
}

#[tokio::test]
async fn a_neighbours_cookie_beyond_ascii_does_not_hide_ours() {
    let (server, ann, _) = two_people().await;
    let line = [b"theme=d\xc3\xa4mmerung; session=", ann.as_bytes(), b"; x=\xff"].concat();
    send(&server.anonymous(), "GET", ME, &[("cookie", &line)]).await.expect(200);
    let ours = [b"session=\xff; session=", ann.as_bytes()].concat();
    send(&server.anonymous(), "GET", ME, &[("cookie", &ours)]).await.refused(401, 1000);
}

#[tokio::test]
async fn no_spelling_of_a_path_gets_around_authentication() {
    let server = TestServer::start().await;
    server.ceo().await;
    for path in [
        "/api/v1/auth/me",
        "/api/v1/auth/me/",
        "/api/v1/auth/me//",
        "//api/v1/auth/me",
        "/api//v1/auth/me",
        "/api/v1/auth//me",
        "/api/v1/auth/m%65",
        "/api/v1/auth%2fme",
        "/api/v1/auth/me%2f",
        "/api/v1/auth/me%2e",
        "/api/v1/auth/me%00",
        "/API/V1/AUTH/ME",
        "/api/v1/auth/Me",
        "/api/v1/auth/login/../me",
        "/api/v1/auth/login/%2e%2e/me",
        "/api/v1/auth/login/..%2fme",
        "/api/v1/auth/login%2f..%2fme",
        "/api/v1/./auth/me",
        "/api/v1/auth/me;/api/v1/auth/login",
        "/api/v1/auth/me?/api/v1/auth/login",
        "/api/v1/healthz/../users",
        "/api/v1/users/",
        "/api/v1/users?x=/api/v1/healthz",
        "/docs/../api/v1/users",
    ] {
        for method in ["GET", "HEAD", "POST", "DELETE"] {
            let status = send(&server.anonymous(), method, path, &[]).await.status;
            assert!(matches!(status, 401 | 404 | 405), "{method} {path}: {status}");
        }
    }
}

#[tokio::test]
async fn an_excluded_path_has_no_identity_even_with_a_good_cookie() {
    let pattern = vec![PathPattern::new("^/api/v1/auth/me$").unwrap()];
    let server = server_with(TestDb::sqlite(), |auth| auth.exclude_paths = Some(pattern)).await;
    let mut ceo = server.ceo().await;
    ceo.get(ME).await.refused(403, 1001);
    ceo.get(SESSIONS).await.expect(200);
    server.anonymous().get(SESSIONS).await.refused(401, 1000);
}

#[tokio::test]
async fn an_empty_list_of_exclusions_keeps_the_mandatory_ones() {
    let server = server_with(TestDb::sqlite(), |auth| auth.exclude_paths = Some(Vec::new())).await;
    server.ceo().await;
    let mut stranger = server.anonymous();
    stranger.get("/api/v1/healthz").await.expect(200);
    stranger.get("/api/v1/readyz").await.expect(200);
    stranger.get("/api/v1/setup/status").await.expect(200);
    stranger.post(LOGIN, &known("ceo")).await.expect(200);
    stranger.post(SETUP, &known("x")).await.refused(409, 4000);
    stranger.post_empty(REFRESH).await.refused(401, 1005);
    stranger.post_empty(LOGOUT).await.expect(204);
}

#[tokio::test]
async fn a_failing_store_is_not_a_refusal() {
    let server = TestServer::start().await;
    let token = token_of(&server.person("ann", HumanRole::Observer).await);
    server.app.store.close().await;
    let unknown = signed(&patched(claims_of(&token), serde_json::json!({"sub": "somebody-else"})));
    let status = me(&server, &unknown).await.status;
    assert!(status >= 500, "{status}");
    let cookie = format!("session={unknown}");
    let status = get(&server, &[("cookie", &cookie), ("authorization", "Bearer abc")]).await.status;
    assert!(status >= 500, "{status}");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// Bytes that a header value may hold.
fn header_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>().prop_filter("allowed", |b| *b == 9 || (*b >= 32 && *b != 127)), 0..120)
}

#[test]
fn no_authorization_header_of_a_stranger_opens_anything() {
    let runtime = runtime();
    let (server, ann, _) = runtime.block_on(two_people());
    let schemes = "(?i)(bearer|basic|token|digest|)[ \t]{0,3}[A-Za-z0-9._~+/=-]{0,60}[ \t]?.{0,4}";
    let cut = (0..ann.len()).prop_map(move |end| format!("Bearer {}", &ann[..end]).into_bytes());
    let header = prop_oneof![header_bytes(), schemes.prop_map(String::into_bytes), cut];
    let caller = server.anonymous();
    proptest!(ProptestConfig::with_cases(3000), |(header in header)| {
        prop_assume!(HeaderValue::from_bytes(&header).is_ok());
        let answer = runtime.block_on(send(&caller, "GET", ME, &[("authorization", &header)]));
        prop_assert_eq!((answer.status, answer.code()), (401, 1000));
    });
}

#[test]
fn no_cookie_header_authenticates_a_mutation_without_its_csrf_value() {
    let runtime = runtime();
    let (server, ann, bob) = runtime.block_on(two_people());
    let good = || prop_oneof![Just(format!("session={ann}")), Just(format!("session={bob}"))];
    let piece = prop_oneof![
        3 => good().prop_map(String::into_bytes),
        1 => good().prop_map(|pair| pair.replace('=', " = \t").into_bytes()),
        1 => good().prop_map(|pair| pair.replace('=', "=\"").into_bytes()),
        1 => Just(b"session=".to_vec()),
        1 => Just(b"session".to_vec()),
        1 => Just(b"csrf_token=".to_vec()),
        1 => Just(b"csrf_token=x".to_vec()),
        1 => header_bytes(),
    ];
    let line = (prop::collection::vec(piece, 0..5), "[;, \t]{1,3}")
        .prop_map(|(pieces, glue)| pieces.join(glue.as_bytes()));
    let caller = server.anonymous();
    proptest!(ProptestConfig::with_cases(3000), |(lines in prop::collection::vec(line, 1..3))| {
        prop_assume!(lines.iter().all(|line| HeaderValue::from_bytes(line).is_ok()));
        let headers: Vec<_> = lines.iter().map(|line| ("cookie", &line[..])).collect();
        let answer = runtime.block_on(send(&caller, "POST", TICKET, &headers));
        prop_assert!(
            matches!((answer.status, answer.code()), (401, 1000) | (403, 1004)),
            "{} {}", answer.status, answer.code()
        );
    });
}
