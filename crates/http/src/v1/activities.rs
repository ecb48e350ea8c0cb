//! What has happened lately.

use axum::extract::State;
use axum::response::IntoResponse;
use quarterdeck_domain::activity::{Activity, ActivityEventType, ActivityWindow};
use quarterdeck_domain::role::Guard;
use quarterdeck_work::activities::Wanted;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

use crate::app::App;
use crate::edge::{PaginatedResponse, Result};
use crate::endpoint::{Endpoint, get};
use crate::extract::{Id, Page, Query};
use crate::gate::Caller;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/activities", "activities.list", Guard::Read)
            .doc(
                "List what has happened lately",
                "The newest first: work on tasks, and calls of models. Which model, and at what price, is \
                 told to those who may write.",
            )
            .query::<ActivityQuery>()
            .gives_page::<Activity>()
            .to(list),
    ]
}

#[derive(Deserialize, IntoParams)]
struct ActivityQuery {
    /// Of one kind.
    r#type: Option<ActivityEventType>,
    /// By one agent.
    #[param(value_type = Option<String>, min_length = 1, max_length = 128, pattern = r"\S")]
    agent_id: Option<Id>,
    /// How far to look back.
    #[serde(default = "day")]
    #[param(schema_with = window_schema)]
    last_n_hours: ActivityWindow,
}

fn day() -> ActivityWindow {
    ActivityWindow::Day
}

/// On the wire they are numbers.
fn window_schema() -> Schema {
    let hours = ActivityWindow::ALL.iter().map(|window| window.length().num_hours());
    ObjectBuilder::new().schema_type(Type::Integer).enum_values(Some(hours)).default(Some(24.into())).into()
}

async fn list(
    State(app): State<App>,
    Caller(caller): Caller,
    Query(query): Query<ActivityQuery>,
    page: Page,
) -> Result<impl IntoResponse> {
    let ActivityQuery { r#type, agent_id, last_n_hours } = query;
    let wanted = Wanted { event_type: r#type, agent_id: agent_id.map(Id::into_inner), window: last_n_hours };
    let knows_prices = caller.role.writes();
    let (activities, total) =
        app.activities.page(wanted, knows_prices, page.offset, page.limit.into()).await?;
    Ok(PaginatedResponse::new(activities, page.offset, page.limit, total))
}
