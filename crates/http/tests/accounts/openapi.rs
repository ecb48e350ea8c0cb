//! The OpenAPI document: sound in form, whole, and about the server that serves it.

use std::collections::BTreeSet;

use quarterdeck_domain::ErrorCode;
use quarterdeck_domain::role::{Guard, HumanRole};
use quarterdeck_http::v1::endpoints;
use quarterdeck_testkit::TestServer;
use serde_json::{Map, Value, json};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

async fn document() -> Value {
    let server = TestServer::start().await;
    server.anonymous().get("/docs/openapi.json").await.expect(200).json()
}

fn members(value: &Value) -> &Map<String, Value> {
    value.as_object().expect("an object")
}

fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    members(&document["paths"]).iter().flat_map(|(path, item)| {
        members(item).iter().map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

/// Calls `look` with every object in the value.
fn walk<'v>(value: &'v Value, look: &mut impl FnMut(&'v Map<String, Value>)) {
    match value {
        Value::Object(map) => {
            look(map);
            map.values().for_each(|value| walk(value, look));
        }
        Value::Array(list) => list.iter().for_each(|value| walk(value, look)),
        _ => {}
    }
}

#[tokio::test]
async fn every_declared_endpoint_is_in_the_document_and_nothing_else() {
    let document = document().await;
    let documented: BTreeSet<_> =
        operations(&document).map(|(path, method, _)| (path.to_owned(), method.to_owned())).collect();
    let declared: BTreeSet<_> = endpoints()
        .iter()
        .filter(|e| !e.docs().undocumented)
        .map(|e| (format!("/api/v1{}", e.docs().path), e.docs().method.as_str().to_lowercase()))
        .collect();
    assert_eq!(documented, declared);
}

#[tokio::test]
async fn the_document_has_the_form_of_openapi_3_1() {
    let document = document().await;
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")));
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(document["info"]["title"].is_string());
    let known = ["openapi", "info", "servers", "paths", "components"];
    assert!(members(&document).keys().all(|key| known.contains(&key.as_str())));
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let what = format!("{method} {path}");
        assert!(path.starts_with('/') && METHODS.contains(&method), "{what}");
        assert!(ids.insert(operation["operationId"].as_str().expect("an id")), "{what}");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{what}");
        parameters(path, operation, &what);
        responses(operation, &what);
        if let Some(body) = operation.get("requestBody") {
            assert!(!["get", "delete"].contains(&method), "{what} has a body");
            let content = members(&body["content"]);
            assert!(content.values().all(|form| form["schema"].is_object()), "{what}");
            let takes_files = content.contains_key("multipart/form-data");
            assert!(content.contains_key("application/json") || takes_files, "{what}");
        }
    }
    for part in ["schemas", "responses", "securitySchemes"] {
        for name in members(&document["components"][part]).keys() {
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)), "{name}");
        }
    }
}

/// Path parameters are those of the template; no two parameters are one.
fn parameters(path: &str, operation: &Value, what: &str) {
    let mut seen = BTreeSet::new();
    let mut in_path = BTreeSet::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let (name, place) = (parameter["name"].as_str().unwrap(), parameter["in"].as_str().unwrap());
        assert!(["path", "query", "header"].contains(&place), "{what}: {name} in {place}");
        assert!(seen.insert((name, place)), "{what}: {name} twice");
        assert!(parameter["schema"].is_object(), "{what}: {name}");
        if place == "path" {
            assert_eq!(parameter["required"], true, "{what}: {name}");
            in_path.insert(name);
        }
    }
    let template: BTreeSet<_> =
        path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
    assert_eq!(in_path, template, "{what}");
}

fn responses(operation: &Value, what: &str) {
    let responses = members(&operation["responses"]);
    assert!(
        responses.keys().any(|status| status.starts_with('2') || status == "101"),
        "{what} never succeeds"
    );
    for (status, response) in responses {
        let number: u16 = status.parse().expect("a status");
        assert!((101..600).contains(&number), "{what}: {status}");
        if number < 400 {
            assert!(response["description"].is_string(), "{what}: {status}");
        } else {
            assert_eq!(response["$ref"], format!("#/components/responses/Failure{status}"), "{what}");
        }
    }
}

#[tokio::test]
async fn every_reference_leads_somewhere_and_every_schema_has_sound_words() {
    let document = document().await;
    let types = ["object", "array", "string", "integer", "number", "boolean", "null"];
    let mut references = 0;
    walk(&document, &mut |map| {
        if let Some(Value::String(target)) = map.get("$ref") {
            references += 1;
            let pointer = target.strip_prefix('#').expect("a place in this document");
            assert!(document.pointer(pointer).is_some(), "{target}");
        }
        match map.get("type") {
            Some(Value::Array(list)) => {
                assert!(list.iter().all(|t| t.as_str().is_some_and(|t| types.contains(&t))), "{list:?}");
            }
            Some(Value::String(name)) if map.contains_key("properties") || map.contains_key("items") => {
                assert!(types.contains(&name.as_str()), "{name}");
            }
            _ => {}
        }
        if let (Some(Value::Array(required)), Some(properties)) = (map.get("required"), map.get("properties"))
        {
            for name in required {
                assert!(properties.get(name.as_str().unwrap()).is_some(), "{name} is required but not there");
            }
        }
        assert!(!map.contains_key("nullable"), "a word of OpenAPI 3.0");
    });
    assert!(references > 100, "the document was really walked: {references}");
}

