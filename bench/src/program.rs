//! The real program, on a fresh folder, and somebody signed in.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Failure;

/// Beyond what a run asks.
const LIMIT: &str = "100000000";

/// What is set in a server's environment.
pub(crate) type Variables = &'static [(&'static str, &'static str)];

/// A running server; ends with this value.
pub(crate) struct Program {
    pub(crate) url: String,
    /// Time from start to ready on a folder that already has a database.
    pub(crate) ready_ms: u128,
    variables: Variables,
    process: Child,
    folder: TempDir,
}

/// The first account, with the credentials to compare.
pub(crate) struct Account {
    pub(crate) session: String,
    pub(crate) api_key: String,
    url: String,
}

impl Program {
    /// Starts the program twice, the second time on what the first left, and keeps the second.
    pub(crate) fn start() -> Result<Self, Failure> {
        Self::start_with(&[])
    }

    /// As [`start`](Self::start), with these variables in its environment.
    pub(crate) fn start_with(variables: Variables) -> Result<Self, Failure> {
        let folder = TempDir::new()?;
        let (mut process, _) = spawn(&folder, variables)?;
        terminate(&mut process)?;
        let begun = Instant::now();
        let (process, url) = spawn(&folder, variables)?;
        Ok(Self { url, ready_ms: begun.elapsed().as_millis(), variables, process, folder })
    }

    /// The database file.
    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join("quarterdeck.db")
    }

    /// Stops it, has something done to its database, and starts it again, at another address.
    pub(crate) async fn pause(
        &mut self,
        work: impl AsyncFnOnce(&Path) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        terminate(&mut self.process)?;
        work(&self.database()).await?;
        (self.process, self.url) = spawn(&self.folder, self.variables)?;
        Ok(())
    }

    /// Resident memory, megabytes.
    pub(crate) fn memory_mb(&self) -> Result<u64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? / 1024)
    }

    pub(crate) async fn first_account(&self) -> Result<Account, Failure> {
        Account::first(&self.url).await
    }
}

impl Account {
    /// Makes the first account of the server at this address.
    pub(crate) async fn first(url: &str) -> Result<Self, Failure> {
        let client = reqwest::Client::new();
        let answer = client
            .post(format!("{url}/api/v1/auth/setup"))
            .json(&json!({"username": "bench", "password": "correct horse battery"}))
            .send()
            .await?
            .error_for_status()?;
        let session = answer
            .headers()
            .get_all("set-cookie")
            .iter()
            .filter_map(|line| line.to_str().ok()?.strip_prefix("session=")?.split(';').next())
            .next()
            .ok_or("no session cookie")?
            .to_owned();
        let key: Value = client
            .post(format!("{url}/api/v1/auth/api-keys"))
            .bearer_auth(&session)
            .json(&json!({"name": "bench", "role": "ceo"}))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        let api_key = key["data"]["api_key"].as_str().ok_or("no API key")?.to_owned();
        Ok(Self { session, api_key, url: url.to_owned() })
    }

    /// One-time tickets for WebSockets, of a server of the realtime runs.
    pub(crate) async fn tickets(&self, count: u32) -> Result<Vec<String>, Failure> {
        let request = reqwest::Client::new().post(format!("{}/api/v1/bench/tickets?count={count}", self.url));
        let answer = request.bearer_auth(&self.session).send().await?.error_for_status()?;
        let mut answer: Value = answer.json().await?;
        Ok(serde_json::from_value(answer["data"].take())?)
    }

    /// The bytes every contestant returns.
    pub(crate) async fn me(&self) -> Result<String, Failure> {
        let request = reqwest::Client::new().get(format!("{}/api/v1/auth/me", self.url));
        Ok(request.bearer_auth(&self.session).send().await?.error_for_status()?.text().await?)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = terminate(&mut self.process);
    }
}

fn spawn(folder: &TempDir, variables: Variables) -> Result<(Child, String), Failure> {
    let program = std::env::var("QUARTERDECK_BIN").unwrap_or_else(|_| "target/dist/quarterdeck".to_owned());
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let mut process = Command::new("taskset")
        .args(["-c", "0", &program, "serve", "--port", &port, "--data-dir"])
        .arg(folder.path())
        // The limits decide every request as ever, and let this many pass.
        .env("QUARTERDECK_API__RATE_LIMIT__FLOOR_MAX_REQUESTS", LIMIT)
        .env("QUARTERDECK_API__RATE_LIMIT__AUTH_MAX_REQUESTS", LIMIT)
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        // Lines are made and written, but not kept: a disk is not what is measured.
        .stderr(Stdio::null())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(process.stdout.take().ok_or("no pipe")?).read_line(&mut line)?;
    let url = line.split_whitespace().last().ok_or("the program did not say where it listens")?;
    Ok((process, url.to_owned()))
}

/// Asks a process to end and waits for it.
pub(crate) fn terminate(process: &mut Child) -> Result<(), Failure> {
    Command::new("kill").arg(process.id().to_string()).status()?;
    process.wait()?;
    Ok(())
}
