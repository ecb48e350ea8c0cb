//! Declaring an endpoint: method, path, operation, guard, documentation and handler in one place.
//!
//! The router, the OpenAPI document and the table of routes are read from these declarations. The
//! guard is an argument of every constructor, so a route that forgot it does not compile:
//!
//! ```compile_fail,E0061
//! use quarterdeck_http::endpoint::get;
//! let _ = get("/users", "users.list");
//! ```
//!
//! ```
//! use quarterdeck_domain::role::Guard;
//! use quarterdeck_http::endpoint::get;
//! let _ = get("/users", "users.list", Guard::Ceo);
//! ```

use std::num::NonZeroU32;

use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};
use quarterdeck_domain::ErrorCode;
use quarterdeck_domain::role::Guard;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::extract::DEFAULT_LIMIT;
use crate::openapi::{SchemaOf, list_of, one_of};

/// A declared endpoint.
pub struct Endpoint {
    pub(crate) docs: Docs,
    pub(crate) route: MethodRouter<App>,
}

impl Endpoint {
    /// What is said about it.
    pub fn docs(&self) -> &Docs {
        &self.docs
    }
}

/// What is said about an endpoint, and checked before it runs.
#[derive(Clone)]
pub struct Docs {
    /// HTTP method.
    pub method: Method,
    /// Path below the API prefix, such as `/users/{user_id}`.
    pub path: &'static str,
    /// Name in the form `<domain>.<action>`, unique; also what rate limits are keyed by.
    pub operation: &'static str,
    /// Who may call.
    pub guard: Guard,
    /// Whether CSRF protection leaves it alone: the caller may have no session yet, or an old one.
    pub csrf_exempt: bool,
    /// Whether it answers an account that must change its password first.
    pub open_to_forced_change: bool,
    /// Whether it stays public even if the operator lists the public paths anew.
    pub always_public: bool,
    /// Whether it proves and counts its callers by itself: nothing stands before it.
    pub ungated: bool,
    /// Whether the OpenAPI document leaves it out: it only says that there is nothing.
    pub undocumented: bool,
    /// How often one subject may call.
    pub rate: Option<Rate>,
    /// How many calls of one subject may be under way.
    pub in_flight: Option<NonZeroU32>,
    /// Whether it checks a password or another long-lived credential: calls share a small budget per
    /// client address.
    pub checks_credentials: bool,
    pub(crate) summary: &'static str,
    pub(crate) description: &'static str,
    pub(crate) query: Vec<Parameter>,
    pub(crate) path_bounds: Vec<(&'static str, usize)>,
    pub(crate) path_numbers: Vec<&'static str>,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    pub(crate) body: Option<SchemaOf>,
    pub(crate) takes_file: bool,
    pub(crate) success: Success,
    pub(crate) accepted: bool,
    pub(crate) failures: Vec<ErrorCode>,
    pub(crate) also: Vec<(u16, &'static str)>,
}

/// A limit of calls of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Most calls within the window.
    pub max: u32,
    /// Length of the sliding window in seconds.
    pub seconds: u32,
}

/// What a successful call answers.
#[derive(Clone)]
pub(crate) struct Success {
    pub(crate) status: u16,
    pub(crate) content: Content,
}

#[derive(Clone)]
pub(crate) enum Content {
    Nothing,
    Envelope(SchemaOf),
    Page(PageSchema),
    Other(&'static str),
}

/// A page of things.
#[derive(Clone, Copy)]
pub(crate) struct PageSchema {
    /// A list of them.
    pub(crate) items: SchemaOf,
    /// How many when the request does not say.
    pub(crate) limit: u32,
    /// What stands beside them in the answer.
    pub(crate) beside: Option<SchemaOf>,
}

macro_rules! constructors {
    ($($(#[$meta:meta])* $name:ident $method:ident),+ $(,)?) => {
        $(
            $(#[$meta])*
            pub fn $name(path: &'static str, operation: &'static str, guard: Guard) -> Docs {
                Docs::new(Method::$method, path, operation, guard)
            }
        )+
    };
}

constructors! {
    /// Declares a `GET` endpoint.
    get GET,
    /// Declares a `POST` endpoint.
    post POST,
    /// Declares a `PUT` endpoint.
    put PUT,
    /// Declares a `PATCH` endpoint.
    patch PATCH,
    /// Declares a `DELETE` endpoint.
    delete DELETE,
}

impl Docs {
    fn new(method: Method, path: &'static str, operation: &'static str, guard: Guard) -> Self {
        Self {
            method,
            path,
            operation,
            guard,
            csrf_exempt: false,
            open_to_forced_change: false,
            always_public: false,
            ungated: false,
            undocumented: false,
            rate: None,
            in_flight: None,
            checks_credentials: false,
            summary: "",
            description: "",
            query: Vec::new(),
            path_bounds: Vec::new(),
            path_numbers: Vec::new(),
            headers: Vec::new(),
            body: None,
            takes_file: false,
            success: Success { status: 200, content: Content::Nothing },
            accepted: false,
            failures: Vec::new(),
            also: Vec::new(),
        }
    }

    /// One line, then details; Markdown.
    pub fn doc(mut self, summary: &'static str, description: &'static str) -> Self {
        (self.summary, self.description) = (summary, description);
        self
    }

    /// Exempt from CSRF protection: whoever calls may have no session, or one that has ended.
    pub fn csrf_exempt(mut self) -> Self {
        self.csrf_exempt = true;
        self
    }

    /// Answers an account that must change its password first.
    pub fn open_to_forced_change(mut self) -> Self {
        self.open_to_forced_change = true;
        self
    }

    /// Public whatever paths the operator lists as public.
    pub fn always_public(mut self) -> Self {
        self.always_public = true;
        self
    }

    /// Proves and counts its callers by itself: no identity, no tier and no CSRF check stands before it.
    pub fn ungated(mut self) -> Self {
        self.ungated = true;
        self
    }

    /// Left out of the OpenAPI document: it only says that there is nothing.
    pub fn undocumented(mut self) -> Self {
        self.undocumented = true;
        self
    }

    /// At most `max` calls in any `seconds` seconds, per user, or per client address without one. The
    /// operator changes it with the setting `api/per_op_rate_limit_overrides`.
    ///
    /// # Panics
    /// When either is 0: a limit that lets nothing pass is a mistake in the declaration.
    pub fn limit(mut self, max: u32, seconds: u32) -> Self {
        assert!(max > 0 && seconds > 0, "{} declares a limit of nothing", self.operation);
        self.rate = Some(Rate { max, seconds });
        self
    }

    /// At most `max` calls under way at once, per user or client address. The operator changes it with
    /// the setting `api/per_op_concurrency_overrides`.
    pub fn in_flight(mut self, max: NonZeroU32) -> Self {
        self.in_flight = Some(max);
        self
    }

    /// Checks a password or another long-lived credential.
    pub fn checks_credentials(mut self) -> Self {
        self.checks_credentials = true;
        self
    }

    /// Most characters of a path parameter that is bounded closer than ids are.
    pub fn path_bound(mut self, name: &'static str, max: usize) -> Self {
        self.path_bounds.push((name, max));
        self
    }

    /// A path parameter that is a number from 1; the handler takes a
    /// [`Version`](crate::extract::Version).
    pub fn path_number(mut self, name: &'static str) -> Self {
        self.path_numbers.push(name);
        self
    }

    /// Query parameters.
    pub fn query<T: IntoParams>(mut self) -> Self {
        self.query.extend(T::into_params(|| Some(ParameterIn::Query)));
        self
    }

    /// A request header that changes what the call does.
    pub fn header(mut self, name: &'static str, description: &'static str) -> Self {
        self.headers.push((name, description));
        self
    }

    /// JSON body.
    pub fn body<T: ToSchema>(mut self) -> Self {
        self.body = Some(one_of::<T>);
        self
    }

    /// A file for a body, or a form with one.
    pub fn takes_file(mut self) -> Self {
        self.takes_file = true;
        self
    }

    /// Answers `T` in the envelope.
    pub fn gives<T: ToSchema>(self, status: u16) -> Self {
        self.success(status, Content::Envelope(one_of::<T>))
    }

    /// Answers a list of `T` in the envelope.
    pub fn gives_list<T: ToSchema>(self) -> Self {
        self.success(200, Content::Envelope(list_of::<T>))
    }

    /// Answers 202 instead, with the same content, when the caller does not want to wait.
    pub fn or_accepts(mut self) -> Self {
        self.accepted = true;
        self
    }

    /// Takes `offset` and `limit` and answers a page of `T`.
    pub fn gives_page<T: ToSchema>(self) -> Self {
        self.gives_page_of::<T>(DEFAULT_LIMIT)
    }

    /// As [`gives_page`](Self::gives_page), of `limit` things when the request does not say; the handler
    /// takes a [`PageOf`](crate::extract::PageOf).
    pub fn gives_page_of<T: ToSchema>(self, limit: u32) -> Self {
        self.success(200, Content::Page(PageSchema { items: list_of::<T>, limit, beside: None }))
    }

    /// As [`gives_page`](Self::gives_page), with the members of `B` beside it.
    pub fn gives_page_beside<T: ToSchema, B: ToSchema>(self) -> Self {
        let beside = Some(one_of::<B> as SchemaOf);
        self.success(200, Content::Page(PageSchema { items: list_of::<T>, limit: DEFAULT_LIMIT, beside }))
    }

    /// Answers 204 without a body.
    pub fn gives_nothing(self) -> Self {
        self.success(204, Content::Nothing)
    }

    /// Answers 101 and goes on in another protocol.
    pub fn switches_protocols(self) -> Self {
        self.success(101, Content::Nothing)
    }

    /// Answers something else than JSON: one media type, or several with `, ` between them.
    pub fn gives_content(self, media_types: &'static str) -> Self {
        self.success(200, Content::Other(media_types))
    }

    fn success(mut self, status: u16, content: Content) -> Self {
        self.success = Success { status, content };
        self
    }

    /// Failures beyond those every endpoint of its kind has.
    pub fn fails(mut self, codes: &[ErrorCode]) -> Self {
        self.failures.extend_from_slice(codes);
        self
    }

    /// Another status it may answer with, in words.
    pub fn also(mut self, status: u16, description: &'static str) -> Self {
        self.also.push((status, description));
        self
    }

    /// The function that answers.
    pub fn to<T: 'static>(self, handler: impl Handler<T, App>) -> Endpoint {
        let filter = match self.method {
            Method::GET => MethodFilter::GET,
            Method::POST => MethodFilter::POST,
            Method::PUT => MethodFilter::PUT,
            Method::PATCH => MethodFilter::PATCH,
            _ => MethodFilter::DELETE,
        };
        Endpoint { route: on(filter, handler), docs: self }
    }

    /// Names of the path parameters, in order.
    pub(crate) fn path_parameters(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }
}
