//! Reports over periods that are over.

use axum::response::IntoResponse;
use quarterdeck_domain::period::ReportPeriod;
use quarterdeck_domain::role::Guard;

use crate::edge::{Data, Result};
use crate::endpoint::{Endpoint, get};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/reports/periods", "reports.list_periods", Guard::Read)
            .doc("List what reports are about", "")
            .gives_list::<ReportPeriod>()
            .to(periods),
    ]
}

async fn periods() -> Result<impl IntoResponse> {
    Ok(Data(ReportPeriod::ALL))
}
