//! The pages a person sees: the welcome page and the API reference, carried inside the program.
//!
//! A release build embeds `web/dist`; a debug build reads it from the source tree on each request.

use axum::Router;
use axum::extract::Path;
use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use rust_embed::{EmbeddedFile, RustEmbed};
use std::borrow::Cow;

use crate::edge::AsIs;

#[derive(RustEmbed)]
#[folder = "../../web/dist"]
struct Built;

const NOT_BUILT: &str = "The pages of this program were not built. \
    Run `make run` in its source folder, or `make web` and build the program again. \
    The API under /api/v1 works without them.\n";

/// The pages and what they load: `/`, `/assets/…`, `/docs/api`, `/docs/assets/…`, `/favicon.svg`;
/// `/docs` leads to the API reference.
///
/// Sets `Content-Type` and a strong `ETag`; what else a response needs is the edge's matter.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    routes_of::<Built, S>()
}

fn routes_of<A: RustEmbed, S: Clone + Send + Sync + 'static>() -> Router<S> {
    let page = |name| move |headers: HeaderMap| async move { page::<A>(name, &headers) };
    Router::new()
        .route("/", get(page("index.html")))
        .route("/docs", get(|| async { Redirect::temporary("/docs/api") }))
        .route("/docs/api", get(page("docs/api.html")))
        .route(
            "/assets/{*path}",
            get(|Path(path): Path<String>, headers: HeaderMap| async move {
                file::<A>(&format!("assets/{path}"), &headers)
            }),
        )
        .route(
            "/docs/assets/{*path}",
            get(|Path(path): Path<String>, headers: HeaderMap| async move {
                file::<A>(&format!("docs/assets/{path}"), &headers)
            }),
        )
        .route("/favicon.svg", get(|headers: HeaderMap| async move { file::<A>("favicon.svg", &headers) }))
}

fn page<A: RustEmbed>(name: &str, headers: &HeaderMap) -> Response {
    match A::get(name) {
        Some(found) => answer(found, headers),
        None => (StatusCode::SERVICE_UNAVAILABLE, AsIs, NOT_BUILT).into_response(),
    }
}

fn file<A: RustEmbed>(path: &str, headers: &HeaderMap) -> Response {
    // Embedded names have no such steps; a debug build would follow them through the source tree.
    let climbs = path.split(['/', '\\']).any(|step| step == "..");
    match A::get(path).filter(|_| !climbs) {
        Some(found) => answer(found, headers),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn answer(file: EmbeddedFile, headers: &HeaderMap) -> Response {
    let etag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(file.metadata.sha256_hash()));
    if knows(headers, &etag) {
        return (StatusCode::NOT_MODIFIED, [(ETAG, etag)]).into_response();
    }
    let body = match file.data {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => Bytes::from(bytes),
    };
    ([(CONTENT_TYPE, content_type(file.metadata.mimetype())), (ETAG, etag)], body).into_response()
}

/// Whether the client says it holds this representation (RFC 9110, `If-None-Match`, weak comparison).
fn knows(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

fn content_type(mime: &str) -> String {
    if mime.starts_with("text/") { format!("{mime}; charset=utf-8") } else { mime.to_owned() }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Method, Request};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    /// A welcome page with one script, and no API reference.
    #[derive(RustEmbed)]
    #[folder = "tests/pages"]
    struct Sample;

    struct Answer {
        status: StatusCode,
        headers: HeaderMap,
        body: String,
    }

    async fn ask(method: Method, path: &str, known: &[&str]) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for tag in known {
            request = request.header(IF_NONE_MATCH, *tag);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = routes_of::<Sample, ()>().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    async fn get(path: &str) -> Answer {
        ask(Method::GET, path, &[]).await
    }

    #[tokio::test]
    async fn pages_and_assets_come_with_their_type() {
        for (path, mime) in [
            ("/", "text/html; charset=utf-8"),
            ("/assets/app-1.js", "text/javascript; charset=utf-8"),
            ("/favicon.svg", "image/svg+xml"),
        ] {
            let answer = get(path).await;
            assert_eq!(answer.status, StatusCode::OK, "{path}");
            assert_eq!(answer.headers[CONTENT_TYPE], mime, "{path}");
        }
        assert!(get("/").await.body.contains("<h1>Sample</h1>"));
    }

    #[tokio::test]
    async fn head_answers_like_get_without_the_body() {
        let (head, get) = (ask(Method::HEAD, "/", &[]).await, get("/").await);
        assert_eq!((head.status, head.body.as_str()), (StatusCode::OK, ""));
        assert_eq!(head.headers[ETAG], get.headers[ETAG]);
    }

    #[tokio::test]
    async fn what_the_client_holds_is_not_sent_again() {
        let etag = get("/").await.headers[ETAG].to_str().unwrap().to_owned();
        assert!(etag.starts_with('"'), "a strong tag: {etag}");
        let (list, weak) = (format!("\"x\", {etag}"), format!("W/{etag}"));
        for known in [&[etag.as_str()][..], &[&list], &[&weak], &["*"], &["\"x\"", &etag]] {
            let answer = ask(Method::GET, "/", known).await;
            assert_eq!(answer.status, StatusCode::NOT_MODIFIED, "{known:?}");
            assert_eq!(answer.headers[ETAG], etag);
            assert_eq!(answer.body, "");
        }
        for other in ["\"x\"", "", "x", etag.trim_matches('"')] {
            assert_eq!(ask(Method::GET, "/", &[other]).await.status, StatusCode::OK, "{other:?}");
        }
    }

    #[tokio::test]
    async fn different_files_have_different_tags() {
        assert_ne!(get("/").await.headers[ETAG], get("/favicon.svg").await.headers[ETAG]);
    }

    #[tokio::test]
    async fn a_page_that_was_not_built_says_how_to_build_it() {
        let answer = get("/docs/api").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.body.contains("make run"));
    }

    #[tokio::test]
    async fn the_docs_root_leads_to_the_api_reference() {
        let answer = get("/docs").await;
        assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(answer.headers["location"], "/docs/api");
    }

    #[tokio::test]
    async fn nothing_outside_the_assets_can_be_asked_for() {
        for path in [
            "/assets/none.js",
            "/assets/../index.html",
            "/assets/%2e%2e/index.html",
            "/assets/..%2f..%2f..%2fCargo.toml",
            "/assets/%2fetc%2fpasswd",
            "/docs/assets/..%2f..%2findex.html",
            "/index.html",
        ] {
            assert_eq!(get(path).await.status, StatusCode::NOT_FOUND, "{path}");
        }
    }
}
