//! Backups. This version makes none, so there are none to list.

use axum::response::IntoResponse;
use quarterdeck_domain::role::Guard;
use serde::Serialize;
use utoipa::ToSchema;

use crate::edge::PaginatedResponse;
use crate::endpoint::{Endpoint, get};
use crate::extract::Page;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/admin/backups", "admin.backup_list", Guard::SystemOrWrite)
            .doc("List backups", "Newest first.")
            .gives_page::<BackupInfo>()
            .to(list),
    ]
}

/// A backup.
#[derive(Serialize, ToSchema)]
struct BackupInfo {
    /// 12 hex digits.
    backup_id: String,
    /// ISO 8601 with offset.
    timestamp: String,
    /// Why it was made.
    trigger: String,
    /// What it holds.
    components: Vec<String>,
    /// Before compression.
    size_bytes: u64,
    compressed: bool,
}

async fn list(page: Page) -> impl IntoResponse {
    PaginatedResponse::<BackupInfo>::new(Vec::new(), page.offset, page.limit, 0)
}
