//! What a new installation still needs.

use axum::extract::State;
use axum::response::IntoResponse;
use quarterdeck_domain::role::Guard;
use quarterdeck_domain::setting;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::edge::{Data, Result};
use crate::endpoint::{Endpoint, get};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/setup/status", "setup.status", Guard::Public)
            .doc("What is still to be set up", "")
            .always_public()
            .gives::<SetupStatus>(200)
            .to(status),
    ]
}

/// What a new installation still needs.
#[derive(Serialize, ToSchema)]
struct SetupStatus {
    /// No CEO exists yet.
    needs_admin: bool,
    /// The first-run setup is not complete.
    needs_setup: bool,
    /// A model provider was stored by somebody.
    has_providers: bool,
    /// Name locales were stored by somebody.
    has_name_locales: bool,
    /// A company was stored by somebody.
    has_company: bool,
    /// An agent was stored by somebody.
    has_agents: bool,
    /// Shortest password accepted, in characters.
    #[schema(minimum = 8)]
    min_password_length: u32,
}

async fn status(State(app): State<App>) -> Result<impl IntoResponse> {
    let needs_admin = app.auth.needs_setup().await?;
    Ok(Data(SetupStatus {
        needs_admin,
        needs_setup: needs_admin || !app.settings.get(&setting::api::SETUP_COMPLETE),
        // Providers, locales, companies and agents have no store of their own in this version.
        has_providers: false,
        has_name_locales: false,
        has_company: false,
        has_agents: false,
        min_password_length: app.auth.live().min_password_length,
    }))
}
