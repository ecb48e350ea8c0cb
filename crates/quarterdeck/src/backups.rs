//! Backups of the running server, and of an installation whose server does not run.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quarterdeck_domain::backup::Trigger;
use quarterdeck_domain::clock::{SharedClock, SystemClock};
use quarterdeck_domain::setting::{Definition, backup};
use quarterdeck_http::app::VERSION;
use quarterdeck_store::Store;
use quarterdeck_work::backups::{Backups, Places, Schedule};
use quarterdeck_work::settings::{Dispatcher, Settings};

use crate::config::{Loaded, create_data_dir};
use crate::lifecycle::Lifecycle;
use crate::serve::open_settings;
use crate::{Failure, local};

/// Longest time for the backup of a stop.
const STOP: Duration = Duration::from_secs(30);
/// How long a backup under way keeps the schedule from stopping; subscribers of settings have 30 seconds.
const PATIENCE: Duration = Duration::from_secs(25);

const SCHEDULE: [&Definition; 2] = [backup::ENABLED.definition(), backup::SCHEDULE_HOURS.definition()];

/// Where things are before the settings can be read.
fn early_places(loaded: &Loaded) -> Result<Places, Failure> {
    places_for("", loaded)
}

fn places(loaded: &Loaded, settings: &Settings) -> Result<Places, Failure> {
    let chosen = settings.get(&backup::PATH);
    places_for(&chosen, loaded)
}

/// Backups of what the configuration says; contents in a bucket are kept by the bucket.
fn places_for(chosen: &str, loaded: &Loaded) -> Result<Places, Failure> {
    let config = &loaded.config;
    let places = Places::new(chosen, &config.data_dir, loaded.file.clone()).map_err(Failure::runtime)?;
    Ok(places.with_artifacts(config.artifacts.folder(&config.data_dir, &local::database(config)?)))
}

/// Puts right what a restore that was cut short has left; before the database is opened.
pub(crate) fn recover(loaded: &Loaded) -> Result<(), Failure> {
    let database = local::database(&loaded.config)?;
    if quarterdeck_store::backup::holder(&database).is_none() {
        early_places(loaded)?.recover(&database);
    }
    Ok(())
}

/// Starts what makes backups by itself. The backup of the start is made here, that of the stop in its turn.
pub(crate) async fn start(
    life: &mut Lifecycle,
    loaded: &Loaded,
    settings: &Settings,
    store: &Store,
    clock: &SharedClock,
    dispatcher: &Dispatcher,
) -> Result<Backups, Failure> {
    let places = places(loaded, settings)?;
    let backups = Backups::new(store.clone(), settings.clone(), Arc::clone(clock), &places, VERSION);
    backups.sweep().await;
    let schedule = Arc::new(Schedule::new(backups.clone()));
    schedule.make_if_wanted(Trigger::Startup).await;
    schedule.follow(PATIENCE).await?;
    let following = Arc::clone(&schedule);
    dispatcher.subscribe("backup", SCHEDULE, move |_, _| {
        let schedule = Arc::clone(&following);
        async move { schedule.follow(PATIENCE).await.map_err(|error| error.to_string()) }
    });
    life.started("backup", STOP, async move {
        // Too slow a stop is logged by the schedule; the backup is refused while another one is made.
        let _ = schedule.stop(PATIENCE).await;
        schedule.make_if_wanted(Trigger::Shutdown).await;
    });
    Ok(backups)
}

/// The folder of the backups, as the stored settings say.
pub(crate) async fn root(loaded: &Loaded) -> Result<PathBuf, Failure> {
    if local::is_missing(&local::database(&loaded.config)?) {
        return Ok(early_places(loaded)?.backups);
    }
    let store = local::attach(&loaded.config).await?;
    let settings = open_settings(loaded, store.clone(), SystemClock::shared()).await;
    let places = settings.and_then(|settings| places(loaded, &settings));
    store.close().await;
    Ok(places?.backups)
}

/// Does something with the backups of an installation in the place of its server, and gives back in which folder.
pub(crate) async fn in_place_of_the_server<T>(
    loaded: &Loaded,
    job: impl AsyncFnOnce(&Backups) -> Result<T, Failure>,
) -> Result<(T, PathBuf), Failure> {
    let folder = &loaded.config.data_dir;
    create_data_dir(folder)
        .map_err(|e| Failure::runtime(format!("cannot make the data folder {} ({e})", folder.display())))?;
    recover(loaded)?;
    let store = Store::open(local::database(&loaded.config)?).await?;
    let outcome = async {
        let clock = SystemClock::shared();
        let settings = open_settings(loaded, store.clone(), Arc::clone(&clock)).await?;
        let places = places(loaded, &settings)?;
        let backups = Backups::new(store.clone(), settings, clock, &places, VERSION);
        backups.sweep().await;
        Ok((job(&backups).await?, places.backups))
    }
    .await;
    store.close().await;
    outcome
}
