//! `audit`: the trail in the local database, for whoever wants to know whether to believe it.

use std::process::ExitCode;

use quarterdeck_auth::audit_key;
use quarterdeck_domain::clock::SystemClock;
use quarterdeck_store::Store;
use quarterdeck_store::audit::{Anchor, Report};
use quarterdeck_work::audit::{self, Export};
use serde_json::json;

use super::Context;
use crate::cli::AuditCommand;
use crate::config::Config;
use crate::output::Mark;
use crate::{Failure, local};

pub(super) fn run(context: &Context<'_>, command: &AuditCommand) -> Result<ExitCode, Failure> {
    let loaded = context.load()?;
    let config = &loaded.config;
    match command {
        AuditCommand::Verify { expect } => {
            let report =
                context.wait(with_store(config, async |store| verify(config, store, expect).await))?;
            Ok(tell(context, &report))
        }
        AuditCommand::Export { format, since, until } => {
            if let (Some(since), Some(until)) = (since, until)
                && since > until
            {
                return Err(Failure::usage("--since must not be after --until"));
            }
            let export = Export { format: *format, since: *since, until: *until };
            context.wait(with_store(config, async |store| print(context, store, export).await))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn with_store<T>(
    config: &Config,
    job: impl AsyncFnOnce(&Store) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let store = local::attach_current(config).await?;
    let result = job(&store).await;
    store.close().await;
    result
}

async fn verify(config: &Config, store: &Store, expect: &[Anchor]) -> Result<Report, Failure> {
    if let Some(key) = audit_key(store, &config.api.auth.jwt_secret).await? {
        store.sign_audit_with(key);
    }
    Ok(store.verify_audit(expect).await?)
}

fn tell(context: &Context<'_>, report: &Report) -> ExitCode {
    let Report { entries, position, link, unsigned, unknown_key, fault, .. } = report;
    let mut document = json!(report);
    document["intact"] = report.is_intact().into();
    let text = match fault {
        Some(fault) => format!(
            "{} The audit trail is broken: entry {} {}.\n    Entries in order before it: {entries}.\n",
            context.output.mark(Mark::Bad),
            fault.position,
            fault.what
        ),
        None => {
            format!("{} The audit trail is intact: {entries} entries.\n", context.output.mark(Mark::Good))
        }
    };
    let end = if *position < 0 { String::new() } else { format!("{position}:{link}\n") };
    context.output.result(&format!("{text}{end}"), &document);
    if *unsigned > 0 {
        context.output.note(&format!("{unsigned} entries were written without a key."));
    }
    if *unknown_key > 0 {
        let text =
            "entries are signed with another secret than the one in use; their signatures were not checked";
        context.output.note(&format!("{unknown_key} {text}."));
    }
    if report.is_intact() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints page by page, so that the length of the trail does not matter.
async fn print(context: &Context<'_>, store: &Store, export: Export) -> Result<(), Failure> {
    let now = SystemClock::shared().now();
    let export = Export { until: Some(export.until.map_or(now, |until| until.min(now))), ..export };
    let array = context.output.is_json();
    context.output.print(if array { "[" } else { export.format.head() });
    let mut last = None;
    while let Some((lines, end)) = audit::page(store, export, last.as_ref()).await? {
        if array {
            let members: Vec<_> = lines.lines().collect();
            let before = if last.is_none() { "\n" } else { ",\n" };
            context.output.print(&format!("{before}{}", members.join(",\n")));
        } else {
            context.output.print(&lines);
        }
        last = Some(end);
    }
    if array {
        context.output.print("\n]\n");
    }
    Ok(())
}
