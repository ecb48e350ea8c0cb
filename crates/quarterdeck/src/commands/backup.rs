//! `backup`: made, listed and put back by the running server; checked here; in the place of a stopped server
//! with `--local`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use quarterdeck_domain::audit::Actor;
use quarterdeck_domain::backup::{BackupId, Component, Manifest, Trigger};
use quarterdeck_work::backups::{Restore, Restored, export, find, inspect};
use reqwest::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Context;
use crate::cli::{BackupArgs, BackupCommand, BackupSort, CreateArgs, ListArgs, RestoreArgs};
use crate::client::{Client, Reply};
use crate::config::Loaded;
use crate::{Failure, backups, local, process};

const BACKUPS: &str = "/admin/backups";
const PAGE: usize = 200;
/// Longest wait for an answer that takes no work.
const SHORT: Duration = Duration::from_secs(5);

pub(super) fn run(context: &Context<'_>, arguments: &BackupArgs) -> Result<ExitCode, Failure> {
    match &arguments.command {
        None => create(context, &arguments.create),
        Some(BackupCommand::Create(arguments)) => create(context, arguments),
        Some(BackupCommand::List(arguments)) => list(context, arguments),
        Some(BackupCommand::Verify { backup }) => verify(context, backup),
        Some(BackupCommand::Restore(arguments)) => restore(context, arguments),
        Some(BackupCommand::Delete { id }) => delete(context, id),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// An id, checked before anything is asked for.
fn id(text: &str) -> Result<BackupId, Failure> {
    BackupId::parse(text).map_err(|_| {
        Failure::usage("the id of a backup is 12 hex digits").hint("`quarterdeck backup list` shows them")
    })
}

/// A way to the server as the system user.
struct Server {
    client: Client,
    secret: SecretString,
    loaded: Loaded,
}

impl Server {
    async fn of(loaded: Loaded) -> Result<Self, Failure> {
        let client = Client::new(&loaded.config.api)?;
        let Some(secret) = local::signing_secret(&loaded.config).await? else {
            // Where no server runs, that is what is wrong.
            client.get("/health").await?;
            return Err(Failure::runtime("the server's signing secret is not known here")
                .hint("give this command the server's QUARTERDECK_JWT_SECRET, or its --data-dir"));
        };
        Ok(Self { client, secret, loaded })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        timeout: Duration,
    ) -> Result<Value, Failure> {
        // Sent anew by whatever is in between, a request does nothing twice.
        let key = (method == Method::POST).then(|| Uuid::new_v4().to_string());
        let call = self.client.as_system(method, path, &self.secret, &self.loaded.config.api);
        let reply: Reply = call?.body(body).idempotency_key(key).within(timeout).send().await?;
        if reply.status.is_success() {
            return Ok(reply.body.unwrap_or_default());
        }
        let failure = reply.failure();
        Err(match reply.status {
            StatusCode::NOT_FOUND => failure.hint("`quarterdeck backup list` shows which there are"),
            _ => failure,
        })
    }
}

fn create(context: &Context<'_>, arguments: &CreateArgs) -> Result<(), Failure> {
    let loaded = context.load()?;
    if let Some(to) = &arguments.output {
        make_room(context, to)?;
    }
    let document = context.wait(async {
        let (document, root) = if arguments.local {
            let actor = Actor::system("backup.local");
            let made = backups::in_place_of_the_server(&loaded, async |backups| {
                Ok(backups.create(&actor, Trigger::Manual, None).await?)
            });
            let (manifest, root) = made.await?;
            (shown(&manifest), root)
        } else {
            let root = match &arguments.output {
                Some(_) => backups::root(&loaded).await?,
                None => Default::default(),
            };
            let server = Server::of(loaded).await?;
            let mut answer = server.send(Method::POST, BACKUPS, None, arguments.timeout).await?;
            (answer["data"].take(), root)
        };
        if let Some(to) = &arguments.output {
            let made = id(document["backup_id"].as_str().unwrap_or_default())?;
            export(&root, &made, to).await?;
        }
        Ok(document)
    })?;
    let text = |name: &str| document[name].as_str().unwrap_or_default().to_owned();
    let mut lines = format!("Made the backup {} of {}.\n", text("backup_id"), parts(&document));
    if let Some(to) = &arguments.output {
        lines.push_str(&format!("A copy is in {}.\n", to.display()));
    }
    context.output.result(&lines, &document);
    Ok(())
}

/// A file that exists is replaced only on demand.
fn make_room(context: &Context<'_>, to: &Path) -> Result<(), Failure> {
    if !to.exists() {
        return Ok(());
    }
    if !context.cli.global.yes || !to.is_file() {
        return Err(Failure::usage(format!("{} exists", to.display())).hint("--yes replaces a file"));
    }
    std::fs::remove_file(to)
        .map_err(|e| Failure::runtime(format!("{} cannot be replaced ({e})", to.display())))
}

fn parts(document: &Value) -> String {
    let names = document["components"].as_array().into_iter().flatten().filter_map(Value::as_str);
    names.collect::<Vec<_>>().join(", ")
}

fn shown(manifest: &Manifest) -> Value {
    json!({
        "synthorg_version": manifest.synthorg_version,
        "timestamp": manifest.timestamp,
        "trigger": manifest.trigger,
        "components": manifest.components,
        "size_bytes": manifest.size_bytes,
        "checksum": manifest.checksum,
        "backup_id": manifest.backup_id,
    })
}

fn list(context: &Context<'_>, arguments: &ListArgs) -> Result<(), Failure> {
    let loaded = context.load()?;
    let mut all = context.wait(async {
        let server = Server::of(loaded).await?;
        let mut all = Vec::new();
        loop {
            let path = format!("{BACKUPS}?offset={}&limit={PAGE}", all.len());
            let mut answer = server.send(Method::GET, &path, None, SHORT).await?;
            let total = answer.pointer("/pagination/total").and_then(Value::as_u64).unwrap_or_default();
            let page = answer["data"].as_array_mut().map(std::mem::take).unwrap_or_default();
            let at_end = page.is_empty();
            all.extend(page);
            if at_end || all.len() as u64 >= total {
                return Ok(all);
            }
        }
    })?;
    // The server's order is newest first, those of one moment by id; sorting keeps it among equals.
    match arguments.sort {
        BackupSort::Newest => {}
        BackupSort::Oldest => all.reverse(),
        BackupSort::Size => all.sort_by_key(|backup| std::cmp::Reverse(backup["size_bytes"].as_u64())),
    }
    if arguments.limit > 0 {
        all.truncate(arguments.limit as usize);
    }
    let mut text = format!("{:<12} {:<32} {:<13} {:>14}  COMPONENTS\n", "ID", "TIME", "TRIGGER", "BYTES");
    for backup in &all {
        let member = |name: &str| backup[name].as_str().unwrap_or_default().to_owned();
        text.push_str(&format!(
            "{:<12} {:<32} {:<13} {:>14}  {}\n",
            member("backup_id"),
            member("timestamp"),
            member("trigger"),
            backup["size_bytes"].as_u64().unwrap_or_default(),
            parts(backup)
        ));
    }
    if all.is_empty() {
        text = "There are no backups.\n".to_owned();
        context.output.note("warning: nothing is saved; `quarterdeck backup create` makes a backup");
    }
    context.output.result(&text, &Value::Array(all));
    Ok(())
}

fn verify(context: &Context<'_>, backup: &str) -> Result<(), Failure> {
    let as_file = Path::new(backup);
    let (path, loaded) = match BackupId::parse(backup) {
        Ok(_) if !as_file.exists() => (None, Some(context.load()?)),
        _ if as_file.exists() => (Some(as_file.to_owned()), None),
        _ => return Err(Failure::usage("name a backup by its id, or the path of an archive or folder")),
    };
    let manifest = context.wait(async {
        let path = match (path, loaded) {
            (Some(path), _) => path,
            (None, Some(loaded)) => find(&backups::root(&loaded).await?, &id(backup)?)?,
            (None, None) => return Err(Failure::usage("name a backup")),
        };
        let work = std::env::temp_dir().join(format!("quarterdeck-verify-{}", Uuid::new_v4().simple()));
        Ok(inspect(&path, &work).await?)
    })?;
    let document = shown(&manifest);
    let text = format!(
        "The backup {} of {} is sound. It holds {}.\n",
        manifest.backup_id,
        manifest.timestamp,
        parts(&document)
    );
    context.output.result(&text, &document);
    Ok(())
}

fn restore(context: &Context<'_>, arguments: &RestoreArgs) -> Result<(), Failure> {
    let wanted = id(&arguments.id)?;
    let loaded = context.load()?;
    if arguments.dry_run {
        return would_restore(context, &loaded, &wanted, arguments);
    }
    if !arguments.confirm {
        return Err(Failure::usage("a restore replaces what is there; say --confirm")
            .hint("--dry-run shows what would be restored"));
    }
    if arguments.local {
        let actor = Actor::system("backup.local");
        let request = Restore {
            backup_id: wanted.to_string(),
            components: (!arguments.components.is_empty()).then(|| arguments.components.clone()),
            confirm: true,
        };
        let restored = context.wait(backups::in_place_of_the_server(&loaded, async |backups| {
            Ok(backups.restore(&actor, request, None).await?)
        }));
        let (Restored { manifest, restored_components, safety_backup_id }, _) = restored?;
        let document = json!({
            "manifest": shown(&manifest), "restored_components": restored_components,
            "safety_backup_id": safety_backup_id, "restart_required": true,
        });
        report(context, &document, "Start the server with `quarterdeck serve`.");
        return Ok(());
    }
    let database = local::database(&loaded.config)?;
    let components = if arguments.components.is_empty() { Value::Null } else { json!(arguments.components) };
    let body = json!({"backup_id": wanted, "components": components, "confirm": true});
    let (document, stopped) = context.wait(async {
        let server = Server::of(loaded).await?;
        let path = format!("{BACKUPS}/restore");
        let mut answer = server.send(Method::POST, &path, Some(&body), arguments.timeout).await?;
        let stopped = match arguments.no_restart {
            true => Ok(false),
            false => process::stop_server(&database).await,
        };
        Ok((answer["data"].take(), stopped))
    })?;
    let next = match stopped {
        Ok(true) => "The server has stopped; start it with `quarterdeck serve`.",
        _ => "The server answers nothing else until it is started anew.",
    };
    report(context, &document, next);
    stopped
        .map(drop)
        .map_err(|failure| failure.hint("the backup is restored; stop the server and start it again"))
}

fn report(context: &Context<'_>, document: &Value, next: &str) {
    let restored = json!({"components": document["restored_components"]});
    let text = format!(
        "Restored {} of the backup {}. What was there before is the backup {}.\n",
        parts(&restored),
        document.pointer("/manifest/backup_id").and_then(Value::as_str).unwrap_or_default(),
        document["safety_backup_id"].as_str().unwrap_or_default()
    );
    context.output.result(&text, document);
    context.output.note(next);
}

fn would_restore(
    context: &Context<'_>,
    loaded: &Loaded,
    wanted: &BackupId,
    arguments: &RestoreArgs,
) -> Result<(), Failure> {
    let manifest = context.wait(async {
        let path = find(&backups::root(loaded).await?, wanted)?;
        let work = std::env::temp_dir().join(format!("quarterdeck-verify-{}", Uuid::new_v4().simple()));
        Ok(inspect(&path, &work).await?)
    })?;
    let chosen =
        |component: &Component| arguments.components.is_empty() || arguments.components.contains(component);
    let components: Vec<_> = manifest.components.iter().filter(|component| chosen(component)).collect();
    let document = json!({"manifest": shown(&manifest), "components": components, "dry_run": true});
    let text = format!("The backup {wanted} is sound; {} would be restored.\n", parts(&document));
    context.output.result(&text, &document);
    Ok(())
}

fn delete(context: &Context<'_>, text: &str) -> Result<(), Failure> {
    let wanted = id(text)?;
    let loaded = context.load()?;
    context.wait(async {
        let server = Server::of(loaded).await?;
        server.send(Method::DELETE, &format!("{BACKUPS}/{wanted}"), None, SHORT).await
    })?;
    context.output.result(&format!("Removed the backup {wanted}.\n"), &json!({"deleted": wanted}));
    Ok(())
}
