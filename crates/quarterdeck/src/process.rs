//! The process of a server that uses the same database file.

use std::time::{Duration, Instant};

use quarterdeck_store::Database;
use quarterdeck_store::backup::{Holder, holder};

use crate::Failure;

/// Longest wait for a server to stop: what its parts may take together.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(100);

/// Stops the server of this database file and waits for its end; `false` when none runs.
pub(crate) async fn stop_server(database: &Database) -> Result<bool, Failure> {
    let Some(Holder { process }) = holder(database) else { return Ok(false) };
    let by_hand = || Failure::runtime(format!("a server uses {database}; stop it first"));
    let process = process.filter(|process| is_ours(*process)).ok_or_else(by_hand)?;
    terminate(process).ok_or_else(by_hand)?;
    let begun = Instant::now();
    while holder(database).is_some() {
        if begun.elapsed() > PATIENCE {
            return Err(Failure::runtime(format!("the server (process {process}) does not stop"))
                .hint("stop it by hand and try again"));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(true)
}

/// A number read from a file may be another process's by now, or that of another container.
#[cfg(target_os = "linux")]
fn is_ours(process: u32) -> bool {
    let name = |path: std::path::PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let theirs = std::fs::read_link(format!("/proc/{process}/exe")).ok().and_then(name);
    let ours = std::env::current_exe().ok().and_then(name);
    let bare = |name: Option<String>| name.map(|name| name.trim_end_matches(" (deleted)").to_owned());
    theirs.is_some() && bare(theirs) == bare(ours)
}

#[cfg(not(target_os = "linux"))]
fn is_ours(_: u32) -> bool {
    true
}

#[cfg(unix)]
fn terminate(process: u32) -> Option<()> {
    let process = rustix::process::Pid::from_raw(i32::try_from(process).ok()?)?;
    rustix::process::kill_process(process, rustix::process::Signal::TERM).ok()
}

#[cfg(not(unix))]
fn terminate(_: u32) -> Option<()> {
    None
}
