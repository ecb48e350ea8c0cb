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
