//! Documentation that is made of the program's own tables: the OpenAPI document and the error reference.

use std::fmt::Write;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::Redirect;
use axum::routing::get;
use bytes::Bytes;
use quarterdeck_domain::{Category, ErrorCode};
use serde_json::Value;

use crate::app::App;

pub(crate) fn routes(document: &Value) -> Router<App> {
    let json = fixed(serde_json::to_string(document).unwrap_or_default(), "application/json");
    // JSON is YAML 1.2, but people who ask for YAML want to read it.
    let yaml = fixed(yaml(document), "application/yaml");
    let errors = fixed(error_page(), "text/html; charset=utf-8");
    Router::new()
        .route("/docs/openapi.json", get(move || async move { json }))
        .route("/docs/openapi.yaml", get(move || async move { yaml }))
        .route("/docs/errors", get(move || async move { errors }))
        .route("/api", get(|| async { Redirect::temporary("/docs/api") }))
}

type Fixed = ([(axum::http::HeaderName, &'static str); 1], Bytes);

fn fixed(text: String, media_type: &'static str) -> Fixed {
    ([(CONTENT_TYPE, media_type)], Bytes::from(text))
}

fn yaml(value: &Value) -> String {
    let mut text = String::new();
    write_yaml(value, 0, &mut text);
    text
}

/// Block style; strings in JSON's quotes, which YAML shares.
fn write_yaml(value: &Value, indent: usize, text: &mut String) {
    let nested = |value: &Value| match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    };
    let write_entry = |head: &str, value: &Value, text: &mut String| {
        let _ = write!(text, "{:indent$}{head}", "");
        if nested(value) {
            text.push('\n');
            write_yaml(value, indent + 2, text);
        } else {
            let _ = writeln!(text, " {value}");
        }
    };
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                write_entry(&format!("{}:", Value::from(key.as_str())), value, text);
            }
        }
        Value::Array(list) => {
            for value in list {
                write_entry("-", value, text);
            }
        }
        scalar => {
            let _ = writeln!(text, "{:indent$}{scalar}", "");
        }
    }
}

/// What each family of errors means and what to do about it.
pub(crate) const fn advice(category: Category) -> &'static str {
    match category {
        Category::Auth => {
            "The caller is not proven, not allowed, or locked out. Sign in again, use another credential, or ask \
             somebody with more rights. 1003 carries the seconds until the lock ends."
        }
        Category::Validation => {
            "The request itself is wrong: 400 for its shape, 422 for a rule it breaks. The member <code>errors</code> \
             names fields and rules. Repeating it unchanged does not help."
        }
        Category::NotFound => "Nothing is there, or nothing the caller may know about.",
        Category::Conflict => {
            "The state does not allow it: somebody was faster, or the thing exists already. Read the state again and \
             decide anew."
        }
        Category::RateLimit => {
            "Too often or too much at once. Wait the seconds of <code>Retry-After</code>, then repeat."
        }
        Category::BudgetExhausted => {
            "Money or quota is used up. Raise the budget or wait for the next period."
        }
        Category::ProviderError => {
            "A model provider or another service outside failed. Where <code>retryable</code> is true, repeating later \
             may help."
        }
        Category::Internal => {
            "This server failed. The log line with the same <code>request_id</code> as <code>instance</code> says why. \
             8001 means: not now; repeat after <code>Retry-After</code>."
        }
    }
}

fn error_page() -> String {
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Errors · Quarterdeck</title>\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <link rel=\"icon\" href=\"/favicon.svg\" type=\"image/svg+xml\"><style>:root{color-scheme:light dark}\
         body{font:1rem/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}\
         table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem .75rem .25rem 0;\
         border-bottom:1px solid #8884}code{font-size:.9em}\
         @media(max-width:40rem){th,td{padding-right:.4rem;font-size:.85em}code,td:last-child{overflow-wrap:anywhere}}\
         </style></head><body><h1>Errors</h1>\
         <p>Every failure carries a number; programs decide by <code>error_code</code>, then by \
         <code>error_category</code>. Texts are for people and may change.</p>",
    );
    for category in Category::ALL {
        let (name, title) = (category.as_str(), category.title());
        let _ = write!(
            page,
            "<h2 id=\"{name}\">{title} <small><code>{name}</code></small></h2><p>{}</p>\
             <table><thead><tr><th>Code</th><th>Name</th><th>HTTP</th><th>Retry</th><th>Meaning</th></tr></thead><tbody>",
            advice(category)
        );
        for code in ErrorCode::ALL.iter().filter(|code| code.category() == category) {
            let retry = if code.retryable() { "yes" } else { "no" };
            let _ = write!(
                page,
                "<tr><td>{}</td><td><code>{}</code></td><td>{}</td><td>{retry}</td><td>{}</td></tr>",
                code.number(),
                // Narrow screens may break a name between its words.
                code.name().replace('_', "_<wbr>"),
                code.status(),
                code.default_text()
            );
        }
        page.push_str("</tbody></table>");
    }
    page.push_str("</body></html>\n");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_reference_of_the_repository_names_every_code_and_anchor() {
        let text = include_str!("../../../docs/errors.md");
        for category in Category::ALL {
            assert!(text.contains(&format!("<a id=\"{}\"></a>", category.as_str())), "{category:?}");
        }
        for code in ErrorCode::ALL {
            let row = format!("| {} | `{}` | {} |", code.number(), code.name(), code.status());
            assert!(text.contains(&row), "{row}");
        }
    }

    #[test]
    fn yaml_holds_the_same_as_json() {
        let value = serde_json::json!({"a": {"b": [1, {"c": null}], "d": []}, "e": "x: y"});
        assert_eq!(
            yaml(&value),
            "\"a\":\n  \"b\":\n    - 1\n    -\n      \"c\": null\n  \"d\": []\n\"e\": \"x: y\"\n"
        );
    }
}
