//! `wipe`: deletes the data folder, after a backup and a question.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use chrono::Utc;
use quarterdeck_domain::audit::Actor;
use quarterdeck_domain::backup::Trigger;
use quarterdeck_work::backups::export;
use serde_json::json;

use super::Context;
use crate::cli::WipeArgs;
use crate::client::Client;
use crate::config::{Loaded, named_data_dir};
use crate::{Failure, backups, local, process};

/// What marks a folder as one of this program; the last to go, so that a wipe that broke off can be repeated.
const MARKS: [&str; 3] = ["quarterdeck.db", "quarterdeck.toml", "config.json"];
const NOTHING: &str = "Nothing was changed.";

pub(super) fn run(context: &Context<'_>, arguments: &WipeArgs) -> Result<ExitCode, Failure> {
    // It must work with a configuration that is broken.
    let loaded = context.load();
    let folder = folder(context, &loaded)?;
    if fs::symlink_metadata(&folder).is_err() {
        context.output.result(
            &format!("There is no data folder {}: nothing to wipe.\n", folder.display()),
            &json!({"data_dir": folder, "wiped": false}),
        );
        return Ok(ExitCode::SUCCESS);
    }
    check(&folder, loaded.as_ref().ok())?;
    if arguments.dry_run {
        show(context, &folder, loaded.as_ref(), arguments)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(target) = agree(context, arguments, &folder)? else {
        context.output.note(NOTHING);
        return Ok(ExitCode::SUCCESS);
    };
    let stopped = match &loaded {
        Ok(loaded) => context.wait(stop(loaded))?,
        Err(_) => false,
    };
    if stopped {
        context.output.note("The server has stopped.");
    }
    if let Some(target) = &target {
        save(context, loaded, target)?;
    }
    let kept = delete(&folder)?;
    let mut text = format!("Deleted {}.\n", folder.display());
    if let Some(kept) = &kept {
        text = format!(
            "Deleted what is in {}, but for the running program {}.\n",
            folder.display(),
            kept.display()
        );
    }
    context.output.result(&text, &json!({"data_dir": folder, "wiped": true, "backup": target, "kept": kept}));
    context.output.note("Start anew with `quarterdeck serve`.");
    Ok(ExitCode::SUCCESS)
}

/// The folder as it was named: a link is not followed.
fn folder(context: &Context<'_>, loaded: &Result<Loaded, Failure>) -> Result<PathBuf, Failure> {
    let named = match loaded {
        Ok(loaded) if *loaded.source("data_dir") == crate::config::Source::File => {
            Some(loaded.config.data_dir.clone())
        }
        _ => named_data_dir(context.environment, &context.cli.flags()),
    };
    let named = named.ok_or_else(|| Failure::runtime("there is no data folder; name one with --data-dir"))?;
    let refuse = |why: &str| Err(Failure::runtime(format!("{} is not wiped: {why}", named.display())));
    if named.components().any(|part| part == Component::ParentDir) {
        return refuse("its path contains ..");
    }
    let Ok(folder) = std::path::absolute(&named) else { return refuse("it is no path") };
    if folder.parent().is_none() || folder.file_name().is_none() {
        return refuse("it is the root of a file system");
    }
    Ok(folder)
}

fn check(folder: &Path, loaded: Option<&Loaded>) -> Result<(), Failure> {
    let refuse = |why: &str| {
        Err(Failure::runtime(format!("{} is not wiped: {why}", folder.display()))
            .hint("name the data folder with --data-dir"))
    };
    let metadata = fs::symlink_metadata(folder)
        .map_err(|e| Failure::runtime(format!("{} cannot be looked at ({e})", folder.display())))?;
    if metadata.is_symlink() {
        return refuse("it is a link; name the folder it leads to");
    }
    if !metadata.is_dir() {
        return refuse("it is not a folder");
    }
    let database = loaded.and_then(|loaded| match local::database(&loaded.config) {
        Ok(quarterdeck_store::Database::Sqlite { path, .. }) => Some(path),
        _ => None,
    });
    let is_empty = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    let is_marked = MARKS.iter().any(|mark| folder.join(mark).is_file());
    let real = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let holds_database = database.is_some_and(|path| path.is_file() && path.starts_with(real));
    if is_empty || is_marked || holds_database {
        return Ok(());
    }
    refuse("it holds no database and no configuration of quarterdeck")
}

fn show(
    context: &Context<'_>,
    folder: &Path,
    loaded: Result<&Loaded, &Failure>,
    arguments: &WipeArgs,
) -> Result<(), Failure> {
    let entries = names(folder)?;
    let database = loaded.ok().and_then(|loaded| local::database(&loaded.config).ok());
    let database = database.map_or_else(|| "(unavailable)".to_owned(), |database| database.to_string());
    let backup = if arguments.no_backup { "no" } else { "yes" };
    let mut text = format!(
        "data folder  {}\ndatabase     {database}\nbackup       {backup}\nThis would be deleted:\n",
        folder.display()
    );
    for name in &entries {
        text.push_str(&format!("  {name}\n"));
    }
    let document = json!({
        "dry_run": true, "data_dir": folder, "database": database, "backup": !arguments.no_backup,
        "entries": entries,
    });
    context.output.result(&text, &document);
    Ok(())
}

fn names(folder: &Path) -> Result<Vec<String>, Failure> {
    let entries = fs::read_dir(folder)
        .map_err(|e| Failure::runtime(format!("{} cannot be read ({e})", folder.display())))?;
    let mut names: Vec<_> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// What the person wants: `None` to leave everything as it is, else the file for a backup, if one is wanted.
fn agree(
    context: &Context<'_>,
    arguments: &WipeArgs,
    folder: &Path,
) -> Result<Option<Option<PathBuf>>, Failure> {
    let usual = format!("quarterdeck-backup-{}.tar.gz", Utc::now().format("%Y%m%d-%H%M%S"));
    let usual = std::env::current_dir().unwrap_or_default().join(usual);
    let target = arguments.output.clone().unwrap_or(usual);
    let asks = !context.cli.global.yes;
    if asks && (!io::stdin().is_terminal() || context.output.is_json()) {
        return Err(
            Failure::usage("there is no terminal to ask on").hint("--yes answers every question with yes")
        );
    }
    let mut target = (!arguments.no_backup).then_some(target);
    if asks && target.is_some() {
        match ask("Make a backup first? [Y/n] ")?.to_lowercase().as_str() {
            "" | "y" | "yes" => {}
            "n" | "no" => target = None,
            _ => return Ok(None),
        }
    }
    if let Some(file) = &mut target {
        if asks && arguments.output.is_none() {
            let answer = ask(&format!("Where to? [{}] ", file.display()))?;
            if !answer.is_empty() {
                *file = answer.into();
            }
        }
        let Some(file) = outside(file, folder)? else {
            return Err(Failure::usage("the backup must lie outside the data folder"));
        };
        if file.exists() && asks && !matches!(ask("It exists. Replace it? [y/N] ")?.as_str(), "y" | "yes") {
            return Ok(None);
        }
        target = Some(file);
    }
    if asks {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let words = format!("wipe {name}");
        if ask(&format!("Type `{words}` to delete everything in {}: ", folder.display()))? != words {
            return Ok(None);
        }
    }
    Ok(Some(target))
}

/// The file's absolute path, unless it lies inside the folder.
fn outside(file: &Path, folder: &Path) -> Result<Option<PathBuf>, Failure> {
    let file =
        std::path::absolute(file).map_err(|e| Failure::usage(format!("no path for the backup ({e})")))?;
    let above = file.parent().and_then(|above| above.canonicalize().ok());
    let above = above.ok_or_else(|| Failure::usage("the folder for the backup does not exist"))?;
    let inside = folder.canonicalize().is_ok_and(|folder| above.starts_with(folder));
    Ok((!inside).then_some(file))
}

fn ask(question: &str) -> Result<String, Failure> {
    let mut answer = String::new();
    let _ = write!(io::stderr(), "{question}");
    io::stdin()
        .read_line(&mut answer)
        .map_err(|e| Failure::runtime(format!("no answer can be read ({e})")))?;
    Ok(answer.trim().to_owned())
}

async fn stop(loaded: &Loaded) -> Result<bool, Failure> {
    let database = local::database(&loaded.config)?;
    if process::stop_server(&database).await? {
        return Ok(true);
    }
    // A server on PostgreSQL leaves no trace in the folder, but it may answer.
    let is_there = loaded.config.database.url.is_some()
        && Client::new(&loaded.config.api)?.get("/healthz").await.is_ok();
    if is_there { Err(Failure::runtime("a server is running; stop it first")) } else { Ok(false) }
}

fn save(context: &Context<'_>, loaded: Result<Loaded, Failure>, target: &Path) -> Result<(), Failure> {
    let failed = |failure: Failure| {
        let message = format!("no backup could be made, so nothing was deleted: {}", failure.message);
        Failure { message, ..failure }.hint("--no-backup deletes without one")
    };
    let loaded = loaded.map_err(failed)?;
    if local::is_missing(&local::database(&loaded.config)?) {
        context.output.note("There is no database yet, so there is nothing to back up.");
        return Ok(());
    }
    let actor = Actor::system("backup.wipe");
    let saved = context.wait(async {
        let made = backups::in_place_of_the_server(&loaded, async |backups| {
            Ok(backups.create(&actor, Trigger::Manual, None).await?)
        });
        let (manifest, root) = made.await?;
        if target.exists() {
            fs::remove_file(target)
                .map_err(|e| Failure::runtime(format!("{} cannot be replaced ({e})", target.display())))?;
        }
        export(&root, &manifest.backup_id, target).await?;
        Ok(())
    });
    saved.map_err(failed)?;
    context.output.note(&format!("The backup is in {}.", target.display()));
    Ok(())
}

/// Deletes a folder, links in it unfollowed; the running program stays, and is given back, when it lies inside.
fn delete(folder: &Path) -> Result<Option<PathBuf>, Failure> {
    let real = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let program = std::env::current_exe().and_then(|path| path.canonicalize()).ok();
    let program = program.filter(|program| program.starts_with(&real));
    let deleted = empty(&real, program.as_deref()).and_then(|()| match program {
        Some(_) => Ok(()),
        None => fs::remove_dir(folder),
    });
    deleted.map_err(|e| {
        Failure::runtime(format!("{} is deleted in part only ({e})", folder.display()))
            .hint("mend that and wipe again, or delete the rest by hand")
    })?;
    Ok(program)
}

fn empty(folder: &Path, program: Option<&Path>) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(|entry| MARKS.iter().any(|mark| entry.file_name() == *mark));
    for entry in entries {
        let path = entry.path();
        if program == Some(&*path) {
            continue;
        }
        if !entry.file_type()?.is_dir() {
            fs::remove_file(path)?;
        } else if program.is_some_and(|program| program.starts_with(&path)) {
            empty(&path, program)?;
        } else {
            fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}
