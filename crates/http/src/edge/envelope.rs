//! The two JSON envelopes of the API and the problem document, exactly as clients see them.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use quarterdeck_domain::{Category, Error, ErrorCode};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

use super::failure::Failure;

/// First allocation of a body, in bytes: most answers fit.
const USUAL_BODY: usize = 512;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Answer with one thing, or the reason why there is none.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApiResponse<T> {
    /// The thing; null on failure.
    pub data: Option<T>,
    /// Text of the failure; null on success.
    #[schema(value_type = Option<String>)]
    pub error: Option<Cow<'static, str>>,
    /// The failure for programs; null on success.
    pub error_detail: Option<ErrorDetail>,
    /// Whether `error` is null.
    #[schema(read_only)]
    pub success: bool,
}

/// Answer with a page of things. A list that fails answers with [`ApiResponse`].
#[derive(Debug, Serialize, ToSchema)]
pub struct PaginatedResponse<T> {
    /// The things of this page.
    pub data: Vec<T>,
    /// Always null: a failing list has no pages.
    #[schema(value_type = Option<String>)]
    pub error: Option<Cow<'static, str>>,
    /// Always null.
    pub error_detail: Option<ErrorDetail>,
    /// Where the page lies.
    pub pagination: PaginationMeta,
    /// Sources that did not answer; the page lacks their part.
    pub degraded_sources: Vec<String>,
    /// Always true.
    #[schema(read_only)]
    pub success: bool,
}

/// Where a page lies in the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct PaginationMeta {
    /// Things that match, on all pages.
    pub total: u64,
    /// Things before this page.
    pub offset: u64,
    /// Most things on a page.
    #[schema(minimum = 1)]
    pub limit: u32,
}

/// A failure inside the envelope.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// What went wrong, for people.
    #[schema(value_type = String)]
    pub detail: Cow<'static, str>,
    /// Number of the failure, the part to program against.
    #[schema(schema_with = error_code_schema)]
    pub error_code: ErrorCode,
    /// Family of the failure.
    #[schema(schema_with = category_schema)]
    pub error_category: Category,
    /// Whether repeating the request may help.
    pub retryable: bool,
    /// Seconds to wait before repeating.
    pub retry_after: Option<u32>,
    /// Id of the request, the one of `X-Request-ID` and of the log.
    pub instance: String,
    /// Title of the family.
    #[schema(value_type = String)]
    pub title: &'static str,
    /// Link to the description of the family.
    #[serde(rename = "type")]
    pub kind: String,
    /// The members or parameters that broke a rule.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub errors: Vec<FieldProblem>,
}

/// A failure as RFC 9457 problem document.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProblemDetail {
    /// Link to the description of the family.
    #[serde(rename = "type")]
    pub kind: String,
    /// Title of the family.
    #[schema(value_type = String)]
    pub title: &'static str,
    /// HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What went wrong, for people.
    #[schema(value_type = String)]
    pub detail: Cow<'static, str>,
    /// Id of the request, the one of `X-Request-ID` and of the log.
    pub instance: String,
    /// Number of the failure, the part to program against.
    #[schema(schema_with = error_code_schema)]
    pub error_code: ErrorCode,
    /// Family of the failure.
    #[schema(schema_with = category_schema)]
    pub error_category: Category,
    /// Whether repeating the request may help.
    pub retryable: bool,
    /// Seconds to wait before repeating.
    pub retry_after: Option<u32>,
    /// The members or parameters that broke a rule.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub errors: Vec<FieldProblem>,
}

/// One member of a body, or one parameter, that broke a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldProblem {
    /// JSON pointer (RFC 6901) of a member, or the name of a parameter.
    pub pointer: String,
    /// The rule that was broken.
    pub detail: String,
}

impl ErrorDetail {
    /// The same failure as problem document.
    pub fn into_problem(self, status: u16) -> ProblemDetail {
        ProblemDetail {
            kind: self.kind,
            title: self.title,
            status,
            detail: self.detail,
            instance: self.instance,
            error_code: self.error_code,
            error_category: self.error_category,
            retryable: self.retryable,
            retry_after: self.retry_after,
            errors: self.errors,
        }
    }
}

