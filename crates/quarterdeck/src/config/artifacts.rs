//! Where contents of artifacts are kept: the section `artifacts`.

use std::path::{Path, PathBuf};

use quarterdeck_store::Database;
use quarterdeck_work::artifacts::BucketOptions;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{climbs, masked};

/// What the folder with the contents is called.
const FOLDER: &str = "artifacts";
/// Where the folder is made when the database says nothing of a place.
const SHARED: &str = "/data";

/// The section `artifacts`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ArtifactsConfig {
    /// The folder `artifacts` is made in here; absent = where the SQLite file is, or `/data` with PostgreSQL.
    pub dir: Option<PathBuf>,
    /// A bucket instead of a folder.
    pub s3: S3Config,
}

/// The section `artifacts.s3`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3Config {
    /// Name of the bucket; absent = files of a folder.
    pub bucket: Option<String>,
    /// `https://host:port` of a server other than Amazon's.
    pub endpoint: Option<String>,
    /// Region.
    pub region: String,
    /// Access key; absent = as the machine is allowed to.
    pub access_key_id: Option<String>,
    /// Secret of the access key.
    #[serde(serialize_with = "masked")]
    pub secret_access_key: Option<SecretString>,
    /// Whether an endpoint that is not on this machine may be reached without TLS.
    pub allow_http: bool,
}

impl Default for S3Config {
    fn default() -> Self {
        Self {
            bucket: None,
            endpoint: None,
            region: "us-east-1".to_owned(),
            access_key_id: None,
            secret_access_key: None,
            allow_http: false,
        }
    }
}

impl ArtifactsConfig {
    pub(super) fn validate(&mut self) -> Result<(), String> {
        if let Some(dir) = &self.dir {
            if !dir.is_absolute() {
                return Err("artifacts.dir must be an absolute path".to_owned());
            }
            if climbs(dir) {
                return Err("artifacts.dir must not contain ..".to_owned());
            }
        }
        self.s3.validate()
    }

    /// The folder of the contents, or, with a bucket, of what is on its way there.
    pub fn folder(&self, data_dir: &Path, database: &Database) -> PathBuf {
        let place = match (&self.dir, database) {
            (Some(dir), _) => dir.as_path(),
            (None, _) if self.s3.bucket.is_some() => data_dir,
            (None, Database::Sqlite { path, .. }) => path.parent().unwrap_or(data_dir),
            (None, Database::Postgres { .. }) => Path::new(SHARED),
        };
        place.join(FOLDER)
    }
}

impl S3Config {
    fn validate(&mut self) -> Result<(), String> {
        for text in [&mut self.bucket, &mut self.endpoint, &mut self.access_key_id] {
            *text = text.take().filter(|text| !text.trim().is_empty());
        }
        self.secret_access_key =
            self.secret_access_key.take().filter(|secret| !secret.expose_secret().is_empty());
        if self.region.trim().is_empty() {
            return Err("artifacts.s3.region must not be blank".to_owned());
        }
        if self.access_key_id.is_some() != self.secret_access_key.is_some() {
            let (missing, given) = match self.access_key_id {
                Some(_) => ("secret_access_key", "access_key_id"),
                None => ("access_key_id", "secret_access_key"),
            };
            return Err(format!("artifacts.s3.{missing} must be set together with artifacts.s3.{given}"));
        }
        match &self.endpoint {
            Some(endpoint) => {
                self.check_endpoint(endpoint).map_err(|rule| format!("artifacts.s3.endpoint {rule}"))
            }
            None => Ok(()),
        }
    }

    fn check_endpoint(&self, endpoint: &str) -> Result<(), &'static str> {
        let url = Url::parse(endpoint).map_err(|_| "must be https://host:port")?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err("must hold neither credentials nor a query");
        }
        let host = url.host_str().unwrap_or_default();
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        let is_here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
        match url.scheme() {
            "https" => Ok(()),
            "http" if is_here || self.allow_http => Ok(()),
            "http" => Err("must begin with https:// unless artifacts.s3.allow_http is true"),
            _ => Err("must be https://host:port"),
        }
    }

    /// How to reach the bucket; `None` without one.
    pub fn options(&self) -> Option<BucketOptions> {
        Some(BucketOptions {
            bucket: self.bucket.clone()?,
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            access_key_id: self.access_key_id.clone(),
            secret_access_key: self.secret_access_key.clone(),
            allow_http: self.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http:")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(endpoint: &str) -> S3Config {
        S3Config { bucket: Some("b".to_owned()), endpoint: Some(endpoint.to_owned()), ..S3Config::default() }
    }

    #[test]
    fn plain_http_is_for_this_machine_or_on_purpose() {
        for sound in
            ["https://s3.example", "http://localhost:9000", "http://127.0.0.1:9000", "http://[::1]:9000"]
        {
            assert_eq!(s3(sound).validate(), Ok(()), "{sound}");
        }
        for refused in
            ["http://minio:9000", "s3.example", "ftp://s3.example", "https://u:p@s3.example", "https://s?x"]
        {
            let why = s3(refused).validate().unwrap_err();
            assert!(why.starts_with("artifacts.s3.endpoint must"), "{why}");
            assert!(!why.contains("u:p"), "{why}");
        }
        assert_eq!(S3Config { allow_http: true, ..s3("http://minio:9000") }.validate(), Ok(()));
    }

    #[test]
    fn a_key_and_its_secret_come_together() {
        let mut half = S3Config { access_key_id: Some("id".to_owned()), ..s3("https://s3.example") };
        assert!(half.validate().unwrap_err().starts_with("artifacts.s3.secret_access_key must"));
        half.secret_access_key = Some("hunter2".into());
        assert_eq!(half.validate(), Ok(()));
        assert!(!format!("{half:?}{}", serde_json::to_string(&half).unwrap()).contains("hunter2"));
        half.access_key_id = Some(" ".to_owned());
        assert!(half.validate().unwrap_err().starts_with("artifacts.s3.access_key_id must"));
    }

    #[test]
    fn the_folder_is_beside_the_database_unless_it_is_named() {
        let database = |path: &str| Database::Sqlite { path: path.into(), journal_size_limit: 0 };
        let folder =
            |config: &ArtifactsConfig| config.folder(Path::new("/home/data"), &database("/srv/deck.db"));
        let mut config = ArtifactsConfig::default();
        assert_eq!(folder(&config), Path::new("/srv/artifacts"));
        config.s3.bucket = Some("b".to_owned());
        assert_eq!(folder(&config), Path::new("/home/data/artifacts"));
        config.dir = Some("/mnt".into());
        assert_eq!(folder(&config), Path::new("/mnt/artifacts"));
        for (dir, rule) in [("relative", "absolute"), ("/a/../b", "..")] {
            config.dir = Some(dir.into());
            assert!(config.validate().unwrap_err().contains(rule), "{dir}");
        }
    }
}
