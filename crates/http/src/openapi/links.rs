//! Links of the document: what a call has created is the one that others are about.

use axum::http::Method;
use serde_json::{Map, Value, json};

use super::Schemas;
use crate::endpoint::{Content, Docs, Endpoint};

/// Links from the answer of an endpoint that creates something to all endpoints with its id in their path.
pub(super) fn links(docs: &Docs, endpoints: &[Endpoint], schemas: &mut Schemas) -> Map<String, Value> {
    let mut links = Map::new();
    if docs.method != Method::POST || !answers_an_id(docs, schemas) {
        return links;
    }
    for Endpoint { docs: target, .. } in endpoints {
        let below = target.path.strip_prefix(docs.path).and_then(|rest| rest.strip_prefix("/{"));
        if let Some((parameter, _)) = below.and_then(|rest| rest.split_once('}')) {
            let link = json!({
                "operationId": target.operation,
                "parameters": { parameter: "$response.body#/data/id" },
            });
            links.insert(target.operation.to_owned(), link);
        }
    }
    links
}

fn answers_an_id(docs: &Docs, schemas: &mut Schemas) -> bool {
    let Content::Envelope(schema) = docs.success.content else { return false };
    let reference = schema(schemas);
    let name = reference["$ref"].as_str().and_then(|path| path.rsplit('/').next());
    name.and_then(|name| schemas.get(name)).is_some_and(|schema| schema["properties"]["id"].is_object())
}
