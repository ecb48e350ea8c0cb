//! A database file: copied by SQLite itself, replaced by renaming.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quarterdeck_domain::Result;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use super::failed;
use crate::latest_version;

/// Ending of what a restore puts in the place of the file, and of what was there before.
const NEXT: &str = ".restore-new";
const BEFORE: &str = ".restore-old";
/// The log of the latter.
const BEFORE_LOG: &str = ".restore-old-wal";

/// The file beside a database with this ending.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// One statement reads in one transaction, so the copy is the state of one moment; it has no log beside it.
pub(super) async fn save(from: &Path, to: &Path) -> Result<()> {
    let done = async {
        let mut live = open(from).await?;
        let target = to.to_string_lossy().into_owned();
        sqlx::query("VACUUM INTO ?").bind(target).execute(&mut live).await?;
        live.close().await
    };
    done.await.map_err(|e| failed(format_args!("the database cannot be copied ({e})")))?;
    secure(to).map_err(|e| failed(format_args!("the copy of the database cannot be kept ({e})")))
}

async fn open(path: &Path) -> sqlx::Result<SqliteConnection> {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .read_only(true)
        .busy_timeout(Duration::from_secs(5))
        .connect()
        .await
}

/// For the owner alone, and on the disk.
fn secure(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    File::options().write(true).open(path)?.sync_all()
}

/// Migration a database file is at.
///
/// # Errors
/// When it is no database of this program.
async fn version(path: &Path) -> std::result::Result<i64, String> {
    let asked = async {
        let mut connection = open(path).await?;
        let version = sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM schema_migrations");
        let version = version.fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok::<i64, sqlx::Error>(version)
    };
    asked.await.map_err(|e| format!("the saved database cannot be read ({e})"))
}

/// Whether a copy is sound, and not of a newer program.
pub(super) async fn check(path: &Path) -> std::result::Result<(), String> {
    let asked = async {
        let mut connection = open(path).await?;
        let found = sqlx::query_scalar::<_, String>("PRAGMA integrity_check(1)");
        let found = found.fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(found)
    };
    match asked.await {
        Ok(found) if found == "ok" => {}
        Ok(found) => return Err(format!("the saved database is corrupt ({found})")),
        Err(e) => return Err(format!("the saved database cannot be checked ({e})")),
    }
    let version = version(path).await?;
    if version > latest_version() {
        return Err(format!("the saved database is of a newer version (migration {version})"));
    }
    Ok(())
}

pub(super) async fn prepare(saved: &Path, live: &Path) -> Result<()> {
    let (from, to) = (saved.to_owned(), beside(live, NEXT));
    let prepared = to.clone();
    let copied = tokio::task::spawn_blocking(move || {
        for ending in ["", "-wal", "-shm", "-journal"] {
            remove(&beside(&to, ending))?;
        }
        fs::copy(&from, &to)?;
        secure(&to)
    });
    let copied = copied.await.unwrap_or_else(|e| Err(io::Error::other(e)));
    copied.map_err(|e| failed(format_args!("the saved database cannot be put beside the live one ({e})")))?;
    check(&prepared).await.map_err(failed)
}

pub(super) async fn swap(live: &Path) -> Result<()> {
    let swapped = move_aside(live).and_then(|()| {
        fs::rename(beside(live, NEXT), live)?;
        sync_folder(live)
    });
    let outcome = match swapped {
        Ok(()) => check(live).await,
        Err(e) => Err(format!("the database file cannot be replaced ({e})")),
    };
    if let Err(why) = outcome {
        undo(live)?;
        return Err(failed(why));
    }
    Ok(())
}

/// The log goes along: a visitor may have kept the last close from folding it into the file.
fn move_aside(live: &Path) -> io::Result<()> {
    remove(&beside(live, BEFORE_LOG))?;
    remove(&beside(live, BEFORE))?;
    remove(&beside(live, "-shm"))?;
    if beside(live, "-wal").exists() {
        fs::rename(beside(live, "-wal"), beside(live, BEFORE_LOG))?;
    }
    fs::rename(live, beside(live, BEFORE))
}

pub(super) fn undo(live: &Path) -> Result<()> {
    put_back(live).map_err(|e| failed(format_args!("the database file cannot be put back ({e})")))
}

fn put_back(live: &Path) -> io::Result<()> {
    let kept = beside(live, BEFORE);
    let kept_log = beside(live, BEFORE_LOG);
    if kept.exists() {
        remove(&beside(live, "-wal"))?;
        remove(&beside(live, "-shm"))?;
        fs::rename(&kept, live)?;
    }
    if kept_log.exists() {
        fs::rename(&kept_log, beside(live, "-wal"))?;
    }
    remove(&beside(live, NEXT))?;
    sync_folder(live)
}

pub(super) fn finish(live: &Path) {
    for ending in [BEFORE, BEFORE_LOG, NEXT] {
        if let Err(e) = remove(&beside(live, ending)) {
            tracing::warn!(target: "backup", error = %e, "backup.restore.leftover");
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Makes renames in the folder of a file last.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        #[cfg(unix)]
        Some(folder) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}
