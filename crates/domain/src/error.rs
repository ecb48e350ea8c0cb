//! The error table: every failure a client can see, as data.
//!
//! A failure is a value of [`Error`]; its [`ErrorCode`] carries number, name, HTTP status,
//! retryability and default text. Only the HTTP edge turns an [`Error`] into bytes.

use std::borrow::Cow;
use std::fmt;

use serde::{Serialize, Serializer};

/// Result of an operation that may fail with an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The eight families of failures; a code's thousands digit selects the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u16)]
pub enum Category {
    /// 1000–1999: who calls, and whether they may.
    Auth = 1,
    /// 2000–2999: the request itself is wrong.
    Validation = 2,
    /// 3000–3999: nothing there.
    NotFound = 3,
    /// 4000–4999: the state does not allow it.
    Conflict = 4,
    /// 5000–5999: too often or too many at once.
    RateLimit = 5,
    /// 6000–6999: money or quota is used up.
    BudgetExhausted = 6,
    /// 7000–7999: a model provider or integration failed.
    ProviderError = 7,
    /// 8000–8999: this server failed.
    Internal = 8,
}

impl Category {
    /// Every category, in code order.
    pub const ALL: [Category; 8] = [
        Self::Auth,
        Self::Validation,
        Self::NotFound,
        Self::Conflict,
        Self::RateLimit,
        Self::BudgetExhausted,
        Self::ProviderError,
        Self::Internal,
    ];

    /// Wire name, also the fragment of the `type` URI.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Validation => "validation",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::RateLimit => "rate_limit",
            Self::BudgetExhausted => "budget_exhausted",
            Self::ProviderError => "provider_error",
            Self::Internal => "internal",
        }
    }

    /// Human title, the same for every error of the category.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Auth => "Authentication Error",
            Self::Validation => "Validation Error",
            Self::NotFound => "Resource Not Found",
            Self::Conflict => "Resource Conflict",
            Self::RateLimit => "Rate Limit Exceeded",
            Self::BudgetExhausted => "Budget Exhausted",
            Self::ProviderError => "Provider Error",
            Self::Internal => "Internal Server Error",
        }
    }
}

macro_rules! error_table {
    ($($number:literal $variant:ident $status:literal $retry:literal $text:literal;)+) => {
        /// A numbered failure. The number is the contract; names and texts are for people.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum ErrorCode {
            $(
                #[doc = concat!("`", stringify!($number), "`, HTTP ", stringify!($status), ": ", $text, ".")]
                $variant = $number,
            )+
        }

        impl ErrorCode {
            /// Every code, ascending.
            pub const ALL: &'static [ErrorCode] = &[$(Self::$variant),+];

            /// HTTP status the code is used with unless an [`Error`] declares another.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status),+ }
            }

            /// Whether repeating the same request later may succeed.
            pub const fn retryable(self) -> bool {
                match self { $(Self::$variant => $retry),+ }
            }

            /// Text used when nothing more specific may be said.
            pub const fn default_text(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            const fn variant(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),+ }
            }
        }
    };
}

