//! The OpenAPI 3.1 document, read from the declared endpoints.

mod links;

use std::collections::BTreeMap;

use quarterdeck_domain::role::Guard;
use quarterdeck_domain::{Category, ErrorCode};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::edge::{ErrorDetail, PaginationMeta, ProblemDetail};
use crate::endpoint::{Content, Docs, Endpoint, PageSchema};
use crate::extract::{MAX_ID, MAX_KEY};

/// Registers a schema and everything it refers to; answers a reference to it.
pub(crate) type SchemaOf = fn(&mut Schemas) -> Value;

/// Named schemas of the document.
pub(crate) type Schemas = BTreeMap<String, Value>;

pub(crate) fn one_of<T: ToSchema>(schemas: &mut Schemas) -> Value {
    let mut all = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut all);
    for (name, schema) in all {
        schemas.entry(name).or_insert_with(|| serde_json::to_value(schema).unwrap_or_default());
    }
    reference(&T::name())
}

pub(crate) fn list_of<T: ToSchema>(schemas: &mut Schemas) -> Value {
    json!({ "type": "array", "items": one_of::<T>(schemas) })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn nullable(schema: Value) -> Value {
    // Not `oneOf`: the schema itself may allow null.
    json!({ "anyOf": [schema, { "type": "null" }] })
}

/// The document for endpoints below `prefix`.
pub(crate) fn document(prefix: &str, endpoints: &[Endpoint], version: &str) -> Value {
    let mut schemas = Schemas::new();
    one_of::<ErrorDetail>(&mut schemas);
    one_of::<ProblemDetail>(&mut schemas);
    one_of::<PaginationMeta>(&mut schemas);
    schemas.insert("ErrorCode".to_owned(), error_codes());
    schemas.insert("ErrorEnvelope".to_owned(), error_envelope());
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for Endpoint { docs, .. } in endpoints.iter().filter(|endpoint| !endpoint.docs.undocumented) {
        let item = paths.entry(format!("{prefix}{}", docs.path)).or_default();
        let mut operation = operation(docs, &mut schemas);
        let links = links::links(docs, endpoints, &mut schemas);
        if !links.is_empty() {
            operation["responses"][docs.success.status.to_string()]["links"] = links.into();
        }
        item.insert(docs.method.as_str().to_lowercase(), operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Quarterdeck API",
            "version": version,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": "Self-hosted control plane for AI-agent organisations. Successful answers are \
                wrapped in an envelope; failures are envelopes too, or RFC 9457 problem documents when \
                `Accept` prefers `application/problem+json`. No text may hold the character NUL.",
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "session": { "type": "apiKey", "in": "cookie", "name": "session",
                    "description": "Set by sign-in. Mutations also repeat the csrf_token cookie in X-CSRF-Token." },
                "bearer": { "type": "http", "scheme": "bearer", "description": "An API key or a JWT." },
            },
            "responses": failures(),
        },
    })
}

fn operation(docs: &Docs, schemas: &mut Schemas) -> Value {
    let tag = docs.operation.split('.').next().unwrap_or_default();
    let mut parameters: Vec<Value> = docs
        .path_parameters()
        .map(|name| {
            let bound = docs.path_bounds.iter().find(|(bounded, _)| *bounded == name);
            let max = bound.map_or(MAX_ID, |(_, max)| *max);
            let schema = if docs.path_numbers.contains(&name) {
                json!({ "type": "integer", "minimum": 1, "maximum": i64::MAX })
            } else {
                json!({ "type": "string", "minLength": 1, "maxLength": max, "pattern": r"\S" })
            };
            json!({ "name": name, "in": "path", "required": true, "schema": schema })
        })
        .collect();
    parameters.extend(docs.query.iter().filter_map(|p| serde_json::to_value(p).ok()));
    if let Content::Page(page) = &docs.success.content {
        parameters.push(json!({ "name": "offset", "in": "query", "required": false,
            "schema": { "type": "integer", "minimum": 0, "maximum": i64::MAX, "default": 0 } }));
        parameters.push(json!({ "name": "limit", "in": "query", "required": false,
            "schema": { "type": "integer", "minimum": 1, "maximum": 200, "default": page.limit } }));
    }
    for (name, description) in &docs.headers {
        parameters.push(json!({ "name": name, "in": "header", "required": false,
            "description": description, "schema": header(name) }));
    }
    let mut value = json!({
        "operationId": docs.operation,
        "tags": [tag],
        "summary": docs.summary,
        "responses": responses(docs, schemas, !parameters.is_empty()),
        "security": if docs.guard == Guard::Public { json!([]) } else { json!([{ "session": [] }, { "bearer": [] }]) },
        "x-guard": docs.guard.name(),
    });
    if !docs.description.is_empty() {
        value["description"] = docs.description.into();
    }
    if let Some(rate) = docs.rate {
        value["x-rate-limit"] = json!({ "max": rate.max, "window_seconds": rate.seconds });
    }
    if let Some(cap) = docs.in_flight {
        value["x-in-flight"] = cap.get().into();
    }
    if !parameters.is_empty() {
        value["parameters"] = parameters.into();
    }
    if let Some(body) = docs.body {
        value["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": body(schemas) } } });
    }
    if docs.takes_file {
        let file = json!({ "type": "string", "format": "binary" });
        let form = json!({ "type": "object", "properties": { "file": file }, "required": ["file"] });
        value["requestBody"] = json!({ "required": false, "content": {
            "multipart/form-data": { "schema": form },
            "application/octet-stream": { "schema": file },
        } });
    }
    value
}

