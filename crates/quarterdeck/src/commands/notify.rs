//! `notify`: whether notifications would arrive.

use std::process::ExitCode;

use quarterdeck_domain::clock::SystemClock;
use quarterdeck_domain::notification::{Category, Notification, Severity};
use quarterdeck_work::notifications::{Patience, SinkKind, Trial, try_out};
use serde_json::{Value, json};

use super::Context;
use crate::Failure;
use crate::output::Mark;

pub(super) fn run(context: &Context<'_>) -> Result<ExitCode, Failure> {
    let loaded = context.load()?;
    let now = SystemClock::shared().now();
    let title = "A test of notifications";
    let test = Notification::new(Category::System, Severity::Info, "cli.notify_test", title, now)
        .body("Somebody wants to know whether this arrives. There is nothing to do.");
    let variable = |name: &str| context.environment.text(name).map(str::to_owned);
    let config = &loaded.config.notifications;
    let trials = context.wait(async { Ok(try_out(config, &variable, &test, &Patience::default()).await) })?;
    let text: String = trials.iter().map(|trial| line(context, trial)).collect();
    let all_work = trials.iter().all(|trial| trial.outcome.is_ok());
    let sinks: Vec<Value> = trials.iter().map(shown).collect();
    context.output.result(&text, &json!({"delivered": all_work, "id": test.id, "sinks": sinks}));
    Ok(if all_work { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(context: &Context<'_>, trial: &Trial) -> String {
    let place = match trial.number {
        Some(number) => format!("notifications.sinks[{number}] ({})", trial.kind.as_str()),
        None => "the log, for no sink is configured".to_owned(),
    };
    match &trial.outcome {
        Ok(()) if trial.kind == SinkKind::Console => {
            format!("{} {place}: the server writes it there\n", context.output.mark(Mark::Good))
        }
        Ok(()) => format!("{} {place}: delivered\n", context.output.mark(Mark::Good)),
        Err(why) => format!("{} {place}: {why}\n", context.output.mark(Mark::Bad)),
    }
}

fn shown(trial: &Trial) -> Value {
    json!({
        "sink": trial.number, "type": trial.kind.as_str(), "delivered": trial.outcome.is_ok(),
        "error": trial.outcome.as_ref().err(),
    })
}
