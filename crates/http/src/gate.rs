//! What stands between the router and a handler: who calls, CSRF, forced password change, the guard.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::RequestExt;
use axum::body::{Body, HttpBody};
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use quarterdeck_auth::Credentials;
use quarterdeck_domain::audit::Actor;
use quarterdeck_domain::identity::Identity;
use quarterdeck_domain::role::Guard;
use quarterdeck_domain::{Error, ErrorCode};
use quarterdeck_limits::Permit;
use subtle::ConstantTimeEq;
use tower_layer::Layer;
use tower_service::Service;

use crate::app::App;
use crate::cookies;
use crate::edge::{ClientAddr, Failure, PresentedCredential, RequestContext, RouteTemplate, loggable};
use crate::endpoint::Docs;
use crate::limits::{Beyond, Operation, Payer, Standing};

/// What one endpoint's gate checks; as a layer it goes around the handler.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) app: App,
    pub(crate) docs: Arc<Docs>,
    pub(crate) template: RouteTemplate,
    pub(crate) operation: Operation,
}

/// What the gate found out about a request it let pass.
#[derive(Clone)]
struct Admitted {
    identity: Arc<Identity>,
    operation: &'static str,
}

/// The caller of a guarded endpoint.
#[derive(Clone, Debug)]
pub struct Caller(pub Arc<Identity>);

/// The caller of a guarded endpoint, as the audit chain names who acts.
pub(crate) struct Acting(pub Actor);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        // The gate has put it there, or refused the request.
        let admitted = parts.extensions.get::<Admitted>();
        let identity = admitted.map(|admitted| Arc::clone(&admitted.identity));
        identity.map(Self).ok_or_else(|| Failure(ErrorCode::Unauthorized.into()))
    }
}

impl<S: Sync> FromRequestParts<S> for Acting {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let Some(Admitted { identity, operation }) = parts.extensions.get::<Admitted>() else {
            return Err(Failure(ErrorCode::Unauthorized.into()));
        };
        let context = parts.extensions.get::<RequestContext>();
        Ok(Self(Actor {
            id: Arc::clone(&identity.user_id),
            name: Arc::clone(&identity.username),
            operation,
            ip: context.and_then(|context| match context.client {
                ClientAddr::Ip(ip) => Some(ip),
                ClientAddr::Unknown => None,
            }),
            request_id: context.map(|context| context.id.as_str().into()),
        }))
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: Arc::new(self.clone()), inner }
    }
}

/// A handler behind its gate.
#[derive(Clone)]
pub(crate) struct Gated<S> {
    gate: Arc<Gate>,
    inner: S,
}

impl<S> Service<Request> for Gated<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let gate = Arc::clone(&self.gate);
        // The clone stays behind; what was polled ready is what is called.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            let mut standing = None;
            let mut response = match admit(&gate, &mut request, &mut standing).await {
                Ok(permit) => {
                    let response = inner.call(request).await?;
                    match permit {
                        Some(permit) => response.map(|body| Body::new(Held { body, _permit: permit })),
                        None => response,
                    }
                }
                Err(refusal) => refused(&request, refusal),
            };
            response.extensions_mut().insert(gate.template);
            Ok(stating(standing, response))
        })
    }
}

