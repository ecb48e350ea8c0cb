//! Artifacts: where their contents are, and the regular look for contents that nobody has.

use std::time::Duration;

use quarterdeck_domain::artifact::MAX_TOTAL_BYTES;
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_store::{Database, Store};
use quarterdeck_work::artifacts::{Artifacts, Contents};
use tokio_util::sync::CancellationToken;

use crate::Failure;
use crate::config::Config;
use crate::lifecycle::Lifecycle;
use crate::local;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_secs(24 * 60 * 60);
/// Age below which a content may be an upload under way, on this copy of the program or another.
const GRACE: Duration = Duration::from_secs(60 * 60);

/// Opens the place of the contents, looks for left-overs of the last run, and goes on looking.
pub(crate) async fn start(
    life: &mut Lifecycle,
    config: &Config,
    store: Store,
    clock: SharedClock,
) -> Result<Artifacts, Failure> {
    let database = local::database(config)?;
    let folder = config.artifacts.folder(&config.data_dir, &database);
    let bucket = config.artifacts.s3.options();
    // Only one program serves an SQLite file: at its start no upload is under way.
    let alone = bucket.is_none() && matches!(database, Database::Sqlite { .. });
    let contents = match &bucket {
        Some(options) => Contents::in_bucket(options, folder.clone()).map_err(Failure::runtime)?,
        None => Contents::in_folder(folder.clone()),
    };
    if let Err(error) = contents.prepare().await {
        // Everything but uploads works without it, and the next upload tries again.
        tracing::error!(
            target: "work", folder = %folder.display(), error = %error, "work.artifact.folder_unusable"
        );
    }
    let artifacts = Artifacts::new(store, clock, contents, MAX_TOTAL_BYTES);
    if alone {
        collect(&artifacts, Duration::ZERO).await;
    }
    keep_collecting(life, artifacts.clone(), alone);
    Ok(artifacts)
}

fn keep_collecting(life: &mut Lifecycle, artifacts: Artifacts, already: bool) {
    let stopping = CancellationToken::new();
    let stopped = stopping.clone();
    let collecting = tokio::spawn(async move {
        let mut pause = if already { PAUSE } else { Duration::ZERO };
        loop {
            let look = async {
                tokio::time::sleep(pause).await;
                collect(&artifacts, GRACE).await;
            };
            if stopped.run_until_cancelled(look).await.is_none() {
                return;
            }
            pause = PAUSE;
        }
    });
    life.started("artifacts", Duration::from_secs(2), async move {
        stopping.cancel();
        if let Err(error) = collecting.await {
            tracing::error!(target: "work", error = %error, "work.artifact.collecting_ended");
        }
    });
}

async fn collect(artifacts: &Artifacts, grace: Duration) {
    if let Err(error) = artifacts.collect(grace).await {
        tracing::error!(target: "work", error = %error, cause = error.cause(), "work.artifact.collect_failed");
    }
}
