//! Every declared endpoint against every kind of caller: the guard that is declared is the guard that acts.

use axum::http::Method;
use quarterdeck_domain::role::{Guard, HumanRole};
use quarterdeck_http::endpoint::Docs;
use quarterdeck_http::v1::endpoints;
use quarterdeck_testkit::{Answer, Caller, PASSWORD, TestServer};
use serde_json::json;

use crate::{USERS, somebody};

/// Whom a guard lets pass, and what it says to the others. A list of its own, to be compared.
fn rule(guard: Guard) -> (&'static [HumanRole], &'static str) {
    use HumanRole::{BoardMember, Ceo, Manager, Observer, PairProgrammer, System};
    match guard {
        Guard::Public | Guard::Identified => (HumanRole::ALL, ""),
        Guard::Read => (&[Observer, BoardMember, PairProgrammer, Manager, Ceo], "Read access denied"),
        Guard::Write => (&[PairProgrammer, Manager, Ceo], "Write access denied"),
        Guard::Approval => (&[BoardMember, Manager, Ceo], "Access denied"),
        Guard::Ceo => (&[Ceo], "Access denied"),
        Guard::CeoOrManager => (&[Manager, Ceo], "Access denied"),
        Guard::SystemOrWrite => (&[PairProgrammer, Manager, Ceo, System], "Access denied"),
        Guard::CeoOrSystem => (&[Ceo, System], "Access denied"),
        Guard::OrgMutation(_) => (&[PairProgrammer, Manager, Ceo], "Write access denied"),
    }
}

/// A request that a guard lets pass and the handler then refuses, or that changes nothing.
async fn call(caller: &mut Caller, docs: &Docs) -> Answer {
    let mut path = format!("/api/v1{}", docs.path);
    while let (Some(from), Some(to)) = (path.find('{'), path.find('}')) {
        path.replace_range(from..=to, "nothing");
    }
    let body = (docs.method != Method::GET).then(|| "{".to_owned());
    caller.send(docs.method.clone(), &path, body).await
}

/// Endpoints whose call ends a session.
fn ends_the_session(docs: &Docs) -> bool {
    docs.operation == "auth.logout"
}

#[tokio::test]
async fn every_endpoint_lets_pass_whom_its_guard_names_and_nobody_else() {
    let server = TestServer::start().await;
    server.ceo().await;
    let mut refused = 0;
    for &role in HumanRole::ALL {
        let mut callers = vec![("session", somebody(&server, role).await)];
        if role != HumanRole::System {
            let key = server.key_of(&callers[0].1, role).await;
            callers.push(("key", key));
        }
        for (how, caller) in &mut callers {
            for docs in endpoints().iter().map(|e| e.docs()).filter(|docs| !ends_the_session(docs)) {
                let (allowed, text) = rule(docs.guard);
                let answer = call(caller, docs).await;
                let what = format!("{} by {how} of {role}: {}", docs.operation, answer.text());
                assert!(answer.status < 500 || docs.operation.starts_with("health"), "{what}");
                assert_ne!(answer.status, 405, "{what}");
                if allowed.contains(&role) {
                    let by_guard = ["Access denied", "Read access denied", "Write access denied"];
                    assert!(!by_guard.contains(&answer.error().as_str()), "{what}");
                } else {
                    refused += 1;
                    assert_eq!((answer.status, answer.code()), (403, 1001), "{what}");
                    assert_eq!(answer.error(), text, "{what}");
                }
            }
        }
    }
    assert!(refused > 100, "the table was really walked: {refused}");
}

#[tokio::test]
async fn without_an_identity_only_public_endpoints_answer() {
    let server = TestServer::start().await;
    server.ceo().await;
    for endpoint in endpoints() {
        let docs = endpoint.docs();
        let answer = call(&mut server.anonymous(), docs).await;
        if docs.guard == Guard::Public {
            assert_ne!(answer.status, 403, "{}", docs.operation);
        } else {
            assert_eq!((answer.status, answer.code()), (401, 1000), "{}", docs.operation);
            assert!(answer.header("www-authenticate").starts_with("Bearer"), "{}", docs.operation);
        }
    }
}

#[tokio::test]
async fn an_endpoint_the_operator_excludes_refuses_instead_of_serving_nobody() {
    let server = TestServer::with(quarterdeck_testkit::TestDb::sqlite(), |options| {
        options.auth.exclude_paths = serde_json::from_value(json!(["^/api/v1/"])).unwrap();
    })
    .await;
    let mut ceo = server.ceo().await;
    for endpoint in endpoints() {
        let docs = endpoint.docs();
        if docs.guard != Guard::Public {
            let answer = call(&mut ceo, docs).await;
            assert_eq!((answer.status, answer.code()), (403, 1001), "{}", docs.operation);
        }
    }
}

#[tokio::test]
async fn who_must_change_the_password_reaches_only_the_way_there() {
    let server = TestServer::start().await;
    let mut ceo = server.ceo().await;
    let body = json!({"username": "new", "password": PASSWORD, "role": "manager"});
    ceo.post(USERS, &body).await.expect(201);
    let new = server.sign_in("new").await;
    for endpoint in endpoints() {
        let docs = endpoint.docs();
        if docs.guard == Guard::Public {
            continue;
        }
        let answer = call(&mut new.clone(), docs).await;
        let open = ["auth.me", "auth.change_password"].contains(&docs.operation);
        assert_eq!(answer.error() == "Password change required", !open, "{}", docs.operation);
    }
}

#[tokio::test]
async fn every_cookie_authenticated_change_needs_the_csrf_token() {
    let server = TestServer::start().await;
    let ceo = server.ceo().await;
    for endpoint in endpoints() {
        let docs = endpoint.docs();
        if docs.method == Method::GET || ends_the_session(docs) {
            continue;
        }
        let answer = call(&mut ceo.clone().without_csrf(), docs).await;
        let refused = (answer.status, answer.code()) == (403, 1004);
        assert_eq!(refused, !docs.csrf_exempt, "{}", docs.operation);
    }
}
