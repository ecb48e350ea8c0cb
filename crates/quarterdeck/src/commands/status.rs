//! `status`: how the running server is.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::Context;
use crate::cli::StatusArgs;
use crate::client::{Client, Reply};
use crate::config::Loaded;
use crate::output::Mark;
use crate::{Failure, local};

pub(super) fn run(context: &Context<'_>, arguments: &StatusArgs) -> Result<ExitCode, Failure> {
    if arguments.check {
        let answer = context.load().and_then(|loaded| {
            let client = Client::new(&loaded.config.api)?;
            context.wait(client.get("/health"))
        });
        // Silent: whoever asks this way reads the exit code alone.
        return Ok(match answer {
            Ok(reply) if is_healthy(&reply) => ExitCode::SUCCESS,
            Ok(_) => ExitCode::from(3),
            Err(failure) => ExitCode::from(failure.exit_code),
        });
    }
    let loaded = context.load()?;
    let client = Client::new(&loaded.config.api)?;
    if !arguments.watch {
        return context.wait(report(context, &loaded, &client));
    }
    context.wait(async {
        loop {
            if let Err(failure) = report(context, &loaded, &client).await {
                context.output.fail(&failure);
            }
            tokio::time::sleep(arguments.interval).await;
        }
    })
}

fn is_healthy(reply: &Reply) -> bool {
    let status = reply.body.as_ref().and_then(|body| body.pointer("/data/status"));
    reply.status.is_success() && status.and_then(Value::as_str) == Some("ok")
}

async fn report(context: &Context<'_>, loaded: &Loaded, client: &Client) -> Result<ExitCode, Failure> {
    let reply = client.get("/health").await?;
    let health = match reply.body.as_ref().and_then(|body| body.get("data")) {
        Some(health) if reply.status.is_success() && health.is_object() => health,
        _ => {
            let mut failure = Failure::unhealthy(format!(
                "what answers at {} with status {} is not a healthy quarterdeck server",
                client.base(),
                reply.status.as_u16()
            ));
            failure.status = Some(reply.status.as_u16());
            return Err(failure.hint("`quarterdeck doctor` looks for what is wrong"));
        }
    };
    let verdict = Verdict::of(health);
    let database = local::database(&loaded.config).map(|database| database.to_string()).ok();
    let text = |name: &str| health.get(name).and_then(Value::as_str).unwrap_or("unknown").to_owned();
    let seconds = health.get("uptime_seconds").and_then(Value::as_f64).unwrap_or_default();
    let folder = loaded.config.data_dir.display();
    let mut lines = format!("{} {}\n", context.output.mark(verdict.mark()), verdict.text());
    for (name, value) in [
        ("server", format!("{} (version {}, up {})", client.base(), text("version"), duration(seconds))),
        (
            "database",
            format!("{} ({})", database.as_deref().unwrap_or("unknown"), part(health, "persistence")),
        ),
        ("message bus", part(health, "message_bus").to_owned()),
        ("telemetry", text("telemetry")),
        ("data folder", folder.to_string()),
    ] {
        lines.push_str(&format!("  {name:<12} {value}\n"));
    }
    let document = json!({
        "verdict": verdict.text(),
        "healthy": is_healthy(&reply),
        "issues": verdict.issues,
        "url": client.base(),
        "version": env!("CARGO_PKG_VERSION"),
        "data_dir": loaded.config.data_dir,
        "database": database,
        "health": health,
    });
    context.output.result(&lines, &document);
    Ok(if is_healthy(&reply) { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

struct Verdict {
    critical: bool,
    issues: Vec<String>,
}

impl Verdict {
    fn of(health: &Value) -> Self {
        let mut verdict = Self { critical: false, issues: Vec::new() };
        let status = health.get("status").and_then(Value::as_str).unwrap_or("unknown");
        let part = |name: &str| health.get(name).and_then(Value::as_bool);
        match part("persistence") {
            Some(true) => {}
            Some(false) => verdict.critical("the database does not answer"),
            None => verdict.critical("the server runs without a database"),
        }
        if part("message_bus") == Some(false) {
            verdict.issues.push("the message bus does not answer".to_owned());
        }
        if status == "down" || (status != "ok" && verdict.issues.is_empty()) {
            verdict.critical(&format!("the server says it is {status}"));
        }
        verdict
    }

    fn critical(&mut self, issue: &str) {
        self.critical = true;
        self.issues.push(issue.to_owned());
    }

    fn text(&self) -> String {
        match (self.issues.len(), self.critical) {
            (0, _) => "All systems operational".to_owned(),
            (n, true) => format!("CRITICAL: {n} issue(s): {}", self.issues.join("; ")),
            (n, false) => format!("Degraded: {n} issue(s): {}", self.issues.join("; ")),
        }
    }

    fn mark(&self) -> Mark {
        match (self.issues.is_empty(), self.critical) {
            (true, _) => Mark::Good,
            (false, false) => Mark::Note,
            (false, true) => Mark::Bad,
        }
    }
}

fn part(health: &Value, name: &str) -> &'static str {
    match health.get(name).and_then(Value::as_bool) {
        Some(true) => "answers",
        Some(false) => "does not answer",
        None => "not configured",
    }
}

fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{whole} s"),
        (0, 0, _) => format!("{minutes} min {} s", whole % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(health: Value) -> String {
        Verdict::of(&health).text()
    }

    #[test]
    fn the_verdict_counts_what_is_wrong() {
        assert_eq!(
            verdict(json!({"status": "ok", "persistence": true, "message_bus": null})),
            "All systems operational"
        );
        assert_eq!(
            verdict(json!({"status": "degraded", "persistence": true, "message_bus": false})),
            "Degraded: 1 issue(s): the message bus does not answer"
        );
        assert_eq!(
            verdict(json!({"status": "ok", "persistence": null, "message_bus": null})),
            "CRITICAL: 1 issue(s): the server runs without a database"
        );
        let down = verdict(json!({"status": "down", "persistence": false, "message_bus": false}));
        assert!(down.starts_with("CRITICAL: 3 issue(s): the database does not answer; "), "{down}");
        assert!(verdict(json!({"status": "odd", "persistence": true})).starts_with("CRITICAL: 1"));
    }

    #[test]
    fn uptimes_are_read_at_a_glance() {
        for (seconds, text) in
            [(0.4, "0 s"), (59.9, "59 s"), (61.0, "1 min 1 s"), (3660.0, "1 h 1 min"), (90_000.0, "1 d 1 h")]
        {
            assert_eq!(duration(seconds), text);
        }
    }
}
