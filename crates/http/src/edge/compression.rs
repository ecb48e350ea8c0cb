//! Compression of bodies that are worth it and safe to compress.

use std::convert::Infallible;
use std::future::ready;

use axum::body::Body;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, VARY};
use axum::http::{Extensions, HeaderMap, HeaderValue, Method, Request, StatusCode, Version};
use axum::response::Response;
use futures_util::FutureExt;
use http_body::Body as _;
use tower::service_fn;
use tower_http::compression::Compression;
use tower_service::Service;

use super::accept::coding;
use super::failure::NoCompression;

const VARY_ENCODING: HeaderValue = HeaderValue::from_static("Accept-Encoding");

/// Types whose bytes are compressed already, or must not be held back.
const LEFT_ALONE: [&[u8]; 11] = [
    b"text/event-stream",
    b"image/png",
    b"image/jpeg",
    b"image/gif",
    b"image/webp",
    b"image/avif",
    b"audio/",
    b"video/",
    b"font/woff",
    b"application/zip",
    b"application/gzip",
];

/// Compresses the body with the best coding the client accepts, if it is large enough.
pub(super) fn compress(
    response: Response,
    accept_encoding: Option<&HeaderValue>,
    method: &Method,
    minimum: u64,
) -> Response {
    if !compressible(&response, method, minimum) {
        return response;
    }
    let response = varying(response);
    let Some(coding) = accept_encoding.and_then(coding) else { return response };
    let mut request = Request::new(());
    request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static(coding.as_str()));
    let mut response = Some(response);
    // The layer is only borrowed for its encoders: everything was decided above.
    let mut encoder = Compression::new(service_fn(move |_: Request<()>| {
        ready(Ok::<_, Infallible>(response.take().unwrap_or_default()))
    }))
    .compress_when(|_: StatusCode, _: Version, _: &HeaderMap, _: &Extensions| true);
    match encoder.call(request).now_or_never() {
        Some(Ok(response)) => response.map(Body::new),
        Some(Err(never)) => match never {},
        None => Response::default(),
    }
}

fn compressible(response: &Response, method: &Method, minimum: u64) -> bool {
    let size = response.body().size_hint();
    if size.exact().or(size.upper()).is_some_and(|size| size < minimum) {
        return false;
    }
    let status = response.status();
    let headers = response.headers();
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    !(status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || method == Method::HEAD
        || headers.contains_key(CONTENT_ENCODING)
        || headers.contains_key(CONTENT_RANGE)
        || LEFT_ALONE.iter().any(|prefix| kind.starts_with(prefix))
        || response.extensions().get::<NoCompression>().is_some())
}

fn varying(mut response: Response) -> Response {
    response.headers_mut().append(VARY, VARY_ENCODING);
    response
}
