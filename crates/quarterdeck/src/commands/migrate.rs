//! `migrate`: brings the database's tables up to date.

use std::process::ExitCode;

use quarterdeck_store::Store;
use serde_json::json;

use super::Context;
use crate::config::create_data_dir;
use crate::{Failure, local};

pub(super) fn run(context: &Context<'_>) -> Result<ExitCode, Failure> {
    let loaded = context.load()?;
    let folder = &loaded.config.data_dir;
    create_data_dir(folder).map_err(|e| {
        Failure::runtime(format!("the data folder {} cannot be made ({e})", folder.display()))
            .hint("name another with --data-dir")
    })?;
    let database = local::database(&loaded.config)?;
    let name = database.to_string();
    let migrations = context.wait(async {
        let store = Store::open(database).await?;
        let migrations = store.applied_migrations().await;
        store.close().await;
        Ok(migrations?)
    })?;
    let names: Vec<_> = migrations.iter().map(|migration| migration.name.as_str()).collect();
    let text = format!("{name} is up to date (migration {}).\n", names.last().unwrap_or(&"none"));
    context.output.result(&text, &json!({"database": name, "migrations": names}));
    Ok(ExitCode::SUCCESS)
}