#[tokio::test]
async fn what_is_created_is_linked_to_what_can_be_done_with_it() {
    let document = document().await;
    let links = &document["paths"]["/api/v1/tasks"]["post"]["responses"]["201"]["links"];
    let show = json!({"operationId": "tasks.get", "parameters": {"task_id": "$response.body#/data/id"}});
    assert_eq!(links["tasks.get"], show);
    assert!(links["tasks.transition"].is_object());
    let ids: BTreeSet<_> = operations(&document).map(|(_, _, o)| o["operationId"].as_str()).collect();
    walk(&document, &mut |map| {
        for link in map.get("links").map(members).into_iter().flat_map(Map::values) {
            assert!(ids.contains(&link["operationId"].as_str()), "{link}");
        }
    });
}

#[tokio::test]
async fn enum_values_are_documented_as_they_travel() {
    let document = document().await;
    assert_eq!(document["components"]["schemas"]["HumanRole"]["enum"], json!(HumanRole::ALL));
    walk(&document, &mut |map| {
        for value in map.get("enum").and_then(Value::as_array).into_iter().flatten() {
            let name = value.as_str().unwrap_or_default();
            let names_rust = name.starts_with(char::is_uppercase) && name.contains(char::is_lowercase);
            assert!(!names_rust, "{name} is the name of a variant");
        }
    });
}

#[tokio::test]
async fn every_endpoint_declares_who_may_call_how_often_and_how_to_prove_oneself() {
    let document = document().await;
    let schemes = members(&document["components"]["securitySchemes"]);
    assert_eq!(schemes["session"]["in"], "cookie");
    assert_eq!(schemes["bearer"]["scheme"], "bearer");
    for endpoint in endpoints().iter().filter(|endpoint| !endpoint.docs().undocumented) {
        let docs = endpoint.docs();
        let path = format!("/api/v1{}", docs.path);
        let operation = &document["paths"][&path][docs.method.as_str().to_lowercase()];
        let security = operation["security"].as_array().expect("said for every endpoint");
        assert_eq!(security.is_empty(), docs.guard == Guard::Public, "{}", docs.operation);
        for requirement in security {
            assert!(members(requirement).keys().all(|name| schemes.contains_key(name)));
        }
        let says = |status: &str| operation["responses"].get(status).is_some();
        let guarded = docs.guard != Guard::Public;
        assert!(!guarded || (says("401") && says("403")), "{}", docs.operation);
        assert!(says("429") && says("500") && says("503"), "{}", docs.operation);
        assert!(!docs.path.contains('{') || says("404"), "{}", docs.operation);
        assert_eq!(operation["x-guard"], docs.guard.name());
        let rate = docs.rate.map(|rate| json!({ "max": rate.max, "window_seconds": rate.seconds }));
        assert_eq!(operation.get("x-rate-limit"), rate.as_ref(), "{}", docs.operation);
        let cap = docs.in_flight.map(|cap| json!(cap));
        assert_eq!(operation.get("x-in-flight"), cap.as_ref(), "{}", docs.operation);
        assert_eq!(operation["operationId"], docs.operation);
    }
}

#[tokio::test]
async fn failures_are_described_in_both_media_types_with_every_code() {
    let document = document().await;
    for (name, response) in members(&document["components"]["responses"]) {
        let content = members(&response["content"]);
        let types: Vec<_> = content.keys().map(String::as_str).collect();
        assert_eq!(types, ["application/json", "application/problem+json"], "{name}");
    }
    let listed = &document["components"]["schemas"]["ErrorCode"]["enum"];
    let numbers: Vec<_> = ErrorCode::ALL.iter().map(|code| code.number()).collect();
    assert_eq!(*listed, json!(numbers));
}

#[tokio::test]
async fn no_schema_shows_a_hash() {
    let text = document().await.to_string();
    for word in ["password_hash", "key_hash", "token_hash", "argon2"] {
        assert!(!text.contains(word), "{word}");
    }
}

#[tokio::test]
async fn the_yaml_is_served_too_and_both_are_public() {
    let server = TestServer::start().await;
    let yaml = server.anonymous().get("/docs/openapi.yaml").await.expect(200);
    assert!(yaml.text().starts_with("\"components\":") || yaml.text().contains("\"openapi\": \"3.1.0\""));
    assert!(server.anonymous().get("/docs/openapi.json").await.header("content-type").contains("json"));
}