/// What a request header has to look like.
fn header(name: &str) -> Value {
    if name.eq_ignore_ascii_case("idempotency-key") {
        // White space at the ends is no part of a header's value.
        return json!({ "type": "string", "minLength": 1, "maxLength": MAX_KEY,
            "pattern": "^[!-~]([ -~]*[!-~])?$" });
    }
    json!({ "type": "string" })
}

fn responses(docs: &Docs, schemas: &mut Schemas, has_parameters: bool) -> Value {
    let description = if docs.summary.is_empty() { "Success" } else { docs.summary };
    let success = match &docs.success.content {
        Content::Nothing => json!({ "description": description }),
        Content::Other(media_types) => {
            let string = || json!({ "schema": { "type": "string" } });
            let content: Map<_, _> =
                media_types.split(", ").map(|media_type| (media_type.to_owned(), string())).collect();
            json!({ "description": description, "content": content })
        }
        Content::Envelope(schema) => success(description, &envelope(schema(schemas))),
        Content::Page(PageSchema { items, beside, .. }) => {
            let page = page(items(schemas));
            let whole = match beside {
                Some(beside) => json!({ "allOf": [page, beside(schemas)] }),
                None => page,
            };
            success(description, &whole)
        }
    };
    let mut all = Map::from_iter([(docs.success.status.to_string(), success.clone())]);
    if docs.accepted {
        all.insert("202".to_owned(), success);
    }
    let mut fails = |statuses: &[u16]| {
        for status in statuses {
            all.insert(
                status.to_string(),
                json!({ "$ref": format!("#/components/responses/Failure{status}") }),
            );
        }
    };
    fails(&[429, 500, 503]);
    if docs.guard != Guard::Public {
        fails(&[401, 403]);
    } else if docs.method != axum::http::Method::GET {
        fails(&[403]);
    }
    if docs.body.is_some() {
        fails(&[400, 413, 415]);
    }
    if docs.takes_file {
        fails(&[400, 408, 413]);
    }
    if has_parameters {
        fails(&[400]);
    }
    if docs.path.contains('{') {
        fails(&[404]);
    }
    for code in &docs.failures {
        fails(&[code.status()]);
    }
    for (status, description) in &docs.also {
        let answer = match status {
            400.. => json!({ "$ref": format!("#/components/responses/Failure{status}") }),
            _ => json!({ "description": description }),
        };
        all.insert(status.to_string(), answer);
    }
    Value::Object(all)
}

fn success(description: &str, schema: &Value) -> Value {
    json!({ "description": description, "content": { "application/json": { "schema": schema } } })
}

fn envelope(data: Value) -> Value {
    json!({
        "type": "object",
        "required": ["data", "error", "error_detail", "success"],
        "properties": {
            "data": nullable(data),
            "error": { "type": "null" },
            "error_detail": { "type": "null" },
            "success": { "type": "boolean", "readOnly": true },
        },
    })
}

fn page(items: Value) -> Value {
    let mut schema = envelope(Value::Null);
    schema["required"] =
        json!(["data", "error", "error_detail", "success", "pagination", "degraded_sources"]);
    schema["properties"]["data"] = items;
    schema["properties"]["pagination"] = reference("PaginationMeta");
    schema["properties"]["degraded_sources"] = json!({ "type": "array", "items": { "type": "string" } });
    schema
}

fn error_envelope() -> Value {
    let mut schema = envelope(json!({ "type": "null" }));
    schema["properties"]["data"] = json!({ "type": "null" });
    schema["properties"]["error"] = json!({ "type": "string" });
    schema["properties"]["error_detail"] = reference("ErrorDetail");
    schema
}

fn error_codes() -> Value {
    let list: Vec<String> = ErrorCode::ALL
        .iter()
        .map(|code| format!("- `{}` {} — {}", code.number(), code.name(), code.default_text()))
        .collect();
    json!({
        "type": "integer",
        "enum": ErrorCode::ALL.iter().map(|code| code.number()).collect::<Vec<_>>(),
        "description": list.join("\n"),
    })
}

/// One reusable response per status of the error table.
fn failures() -> Value {
    let statuses = ErrorCode::ALL.iter().map(|code| code.status()).chain([405, 408, 413, 415, 416]);
    let responses = statuses.map(|status| {
        let families = Category::ALL
            .iter()
            .filter(|c| ErrorCode::ALL.iter().any(|e| e.status() == status && e.category() == **c));
        let description = match families.map(|c| c.title()).collect::<Vec<_>>().join(" or ") {
            none if none.is_empty() => "The request itself is wrong".to_owned(),
            titles => titles,
        };
        let body = json!({
            "description": description,
            "content": {
                "application/json": { "schema": reference("ErrorEnvelope") },
                "application/problem+json": { "schema": reference("ProblemDetail") },
            },
        });
        (format!("Failure{status}"), body)
    });
    Value::Object(responses.collect())
}
