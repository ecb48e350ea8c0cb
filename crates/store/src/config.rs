//! Which database holds the rows, and how it is reached: the section `database`.

use std::fmt;
use std::path::{Component, Path};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use quarterdeck_domain::config::{between, not_blank};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::{Host, Url};

use crate::Database;

/// The section `database`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// `postgresql://user:password@host:port/database`. Set = PostgreSQL, absent = SQLite.
    #[serde(serialize_with = "without_credentials")]
    pub url: Option<SecretString>,
    /// Used when no URL is set.
    pub sqlite: SqliteConfig,
    /// Used when a URL is set.
    pub postgres: PostgresConfig,
}

/// The section `database.sqlite`. Commits are always flushed to the disk before they are acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SqliteConfig {
    /// The file, relative to the data folder.
    pub path: String,
    /// Size the write-ahead log is cut back to after a checkpoint, bytes.
    pub journal_size_limit: u64,
}

impl Default for SqliteConfig {
    fn default() -> Self {
        Self { path: "quarterdeck.db".to_owned(), journal_size_limit: 67_108_864 }
    }
}

/// How much TLS a PostgreSQL connection demands; libpq's words. The authorities that `verify-ca` and
/// `verify-full` trust besides the system's come from libpq's `PGSSLROOTCERT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the words are libpq's")]
pub enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl From<SslMode> for PgSslMode {
    fn from(mode: SslMode) -> Self {
        match mode {
            SslMode::Disable => Self::Disable,
            SslMode::Allow => Self::Allow,
            SslMode::Prefer => Self::Prefer,
            SslMode::Require => Self::Require,
            SslMode::VerifyCa => Self::VerifyCa,
            SslMode::VerifyFull => Self::VerifyFull,
        }
    }
}

/// The section `database.postgres`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresConfig {
    /// How much TLS the connection demands.
    pub ssl_mode: SslMode,
    /// Connections kept open.
    pub pool_min_size: u32,
    /// Most connections at once.
    pub pool_max_size: u32,
    /// Longest wait for a free connection, seconds.
    pub pool_timeout_seconds: u32,
    /// Longest run of a statement, milliseconds; 0 = no end.
    pub statement_timeout_ms: u32,
    /// Longest wait for the first connection, seconds.
    pub connect_timeout_seconds: u32,
    /// Name shown in `pg_stat_activity`.
    pub application_name: String,
}

impl Default for PostgresConfig {
    fn default() -> Self {
        Self {
            ssl_mode: SslMode::Require,
            pool_min_size: 1,
            pool_max_size: 10,
            pool_timeout_seconds: 30,
            statement_timeout_ms: 30_000,
            connect_timeout_seconds: 10,
            application_name: "quarterdeck".to_owned(),
        }
    }
}

/// A PostgreSQL URL, taken apart and percent-decoded.
struct PostgresAddress {
    host: String,
    port: u16,
    user: String,
    password: Option<SecretString>,
    database: String,
}

/// For people and logs: where the rows are, without user and password.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { path, .. } => write!(f, "SQLite {}", path.display()),
            Self::Postgres { options, .. } => {
                let database = options.get_database().unwrap_or_default();
                write!(f, "PostgreSQL {database} on {}:{}", options.get_host(), options.get_port())
            }
        }
    }
}

/// The driver's options show their password; this does not.
impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({self})")
    }
}

impl StoreConfig {
    /// Which database to open; a URL wins over a file.
    ///
    /// # Errors
    /// A sentence with the dotted field and the broken rule, without any part of the URL.
    pub fn database(&self, data_dir: &Path) -> Result<Database, String> {
        let Some(url) = &self.url else {
            return Ok(Database::Sqlite {
                path: data_dir.join(&self.sqlite.path),
                journal_size_limit: self.sqlite.journal_size_limit,
            });
        };
        let at = PostgresAddress::parse(url.expose_secret())?;
        let postgres = &self.postgres;
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(&at.host)
            .port(at.port)
            .username(&at.user)
            .database(&at.database)
            .ssl_mode(postgres.ssl_mode.into())
            .application_name(&postgres.application_name)
            .options([("statement_timeout", postgres.statement_timeout_ms)]);
        if let Some(password) = &at.password {
            options = options.password(password.expose_secret());
        }
        Ok(Database::Postgres {
            options: Box::new(options),
            min_connections: postgres.pool_min_size,
            max_connections: postgres.pool_max_size,
            acquire_timeout: Duration::from_secs(postgres.pool_timeout_seconds.into()),
            connect_timeout: Duration::from_secs(postgres.connect_timeout_seconds.into()),
        })
    }

