//! `doctor`: looks for what keeps the server from working. A probe that fails is a line of the report.

use std::io;
use std::net::{TcpListener, ToSocketAddrs};
use std::path::Path;
use std::process::ExitCode;

use quarterdeck_auth::config::validate_secret;
use quarterdeck_domain::clock::SystemClock;
use quarterdeck_limits::{Limiter, RedisOptions};
use quarterdeck_store::latest_version;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::Context;
use crate::client::Client;
use crate::config::{Config, Loaded};
use crate::output::Mark;
use crate::{Failure, local};

/// One line of the report.
struct Finding {
    what: &'static str,
    mark: Mark,
    text: String,
    mend: Option<String>,
}

impl Finding {
    fn good(what: &'static str, text: impl Into<String>) -> Self {
        Self { what, mark: Mark::Good, text: text.into(), mend: None }
    }

    fn note(what: &'static str, text: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { what, mark: Mark::Note, text: text.into(), mend: Some(mend.into()) }
    }

    fn bad(what: &'static str, text: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { what, mark: Mark::Bad, text: text.into(), mend: Some(mend.into()) }
    }

    fn of_failure(what: &'static str, failure: &Failure, mend: &str) -> Self {
        let mend = failure.hint.as_deref().unwrap_or(mend);
        Self::bad(what, failure.message.clone(), mend)
    }

    fn to_json(&self) -> Value {
        let result = match self.mark {
            Mark::Good => "ok",
            Mark::Note => "note",
            Mark::Bad => "failed",
        };
        json!({"check": self.what, "result": result, "text": self.text, "mend": self.mend})
    }
}