error_table! {
    1000 Unauthorized 401 false "Authentication required";
    1001 Forbidden 403 false "Forbidden";
    1002 SessionRevoked 401 false "Session has been revoked";
    1003 AccountLocked 429 true "Account temporarily locked";
    1004 CsrfRejected 403 false "CSRF token missing or invalid";
    1005 RefreshTokenInvalid 401 false "Refresh token is invalid or expired";
    1006 SessionLimitExceeded 409 false "Session limit exceeded";
    1007 ToolPermissionDenied 403 false "Tool invocation not permitted";
    2000 ValidationError 422 false "Validation error";
    2001 RequestValidationError 400 false "Validation error";
    2002 ArtifactTooLarge 413 false "Artifact content is too large";
    2003 ToolParameterError 422 false "Tool parameter validation failed";
    3000 ResourceNotFound 404 false "Resource not found";
    3001 RecordNotFound 404 false "Resource not found";
    3002 RouteNotFound 404 false "Not found";
    3003 ProjectNotFound 404 false "Project not found";
    3004 TaskNotFound 404 false "Task not found";
    3005 SubworkflowNotFound 404 false "Subworkflow not found";
    3006 WorkflowExecutionNotFound 404 false "Workflow execution not found";
    3007 ChannelNotFound 404 false "Channel not found";
    3008 ToolNotFound 404 false "Tool not found";
    3009 OntologyNotFound 404 false "Ontology not found";
    3010 ConnectionNotFound 404 false "Connection not found";
    3011 ModelNotFound 404 false "Model not found";
    3012 EscalationNotFound 404 false "Escalation not found";
    4000 ResourceConflict 409 false "Resource conflict";
    4001 DuplicateRecord 409 false "Resource already exists";
    4002 VersionConflict 409 false "Version conflict";
    4003 TaskVersionConflict 409 false "Task version conflict";
    4004 OntologyDuplicate 409 false "Ontology entity already exists";
    4005 ChannelAlreadyExists 409 false "Channel already exists";
    4006 EscalationAlreadyDecided 409 false "Escalation already decided";
    4007 MixedCurrencyAggregation 409 false "Cannot aggregate cost values across different currencies";
    5000 RateLimited 429 true "Too Many Requests";
    5001 PerOperationRateLimited 429 true "Rate limit exceeded";
    5002 ConcurrencyLimitExceeded 429 true "Concurrency limit exceeded";
    6000 BudgetExhausted 402 false "Budget exhausted";
    6001 DailyLimitExceeded 402 false "Daily spending limit exceeded";
    6002 RiskBudgetExhausted 402 false "Risk budget exhausted";
    6003 ProjectBudgetExhausted 402 false "Project budget exhausted";
    6004 QuotaExhausted 402 false "Provider quota exhausted";
    7000 ProviderError 502 false "Provider error";
    7001 ProviderTimeout 504 true "Provider request timed out";
    7002 ProviderConnection 502 true "Provider connection failed";
    7003 ProviderInternal 502 true "Provider internal error";
    7004 ProviderAuthenticationFailed 502 false "Provider authentication failed";
    7005 ProviderInvalidRequest 422 false "Invalid provider request";
    7006 ProviderContentFiltered 422 false "Content filtered by provider";
    7007 IntegrationError 502 false "Integration error";
    7008 OauthError 502 false "OAuth flow failed";
    7009 WebhookError 502 false "Webhook error";
    8000 InternalError 500 false "Internal server error";
    8001 ServiceUnavailable 503 true "Service unavailable";
    8002 PersistenceError 500 false "Internal server error";
    8003 EngineError 500 false "Internal server error";
    8004 OntologyError 500 false "Internal server error";
    8005 CommunicationError 500 false "Internal server error";
    8006 ToolError 500 false "Internal server error";
    8007 ArtifactStorageFull 507 false "Artifact storage is full";
    8008 ToolExecutionError 500 false "Tool execution failed";
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The family the code belongs to.
    pub const fn category(self) -> Category {
        Category::ALL[self.number() as usize / 1000 - 1]
    }

    /// Name in the API's notation, such as `SESSION_REVOKED`.
    pub fn name(self) -> String {
        let mut name = String::with_capacity(24);
        for (i, c) in self.variant().chars().enumerate() {
            if c.is_ascii_uppercase() && i > 0 {
                name.push('_');
            }
            name.push(c.to_ascii_uppercase());
        }
        name
    }
}

// The rules of the table, checked when the crate is compiled.
const _: () = {
    let mut i = 0;
    while i < ErrorCode::ALL.len() {
        let code = ErrorCode::ALL[i];
        let (number, status) = (code.number(), code.status());
        assert!(number >= 1000 && number < 9000, "a code lies in one of the eight bands");
        assert!(code.category() as u16 == number / 1000, "the thousands digit selects the category");
        assert!(status >= 400 && status < 600, "only failures are in the table");
        assert!((status == 404) == (number / 1000 == 3), "404 and 3xxx imply each other");
        assert!(status != 429 || code.retryable(), "429 is always retryable");
        assert!(i == 0 || ErrorCode::ALL[i - 1].number() < number, "codes ascend and are unique");
        i += 1;
    }
};

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.number())
    }
}

/// One field of a refused request, named by JSON pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Where: `/user/name` in a body, `#/query/limit` style is not used, the parameter name stands alone.
    pub pointer: String,
    /// Which rule was broken; never the refused value.
    pub detail: String,
}

/// A failure on its way to a client.
///
/// `detail` is for the client and must not hold secrets, SQL, paths or input values.
/// `cause` is for the log only.
#[derive(Clone, Debug)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Clone, Debug)]
struct Inner {
    code: ErrorCode,
    status: u16,
    detail: Cow<'static, str>,
    retry_after: Option<u32>,
    fields: Vec<FieldError>,
    cause: Option<String>,
    reason: Option<&'static str>,
}

impl Error {
    /// A failure with the code's default text and status.
    pub fn new(code: ErrorCode) -> Self {
        Self::with(code, code.default_text())
    }

    /// A failure with its own text. For a status of 500 and above the text goes to the log and the
    /// client sees the code's default text.
    pub fn with(code: ErrorCode, detail: impl Into<Cow<'static, str>>) -> Self {
        let mut inner = Inner {
            code,
            status: code.status(),
            detail: detail.into(),
            retry_after: None,
            fields: Vec::new(),
            cause: None,
            reason: None,
        };
        if code.status() >= 500 && inner.detail != code.default_text() {
            inner.cause = Some(std::mem::replace(&mut inner.detail, code.default_text().into()).into_owned());
        }
        Self { inner: Box::new(inner) }
    }

