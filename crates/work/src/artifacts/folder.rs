//! Contents as files of one folder. A file appears under its name whole and on the disk, or not at all.

use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt;
use quarterdeck_domain::artifact::ContentName;
#[cfg(unix)]
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use tokio::fs::{self, File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, BufWriter};
use tokio_util::io::ReaderStream;

use super::ByteStream;

/// Ending of a file that is still being written.
const UNFINISHED: &str = "tmp";
/// Bytes written, or read, at a time.
const CHUNK: usize = 256 * 1024;

/// A folder of contents.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

/// A content on its way in. Dropped, it leaves nothing behind.
pub(super) struct Draft {
    path: PathBuf,
    file: BufWriter<File>,
    digest: Sha256,
    pub(super) size: u64,
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Makes the folder, for its owner only, if it is not there.
    pub(super) async fn make(&self) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        builder.mode(0o700);
        builder.create(&self.0).await
    }

    /// Begins a file, which nobody finds before it is [kept](Self::keep).
    pub(super) async fn begin(&self, name: &ContentName) -> io::Result<Draft> {
        let path = self.0.join(format!("{name}.{UNFINISHED}"));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        options.mode(0o600);
        let file = match options.open(&path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make().await?;
                options.open(&path).await?
            }
            opened => opened?,
        };
        Ok(Draft { path, file: BufWriter::with_capacity(CHUNK, file), digest: Sha256::new(), size: 0 })
    }

    /// Gives a finished draft its name, for good: both survive a loss of power from here on.
    pub(super) async fn keep(&self, draft: &Draft, name: &ContentName) -> io::Result<()> {
        fs::rename(&draft.path, self.0.join(name.to_string())).await?;
        #[cfg(unix)]
        File::open(&self.0).await?.sync_all().await?;
        Ok(())
    }

    /// Opens a content; `None` when there is none. `part` is within its size.
    pub(super) async fn open(
        &self,
        name: &ContentName,
        size: u64,
        part: Range<u64>,
    ) -> io::Result<Option<ByteStream>> {
        let mut options = OpenOptions::new();
        options.read(true);
        // Whoever can write into the folder cannot make the server read what lies outside it, or wait.
        #[cfg(unix)]
        options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
        let mut file = match options.open(self.0.join(name.to_string())).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let metadata = file.metadata().await?;
        if !metadata.is_file() || metadata.len() != size {
            return Err(io::Error::other(format!("the content {name} is not what was stored")));
        }
        file.seek(io::SeekFrom::Start(part.start)).await?;
        let part = file.take(part.end - part.start);
        Ok(Some(ReaderStream::with_capacity(part, CHUNK).boxed()))
    }

    /// Removes a content; whether it was there does not matter.
    pub(super) async fn remove(&self, name: &ContentName) -> io::Result<()> {
        gone(fs::remove_file(self.0.join(name.to_string())).await)
    }

    /// Contents not written to for `grace`. Unfinished ones among them are removed on the way.
    pub(super) async fn list(&self, grace: Duration) -> io::Result<Vec<ContentName>> {
        let mut entries = match fs::read_dir(&self.0).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut held = Vec::new();
        while let Some(entry) = entries.next_entry().await? {
            let name = entry.file_name();
            let unfinished = unfinished(&name);
            let Some(name) = unfinished.clone().or_else(|| ContentName::parse(name.to_str()?)) else {
                continue;
            };
            // It may be gone by now, which is as well.
            let Ok(metadata) = entry.metadata().await else { continue };
            let age = metadata.modified().ok().and_then(|then| SystemTime::now().duration_since(then).ok());
            if age.unwrap_or_default() < grace {
                continue;
            }
            match unfinished {
                Some(_) => gone(fs::remove_file(entry.path()).await)?,
                None => held.push(name),
            }
        }
        Ok(held)
    }
}

impl Draft {
    /// Takes in what comes next.
    pub(super) async fn write(&mut self, bytes: &Bytes) -> io::Result<()> {
        self.digest.update(bytes);
        self.size += bytes.len() as u64;
        self.file.write_all(bytes).await
    }

    /// Brings everything to the disk; the SHA-256 of it.
    pub(super) async fn finish(&mut self) -> io::Result<String> {
        self.file.flush().await?;
        self.file.get_ref().sync_all().await?;
        Ok(data_encoding::HEXLOWER.encode(&self.digest.clone().finalize()))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // One that was kept has another name by now.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn unfinished(name: &OsStr) -> Option<ContentName> {
    let path = Path::new(name);
    path.extension().filter(|ending| *ending == UNFINISHED)?;
    ContentName::parse(path.file_stem()?.to_str()?)
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
