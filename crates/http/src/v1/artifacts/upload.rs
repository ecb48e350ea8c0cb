//! The bytes of an upload: the body itself, or the one file of a form.

use axum::BoxError;
use axum::body::BodyDataStream;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use futures_util::stream::{BoxStream, try_unfold};
use futures_util::{StreamExt, TryStreamExt};
use multer::{Field, Multipart};
use quarterdeck_domain::Error;
use quarterdeck_domain::error::FieldError;

use crate::edge::{Result, body_failure};

/// An upload that has begun.
pub(super) struct Incoming {
    /// How many bytes there will be, where the request says so.
    pub(super) announced: Option<u64>,
    /// The bytes.
    pub(super) bytes: BoxStream<'static, Result<Bytes, Error>>,
}

/// Begins to read the bytes of a request.
///
/// # Errors
/// 400/2001 for a form without a boundary.
pub(super) fn incoming(request: Request) -> Result<Incoming, Error> {
    let (parts, body) = request.into_parts();
    let body = body.into_data_stream();
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("multipart/form-data") {
        let bytes = body.map_err(|error| body_failure(&error)).boxed();
        return Ok(Incoming { announced: content_length(&parts.headers), bytes });
    }
    let boundary = multer::parse_boundary(kind).map_err(|_| malformed("has no boundary"))?;
    Ok(Incoming { announced: None, bytes: Form::new(body, boundary).bytes() })
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH).map(HeaderValue::to_str)?.ok()?.parse().ok()
}

/// A form on its way in.
struct Form {
    fields: Multipart<'static>,
    file: Option<Field<'static>>,
    seen: bool,
}

impl Form {
    fn new(body: BodyDataStream, boundary: String) -> Self {
        let body = body.map_err(BoxError::from);
        Self { fields: Multipart::new(body, boundary), file: None, seen: false }
    }

    fn bytes(self) -> BoxStream<'static, Result<Bytes, Error>> {
        try_unfold(self, Self::next).boxed()
    }

    /// The next bytes of the file. What goes before and after it is read too: a second file spoils the first.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, Error> {
        loop {
            if let Some(file) = &mut self.file {
                match file.chunk().await.map_err(refused)? {
                    Some(bytes) => return Ok(Some((bytes, self))),
                    None => self.file = None,
                }
            }
            match self.fields.next_field().await.map_err(refused)? {
                Some(field) if field.file_name().is_none() => {}
                Some(_) if self.seen => return Err(malformed("must have one file, not several")),
                Some(file) => (self.file, self.seen) = (Some(file), true),
                None if self.seen => return Ok(None),
                None => return Err(malformed("must have a file")),
            }
        }
    }
}

fn refused(error: multer::Error) -> Error {
    match error {
        multer::Error::StreamReadFailed(error) => body_failure(&*error),
        _ => malformed("is not a whole form"),
    }
}

fn malformed(rule: &str) -> Error {
    let field = FieldError { pointer: String::new(), detail: rule.to_owned() };
    Error::shape("Validation failed for the uploaded form").fields(vec![field])
}
