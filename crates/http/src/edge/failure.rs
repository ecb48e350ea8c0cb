//! Failures and hints that inner code hands to the edge through response extensions.

use std::convert::Infallible;

use axum::http::StatusCode;
use axum::response::{IntoResponse, IntoResponseParts, Response, ResponseParts};
use quarterdeck_domain::{Error, ErrorCode};

/// Result of a handler.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// A failure on its way out of a handler. It carries no body: the edge alone words it.
#[derive(Clone, Debug)]
pub struct Failure(pub Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        Self(code.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        *response.status_mut() =
            StatusCode::from_u16(self.0.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.extensions_mut().insert(self);
        response
    }
}

macro_rules! response_hint {
    ($($name:ident)+) => {$(
        impl IntoResponseParts for $name {
            type Error = Infallible;

            fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
                parts.extensions_mut().insert(self);
                Ok(parts)
            }
        }
    )+};
}

response_hint!(AsIs NoCompression PresentedCredential RouteTemplate Sandboxed);

/// The response has a failing status and its own body, which the edge leaves alone, as in
/// `(StatusCode::SERVICE_UNAVAILABLE, AsIs, Data(report))`.
#[derive(Clone, Copy, Debug)]
pub struct AsIs;

/// The response carries a token or another secret: compressing it would let its length leak it.
#[derive(Clone, Copy, Debug)]
pub struct NoCompression;

/// The response carries bytes that somebody uploaded: a browser that opens them after all must let them do
/// nothing.
#[derive(Clone, Copy, Debug)]
pub struct Sandboxed;

/// The refused request did present a credential; a 401 then says that the credential is the problem.
#[derive(Clone, Copy, Debug)]
pub struct PresentedCredential;

/// Template of the route that answered, such as `/api/v1/users/{user_id}`; a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteTemplate(pub &'static str);
