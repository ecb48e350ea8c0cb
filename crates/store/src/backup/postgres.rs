//! A PostgreSQL database: saved by `pg_dump`, replaced by `pg_restore` and `psql` in one transaction.
//!
//! The password goes through the environment of these programs, never through their arguments.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use percent_encoding::percent_decode_str;
use quarterdeck_domain::Result;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::process::Command;

use super::failed;

/// Programs that saving and replacing take.
const TOOLS: [&str; 3] = ["pg_dump", "pg_restore", "psql"];
/// Where Debian and Red Hat keep them, one folder per version.
const FOLDERS: [(&str, &str); 2] = [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")];
/// Most characters of a program's complaint that are logged.
const COMPLAINT: usize = 500;

/// Removes what the schema holds, whatever version made it. What extensions brought along stays; sequences of
/// columns go with their tables.
const CLEAR: &str = "\
SET LOCAL lock_timeout = '60s';
SET LOCAL client_min_messages = warning;
DO $$
DECLARE thing record;
BEGIN
    FOR thing IN
        SELECT format('DROP %s IF EXISTS %I.%I CASCADE', CASE c.relkind WHEN 'v' THEN 'VIEW'
            WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, n.nspname, c.relname) AS sql
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
        AND NOT EXISTS (SELECT 1 FROM pg_depend d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('e', 'i', 'a'))
        UNION ALL
        SELECT format('DROP ROUTINE IF EXISTS %I.%I(%s) CASCADE', n.nspname, p.proname,
            pg_get_function_identity_arguments(p.oid))
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = current_schema()
        AND NOT EXISTS (SELECT 1 FROM pg_depend d
            WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
    LOOP
        EXECUTE thing.sql;
    END LOOP;
END $$;
";

/// The first program that is not installed.
pub fn missing_tool() -> Option<&'static str> {
    TOOLS.into_iter().find(|name| !is_installed(name))
}

fn is_installed(name: &str) -> bool {
    let found = std::process::Command::new(tool(name))
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    found.is_ok_and(|status| status.success())
}

/// The newest installed one, because an old one refuses a newer server; else whatever is on the path.
fn tool(name: &str) -> PathBuf {
    let mut found: Vec<(f64, PathBuf)> = Vec::new();
    for (folder, prefix) in FOLDERS {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let version = entry.file_name();
            let version = version.to_str().and_then(|text| text.strip_prefix(prefix)?.parse().ok());
            let program = entry.path().join("bin").join(name);
            if let (Some(version), true) = (version, program.is_file()) {
                found.push((version, program));
            }
        }
    }
    let newest = found.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
    newest.map_or_else(|| name.into(), |(_, program)| program)
}

fn command(name: &str, options: Option<&PgConnectOptions>) -> Command {
    let mut command = Command::new(tool(name));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    for variable in ["PGSERVICE", "PGOPTIONS", "PGHOSTADDR"] {
        command.env_remove(variable);
    }
    let Some(options) = options else { return command };
    match options.get_socket() {
        Some(folder) => command.env("PGHOST", folder),
        None => command.env("PGHOST", options.get_host()),
    };
    command
        .env("PGPORT", options.get_port().to_string())
        .env("PGUSER", options.get_username())
        .env("PGDATABASE", options.get_database().unwrap_or(options.get_username()))
        .env("PGSSLMODE", ssl_mode(options.get_ssl_mode()))
        .env("PGAPPNAME", options.get_application_name().unwrap_or("quarterdeck"))
        .env("PGCONNECT_TIMEOUT", "10");
    if let Some(password) = options.to_url_lossy().password() {
        command.env("PGPASSWORD", &*percent_decode_str(password).decode_utf8_lossy());
    }
    command
}

fn ssl_mode(mode: PgSslMode) -> &'static str {
    match mode {
        PgSslMode::Disable => "disable",
        PgSslMode::Allow => "allow",
        PgSslMode::Prefer => "prefer",
        PgSslMode::Require => "require",
        PgSslMode::VerifyCa => "verify-ca",
        PgSslMode::VerifyFull => "verify-full",
    }
}

/// Runs a program to its end; its complaint, which holds no password, when it fails.
async fn run(name: &str, mut command: Command) -> std::result::Result<(), String> {
    let output = command.output().await.map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => format!(
            "{name} is not installed; install PostgreSQL's client programs, of the server's version or newer \
             (Debian: postgresql-client)"
        ),
        _ => format!("{name} cannot be run ({e})"),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let complaint: String = String::from_utf8_lossy(&output.stderr).chars().take(COMPLAINT).collect();
    Err(format!("{name} failed: {}", complaint.trim()))
}

pub(super) async fn save(options: &PgConnectOptions, to: &Path) -> Result<()> {
    let mut dump = command("pg_dump", Some(options));
    dump.args(["--format=custom", "--no-owner", "--no-privileges", "--no-password", "--file"]).arg(to);
    run("pg_dump", dump).await.map_err(failed)
}

pub(super) async fn check(saved: &Path) -> std::result::Result<(), String> {
    let mut list = command("pg_restore", None);
    list.arg("--list").arg(saved);
    run("pg_restore", list).await
}

/// Writes the archive as SQL.
pub(super) async fn prepare(saved: &Path, work: &Path) -> Result<()> {
    let mut restore = command("pg_restore", None);
    restore.args(["--no-owner", "--no-privileges", "--file"]).arg(script(work)).arg(saved);
    run("pg_restore", restore).await.map_err(failed)
}

/// All in one transaction: when it fails, nothing has changed.
pub(super) async fn replace(options: &PgConnectOptions, work: &Path) -> Result<()> {
    let mut psql = command("psql", Some(options));
    psql.args(["--no-psqlrc", "--quiet", "--no-password", "--single-transaction", "--set=ON_ERROR_STOP=1"])
        .args([OsStr::new("--command"), OsStr::new(CLEAR), OsStr::new("--file")])
        .arg(script(work));
    run("psql", psql).await.map_err(failed)
}

fn script(work: &Path) -> PathBuf {
    work.join("quarterdeck.sql")
}
