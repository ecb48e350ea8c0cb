//! Log sinks: the list in force, and a trial of changes to it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use quarterdeck_domain::role::Guard;
use quarterdeck_domain::setting::{MAX_VALUE_CHARS, observability};
use quarterdeck_domain::sink::{self, SinkConfig};
use quarterdeck_domain::{Error, ErrorCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::edge::{Data, Result};
use crate::endpoint::{Endpoint, get, post};
use crate::extract::Body;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/settings/observability/sinks", "settings.sinks", Guard::Read)
            .doc("List log sinks", "The built-in ones with their overrides, then the custom ones.")
            .gives_list::<SinkConfig>()
            .to(list),
        post("/settings/observability/sinks/_test", "settings.sinks_test", Guard::CeoOrManager)
            .doc("Try a sink configuration", "Says whether the texts would be accepted; stores nothing.")
            .body::<TestSinks>()
            .gives::<TestedSinks>(201)
            .to(test),
    ]
}

/// JSON texts as the settings of the same names hold them.
#[derive(Deserialize, ToSchema)]
struct TestSinks {
    /// JSON object.
    #[serde(default = "empty_object")]
    #[schema(default = "{}", max_length = 65536)]
    sink_overrides: String,
    /// JSON array.
    #[serde(default = "empty_array")]
    #[schema(default = "[]", max_length = 65536)]
    custom_sinks: String,
}

fn empty_object() -> String {
    "{}".to_owned()
}

fn empty_array() -> String {
    "[]".to_owned()
}

/// Whether the texts would be accepted.
#[derive(Serialize, ToSchema)]
struct TestedSinks {
    valid: bool,
    /// The broken rule; `null` when valid.
    error: Option<String>,
}

async fn list(State(app): State<App>) -> Result<impl IntoResponse> {
    let root = app.settings.get(&observability::ROOT_LOG_LEVEL);
    let overrides = app.settings.get(&observability::SINK_OVERRIDES).to_string();
    let custom = app.settings.get(&observability::CUSTOM_SINKS).to_string();
    // What is stored was checked before; a file or an environment variable may still be wrong.
    let sinks = sink::resolve(&root, &overrides, &custom)
        .map_err(|why| Error::with(ErrorCode::InternalError, format!("log sinks: {why}")))?;
    Ok(Data(sinks))
}

async fn test(State(app): State<App>, Body(trial): Body<TestSinks>) -> Result<impl IntoResponse> {
    for (field, text) in [("sink_overrides", &trial.sink_overrides), ("custom_sinks", &trial.custom_sinks)] {
        if text.len() > MAX_VALUE_CHARS && text.chars().count() > MAX_VALUE_CHARS {
            return Err(
                Error::shape(format!("{field} must have at most {MAX_VALUE_CHARS} characters")).into()
            );
        }
    }
    let root = app.settings.get(&observability::ROOT_LOG_LEVEL);
    let error = sink::resolve(&root, &trial.sink_overrides, &trial.custom_sinks).err();
    Ok((StatusCode::CREATED, Data(TestedSinks { valid: error.is_none(), error })))
}