    /// Checks every bound and rule.
    ///
    /// # Errors
    /// A sentence with the dotted field and the broken rule.
    pub fn validate(&self) -> Result<(), String> {
        not_blank("database.sqlite.path", &self.sqlite.path)?;
        if self.sqlite.path.starts_with([':', '?']) || self.sqlite.path.starts_with("file:") {
            return Err("database.sqlite.path must be the path of a file".to_owned());
        }
        if Path::new(&self.sqlite.path).components().any(|c| c == Component::ParentDir) {
            return Err("database.sqlite.path must not contain ..".to_owned());
        }
        between("database.sqlite.journal_size_limit", self.sqlite.journal_size_limit, 0, i64::MAX as u64)?;
        let postgres = &self.postgres;
        between("database.postgres.pool_min_size", postgres.pool_min_size, 0, 1000)?;
        between("database.postgres.pool_max_size", postgres.pool_max_size, 1, 1000)?;
        if postgres.pool_max_size < postgres.pool_min_size {
            return Err("database.postgres.pool_max_size must be at least \
                        database.postgres.pool_min_size"
                .to_owned());
        }
        between("database.postgres.pool_timeout_seconds", postgres.pool_timeout_seconds, 1, 3600)?;
        between("database.postgres.statement_timeout_ms", postgres.statement_timeout_ms, 0, i32::MAX as u32)?;
        between("database.postgres.connect_timeout_seconds", postgres.connect_timeout_seconds, 1, 3600)?;
        not_blank("database.postgres.application_name", &postgres.application_name)?;
        if postgres.application_name.chars().any(char::is_control) {
            return Err("database.postgres.application_name must not hold control characters".to_owned());
        }
        self.database(Path::new("")).map(drop)
    }
}

impl PostgresAddress {
    /// Takes a URL apart. What it refuses, the driver might read in another way.
    fn parse(text: &str) -> Result<Self, String> {
        let refuse = |rule: &str| Err(format!("database.url {rule}"));
        // The URL parser drops tabs and line breaks without a word.
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return refuse("must not hold white space or control characters");
        }
        let Ok(url) = Url::parse(text) else {
            return refuse("must read postgresql://user:password@host:port/database");
        };
        if !matches!(url.scheme(), "postgresql" | "postgres") {
            return refuse("must begin with postgresql://");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return refuse("must not have parameters; use the section database.postgres");
        }
        let Some(host) = url.host() else {
            return refuse("must name a host");
        };
        let part = |name: &str, text: &str| {
            let decoded = percent_decode_str(text)
                .decode_utf8()
                .map_err(|_| format!("database.url must have a {name} in UTF-8"))?;
            if decoded.is_empty() {
                return Err(format!("database.url must name a {name}"));
            }
            if name != "password" && decoded.chars().any(|c| c.is_control() || c.is_whitespace()) {
                return Err(format!("database.url must have a {name} without white space"));
            }
            Ok(decoded.into_owned())
        };
        Ok(Self {
            host: match host {
                Host::Domain(name) => part("host", name)?,
                Host::Ipv4(address) => address.to_string(),
                Host::Ipv6(address) => address.to_string(),
            },
            port: url.port().unwrap_or(5432),
            user: part("user", url.username())?,
            password: url.password().map(|p| part("password", p)).transpose()?.map(SecretString::from),
            database: part("database", url.path().trim_start_matches('/'))?,
        })
    }
}