pub(super) fn run(context: &Context<'_>) -> Result<ExitCode, Failure> {
    let mut findings = Vec::new();
    match context.load() {
        Ok(loaded) => {
            findings.extend(configuration(&loaded));
            findings.push(data_folder(&loaded.config.data_dir));
            let rest = context.wait(async {
                let server = server(&loaded.config).await;
                let database = database(&loaded.config).await;
                let limits = limits(&loaded.config).await;
                let news = news(&loaded.config).await;
                let secret = secret(&loaded.config, server.is_ours).await;
                let backups = backups(&loaded.config);
                Ok([Some(database), backups, limits, news, Some(secret), Some(server.finding)])
            })?;
            findings.extend(rest.into_iter().flatten());
        }
        Err(failure) => {
            findings.push(Finding::bad(
                "configuration",
                failure.message,
                "mend it; the other checks need it",
            ));
        }
    }
    let mut text = String::new();
    for finding in &findings {
        text.push_str(&format!("{} {}: {}\n", context.output.mark(finding.mark), finding.what, finding.text));
        if let Some(mend) = &finding.mend {
            text.push_str(&format!("    {mend}\n"));
        }
    }
    let failed = findings.iter().filter(|finding| finding.mark == Mark::Bad).count();
    text.push_str(&match failed {
        0 => "Nothing keeps the server from working.\n".to_owned(),
        n => format!("{n} of {} checks failed.\n", findings.len()),
    });
    let findings: Vec<_> = findings.iter().map(Finding::to_json).collect();
    let platform = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    context.output.result(
        &text,
        &json!({
            "healthy": failed == 0,
            "version": env!("CARGO_PKG_VERSION"),
            "platform": platform,
            "checks": findings,
        }),
    );
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn configuration(loaded: &Loaded) -> Vec<Finding> {
    const WHAT: &str = "configuration";
    let read = match &loaded.file {
        Some(file) => format!("valid, read from {}", file.display()),
        None => "valid, nothing but defaults, variables and flags".to_owned(),
    };
    let mut findings = vec![Finding::good(WHAT, read)];
    for text in &loaded.unknown_variables {
        findings.push(Finding::note(WHAT, text.clone(), "remove the variable or correct its name"));
    }
    for warning in loaded.config.api.warnings() {
        findings.push(Finding::note(WHAT, warning.text, "see the section api.server of the configuration"));
    }
    if loaded.config.settings_key.is_none() {
        findings.push(Finding::note(
            WHAT,
            "no settings key: settings with secrets cannot be stored",
            "set QUARTERDECK_SETTINGS_KEY to 32 random bytes, `openssl rand -base64 32 | tr +/ -_`, and keep it safe",
        ));
    }
    findings
}

fn data_folder(folder: &Path) -> Finding {
    const WHAT: &str = "data folder";
    let shown = folder.display();
    let elsewhere = "name another folder with --data-dir or QUARTERDECK_DATA_DIR";
    if !folder.exists() {
        // The nearest folder that exists is where the new one would be made.
        let parent = folder.ancestors().find(|ancestor| ancestor.exists());
        return match parent.map(try_writing) {
            Some(Ok(())) => Finding::good(WHAT, format!("{shown} will be made at the first start")),
            _ => Finding::bad(WHAT, format!("{shown} does not exist and cannot be made"), elsewhere),
        };
    }
    if !folder.is_dir() {
        return Finding::bad(WHAT, format!("{shown} is not a folder"), elsewhere);
    }
    if let Err(e) = try_writing(folder) {
        let mend = format!("give this user the right to write there, or {elsewhere}");
        return Finding::bad(WHAT, format!("{shown} cannot be written to ({e})"), mend);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = folder.metadata().map_or(0, |metadata| metadata.permissions().mode());
        if mode & 0o077 != 0 {
            let text = format!("{shown} can be opened by other users of this machine");
            return Finding::bad(WHAT, text, format!("run `chmod 700 {shown}`"));
        }
    }
    Finding::good(WHAT, format!("{shown} is writable, by its owner only"))
}

fn try_writing(folder: &Path) -> io::Result<()> {
    let probe = folder.join(format!(".quarterdeck-doctor-{}", std::process::id()));
    std::fs::File::create_new(&probe)?;
    std::fs::remove_file(&probe)
}

async fn database(config: &Config) -> Finding {
    const WHAT: &str = "database";
    let database = match local::database(config) {
        Ok(database) => database,
        Err(failure) => return Finding::of_failure(WHAT, &failure, "correct database.url"),
    };
    let shown = database.to_string();
    if local::is_missing(&database) {
        return Finding::good(WHAT, format!("{shown} will be made at the first start"));
    }
    let store = match local::attach(config).await {
        Ok(store) => store,
        Err(failure) => return Finding::of_failure(WHAT, &failure, "check that it runs and may be opened"),
    };
    let version = local::version(&store).await;
    store.close().await;
    match version {
        Ok(version) if version == latest_version() => Finding::good(WHAT, format!("{shown} is up to date")),
        Ok(version) if version > latest_version() => Finding::bad(
            WHAT,
            format!("{shown} was made by a newer version of quarterdeck"),
            "use that version, or restore a backup",
        ),
        Ok(_) => Finding::note(
            WHAT,
            format!("the tables of {shown} are not up to date"),
            "the next start of the server does it, and `quarterdeck migrate` does it now",
        ),
        Err(failure) => Finding::of_failure(WHAT, &failure, "restore a backup"),
    }
}

/// Looks for the programs that backups of PostgreSQL take.
fn backups(config: &Config) -> Option<Finding> {
    const WHAT: &str = "backups";
    config.database.url.as_ref()?;
    Some(match quarterdeck_store::backup::missing_tool() {
        None => Finding::good(WHAT, "PostgreSQL's client programs are installed"),
        Some(name) => Finding::note(
            WHAT,
            format!("{name} is not installed: backups of the database fail"),
            "install PostgreSQL's client programs, of the server's version or newer (Debian: postgresql-client)",
        ),
    })
}

/// Tries a decision in the Redis that is named, if one is.
async fn limits(config: &Config) -> Option<Finding> {
    const WHAT: &str = "limits";
    let url = config.redis_url.as_ref()?;
    let tried =
        async { Limiter::redis(url, RedisOptions::default(), SystemClock::shared()).await?.ping().await };
    Some(match tried.await {
        Ok(()) => Finding::good(WHAT, "the Redis of redis_url counts them"),
        Err(error) => Finding::bad(
            WHAT,
            format!("the Redis of redis_url cannot be used ({})", error.cause().unwrap_or(error.detail())),
            "check that it runs there and lets this user run scripts, or remove redis_url; nobody can sign in \
             without it",
        ),
    })
}

/// Looks for the NATS that is named, if one is.
async fn news(config: &Config) -> Option<Finding> {
    const WHAT: &str = "news";
    let nats = config.communication.message_bus.nats.as_ref()?;
    Some(match quarterdeck_bus::reach_nats(nats).await {
        Ok(()) => Finding::good(WHAT, "NATS carries them between copies of the server"),
        Err(error) => Finding::bad(
            WHAT,
            error.cause().unwrap_or(error.detail()),
            "the server does not start without it; mend that, or remove nats_url",
        ),
    })
}

async fn secret(config: &Config, server_is_ours: bool) -> Finding {
    const WHAT: &str = "signing secret";
    let secret = match local::signing_secret(config).await {
        Ok(Some(secret)) => secret,
        Ok(None) if server_is_ours => {
            return Finding::bad(
                WHAT,
                "a server runs whose secret is not known here",
                "give this command the server's QUARTERDECK_JWT_SECRET, or its --data-dir",
            );
        }
        Ok(None) => return Finding::good(WHAT, "will be made at the first start"),
        Err(failure) => return Finding::of_failure(WHAT, &failure, "mend the database first"),
    };
    if let Err(rule) = validate_secret(&secret) {
        return Finding::bad(WHAT, rule, "set another QUARTERDECK_JWT_SECRET");
    }
    if !server_is_ours {
        return Finding::good(WHAT, "is there");
    }
    let answer = match Client::new(&config.api) {
        Ok(client) => client.get_as_system("/admin/backups", &secret, &config.api).await,
        Err(failure) => Err(failure),
    };
    match answer {
        Ok(reply) if reply.status == StatusCode::UNAUTHORIZED => {
            Finding::of_failure(WHAT, &reply.failure(), "give both the same secret")
        }
        Ok(_) => Finding::good(WHAT, "is the server's"),
        Err(failure) => Finding::of_failure(WHAT, &failure, "ask again when the server answers"),
    }
}

struct Server {
    finding: Finding,
    is_ours: bool,
}

async fn server(config: &Config) -> Server {
    const WHAT: &str = "port";
    let (host, port) = (config.api.server.host.as_str(), config.api.server.port);
    let other = "stop it, or choose another port with --port or QUARTERDECK_API__SERVER__PORT";
    let answer = match Client::new(&config.api) {
        Ok(client) => client.get("/health").await,
        Err(failure) => Err(failure),
    };
    if let Ok(reply) = answer {
        let version = reply.body.as_ref().and_then(|body| body.pointer("/data/version"));
        if let (true, Some(version)) = (reply.status.is_success(), version.and_then(Value::as_str)) {
            let text = format!("a quarterdeck server of version {version} answers on {host}:{port}");
            return Server { finding: Finding::good(WHAT, text), is_ours: true };
        }
        let text = format!("another program answers on {host}:{port}");
        return Server { finding: Finding::bad(WHAT, text, other), is_ours: false };
    }
    let finding = match bind(host, port) {
        Ok(()) => Finding::good(WHAT, format!("{host}:{port} is free; no server runs")),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            Finding::bad(WHAT, format!("{host}:{port} is taken by a program that does not answer"), other)
        }
        Err(e) => Finding::bad(
            WHAT,
            format!("{host}:{port} cannot be listened on ({e})"),
            "choose an address of this machine and a port this user may use",
        ),
    };
    Server { finding, is_ours: false }
}

fn bind(host: &str, port: u16) -> io::Result<()> {
    let addresses: Vec<_> = (host, port).to_socket_addrs()?.collect();
    TcpListener::bind(&addresses[..]).map(drop)
}