    /// 422/2000: well-formed, but refused by a rule.
    pub fn rule(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::with(ErrorCode::ValidationError, detail)
    }

    /// 400/2001: the request has the wrong shape.
    pub fn shape(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::with(ErrorCode::RequestValidationError, detail)
    }

    /// 409/4000: the state does not allow it.
    pub fn conflict(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::with(ErrorCode::ResourceConflict, detail)
    }

    /// 403/1001 with its own text.
    pub fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::with(ErrorCode::Forbidden, detail)
    }

    /// 404/3000 in the API's pattern: `<what> '<id>' not found`.
    pub fn missing(what: &str, id: &str) -> Self {
        Self::with(ErrorCode::ResourceNotFound, format!("{what} '{id}' not found"))
    }

    /// 500/8000; the cause is logged, never shown.
    pub fn internal(cause: impl fmt::Display) -> Self {
        Self::new(ErrorCode::InternalError).caused_by(cause)
    }

    /// 503/8001 with a hint when to come back; the cause is logged, never shown.
    pub fn unavailable(cause: impl fmt::Display, retry_after: u32) -> Self {
        Self::new(ErrorCode::ServiceUnavailable).caused_by(cause).retry_after(retry_after)
    }

    /// Sets the text of the log line; replaces an earlier one.
    pub fn caused_by(mut self, cause: impl fmt::Display) -> Self {
        self.inner.cause = Some(cause.to_string());
        self
    }

    /// Sets the short reason of the log event, such as `api_key_revoked`; never shown to the client.
    pub fn because(mut self, reason: &'static str) -> Self {
        self.inner.reason = Some(reason);
        self
    }

    /// Seconds after which repeating is worth it. Ignored unless the code is retryable.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        if self.inner.code.retryable() {
            self.inner.retry_after = Some(seconds);
        }
        self
    }

    /// Answers with another status than the code's usual one, such as 405 or 413 with code 2001.
    /// A status that is no failure becomes 500/8000.
    pub fn status_override(mut self, status: u16) -> Self {
        if (400..600).contains(&status) {
            self.inner.status = status;
            self
        } else {
            Self::internal(format_args!("declared status {status}"))
        }
    }

    /// Adds the fields that broke a rule.
    pub fn fields(mut self, fields: Vec<FieldError>) -> Self {
        self.inner.fields = fields;
        self
    }

    /// Number, category and default text.
    pub fn code(&self) -> ErrorCode {
        self.inner.code
    }

    /// HTTP status.
    pub fn status(&self) -> u16 {
        self.inner.status
    }

    /// Text for the client.
    pub fn detail(&self) -> &str {
        &self.inner.detail
    }

    /// Seconds, when set and the code is retryable.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        self.inner.retry_after
    }

    /// Fields that broke a rule; empty for most failures.
    pub fn field_errors(&self) -> &[FieldError] {
        &self.inner.fields
    }

    /// Text for the log, when it differs from the detail.
    pub fn cause(&self) -> Option<&str> {
        self.inner.cause.as_deref()
    }

    /// Reason of the log event.
    pub fn reason(&self) -> Option<&'static str> {
        self.inner.reason
    }
}

impl From<ErrorCode> for Error {
    fn from(code: ErrorCode) -> Self {
        Self::new(code)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail(), self.code().number())?;
        match self.cause() {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_notation_of_the_api() {
        assert_eq!(ErrorCode::PerOperationRateLimited.name(), "PER_OPERATION_RATE_LIMITED");
        assert_eq!(ErrorCode::OauthError.name(), "OAUTH_ERROR");
    }

    #[test]
    fn the_text_of_a_server_failure_stays_in_the_log() {
        let error = Error::with(ErrorCode::InternalError, "password=hunter2");
        assert_eq!(error.detail(), "Internal server error");
        assert_eq!(error.cause(), Some("password=hunter2"));
    }

    #[test]
    fn only_retryable_codes_carry_a_delay() {
        assert_eq!(Error::new(ErrorCode::Forbidden).retry_after(3).retry_after_seconds(), None);
        assert_eq!(Error::new(ErrorCode::RateLimited).retry_after(3).retry_after_seconds(), Some(3));
    }

    #[test]
    fn a_status_outside_the_failures_becomes_500() {
        let error = Error::shape("x").status_override(200);
        assert_eq!((error.status(), error.code()), (500, ErrorCode::InternalError));
    }
}