pin_project! {
    /// A response body that keeps a place among the calls under way until it is finished or dropped.
    struct Held {
        #[pin]
        body: Body,
        _permit: Permit,
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn refused(request: &Request, error: Error) -> Response {
    if error.status() == 401 {
        tracing::warn!(
            target: "auth", reason = error.reason().unwrap_or("unauthorized"), path = &*loggable(request.uri().path()),
            "auth.failed"
        );
        if request.headers().contains_key(AUTHORIZATION) {
            return (PresentedCredential, Failure(error)).into_response();
        }
    }
    Failure(error).into_response()
}

/// What has no endpoint, such as pages and unknown paths, is charged to the floor alone.
pub(crate) async fn charge_floor(State(app): State<App>, request: Request, next: Next) -> Response {
    let mut standing = None;
    let admitted = floor(&app, Charged::of(&app, &request), &mut standing).await;
    let response = match admitted {
        Ok(()) => next.run(request).await,
        Err(refusal) => Failure(refusal).into_response(),
    };
    stating(standing, response)
}

/// A known path, asked in a way it does not answer.
pub(crate) async fn wrong_method(State(app): State<App>, request: Request) -> Response {
    let mut standing = None;
    let response = match floor(&app, Charged::of(&app, &request), &mut standing).await {
        Ok(()) => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        Err(refusal) => Failure(refusal).into_response(),
    };
    stating(standing, response)
}

fn stating(standing: Option<Standing>, mut response: Response) -> Response {
    if let Some(standing) = standing {
        standing.write(response.headers_mut());
    }
    response
}

/// Where a request comes from, and whether the tiers count it.
struct Charged {
    address: ClientAddr,
    counted: bool,
}

impl Charged {
    fn of(app: &App, request: &Request) -> Self {
        let counted = !app.limits.excludes(request.uri().path());
        let context = request.extensions().get::<RequestContext>();
        Self { address: context.map_or(ClientAddr::Unknown, |context| context.client), counted }
    }
}

async fn floor(app: &App, charged: Charged, standing: &mut Option<Standing>) -> Result<(), Error> {
    let Charged { address, counted: true } = charged else { return Ok(()) };
    app.limits.refuse_blocked(address, standing)?;
    app.limits.charge(Payer { address, identity: None }, Beyond::Floor, None, standing).await
}

/// Every question asked before the handler, in the order of their price: an exhausted address, the
/// credential, CSRF, the guard, and then all limits at once.
async fn admit(
    gate: &Gate,
    request: &mut Request,
    standing: &mut Option<Standing>,
) -> Result<Option<Permit>, Error> {
    let (limits, operation) = (&gate.app.limits, &gate.operation);
    let Charged { address, counted } = Charged::of(&gate.app, request);
    if counted {
        limits.refuse_blocked(address, standing)?;
    }
    let public = is_public(gate, request);
    let proven = if public { Ok(None) } else { identify(gate, request.headers()).await.map(Some) };
    let (identity, refusal) = match proven {
        Ok(identity) => {
            let refusal = authorise(gate, request, identity.as_deref()).await.err();
            (identity, refusal)
        }
        Err(error) if error.status() == 401 => (None, Some(error)),
        // Nobody pays for a failure of ours.
        Err(error) => return Err(error),
    };
    let payer = Payer { address, identity: identity.as_deref() };
    let capped = limits.cap(operation).is_some();
    let beyond = match &refusal {
        None if !capped => Beyond::Operation,
        Some(refusal) if refusal.code() == ErrorCode::CsrfRejected => Beyond::Floor,
        _ => Beyond::Tier,
    };
    if counted {
        limits.charge(payer, beyond, Some(operation), standing).await?;
    }
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    // A call refused for its company uses nothing of its window.
    let permit = limits.enter(payer, operation).await?;
    if capped || !counted {
        limits.charge_operation(payer, operation, standing).await?;
    }
    if let Some(identity) = identity {
        request.extensions_mut().insert(Admitted { identity, operation: gate.docs.operation });
    }
    Ok(permit)
}

async fn identify(gate: &Gate, headers: &HeaderMap) -> Result<Arc<Identity>, Error> {
    let shown = credentials(headers, &gate.app.auth.config().cookie_name);
    let identity = gate.app.auth.identify(shown).await?;
    // Below INFO: every request has two lines already, in a span that names it.
    tracing::debug!(
        target: "auth", user_id = &*identity.user_id, username = &*identity.username,
        auth_method = identity.auth_method.as_str(), path = gate.template.0, "auth.success"
    );
    Ok(identity)
}

/// CSRF, forced password change and guard, in this order.
async fn authorise(gate: &Gate, request: &mut Request, identity: Option<&Identity>) -> Result<(), Error> {
    let docs = &gate.docs;
    check_csrf(gate, request)?;
    if identity.is_some_and(|identity| identity.must_change_password) && !docs.open_to_forced_change {
        return Err(Error::forbidden("Password change required").because("password_change_required"));
    }
    let department = match docs.guard {
        Guard::OrgMutation(Some(parameter)) => path_parameter(request, parameter).await,
        _ => None,
    };
    docs.guard.check(identity, department.as_deref()).inspect_err(|_| {
        tracing::warn!(
            target: "api", guard = docs.guard.name(), path = &*loggable(request.uri().path()),
            role = identity.map_or("none", |i| i.role.as_str()), "api.guard.denied"
        );
    })
}

/// Whether no identity is looked for: the endpoint says so, unless the operator listed the public
/// paths himself.
fn is_public(gate: &Gate, request: &Request) -> bool {
    match &gate.app.auth.config().exclude_paths {
        None => gate.docs.guard == Guard::Public,
        Some(listed) => {
            gate.docs.always_public || listed.iter().any(|pattern| pattern.is_match(request.uri().path()))
        }
    }
}

/// Reads the credentials a request shows.
pub(crate) fn credentials<'h>(headers: &'h HeaderMap, cookie_name: &str) -> Credentials<'h> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let authorization = lines.next().map(|line| match lines.next() {
        None => line.to_str().map_err(|_| ()),
        Some(_) => Err(()),
    });
    Credentials { cookie: cookies::find(headers, cookie_name), authorization }
}

/// Double-submit CSRF protection: a request that a browser authenticates by cookie must repeat another
/// cookie in a header, which a foreign page cannot read.
fn check_csrf(gate: &Gate, request: &Request) -> Result<(), Error> {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let (config, headers) = (gate.app.auth.config(), request.headers());
    let refuse = |reason: &'static str, has_cookie: bool, has_header: bool| {
        tracing::warn!(target: "auth", reason, has_cookie, has_header, path = &*loggable(request.uri().path()), "csrf.rejected");
        Err(Error::new(ErrorCode::CsrfRejected).because(reason))
    };
    if gate.docs.csrf_exempt {
        // The session does not matter here, but a foreign page has no business here either.
        let cross_site = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
        return if cross_site { refuse("cross_site", false, false) } else { Ok(()) };
    }
    if cookies::find(headers, &config.cookie_name).is_none_or(str::is_empty) {
        return Ok(());
    }
    let cookie = cookies::find(headers, &config.csrf_cookie_name).unwrap_or_default();
    let header = headers.get(config.csrf_header_name.as_str()).map_or(&[][..], |value| value.as_bytes());
    if cookie.is_empty() || header.is_empty() {
        return refuse("missing_csrf_token", !cookie.is_empty(), !header.is_empty());
    }
    if bool::from(cookie.as_bytes().ct_eq(header)) {
        Ok(())
    } else {
        refuse("csrf_token_mismatch", true, true)
    }
}

async fn path_parameter(request: &mut Request, name: &str) -> Option<String> {
    let parameters = request.extract_parts::<RawPathParams>().await.ok()?;
    parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}
