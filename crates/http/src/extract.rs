//! Parsing of requests: what does not have the right shape never reaches a handler.
//!
//! Every refusal is 400 with code 2001 (415 for a body that is not JSON, 413 for one that is too
//! large), names the member or parameter and the rule, and never repeats the refused value.

mod condition;
mod refusal;
mod strict;
mod whole;

use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use bytes::Bytes;
use http_body_util::BodyExt;
use quarterdeck_domain::Error;
use quarterdeck_domain::error::FieldError;
use quarterdeck_domain::text::NotBlank;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

pub use self::condition::{Condition, IF_MATCH_DOC, MAX_KEY, RepeatKey, Version};
use crate::edge::{Failure, body_failure};

/// Longest id in a path, in characters.
pub const MAX_ID: usize = 128;

/// An id in a path.
pub type Id = NotBlank<MAX_ID>;

/// Things on a page when the request does not say.
pub const DEFAULT_LIMIT: u32 = 50;

/// Most things on a page.
pub const MAX_LIMIT: u32 = 200;

/// The body of a request, a JSON object.
#[derive(Clone, Copy, Debug)]
pub struct Body<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        if !accepts_json(&parts.headers) {
            return Err(Error::shape("Unsupported Media Type").status_override(415).into());
        }
        let bytes = read(body).await?;
        parse(&bytes).map(Self).map_err(|field| refused(&parts, field))
    }
}

/// Reads a whole body within the limits of the edge.
pub async fn read(body: axum::body::Body) -> Result<Bytes, Failure> {
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => Err(body_failure(&error).into()),
    }
}

/// The character NUL in a URL; not every database can store it.
const NUL: &str = "%00";

fn nul() -> FieldError {
    FieldError { pointer: String::new(), detail: strict::NUL.to_owned() }
}

/// Reads a value from JSON text, or names what is wrong with it.
fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, FieldError> {
    strict::check(json)?;
    serde_json::from_slice(json).or_else(|_| whole::read(json)).or_else(|_| {
        // Once more, this time keeping track of where we are.
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        serde_path_to_error::deserialize(&mut deserializer)
            .map_err(|error| refusal::of_member(error.path(), &error.inner().to_string()))
    })
}

/// The query string of a request.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let query = parts.uri.query().unwrap_or_default();
        if query.contains(NUL) {
            return Err(refused(parts, nul()));
        }
        let deserializer = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
        serde_path_to_error::deserialize(deserializer)
            .map(Self)
            .map_err(|error| refused(parts, refusal::of_parameter(error.path(), &error.inner().to_string())))
    }
}

/// The parameters of the path of a request.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        if parts.uri.path().contains(NUL) {
            return Err(refused(parts, nul()));
        }
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(error)) => {
                let (name, detail) = match error.into_kind() {
                    ErrorKind::ParseErrorAtKey { key, expected_type, .. } => {
                        (key, refusal::wanted(expected_type))
                    }
                    ErrorKind::ParseErrorAtIndex { expected_type, .. }
                    | ErrorKind::ParseError { expected_type, .. } => {
                        (String::new(), refusal::wanted(expected_type))
                    }
                    ErrorKind::DeserializeError { key, message, .. } => (key, refusal::rule(&message)),
                    ErrorKind::InvalidUtf8InPathParam { key } => (key, "must be UTF-8".to_owned()),
                    ErrorKind::Message(message) => (String::new(), refusal::rule(&message)),
                    other => return Err(Error::internal(other).into()),
                };
                Err(refused(parts, FieldError { pointer: name, detail }))
            }
            Err(other) => Err(Error::internal(other).into()),
        }
    }
}

/// Which part of a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Things to skip.
    #[param(default = 0)]
    pub offset: u64,
    /// Most things to return.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub limit: u32,
}

#[derive(serde::Deserialize)]
struct AskedPage {
    offset: Option<i64>,
    limit: Option<i64>,
}

/// As [`Page`], of `SIZE` things when the request does not say.
#[derive(Clone, Copy, Debug)]
pub struct PageOf<const SIZE: u32>(pub Page);

impl<S: Sync> FromRequestParts<S> for Page {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        PageOf::<DEFAULT_LIMIT>::from_request_parts(parts, state).await.map(|PageOf(page)| page)
    }
}

impl<S: Sync, const SIZE: u32> FromRequestParts<S> for PageOf<SIZE> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Query(asked) = Query::<AskedPage>::from_request_parts(parts, state).await?;
        let refuse = |pointer: &str, detail: String| {
            refused(parts, FieldError { pointer: pointer.to_owned(), detail })
        };
        let offset = u64::try_from(asked.offset.unwrap_or(0))
            .map_err(|_| refuse("offset", "must not be negative".to_owned()))?;
        let limit = u32::try_from(asked.limit.unwrap_or(SIZE.into()))
            .ok()
            .filter(|limit| (1..=MAX_LIMIT).contains(limit))
            .ok_or_else(|| refuse("limit", format!("must be between 1 and {MAX_LIMIT}")))?;
        Ok(Self(Page { offset, limit }))
    }
}

/// The failure of a request without the right shape. The query string is left out: it may hold tokens.
fn refused(parts: &Parts, field: FieldError) -> Failure {
    let detail = format!("Validation failed for {} {}", parts.method, parts.uri.path());
    Failure(Error::shape(detail).fields(vec![field]))
}

/// Whether the body is JSON, or does not say what it is.
fn accepts_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return true };
    let Ok(kind) = kind.to_str() else { return false };
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some(sub) = kind.strip_prefix("application/") else { return false };
    sub == "json" || sub.ends_with("+json")
}
