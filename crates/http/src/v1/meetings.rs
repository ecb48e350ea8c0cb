//! Meetings of agents.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use quarterdeck_domain::Error;
use quarterdeck_domain::ErrorCode::ValidationError;
use quarterdeck_domain::error::FieldError;
use quarterdeck_domain::meeting::{MeetingResponse, MeetingStatus};
use quarterdeck_domain::role::Guard;
use quarterdeck_domain::setting::api::MAX_MEETING_CONTEXT_KEYS;
use quarterdeck_domain::text::NotBlank;
use quarterdeck_store::meeting::Filter;
use quarterdeck_work::meetings::{Context, Named};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::edge::{Data, PaginatedResponse, Result};
use crate::endpoint::{Endpoint, get, post};
use crate::extract::{Body, Page, Path, Query};
use crate::gate::Acting;

/// Name of this list where it is shown in part.
const SOURCE: &str = "meetings";
/// Most characters of an id or of the name of a type.
const MAX_ID: usize = 128;
/// Most characters of the name of an event.
const MAX_EVENT: usize = 1024;
/// Most characters of a name in a context.
const MAX_KEY: usize = 256;
/// Most characters of a value in a context.
const MAX_VALUE: usize = 1024;
/// Most values of one name in a context.
const MAX_VALUES: usize = 50;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/meetings", "meetings.list", Guard::Read)
            .doc(
                "List meetings",
                "In the order of their beginning. Rows that cannot be read are left out; then \
                 `degraded_sources` says `meetings`.",
            )
            .query::<ListQuery>()
            .gives_page::<MeetingResponse>()
            .fails(&[ValidationError])
            .to(list),
        get("/meetings/{meeting_id}", "meetings.get", Guard::Read)
            .doc("Show a meeting", "")
            .gives::<MeetingResponse>(200)
            .to(show),
        post("/meetings/trigger", "meetings.create", Guard::Write)
            .limit(20, 60)
            .doc(
                "Say that something has happened, and hold the meetings it calls for",
                "Waits for all of them, unless `wait` is false: then the records of those that have begun are \
                 answered with 202. Types that were held too short a time ago, or for which fewer than two \
                 participants are found, are left out.",
            )
            .query::<TriggerQuery>()
            .body::<TriggerMeetingRequest>()
            .gives_list::<MeetingResponse>()
            .or_accepts()
            .to(trigger),
    ]
}

#[derive(Deserialize, IntoParams)]
struct ListQuery {
    /// Those that stand here.
    #[param(inline)]
    status: Option<MeetingStatus>,
    /// Those of this type.
    #[param(max_length = 128)]
    meeting_type: Option<String>,
}

#[derive(Deserialize, IntoParams)]
struct TriggerQuery {
    /// Whether to wait for the end of the meetings.
    #[param(default = true)]
    wait: Option<bool>,
}

/// What has happened.
#[derive(Deserialize, ToSchema)]
struct TriggerMeetingRequest {
    /// Name of the event; types of meetings name the one they are held on.
    #[schema(value_type = String, min_length = 1, max_length = 1024)]
    event_name: NotBlank<MAX_EVENT>,
    #[serde(default, deserialize_with = "context")]
    #[schema(schema_with = context_schema)]
    context: Context,
}

/// What the parser below accepts.
fn context_schema() -> Schema {
    let text = || ObjectBuilder::new().schema_type(Type::String).max_length(Some(MAX_VALUE));
    let texts = ArrayBuilder::new().items(text()).max_items(Some(MAX_VALUES));
    let value = OneOfBuilder::new().item(text()).item(texts);
    let key = ObjectBuilder::new().schema_type(Type::String).max_length(Some(MAX_KEY));
    let context = ObjectBuilder::new()
        .property_names(Some(key))
        .additional_properties(Some(RefOr::T(Schema::from(value))))
        .max_properties(Some(20))
        .description(Some("Who and what it is about. Participants of a meeting are looked up here first."));
    context.into()
}

fn context<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Context, D::Error> {
    let refuse = |rule: String| D::Error::custom(rule);
    let text = |value: Value| match value {
        Value::String(text) if text.chars().count() <= MAX_VALUE => Ok(text),
        Value::String(_) => Err(refuse(format!("must hold texts of at most {MAX_VALUE} characters"))),
        _ => Err(refuse("must hold texts and lists of texts".to_owned())),
    };
    let mut context = Context::new();
    for (key, value) in Map::deserialize(deserializer)? {
        if key.chars().count() > MAX_KEY {
            return Err(refuse(format!("must have names of at most {MAX_KEY} characters")));
        }
        let named = match value {
            Value::Array(values) if values.len() > MAX_VALUES => {
                return Err(refuse(format!("must hold at most {MAX_VALUES} texts under one name")));
            }
            Value::Array(values) => Named::Many(values.into_iter().map(text).collect::<Result<_, _>>()?),
            value => Named::One(text(value)?),
        };
        context.insert(key, named);
    }
    Ok(context)
}

async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
    page: Page,
) -> Result<impl IntoResponse> {
    if query.meeting_type.as_ref().is_some_and(|name| name.chars().count() > MAX_ID) {
        return Err(Error::rule(format!("meeting_type must have at most {MAX_ID} characters")).into());
    }
    let filter = Filter { status: query.status, type_name: query.meeting_type };
    let listed = app.meetings.list(&filter, page.offset, page.limit.into()).await?;
    let items: Vec<_> = listed.items.iter().map(|meeting| meeting.shown()).collect();
    let answer = PaginatedResponse::new(items, page.offset, page.limit, listed.total);
    Ok(if listed.is_partial { answer.degraded(vec![SOURCE.to_owned()]) } else { answer })
}

async fn show(State(app): State<App>, Path(id): Path<NotBlank<MAX_ID>>) -> Result<impl IntoResponse> {
    Ok(Data(app.meetings.get(&id).await?.shown()))
}

async fn trigger(
    State(app): State<App>,
    Acting(actor): Acting,
    Query(query): Query<TriggerQuery>,
    Body(request): Body<TriggerMeetingRequest>,
) -> Result<impl IntoResponse> {
    let most = app.settings.get(&MAX_MEETING_CONTEXT_KEYS);
    if i64::try_from(request.context.len()).is_ok_and(|keys| keys > most) {
        let detail = format!("must have at most {most} names");
        let field = FieldError { pointer: "/context".to_owned(), detail };
        let text = format!("Validation failed for POST {}/meetings/trigger", app.api_prefix);
        return Err(Error::shape(text).fields(vec![field]).into());
    }
    let wait = query.wait.unwrap_or(true);
    let held = app.meetings.trigger(&request.event_name, request.context, wait, &actor).await?;
    let status = if wait || held.is_empty() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Data(held.iter().map(|meeting| meeting.shown()).collect::<Vec<_>>())))
}
