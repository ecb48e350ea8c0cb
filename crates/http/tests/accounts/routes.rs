//! The table of everything the API answers, for a reviewer's eyes and for a machine's.

use std::collections::BTreeSet;

use axum::http::Method;
use quarterdeck_domain::role::Guard;
use quarterdeck_http::v1::endpoints;
use quarterdeck_testkit::TestServer;

#[test]
fn the_table_of_routes_changes_only_on_purpose() {
    let mut rows: Vec<_> = endpoints()
        .iter()
        .map(|endpoint| {
            let docs = endpoint.docs();
            let guard = match docs.guard {
                Guard::OrgMutation(Some(parameter)) => format!("org_mutation({parameter})"),
                guard => guard.name().to_owned(),
            };
            let limit = docs.rate.map_or("-".to_owned(), |rate| format!("{}/{}s", rate.max, rate.seconds));
            let marks = [
                (docs.checks_credentials, "checks-credentials"),
                (docs.csrf_exempt, "csrf-exempt"),
                (docs.open_to_forced_change, "open-to-forced-change"),
                (docs.always_public, "always-public"),
            ];
            let marks: Vec<_> = marks.iter().filter(|(set, _)| *set).map(|(_, mark)| *mark).collect();
            let (method, path, operation) = (docs.method.as_str(), docs.path, docs.operation);
            let row = format!("{path:42} {method:6} {guard:16} {operation:25} {limit:8} {}", marks.join(" "));
            row.trim_end().to_owned()
        })
        .collect();
    rows.sort();
    insta::assert_snapshot!(rows.join("\n"));
}

#[test]
fn every_operation_has_its_own_name_of_the_form_domain_and_action() {
    let mut names = BTreeSet::new();
    for endpoint in endpoints() {
        let name = endpoint.docs().operation;
        assert!(names.insert(name), "{name} twice");
        let (domain, action) = name.split_once('.').expect("a dot");
        for part in [domain, action] {
            let plain = part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            assert!(plain && part.starts_with(|c: char| c.is_ascii_lowercase()), "{name}");
        }
    }
}

#[test]
fn no_method_of_a_path_is_declared_twice() {
    let mut seen = BTreeSet::new();
    for endpoint in endpoints() {
        let docs = endpoint.docs();
        assert!(seen.insert((docs.path, docs.method.as_str().to_owned())), "{} {}", docs.method, docs.path);
        assert!(docs.path.starts_with('/') && !docs.path.ends_with('/'), "{}", docs.path);
    }
}

#[test]
fn only_what_begins_or_ends_a_session_and_probes_are_public() {
    let listed = |mark: fn(&quarterdeck_http::endpoint::Docs) -> bool| {
        let endpoints = endpoints();
        let mut paths: Vec<_> =
            endpoints.iter().map(|e| e.docs()).filter(|d| mark(d)).map(|d| d.path).collect();
        paths.sort_unstable();
        paths
    };
    let sessions = ["/auth/login", "/auth/logout", "/auth/refresh", "/auth/setup"];
    assert_eq!(listed(|docs| docs.csrf_exempt), sessions);
    // The socket asks for its ticket itself.
    let probes = ["/health", "/healthz", "/metrics", "/readyz", "/setup/status", "/ws"];
    assert_eq!(listed(|docs| docs.guard == Guard::Public), [&sessions[..], &probes[..]].concat());
    assert_eq!(listed(|docs| docs.open_to_forced_change), ["/auth/change-password", "/auth/me"]);
}

#[tokio::test]
async fn every_declared_method_is_routed_and_every_other_answers_405() {
    let server = TestServer::start().await;
    let declared: BTreeSet<_> =
        endpoints().iter().map(|e| (e.docs().path, e.docs().method.as_str().to_owned())).collect();
    let paths: BTreeSet<_> = declared.iter().map(|(path, _)| *path).collect();
    for path in paths {
        let url = format!("/api/v1{}", path.replace(['{', '}'], ""));
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let answer = server.anonymous().send(method.clone(), &url, None).await;
            let routed = declared.contains(&(path, method.as_str().to_owned()));
            assert_eq!(answer.status != 405, routed, "{method} {path}: {}", answer.text());
            assert_ne!(answer.code(), 3002, "{method} {path}");
        }
    }
}
