//! `openapi`: the document that describes the HTTP interface.

use std::process::ExitCode;

use super::Context;
use crate::Failure;

pub(super) fn run(context: &Context<'_>) -> Result<ExitCode, Failure> {
    // The document is JSON whether asked for or not.
    context.output.print(&quarterdeck_http::app::openapi_document());
    context.output.print("\n");
    Ok(ExitCode::SUCCESS)
}
