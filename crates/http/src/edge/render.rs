//! Turns a failing response into the body the client asked for, once, here.

use axum::body::Body;
use axum::http::header::{
    ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED, RETRY_AFTER, VARY,
    WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use quarterdeck_domain::{Category, Error, ErrorCode};

use super::accept::{ErrorMedia, negotiate};
use super::envelope::{ApiResponse, ErrorDetail, FieldProblem, JSON};
use super::failure::{Failure, PresentedCredential};
use super::id::RequestId;
use super::scrub::{cap, scrub};

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const CHALLENGE: HeaderValue = HeaderValue::from_static(r#"Bearer realm="quarterdeck""#);
const CHALLENGE_INVALID: HeaderValue =
    HeaderValue::from_static(r#"Bearer realm="quarterdeck", error="invalid_token""#);
const VARY_ACCEPT: HeaderValue = HeaderValue::from_static("Accept");

/// Headers that describe the body which is replaced.
const OF_THE_BODY: [HeaderName; 5] = [CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED];

/// `type` of every category.
#[derive(Debug)]
pub(super) struct ErrorTypes([String; 8]);

impl ErrorTypes {
    pub(super) fn new(base: &str) -> Self {
        let base = base.trim_end_matches('/');
        Self(Category::ALL.map(|category| format!("{base}#{}", category.as_str())))
    }

    fn of(&self, category: Category) -> String {
        self.0[category as usize - 1].clone()
    }
}

/// The failure a failing response stands for: the one it carries, or the one its status means. Of the
/// headers the framework put on an answer of its own, only the known ones stay.
pub(super) fn failure_of(response: &mut Response) -> Error {
    if let Some(Failure(error)) = response.extensions_mut().remove::<Failure>() {
        return error;
    }
    let error = bare(response.status(), response.headers());
    let headers = std::mem::take(response.headers_mut());
    let stays = |name: &HeaderName| {
        [RETRY_AFTER, WWW_AUTHENTICATE, ALLOW, VARY].contains(name) || name.as_str().starts_with("ratelimit")
    };
    for (name, value) in headers.iter().filter(|(name, _)| stays(name)) {
        response.headers_mut().append(name, value.clone());
    }
    error
}

/// The failure a status means when the framework answered by itself.
fn bare(status: StatusCode, headers: &HeaderMap) -> Error {
    let phrase = match status.as_u16() {
        413 => "Request Entity Too Large",
        _ => status.canonical_reason().unwrap_or(ErrorCode::RequestValidationError.default_text()),
    };
    let error = match status.as_u16() {
        401 => Error::new(ErrorCode::Unauthorized),
        403 => Error::new(ErrorCode::Forbidden),
        404 => Error::new(ErrorCode::RouteNotFound),
        409 => Error::new(ErrorCode::ResourceConflict),
        429 => Error::new(ErrorCode::RateLimited),
        503 => Error::new(ErrorCode::ServiceUnavailable),
        500.. => Error::internal(phrase).status_override(status.as_u16()),
        _ => Error::shape(phrase).status_override(status.as_u16()),
    };
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    match seconds {
        Some(seconds) => error.retry_after(seconds),
        None => error,
    }
}

/// What the client is told about a failure.
pub(super) fn describe(error: &Error, id: &RequestId, types: &ErrorTypes) -> ErrorDetail {
    let code = error.code();
    let own_text = error.status() < 500 || code.status() >= 500;
    let detail = if own_text { error.detail() } else { ErrorCode::InternalError.default_text() };
    let detail = if detail == code.default_text() {
        code.default_text().into()
    } else {
        let text = if code == ErrorCode::RequestValidationError { cap(detail) } else { detail };
        scrub(text).into_owned().into()
    };
    ErrorDetail {
        detail,
        error_code: code,
        error_category: code.category(),
        retryable: code.retryable(),
        retry_after: delay(error).filter(|_| code.retryable()),
        instance: id.to_string(),
        title: code.category().title(),
        kind: types.of(code.category()),
        errors: error
            .field_errors()
            .iter()
            .map(|field| FieldProblem {
                pointer: cap(&field.pointer).to_owned(),
                detail: scrub(cap(&field.detail)).into_owned(),
            })
            .collect(),
    }
}

/// Seconds of `Retry-After`: every 429 names at least one.
fn delay(error: &Error) -> Option<u32> {
    match (error.status(), error.retry_after_seconds()) {
        (429, seconds) => Some(seconds.unwrap_or(1).max(1)),
        (_, seconds) => seconds,
    }
}

/// The complete answer to a failed request.
pub(super) fn render(
    error: &Error,
    id: &RequestId,
    types: &ErrorTypes,
    accept: Option<&HeaderValue>,
    method: &Method,
    failed: Response,
) -> Response {
    let detail = describe(error, id, types);
    let media = negotiate(accept);
    let body = match media {
        ErrorMedia::Envelope => serde_json::to_vec(&ApiResponse::failed(detail)),
        ErrorMedia::Problem => serde_json::to_vec(&detail.into_problem(error.status())),
    };
    let (status, content_type, body) = match body {
        Ok(body) => {
            let content_type = if media == ErrorMedia::Problem { PROBLEM } else { JSON };
            (StatusCode::from_u16(error.status()).ok(), content_type, body)
        }
        Err(_) => (None, JSON, last_resort(id, types)),
    };
    let (mut parts, _) = failed.into_parts();
    let presented = parts.extensions.get::<PresentedCredential>().is_some();
    let headers = &mut parts.headers;
    for name in OF_THE_BODY {
        headers.remove(name);
    }
    headers.append(VARY, VARY_ACCEPT);
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CONTENT_LENGTH, body.len().into());
    match delay(error) {
        Some(seconds) => drop(headers.insert(RETRY_AFTER, seconds.into())),
        None => drop(headers.remove(RETRY_AFTER)),
    }
    if error.status() == 401 && !headers.contains_key(WWW_AUTHENTICATE) {
        headers.insert(WWW_AUTHENTICATE, if presented { CHALLENGE_INVALID } else { CHALLENGE });
    }
    parts.status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = if method == Method::HEAD { Body::empty() } else { Body::from(body) };
    Response::from_parts(parts, body)
}

/// A complete envelope put together by hand, for when writing the real one failed.
fn last_resort(id: &RequestId, types: &ErrorTypes) -> Vec<u8> {
    let code = ErrorCode::InternalError;
    let kind = types.of(code.category()).replace(['"', '\\'], "");
    format!(
        concat!(
            r#"{{"data":null,"error":"{0}","error_detail":{{"detail":"{0}","error_code":{1},"#,
            r#""error_category":"{2}","retryable":false,"retry_after":null,"instance":"{3}","#,
            r#""title":"{4}","type":"{5}"}},"success":false}}"#
        ),
        code.default_text(),
        code.number(),
        code.category().as_str(),
        id,
        code.category().title(),
        kind,
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::BodyExt;
    use serde_json::Value;

    use super::*;

    fn rendered(error: &Error, accept: &'static str) -> (Response, Value) {
        let accept = HeaderValue::from_static(accept);
        let types = ErrorTypes::new("/docs/errors/");
        let failed = Response::default();
        let response = render(error, &RequestId::fresh(), &types, Some(&accept), &Method::GET, failed);
        let (parts, body) = response.into_parts();
        let bytes = body.collect().now_or_never().unwrap().unwrap().to_bytes();
        (Response::from_parts(parts, Body::empty()), serde_json::from_slice(&bytes).unwrap())
    }

    #[test]
    fn every_code_says_the_same_in_both_media_types() {
        for code in ErrorCode::ALL {
            let error = Error::new(*code).retry_after(7);
            let (envelope_response, envelope) = rendered(&error, "application/json");
            let (problem_response, problem) = rendered(&error, "application/problem+json");
            let detail = &envelope["error_detail"];
            assert_eq!(envelope_response.status(), problem_response.status());
            assert_eq!(envelope_response.headers()[CONTENT_TYPE], "application/json");
            assert_eq!(problem_response.headers()[CONTENT_TYPE], "application/problem+json");
            assert_eq!(problem_response.headers()[VARY], "Accept");
            for member in
                ["detail", "error_code", "error_category", "retryable", "retry_after", "title", "type"]
            {
                assert_eq!(detail[member], problem[member], "{code:?} {member}");
            }
            assert_eq!(problem["status"], problem_response.status().as_u16());
            assert_eq!(envelope["error"], detail["detail"]);
            assert_eq!(envelope["data"], Value::Null);
            assert_eq!(envelope["success"], false);
            let number = detail["error_code"].as_u64().unwrap();
            assert_eq!(detail["error_category"], Category::ALL[number as usize / 1000 - 1].as_str());
            assert_eq!(
                detail["type"],
                format!("/docs/errors#{}", detail["error_category"].as_str().unwrap())
            );
            let header = envelope_response.headers().get(RETRY_AFTER).map(|v| v.to_str().unwrap().to_owned());
            assert_eq!(header, detail["retry_after"].as_u64().map(|n| n.to_string()), "{code:?}");
            assert!(detail["retry_after"].is_null() || detail["retryable"] == true, "{code:?}");
        }
    }

    #[test]
    fn bodies_of_every_code_are_as_agreed() {
        let bodies: String = ErrorCode::ALL
            .iter()
            .map(|code| {
                let types = ErrorTypes::new("https://deck.example/docs/errors");
                let id = RequestId::foreign(&HeaderValue::from_static("request-1")).unwrap();
                let detail = describe(&Error::new(*code), &id, &types);
                let problem = serde_json::to_string(&detail.clone().into_problem(code.status())).unwrap();
                let envelope = serde_json::to_string(&ApiResponse::failed(detail)).unwrap();
                format!("{}\n{envelope}\n{problem}\n\n", code.name())
            })
            .collect();
        insta::assert_snapshot!(bodies);
    }

    #[test]
    fn every_429_names_at_least_one_second() {
        for error in [
            Error::new(ErrorCode::AccountLocked).retry_after(0),
            Error::new(ErrorCode::RateLimited),
            bare(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new()),
        ] {
            let (response, body) = rendered(&error, "");
            assert_eq!(response.headers()[RETRY_AFTER], "1");
            assert_eq!(body["error_detail"]["retry_after"], 1);
        }
    }

    #[test]
    fn a_bare_status_is_mapped_by_the_generic_rule() {
        for (status, code, detail) in [
            (400, 2001, "Bad Request"),
            (401, 1000, "Authentication required"),
            (403, 1001, "Forbidden"),
            (404, 3002, "Not found"),
            (405, 2001, "Method Not Allowed"),
            (409, 4000, "Resource conflict"),
            (413, 2001, "Request Entity Too Large"),
            (415, 2001, "Unsupported Media Type"),
            (429, 5000, "Too Many Requests"),
            (499, 2001, "Validation error"),
            (500, 8000, "Internal server error"),
            (502, 8000, "Internal server error"),
            (503, 8001, "Service unavailable"),
        ] {
            let error = bare(StatusCode::from_u16(status).unwrap(), &HeaderMap::new());
            let (response, body) = rendered(&error, "");
            assert_eq!(response.status(), status);
            assert_eq!(body["error_detail"]["error_code"], code, "{status}");
            assert_eq!(body["error"], detail, "{status}");
        }
    }

    #[test]
    fn the_delay_of_a_bare_answer_is_kept_when_it_is_a_number() {
        let with = |value| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]);
            bare(StatusCode::SERVICE_UNAVAILABLE, &headers).retry_after_seconds()
        };
        assert_eq!(with("7"), Some(7));
        assert_eq!(with("-7"), None);
        assert_eq!(with("Fri, 31 Dec 1999 23:59:59 GMT"), None);
    }

    #[test]
    fn a_client_text_used_with_a_server_status_is_not_shown() {
        let error = Error::shape("password=hunter2").status_override(500);
        let (response, body) = rendered(&error, "");
        assert_eq!(response.status(), 500);
        assert!(!body.to_string().contains("hunter2"));
        assert_eq!(body["error"], "Internal server error");
    }

    #[test]
    fn the_last_resort_is_a_complete_envelope() {
        let id = RequestId::fresh();
        let body = last_resort(&id, &ErrorTypes::new("/docs/errors"));
        let body: Value = serde_json::from_slice(&body).unwrap();
        let (_, usual) = rendered(&Error::new(ErrorCode::InternalError), "");
        let members = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(members(&body), members(&usual));
        assert_eq!(members(&body["error_detail"]), members(&usual["error_detail"]));
        assert_eq!(body["error_detail"]["instance"], id.as_str());
    }
}
