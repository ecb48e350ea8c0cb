//! What these tests share: paths, tokens made by another implementation, and races.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use quarterdeck_auth::AuthConfig;
use quarterdeck_store::{api_key, session, user};
use quarterdeck_testkit::{Answer, Caller, Options, PASSWORD, SECRET, TestDb, TestServer};
use serde_json::{Value, json};

pub(crate) const ME: &str = "/api/v1/auth/me";
pub(crate) const SETUP: &str = "/api/v1/auth/setup";
pub(crate) const LOGIN: &str = "/api/v1/auth/login";
pub(crate) const LOGOUT: &str = "/api/v1/auth/logout";
pub(crate) const REFRESH: &str = "/api/v1/auth/refresh";
pub(crate) const CHANGE: &str = "/api/v1/auth/change-password";
pub(crate) const SESSIONS: &str = "/api/v1/auth/sessions";
pub(crate) const TICKET: &str = "/api/v1/auth/ws-ticket";
pub(crate) const USERS: &str = "/api/v1/users";

/// A password that is right nowhere.
pub(crate) const WRONG: &str = "not the right password";

/// A server whose section `api.auth` differs from the defaults.
pub(crate) async fn server_with(db: TestDb, change: impl FnOnce(&mut AuthConfig)) -> TestServer {
    TestServer::with(db, |options| change(&mut options.auth)).await
}

/// A server that issues refresh tokens.
pub(crate) async fn refreshing(db: TestDb) -> TestServer {
    server_with(db, |auth| auth.jwt_refresh_enabled = true).await
}

/// Stops a server and starts another on the same database and clock.
pub(crate) async fn restarted(server: TestServer, change: impl FnOnce(&mut Options)) -> TestServer {
    server.app.store.close().await;
    server.second(change).await
}

pub(crate) fn credentials(username: &str, password: &str) -> Value {
    json!({"username": username, "password": password})
}

pub(crate) fn new_password(current: &str, new: &str) -> Value {
    json!({"current_password": current, "new_password": new})
}

/// Tries to sign in.
pub(crate) async fn login(server: &TestServer, username: &str, password: &str) -> Answer {
    server.anonymous().post(LOGIN, &credentials(username, password)).await
}

/// The JWT in a caller's session cookie.
pub(crate) fn token_of(caller: &Caller) -> String {
    caller.cookie("session").expect("a session cookie").to_owned()
}

/// The claims of a JWT, unverified.
pub(crate) fn claims_of(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("three segments");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).expect("base64")).expect("JSON")
}

/// The session id in a caller's token.
pub(crate) fn session_of(caller: &Caller) -> String {
    claims_of(&token_of(caller))["jti"].as_str().expect("a jti").to_owned()
}

/// Id of the user a caller is.
pub(crate) fn user_of(caller: &Caller) -> String {
    claims_of(&token_of(caller))["sub"].as_str().expect("a sub").to_owned()
}

/// `with` put into `claims`; `null` takes a member out.
pub(crate) fn patched(mut claims: Value, with: Value) -> Value {
    let members = claims.as_object_mut().expect("an object");
    for (name, value) in with.as_object().expect("an object") {
        match value {
            Value::Null => members.remove(name),
            value => members.insert(name.clone(), value.clone()),
        };
    }
    claims
}

/// Base64 of an HMAC by another implementation than ours.
pub(crate) fn hmac(message: &str, secret: &str, algorithm: Algorithm) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).expect("an HMAC")
}

/// A token of any text as header and payload, soundly signed.
pub(crate) fn forged(header: &str, payload: &str, secret: &str, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = hmac(&message, secret, algorithm);
    format!("{message}.{signature}")
}

/// A token with these claims, as the server itself would sign it.
pub(crate) fn signed(claims: &Value) -> String {
    forged(r#"{"alg":"HS256","typ":"JWT"}"#, &claims.to_string(), SECRET, Algorithm::HS256)
}

/// `GET /auth/me` with a bearer token.
pub(crate) async fn me(server: &TestServer, token: &str) -> Answer {
    server.bearer(token).get(ME).await
}

/// Every `Set-Cookie` header of an answer.
pub(crate) fn set_cookies(answer: &Answer) -> Vec<String> {
    let lines = answer.headers.get_all("set-cookie").iter();
    lines.map(|line| line.to_str().expect("text").to_owned()).collect()
}

/// Starts `n` jobs at once and gathers what they answer.
pub(crate) async fn race<T, F>(n: usize, job: impl Fn(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let start = std::sync::Arc::new(tokio::sync::Barrier::new(n));
    let tasks: Vec<_> = (0..n)
        .map(|i| {
            let (job, start) = (job(i), start.clone());
            tokio::spawn(async move {
                start.wait().await;
                job.await
            })
        })
        .collect();
    let mut answers = Vec::with_capacity(n);
    for task in tasks {
        answers.push(task.await.expect("no job panics"));
    }
    answers
}

/// How many answers have this status and code.
pub(crate) fn count(answers: &[Answer], status: u16, code: u16) -> usize {
    answers.iter().filter(|a| (a.status, a.code()) == (status, code)).count()
}

/// The stored account with this name.
pub(crate) async fn stored_user(server: &TestServer, name: &str) -> Option<quarterdeck_domain::user::User> {
    user::by_username(server.app.store.read(), name).await.expect("a read")
}

/// The stored session.
pub(crate) async fn stored_session(
    server: &TestServer,
    id: &str,
) -> Option<quarterdeck_domain::user::Session> {
    session::by_id(server.app.store.read(), id).await.expect("a read")
}

/// The form API keys and refresh tokens are stored in, by another implementation than ours.
pub(crate) fn keyed_hash(raw: &str) -> String {
    let digest = URL_SAFE_NO_PAD.decode(hmac(raw, SECRET, Algorithm::HS256)).expect("base64");
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Stores an API key of this user whose raw value is `raw`.
pub(crate) async fn plant_key(server: &TestServer, user_id: &str, raw: &str) {
    let hash = keyed_hash(raw);
    let key = quarterdeck_domain::user::ApiKey {
        id: format!("planted-{raw}"),
        name: "planted".to_owned(),
        role: quarterdeck_domain::role::HumanRole::Observer,
        user_id: user_id.to_owned(),
        created_at: server.now(),
        expires_at: None,
        revoked: false,
    };
    let write =
        server.app.store.write(move |tx| Box::pin(async move { api_key::insert(tx, &key, &hash).await }));
    write.await.expect("a stored key");
}

/// A body for signing in a person the testkit made.
pub(crate) fn known(username: &str) -> Value {
    credentials(username, PASSWORD)
}