fn without_credentials<S: Serializer>(url: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    let shown = url.as_ref().map(|url| match PostgresAddress::parse(url.expose_secret()) {
        Ok(at) => format!("postgresql://********@{}:{}/{}", at.host, at.port, at.database),
        Err(_) => "********".to_owned(),
    });
    shown.serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut StoreConfig)) -> Result<(), String> {
        let mut config = StoreConfig::default();
        change(&mut config);
        config.validate()
    }

    fn url(text: &str) -> Result<PostgresAddress, String> {
        PostgresAddress::parse(text)
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        assert_eq!(StoreConfig::default().validate(), Ok(()));
        assert_eq!(
            serde_json::to_value(StoreConfig::default()).unwrap(),
            serde_json::json!({
                "url": null,
                "sqlite": {"path": "quarterdeck.db", "journal_size_limit": 67_108_864},
                "postgres": {
                    "ssl_mode": "require", "pool_min_size": 1, "pool_max_size": 10,
                    "pool_timeout_seconds": 30, "statement_timeout_ms": 30_000,
                    "connect_timeout_seconds": 10, "application_name": "quarterdeck",
                },
            })
        );
    }

    #[test]
    fn every_bound_is_accepted_on_the_edge_and_refused_one_step_outside() {
        type Set = fn(&mut PostgresConfig, u32);
        let bounds: [(&str, Set, u32, u32); 5] = [
            ("pool_min_size", |c, n| (c.pool_min_size, c.pool_max_size) = (n, 1000), 0, 1000),
            ("pool_max_size", |c, n| (c.pool_min_size, c.pool_max_size) = (1, n), 1, 1000),
            ("pool_timeout_seconds", |c, n| c.pool_timeout_seconds = n, 1, 3600),
            ("statement_timeout_ms", |c, n| c.statement_timeout_ms = n, 0, i32::MAX as u32),
            ("connect_timeout_seconds", |c, n| c.connect_timeout_seconds = n, 1, 3600),
        ];
        for (field, set, min, max) in bounds {
            let refusal = Err(format!("database.postgres.{field} must be between {min} and {max}"));
            for inside in [min, max] {
                assert_eq!(with(|c| set(&mut c.postgres, inside)), Ok(()), "{field} = {inside}");
            }
            assert_eq!(with(|c| set(&mut c.postgres, max + 1)), refusal);
            if let Some(below) = min.checked_sub(1) {
                assert_eq!(with(|c| set(&mut c.postgres, below)), refusal);
            }
        }
    }

    #[test]
    fn the_pool_is_at_least_as_large_as_what_it_keeps_open() {
        assert_eq!(with(|c| (c.postgres.pool_min_size, c.postgres.pool_max_size) = (3, 3)), Ok(()));
        let refusal = with(|c| (c.postgres.pool_min_size, c.postgres.pool_max_size) = (4, 3)).unwrap_err();
        assert!(refusal.starts_with("database.postgres.pool_max_size must be at least"));
    }

    #[test]
    fn without_a_url_a_file_in_the_data_folder_is_opened() {
        let open = |path: &str| {
            let mut config = StoreConfig::default();
            config.sqlite.path = path.to_owned();
            config.database(Path::new("/data")).unwrap().to_string()
        };
        assert_eq!(open("quarterdeck.db"), "SQLite /data/quarterdeck.db");
        assert_eq!(open("/elsewhere/q.db"), "SQLite /elsewhere/q.db");
    }

    #[test]
    fn a_file_path_does_not_climb() {
        for path in ["../q.db", "a/../../q.db", "/data/../q.db"] {
            let refusal = with(|c| c.sqlite.path = path.to_owned()).unwrap_err();
            assert_eq!(refusal, "database.sqlite.path must not contain ..", "{path}");
        }
        assert_eq!(with(|c| c.sqlite.path = "a..b.db".to_owned()), Ok(()));
        for path in ["", " ", ":memory:", "file:q.db"] {
            assert!(with(|c| c.sqlite.path = path.to_owned()).is_err(), "{path}");
        }
    }

    #[test]
    fn a_url_wins_over_a_file_and_is_taken_apart() {
        let config = StoreConfig {
            url: Some("postgresql://ada:p%40ss%2Fword@db.example:6432/quarter%64eck".into()),
            ..StoreConfig::default()
        };
        let at = url(config.url.as_ref().unwrap().expose_secret()).unwrap();
        assert_eq!((at.host.as_str(), at.port), ("db.example", 6432));
        assert_eq!((at.user.as_str(), at.database.as_str()), ("ada", "quarterdeck"));
        assert_eq!(at.password.unwrap().expose_secret(), "p@ss/word");
        let database = config.database(Path::new("/data")).unwrap();
        assert_eq!(database.to_string(), "PostgreSQL quarterdeck on db.example:6432");
        let Database::Postgres {
            options,
            min_connections,
            max_connections,
            acquire_timeout,
            connect_timeout,
        } = database
        else {
            panic!("a file was opened")
        };
        assert_eq!(options.get_username(), "ada");
        assert!(matches!(options.get_ssl_mode(), PgSslMode::Require));
        assert_eq!(options.get_application_name(), Some("quarterdeck"));
        assert_eq!(options.get_options(), Some("-c statement_timeout=30000"));
        assert_eq!((min_connections, max_connections), (1, 10));
        assert_eq!((acquire_timeout.as_secs(), connect_timeout.as_secs()), (30, 10));
        let short = url("postgres://ada@[::1]/q").unwrap();
        assert_eq!((short.host.as_str(), short.port), ("::1", 5432));
        assert!(short.password.is_none());
    }

    #[test]
    fn urls_that_could_be_read_in_two_ways_are_refused_without_repeating_them() {
        for text in [
            "",
            "canary",
            "mysql://canary:canary@h/d",
            "postgresql://canary:canary@/d",
            "postgresql://:canary@h/d",
            "postgresql://h/d",
            "postgresql://canary:canary@h",
            "postgresql://canary:canary@h/",
            "postgresql://canary:canary@h:99999/d",
            "postgresql://canary:canary@h/d?sslmode=disable",
            "postgresql://canary:canary@h/d#x",
            "postgresql://ca nary:canary@h/d",
            "postgresql://ca%0Anary:canary@h/d",
            "postgresql://canary:canary@h/d%20d",
            "postgresql://canary:canary@h%09/d",
            "postgresql://canary:canary@h\n/d",
        ] {
            let refusal = url(text).map(|at| at.host).unwrap_err();
            assert!(refusal.starts_with("database.url ") && !refusal.contains("canary"), "{text}: {refusal}");
        }
    }

    #[test]
    fn user_and_password_show_nowhere() {
        let config = StoreConfig {
            url: Some("postgresql://canary-user:canary-word@host/name".into()),
            ..StoreConfig::default()
        };
        let database = config.database(Path::new("")).unwrap();
        let json = serde_json::to_string(&config).unwrap();
        assert!(json.contains("postgresql://********@host:5432/name"), "{json}");
        for shown in [json, database.to_string(), format!("{config:?}"), format!("{database:?}")] {
            assert!(!shown.contains("canary"), "{shown}");
        }
    }
}
