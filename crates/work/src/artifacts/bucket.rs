//! Contents as objects of a bucket that speaks the protocol of S3.

use std::io;
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use chrono::{TimeDelta, Utc};
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ClientOptions, GetOptions, GetRange, ObjectStore, ObjectStoreExt, RetryConfig};
use quarterdeck_domain::artifact::ContentName;
use secrecy::{ExposeSecret, SecretString};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::ByteStream;

/// Longest silence of the bucket.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that are sent as one object, or as one part of a larger one.
const PART: usize = 8 * 1024 * 1024;

/// How a bucket is reached.
#[derive(Clone, Debug)]
pub struct BucketOptions {
    /// Name of the bucket.
    pub bucket: String,
    /// Address of a server other than Amazon's.
    pub endpoint: Option<String>,
    /// Region.
    pub region: String,
    /// Access key; absent = as the machine it runs on is allowed to.
    pub access_key_id: Option<String>,
    /// Secret of the access key.
    pub secret_access_key: Option<SecretString>,
    /// Whether the endpoint may be reached without TLS.
    pub allow_http: bool,
}

/// A bucket of contents.
#[derive(Clone, Debug)]
pub(super) struct Bucket(Arc<dyn ObjectStore>);

impl Bucket {
    /// A bucket that is somewhere else. Nothing is sent yet.
    pub(super) fn remote(options: &BucketOptions) -> object_store::Result<Self> {
        let client = ClientOptions::new()
            .with_allow_http(options.allow_http)
            .with_connect_timeout(Duration::from_secs(5))
            .with_read_timeout(PATIENCE)
            // A large object on a slow line takes as long as it takes.
            .with_timeout_disabled();
        let retry = RetryConfig { max_retries: 3, retry_timeout: PATIENCE, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&options.bucket)
            .with_region(&options.region)
            .with_client_options(client)
            .with_retry(retry);
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint).with_virtual_hosted_style_request(false);
        }
        if let (Some(id), Some(secret)) = (&options.access_key_id, &options.secret_access_key) {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret.expose_secret());
        }
        Ok(Self(Arc::new(builder.build()?)))
    }

    /// Sends a file under a name; the object is there whole or not at all.
    pub(super) async fn keep(&self, path: &FilePath, size: u64, name: &ContentName) -> io::Result<()> {
        let mut file = File::open(path).await?;
        let key = key(name);
        if size <= PART as u64 {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).await?;
            self.0.put(&key, bytes.into()).await.map_err(io::Error::other)?;
            return Ok(());
        }
        let mut upload = self.0.put_multipart(&key).await.map_err(io::Error::other)?;
        let mut sent = async || -> io::Result<()> {
            loop {
                let mut part = BytesMut::with_capacity(PART);
                while part.len() < PART && file.read_buf(&mut part).await? > 0 {}
                if part.is_empty() {
                    break;
                }
                upload.put_part(part.freeze().into()).await.map_err(io::Error::other)?;
            }
            upload.complete().await.map(drop).map_err(io::Error::other)
        };
        if let Err(error) = sent().await {
            // What is left of it costs money until the bucket's own rules remove it.
            let _ = upload.abort().await;
            return Err(error);
        }
        Ok(())
    }

    /// Opens a content; `None` when there is none. `part` is within its size.
    pub(super) async fn open(&self, name: &ContentName, part: Range<u64>) -> io::Result<Option<ByteStream>> {
        // An empty range cannot be asked for.
        let range = (!part.is_empty()).then_some(GetRange::Bounded(part));
        match self.0.get_opts(&key(name), GetOptions { range, ..GetOptions::default() }).await {
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(io::Error::other(error)),
            Ok(found) => Ok(Some(found.into_stream().map_err(io::Error::other).boxed())),
        }
    }

    /// Removes a content; whether it was there does not matter.
    pub(super) async fn remove(&self, name: &ContentName) -> io::Result<()> {
        match self.0.delete(&key(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Contents older than `grace`.
    pub(super) async fn list(&self, grace: Duration) -> io::Result<Vec<ContentName>> {
        let before = Utc::now() - TimeDelta::from_std(grace).unwrap_or(TimeDelta::MAX);
        let folder = Path::from(FOLDER);
        let objects = self.0.list(Some(&folder)).map_err(io::Error::other);
        let names = objects.try_filter_map(async |object| {
            let name = object.location.filename().and_then(ContentName::parse);
            Ok(name.filter(|_| object.last_modified <= before))
        });
        names.try_collect().await
    }
}

const FOLDER: &str = "artifacts";

fn key(name: &ContentName) -> Path {
    Path::from_iter([FOLDER.to_owned(), name.to_string()])
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use object_store::memory::InMemory;
    use quarterdeck_domain::artifact::ArtifactId;

    use super::*;

    async fn keep(bucket: &Bucket, name: &ContentName, bytes: &[u8]) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        bucket.keep(file.path(), bytes.len() as u64, name).await.unwrap();
    }

    async fn read(bucket: &Bucket, name: &ContentName, part: Range<u64>) -> Option<Vec<u8>> {
        let bytes = bucket.open(name, part).await.unwrap()?;
        Some(bytes.try_collect::<Vec<Bytes>>().await.unwrap().concat())
    }

    #[tokio::test]
    async fn small_and_large_contents_come_back_whole_and_in_parts() {
        let bucket = Bucket(Arc::new(InMemory::new()));
        for size in [0, 1, PART, PART + 1, 2 * PART, 2 * PART + 12_345] {
            let bytes: Vec<_> = (0..size).map(|place| (place / 1000) as u8).collect();
            let name = ContentName::fresh(ArtifactId::fresh());
            assert_eq!(read(&bucket, &name, 0..size as u64).await, None);
            keep(&bucket, &name, &bytes).await;
            assert!(read(&bucket, &name, 0..size as u64).await.unwrap() == bytes, "{size}");
            if size > 1 {
                let (from, to) = (size / 3, size / 2 + 1);
                let part = read(&bucket, &name, from as u64..to as u64).await.unwrap();
                assert!(part == bytes[from..to], "{size}");
            }
            bucket.remove(&name).await.unwrap();
            bucket.remove(&name).await.unwrap();
            assert_eq!(read(&bucket, &name, 0..size as u64).await, None);
        }
    }

    #[tokio::test]
    async fn contents_are_listed_when_they_are_old_enough_and_nothing_else_is() {
        let store = Arc::new(InMemory::new());
        let bucket = Bucket(Arc::clone(&store) as Arc<dyn ObjectStore>);
        let name = ContentName::fresh(ArtifactId::fresh());
        keep(&bucket, &name, b"bytes").await;
        for foreign in ["artifacts/notes.txt", "elsewhere/x"] {
            store.put(&Path::from(foreign), "left".into()).await.unwrap();
        }
        assert_eq!(bucket.list(Duration::ZERO).await.unwrap(), [name]);
        assert_eq!(bucket.list(Duration::from_secs(3600)).await.unwrap(), []);
    }

    #[test]
    fn secrets_are_not_shown() {
        let options = BucketOptions {
            bucket: "b".to_owned(),
            endpoint: None,
            region: "r".to_owned(),
            access_key_id: Some("id".to_owned()),
            secret_access_key: Some("hunter2".into()),
            allow_http: false,
        };
        assert!(!format!("{options:?}").contains("hunter2"));
        assert!(!format!("{:?}", Bucket::remote(&options).unwrap()).contains("hunter2"));
    }
}