impl ApiResponse<()> {
    pub(super) fn failed(detail: ErrorDetail) -> Self {
        Self { data: None, error: Some(detail.detail.clone()), error_detail: Some(detail), success: false }
    }
}

/// A handler's answer: the value in an [`ApiResponse`], with status 200 unless a tuple says otherwise,
/// as in `(StatusCode::CREATED, Data(user))`.
#[derive(Debug)]
pub struct Data<T>(pub T);

impl<T: Serialize> IntoResponse for Data<T> {
    fn into_response(self) -> Response {
        json(&ApiResponse { data: Some(self.0), error: None, error_detail: None, success: true })
    }
}

impl<T> PaginatedResponse<T> {
    /// A page whose sources all answered. The offset reported is never beyond the end.
    pub fn new(data: Vec<T>, offset: u64, limit: u32, total: u64) -> Self {
        Self {
            data,
            error: None,
            error_detail: None,
            pagination: PaginationMeta { total, offset: offset.min(total), limit: limit.max(1) },
            degraded_sources: Vec::new(),
            success: true,
        }
    }

    /// Puts the members of `beside` beside the page.
    pub fn beside<B>(self, beside: B) -> PageBeside<T, B> {
        PageBeside { page: self, beside }
    }

    /// Names the sources that did not answer.
    pub fn degraded(mut self, sources: Vec<String>) -> Self {
        self.degraded_sources = sources;
        self
    }
}

impl<T: Serialize> IntoResponse for PaginatedResponse<T> {
    fn into_response(self) -> Response {
        json(&self)
    }
}

/// A page, and what is told with it.
#[derive(Debug, Serialize)]
pub struct PageBeside<T, B> {
    #[serde(flatten)]
    page: PaginatedResponse<T>,
    #[serde(flatten)]
    beside: B,
}

impl<T: Serialize, B: Serialize> IntoResponse for PageBeside<T, B> {
    fn into_response(self) -> Response {
        json(&self)
    }
}

fn json(value: &impl Serialize) -> Response {
    let mut body = Vec::with_capacity(USUAL_BODY);
    match serde_json::to_writer(&mut body, value) {
        Ok(()) => {
            let mut response = Response::new(Body::from(body));
            response.headers_mut().insert(CONTENT_TYPE, JSON);
            *response.status_mut() = StatusCode::OK;
            response
        }
        Err(error) => Failure(Error::internal(error)).into_response(),
    }
}

fn error_code_schema() -> Schema {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .enum_values(Some(ErrorCode::ALL.iter().map(|code| code.number())))
        .description(Some("Number of the failure; its thousands digit selects the family."))
        .into()
}

fn category_schema() -> Schema {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(Category::ALL.iter().map(|category| category.as_str())))
        .description(Some("Family of the failure."))
        .into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use utoipa::PartialSchema;

    use super::*;

    fn value(of: impl Serialize) -> Value {
        serde_json::to_value(of).unwrap()
    }

    #[test]
    fn a_success_has_exactly_the_members_of_the_contract_with_nulls_present() {
        let data = ApiResponse { data: Some(1), error: None, error_detail: None, success: true };
        assert_eq!(value(data), json!({"data": 1, "error": null, "error_detail": null, "success": true}));
        assert_eq!(
            value(PaginatedResponse::<u8>::new(vec![], 70, 50, 7)),
            json!({
                "data": [], "error": null, "error_detail": null,
                "pagination": {"total": 7, "offset": 7, "limit": 50},
                "degraded_sources": [], "success": true,
            })
        );
    }

    #[test]
    fn a_value_that_cannot_be_written_becomes_a_failure() {
        let unwritable = std::collections::HashMap::from([((1, 2), 3)]);
        assert_eq!(Data(unwritable).into_response().status(), StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[test]
    fn the_schema_lists_every_code_and_category() {
        let schema = value(ErrorDetail::schema());
        let codes = schema["properties"]["error_code"].clone();
        assert_eq!(codes["type"], "integer");
        assert_eq!(codes["enum"].as_array().unwrap().len(), ErrorCode::ALL.len());
        assert_eq!(schema["properties"]["error_category"]["enum"][7], "internal");
        assert!(schema["properties"]["type"].is_object());
    }
}
