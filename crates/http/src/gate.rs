//! What stands between the router and a handler: who calls, CSRF, forced password change, the guard.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::RequestExt;
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use quarterdeck_auth::Credentials;
use quarterdeck_domain::identity::Identity;
use quarterdeck_domain::role::Guard;
use quarterdeck_domain::{Error, ErrorCode};
use subtle::ConstantTimeEq;
use tower_layer::Layer;
use tower_service::Service;

use crate::app::App;
use crate::cookies;
use crate::edge::{Failure, PresentedCredential, RouteTemplate, loggable};
use crate::endpoint::Docs;

/// What one endpoint's gate checks; as a layer it goes around the handler.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) app: App,
    pub(crate) docs: Arc<Docs>,
    pub(crate) template: RouteTemplate,
}

/// The caller of a guarded endpoint.
pub(crate) struct Caller(pub Arc<Identity>);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        // The gate has put it there, or refused the request.
        let identity = parts.extensions.get::<Arc<Identity>>();
        identity.cloned().map(Self).ok_or_else(|| Failure(ErrorCode::Unauthorized.into()))
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
            let mut response = match admit(&gate, &mut request).await {
                Ok(()) => inner.call(request).await?,
                Err(refusal) => refused(&request, refusal),
            };
            response.extensions_mut().insert(gate.template);
            Ok(response)
        })
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

async fn admit(gate: &Gate, request: &mut Request) -> Result<(), Error> {
    let docs = &gate.docs;
    let config = gate.app.auth.config();
    let identity = if is_public(gate, request) {
        None
    } else {
        Some(gate.app.auth.identify(credentials(request.headers(), &config.cookie_name)).await?)
    };
    check_csrf(gate, request)?;
    if let Some(identity) = &identity
        && identity.must_change_password
        && !docs.open_to_forced_change
    {
        return Err(Error::forbidden("Password change required").because("password_change_required"));
    }
    let department = match docs.guard {
        Guard::OrgMutation(Some(parameter)) => path_parameter(request, parameter).await,
        _ => None,
    };
    if let Err(refusal) = docs.guard.check(identity.as_deref(), department.as_deref()) {
        tracing::warn!(
            target: "api", guard = docs.guard.name(), path = &*loggable(request.uri().path()),
            role = identity.as_ref().map_or("none", |i| i.role.as_str()), "api.guard.denied"
        );
        return Err(refusal);
    }
    if let Some(identity) = identity {
        request.extensions_mut().insert(identity);
    }
    Ok(())
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
