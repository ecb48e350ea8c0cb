//! Hot reload: tells whoever watches a setting that it changed, whichever copy of the program changed it.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use quarterdeck_domain::setting::{Definition, Namespace};
use quarterdeck_domain::{Error, Result};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Settings, Snapshot};

/// Longest time one subscriber may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Wait before reading again after the database failed.
const RETRY: Duration = Duration::from_secs(1);

/// A setting that changed. Carries no value: the subscriber reads what is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// Namespace.
    pub namespace: Namespace,
    /// Key.
    pub key: &'static str,
}

type Handler = Arc<dyn Fn(Settings, Change) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

#[derive(Clone)]
struct Subscriber {
    name: &'static str,
    watched: Vec<Change>,
    handler: Handler,
}

/// Calls subscribers after changes, one change after the other.
pub struct Dispatcher {
    settings: Settings,
    subscribers: Arc<Mutex<Vec<Subscriber>>>,
    state: Mutex<State>,
    /// The values subscribers know of.
    told: Arc<Mutex<Arc<Snapshot>>>,
}

enum State {
    Stopped,
    Running {
        stop: oneshot::Sender<()>,
        task: JoinHandle<()>,
    },
    /// A stop ran out of time: the old task may still act, so no second one may start.
    Stuck,
}

impl Dispatcher {
    /// A dispatcher that tells every change since `settings` was opened.
    pub fn new(settings: Settings) -> Self {
        let told = Arc::new(Mutex::new(Arc::clone(&settings.0.boot)));
        Self { settings, subscribers: Arc::default(), state: Mutex::new(State::Stopped), told }
    }

    /// Calls `handler` after each change of a watched setting that needs no restart.
    ///
    /// Changes in quick succession may be told as one. A handler that fails, panics or takes longer than
    /// 30 seconds is logged under `name`; the others are called all the same.
    pub fn subscribe<'a, F>(
        &self,
        name: &'static str,
        watched: impl IntoIterator<Item = &'a Definition>,
        handler: impl Fn(Settings, Change) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let watched = watched.into_iter().map(Change::of).collect();
        let handler: Handler = Arc::new(move |settings, change| handler(settings, change).boxed());
        lock(&self.subscribers).push(Subscriber { name, watched, handler });
    }

    /// Begins to tell changes.
    ///
    /// # Errors
    /// When it runs already, or an earlier stop ran out of time.
    pub fn start(&self) -> Result<()> {
        let mut state = lock(&self.state);
        match *state {
            State::Stopped => {}
            State::Running { .. } => return Err(Error::internal("the settings dispatcher already runs")),
            State::Stuck => {
                return Err(Error::internal(
                    "the settings dispatcher did not stop in time and cannot be restarted",
                ));
            }
        }
        let (stop, stopped) = oneshot::channel();
        let (settings, subscribers) = (self.settings.clone(), Arc::clone(&self.subscribers));
        let listening = Listening::begin(settings.clone(), lock(&self.told).generation);
        let told = Arc::clone(&self.told);
        let task = tokio::spawn(async move {
            run(settings, subscribers, told, stopped).await;
            drop(listening);
        });
        *state = State::Running { stop, task };
        tracing::info!(target: "settings", "settings.notification.started");
        Ok(())
    }

    /// Ends after the subscriber that is being called. Stopping what does not run is harmless.
    ///
    /// # Errors
    /// When that took longer than `patience`; the dispatcher cannot be started again then.
    pub async fn stop(&self, patience: Duration) -> Result<()> {
        let (stop, task) = {
            let mut state = lock(&self.state);
            match std::mem::replace(&mut *state, State::Stuck) {
                State::Running { stop, task } => (stop, task),
                before => {
                    *state = before;
                    return Ok(());
                }
            }
        };
        // Fails only if the task has ended on its own.
        let _ = stop.send(());
        if tokio::time::timeout(patience, task).await.is_err() {
            tracing::error!(target: "settings", "settings.notification.stop_timed_out");
            return Err(Error::internal("the settings dispatcher did not stop in time"));
        }
        *lock(&self.state) = State::Stopped;
        tracing::info!(target: "settings", "settings.notification.stopped");
        Ok(())
    }
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = lock(&self.subscribers).iter().map(|subscriber| subscriber.name).collect();
        f.debug_struct("Dispatcher").field("subscribers", &names).finish_non_exhaustive()
    }
}

/// While it lives, writers wait for subscribers.
struct Listening(Settings);

impl Listening {
    fn begin(settings: Settings, told: u64) -> Self {
        settings.0.told.send_replace(Some(told));
        Self(settings)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.0.told.send_replace(None);
    }
}

impl Change {
    fn of(definition: &Definition) -> Self {
        Self { namespace: definition.namespace, key: definition.key }
    }
}

async fn run(
    settings: Settings,
    subscribers: Arc<Mutex<Vec<Subscriber>>>,
    told: Arc<Mutex<Arc<Snapshot>>>,
    mut stopped: oneshot::Receiver<()>,
) {
    loop {
        // Signals are only a reason to look: what changed is what differs from what was told.
        let rebuilt = settings.rebuild().await;
        if let Ok(now) = &rebuilt {
            let before = Arc::clone(&lock(&told));
            for definition in now.differences(&before) {
                let Definition { namespace, key, .. } = *definition;
                if definition.restart_required {
                    tracing::warn!(target: "settings", %namespace, key, "settings.notification.restart_required");
                    continue;
                }
                let change = Change::of(definition);
                let concerned: Vec<_> =
                    lock(&subscribers).iter().filter(|s| s.watched.contains(&change)).cloned().collect();
                for subscriber in concerned {
                    if stopped.try_recv().is_ok() {
                        // What was not told to the end is told again after the next start.
                        return;
                    }
                    tell(&subscriber, &settings, change).await;
                }
            }
            *lock(&told) = Arc::clone(now);
            settings.0.told.send_replace(Some(now.generation));
        }
        let again = async {
            match rebuilt {
                Ok(_) => settings.0.bell.notified().await,
                Err(error) => {
                    tracing::error!(target: "settings", error = %error, "settings.notification.reload_failed");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        tokio::select! {
            biased;
            _ = &mut stopped => return,
            () = again => {}
        }
    }
}

async fn tell(subscriber: &Subscriber, settings: &Settings, change: Change) {
    let Change { namespace, key } = change;
    // The handler itself may panic, too, before it gives a future back.
    let call = async { (subscriber.handler)(settings.clone(), change).await };
    let call = tokio::time::timeout(PATIENCE, AssertUnwindSafe(call).catch_unwind());
    let failure = match call.await {
        Ok(Ok(Ok(()))) => return,
        Ok(Ok(Err(why))) => why,
        Ok(Err(_)) => "panicked".to_owned(),
        Err(_) => format!("took longer than {} s", PATIENCE.as_secs()),
    };
    let subscriber = subscriber.name;
    tracing::error!(target: "settings", %namespace, key, subscriber, error = failure, "settings.notification.subscriber_failed");
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
