//! Where the bytes are: files of a folder, or objects of a bucket.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use quarterdeck_domain::artifact::ContentName;

use super::ByteStream;
use super::bucket::{Bucket, BucketOptions};
use super::folder::{Draft, Folder};

/// A place for contents. What is written to a bucket goes through the folder, so that only whole contents
/// are sent.
#[derive(Clone, Debug)]
pub struct Contents {
    folder: Folder,
    bucket: Option<Bucket>,
}

impl Contents {
    /// Files of this folder, which is made when it is needed.
    pub fn in_folder(path: PathBuf) -> Self {
        Self { folder: Folder::new(path), bucket: None }
    }

    /// Objects of this bucket; the folder holds what is on its way there.
    ///
    /// # Errors
    /// A sentence for the operator, when the options do not name a bucket that can be reached.
    pub fn in_bucket(options: &BucketOptions, folder: PathBuf) -> Result<Self, String> {
        let bucket = Bucket::remote(options).map_err(|error| format!("artifacts.s3: {error}"))?;
        Ok(Self { folder: Folder::new(folder), bucket: Some(bucket) })
    }

    /// Makes the folder.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn prepare(&self) -> io::Result<()> {
        self.folder.make().await
    }

    pub(super) async fn begin(&self, name: &ContentName) -> io::Result<Draft> {
        self.folder.begin(name).await
    }

    /// Keeps a finished draft under its name.
    pub(super) async fn keep(&self, draft: &Draft, name: &ContentName) -> io::Result<()> {
        match &self.bucket {
            Some(bucket) => bucket.keep(draft.path(), draft.size, name).await,
            None => self.folder.keep(draft, name).await,
        }
    }

    /// Opens a content of this size; `None` when there is none.
    pub(super) async fn open(
        &self,
        name: &ContentName,
        size: u64,
        part: Range<u64>,
    ) -> io::Result<Option<ByteStream>> {
        match &self.bucket {
            Some(bucket) => bucket.open(name, part).await,
            None => self.folder.open(name, size, part).await,
        }
    }

    /// Removes a content; whether it was there does not matter.
    pub(super) async fn remove(&self, name: &ContentName) -> io::Result<()> {
        match &self.bucket {
            Some(bucket) => bucket.remove(name).await,
            None => self.folder.remove(name).await,
        }
    }

    /// Contents older than `grace`; unfinished ones of that age are removed.
    pub(super) async fn list(&self, grace: Duration) -> io::Result<Vec<ContentName>> {
        let files = self.folder.list(grace).await?;
        match &self.bucket {
            Some(bucket) => bucket.list(grace).await,
            None => Ok(files),
        }
    }
}
