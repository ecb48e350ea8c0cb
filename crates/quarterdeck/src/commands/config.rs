//! `config`: what is configured, and whether it holds.

use std::process::ExitCode;

use quarterdeck_domain::setting::{MASK, Registry};
use serde_json::{Map, Value, json};

use super::Context;
use crate::Failure;
use crate::cli::ConfigCommand;
use crate::config::Source;

pub(super) fn run(context: &Context<'_>, command: &ConfigCommand) -> Result<ExitCode, Failure> {
    match command {
        ConfigCommand::Show => show(context),
        ConfigCommand::Check => check(context),
    }
}

fn show(context: &Context<'_>) -> Result<ExitCode, Failure> {
    let loaded = context.load()?;
    let mut text = match &loaded.file {
        Some(file) => format!("# read from {}\n", file.display()),
        None => "# no configuration file\n".to_owned(),
    };
    let mut values = Map::new();
    for (name, value) in loaded.shown() {
        let source = loaded.source(&name);
        let note = if *source == Source::Default { String::new() } else { format!("  # {source}") };
        text.push_str(&format!("{name} = {value}{note}\n"));
        values.insert(name, json!({"value": value, "source": source.to_string()}));
    }
    let registry = Registry::of_this_program().map_err(Failure::runtime)?;
    let mut settings = Map::new();
    for (variable, value) in &loaded.setting_environment {
        let definition = registry.definitions().iter().find(|definition| definition.env_name() == *variable);
        let shown = match definition {
            Some(definition) if !definition.sensitive => value,
            _ => MASK,
        };
        let name = definition.map_or_else(|| variable.clone(), |definition| definition.id());
        text.push_str(&format!("setting {name} = {}  # {variable}\n", Value::from(shown)));
        settings.insert(name, json!({"value": shown, "source": variable}));
    }
    let document = json!({"file": loaded.file, "values": values, "settings": settings});
    context.output.result(&text, &document);
    Ok(ExitCode::SUCCESS)
}

fn check(context: &Context<'_>) -> Result<ExitCode, Failure> {
    let loaded = context.load()?;
    let api = &loaded.config.api;
    let warnings: Vec<_> = api.warnings().into_iter().map(|warning| warning.text).collect();
    let mut text = String::new();
    for warning in &warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text.push_str("The configuration is valid.\n");
    let warnings: Vec<_> = loaded.unknown_variables.iter().chain(&warnings).collect();
    context.output.result(&text, &json!({"valid": true, "file": loaded.file, "warnings": warnings}));
    Ok(ExitCode::SUCCESS)
}
