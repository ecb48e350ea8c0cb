//! The body of a request, bounded in size and in the patience for it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use quarterdeck_domain::{Error, ErrorCode};
use tokio::time::Sleep;

/// Why a body was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    TooLarge,
    TooSlow,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the body is larger than allowed",
            Self::TooSlow => "the body did not arrive in time",
        })
    }
}

impl std::error::Error for Cut {}

/// The failure that reading a body ended with.
pub fn body_failure(error: &(dyn std::error::Error + 'static)) -> Error {
    let mut cause = Some(error);
    while let Some(error) = cause {
        match error.downcast_ref() {
            Some(Cut::TooLarge) => return too_large(),
            Some(Cut::TooSlow) => return Error::shape("Request Timeout").status_override(408),
            None => cause = error.source(),
        }
    }
    Error::new(ErrorCode::RequestValidationError).caused_by("the body ended early")
}

pub(super) fn too_large() -> Error {
    Error::shape("Request Entity Too Large").status_override(413)
}

pin_project! {
    /// A body that fails beyond a number of bytes, or when nothing arrives for too long.
    pub(super) struct Bounded<B> {
        #[pin]
        inner: B,
        left: u64,
        patience: Duration,
        // Made when the body first keeps us waiting: most bodies arrive with their head.
        deadline: Option<Pin<Box<Sleep>>>,
    }
}

impl<B> Bounded<B> {
    pub(super) fn new(inner: B, most: u64, patience: Duration) -> Self {
        Self { inner, left: most, patience, deadline: None }
    }
}

impl<B> Body for Bounded<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        let Poll::Ready(frame) = this.inner.poll_frame(cx) else {
            let patience = *this.patience;
            let deadline = this.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
            ready!(deadline.as_mut().poll(cx));
            return Poll::Ready(Some(Err(Cut::TooSlow.into())));
        };
        *this.deadline = None;
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let size = frame.data_ref().map_or(0, |data| data.remaining() as u64);
                match this.left.checked_sub(size) {
                    Some(left) => {
                        *this.left = left;
                        Some(Ok(frame))
                    }
                    None => {
                        *this.left = 0;
                        Some(Err(Cut::TooLarge.into()))
                    }
                }
            }
            Some(Err(error)) => Some(Err(error.into())),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body as AnyBody;
    use futures_util::{FutureExt, stream};
    use http_body_util::BodyExt;

    use super::*;

    fn streamed(chunks: &[&'static str]) -> AnyBody {
        let chunks: Vec<Result<_, BoxError>> =
            chunks.iter().map(|c| Ok(Bytes::from_static(c.as_bytes()))).collect();
        AnyBody::from_stream(stream::iter(chunks))
    }

    #[test]
    fn a_streamed_body_is_cut_at_the_limit_and_not_before() {
        let read = |most| {
            let body = Bounded::new(streamed(&["12345", "67890"]), most, Duration::MAX);
            body.collect().now_or_never().unwrap().map(|all| all.to_bytes())
        };
        assert_eq!(read(10).unwrap(), "1234567890");
        let failure = body_failure(&*read(9).unwrap_err());
        assert_eq!((failure.status(), failure.code().number()), (413, 2001));
    }

    #[tokio::test]
    async fn a_body_that_stops_arriving_is_given_up() {
        let silent = AnyBody::from_stream(stream::pending::<Result<Bytes, BoxError>>());
        let body = AnyBody::new(Bounded::new(silent, 10, Duration::from_millis(1)));
        let failure = body_failure(&body.collect().await.unwrap_err());
        assert_eq!((failure.status(), failure.code().number()), (408, 2001));
    }
}
