//! `version`: which program this is.

use std::process::ExitCode;

use super::Context;
use crate::Failure;

pub(super) fn run(context: &Context<'_>, short: bool) -> Result<ExitCode, Failure> {
    let (version, commit, date) =
        (env!("CARGO_PKG_VERSION"), env!("QUARTERDECK_COMMIT"), env!("QUARTERDECK_COMMIT_DATE"));
    let text = if short {
        format!("{version}\n")
    } else {
        format!("quarterdeck {version} (commit {commit} of {date})\n")
    };
    let document = if short {
        serde_json::json!({"version": version})
    } else {
        serde_json::json!({"version": version, "commit": commit, "commit_date": date})
    };
    context.output.result(&text, &document);
    Ok(ExitCode::SUCCESS)
}
