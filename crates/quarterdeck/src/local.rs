//! The database of this configuration, opened beside a server that may be running.

use quarterdeck_auth::stored_secret;
use quarterdeck_store::{Database, Store, Way, latest_version};
use secrecy::{ExposeSecret, SecretString};

use crate::Failure;
use crate::config::Config;

const MIGRATE: &str = "run `quarterdeck migrate`, or start the server once with `quarterdeck serve`";

/// The database a configuration names.
pub(crate) fn database(config: &Config) -> Result<Database, Failure> {
    config.database.database(&config.data_dir).map_err(Failure::runtime)
}

/// Whether there is nothing to open yet: SQLite makes the file only when a server first needs it.
pub(crate) fn is_missing(database: &Database) -> bool {
    matches!(database, Database::Sqlite { path, .. } if !path.exists())
}

/// Opens the database as it is.
pub(crate) async fn attach(config: &Config) -> Result<Store, Failure> {
    let database = database(config)?;
    if is_missing(&database) {
        return Err(Failure::runtime(format!("there is no database yet: {database}")).hint(MIGRATE));
    }
    let store = Store::attach(database).await?;
    if config.communication.message_bus.nats.is_some() {
        // A server passes on what is left for the broker.
        store.publish_by(Way::Outbox);
    }
    Ok(store)
}

/// Opens the database and refuses one whose tables are of another version.
pub(crate) async fn attach_current(config: &Config) -> Result<Store, Failure> {
    let store = attach(config).await?;
    match version(&store).await {
        Ok(version) if version == latest_version() => Ok(store),
        other => {
            store.close().await;
            Err(match other {
                Err(failure) => failure,
                Ok(version) if version > latest_version() => Failure::runtime(
                    "the database was made by a newer version of quarterdeck; use that version",
                ),
                Ok(_) => Failure::runtime("the database's tables are not up to date").hint(MIGRATE),
            })
        }
    }
}

/// Number of the last migration in the database; 0 for none.
pub(crate) async fn version(store: &Store) -> Result<i64, Failure> {
    Ok(store.applied_migrations().await?.last().map_or(0, |migration| migration.version))
}

/// The secret the server signs with, when it is known: configured, or stored by an earlier start.
pub(crate) async fn signing_secret(config: &Config) -> Result<Option<SecretString>, Failure> {
    let configured = &config.api.auth.jwt_secret;
    if !configured.expose_secret().is_empty() {
        return Ok(Some(configured.clone()));
    }
    if is_missing(&database(config)?) {
        return Ok(None);
    }
    let store = attach(config).await?;
    let secret = match version(&store).await {
        Ok(0) => Ok(None),
        Ok(_) => stored_secret(&store).await.map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    store.close().await;
    secret
}
