//! The running server: wiring, start and stop.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quarterdeck_auth::config::PathPattern;
use quarterdeck_auth::{Auth, HashCost, resolve_secret};
use quarterdeck_bus::Bus;
use quarterdeck_bus::sessions::SessionHub;
use quarterdeck_domain::clock::{SharedClock, SystemClock};
use quarterdeck_domain::event::EventType;
use quarterdeck_domain::setting::{Registry, SettingSource, api, communication};
use quarterdeck_http::alerts;
use quarterdeck_http::app::{App, Parts, VERSION};
use quarterdeck_http::config::ApiConfig;
use quarterdeck_http::edge::{CorsPolicy, Edge, EdgeConfig, EdgeService, TrustedProxies, wrap};
use quarterdeck_http::limits::{Limits, Tiers};
use quarterdeck_http::rights::Rights;
use quarterdeck_http::server::{ServerOptions, Stopped, Tls, serve};
use quarterdeck_http::v1::health::Health;
use quarterdeck_http::ws::Sockets;
use quarterdeck_limits::{DEFAULT_MAX_KEYS, Limiter, RedisOptions};
use quarterdeck_store::Store;
use quarterdeck_store::seal::Keyring;
use quarterdeck_work::activities::Activities;
use quarterdeck_work::analytics::Analytics;
use quarterdeck_work::approvals::Approvals;
use quarterdeck_work::audit::Audit;
use quarterdeck_work::autonomy::Autonomy;
use quarterdeck_work::budget::{self, Budget};
use quarterdeck_work::coordination_metrics::CoordinationMetrics;
use quarterdeck_work::interrupts::Interrupts;
use quarterdeck_work::notifications::{Notifications, Patience};
use quarterdeck_work::projects::Projects;
use quarterdeck_work::reviews::Reviews;
use quarterdeck_work::settings::{Dispatcher, Rule, Settings, Setup, Sources};
use quarterdeck_work::tasks::Tasks;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Loaded, create_data_dir};
use crate::lifecycle::Lifecycle;
use crate::logging::{self, Logging, LoggingConfig};
use crate::{Failure, Output, artifacts, backups, follow, gatherings, local, log_settings, news};

/// How often metrics are folded, so that they hold a bounded number of samples.
const METRICS_INTERVAL: Duration = Duration::from_secs(5);
/// How often is looked for what nobody has decided in time.
const DEADLINE_INTERVAL: Duration = Duration::from_secs(5);

/// Runs the server until SIGINT or SIGTERM. A second signal ends the process at once.
///
/// # Errors
/// When a step of the start fails; what had started is stopped again.
pub(crate) async fn run(loaded: Loaded, output: &Output) -> Result<(), Failure> {
    let config = &loaded.config;
    create_data_dir(&config.data_dir).map_err(|e| {
        Failure::runtime(format!("cannot make the data folder {} ({e})", config.data_dir.display()))
            .hint("name another with --data-dir or QUARTERDECK_DATA_DIR")
    })?;
    let log = LoggingConfig { console_level: config.log.level, log_dir: config.log.dir.clone() };
    let logging = Arc::new(logging::init(log).map_err(|why| {
        Failure::runtime(format!("CRITICAL: logging cannot start: {why}"))
            .hint("check QUARTERDECK_LOG_DIR and QUARTERDECK_LOG_LEVEL")
    })?);
    let mut life = Lifecycle::default();
    let outcome = start_and_wait(&mut life, &loaded, &logging, output).await;
    life.stop().await;
    tracing::info!(target: "api", "api.app.shutdown");
    logging.flush();
    outcome
}

async fn start_and_wait(
    life: &mut Lifecycle,
    loaded: &Loaded,
    logging: &Arc<Logging>,
    output: &Output,
) -> Result<(), Failure> {
    let config = &loaded.config;
    for text in &loaded.unknown_variables {
        tracing::warn!(target: "config", text, "config.variable.unknown");
    }
    for warning in config.api.warnings() {
        tracing::warn!(target: "api", warning = warning.text, "{}", warning.event);
    }
    let signals = Signals::listen()?;
    let tls = load_tls(&config.api)?;
    let listener = bind(&config.api).await?;
    let app = start(life, loaded, logging).await?;
    let is_new = app.auth.needs_setup().await?;
    let service = wrap(app.router(), Arc::clone(&app.edge));
    let stopping = CancellationToken::new();
    let server = spawn_server(listener, service, tls.clone(), stopping.clone());
    let url = config.api.server.local_url();
    tracing::info!(
        target: "api", version = VERSION, database = app.store.backend_name(), url, "api.app.startup"
    );
    // What a person has to read comes last, below what the log says of the start.
    logging.flush();
    if is_new {
        let command = "quarterdeck user create NAME --role ceo";
        output.note(&format!("No account exists yet: open the address below, or run `{command}`."));
    }
    output.print(&format!("Quarterdeck {VERSION} is ready at {url}\n"));
    news::announce(&app, EventType::SystemStartup, json!({"message": "Server started", "version": VERSION}))
        .await;
    let reporting = tokio::spawn(Arc::clone(&app.sockets).report(app.store.clone(), stopping.clone()));
    signals.wait(tls.as_ref()).await;
    news::announce(
        &app,
        EventType::SystemShutdown,
        json!({"message": "Server stopping", "reason": "signal"}),
    )
    .await;
    app.edge.drain();
    stopping.cancel();
    // Sockets and streams say goodbye while the listener lets requests finish.
    app.streams.stop();
    app.sockets.stop().await;
    if let Err(error) = reporting.await {
        tracing::error!(target: "api", error = %error, "api.ws.presence_ended");
    }
    if let Ok(Stopped::Cut) = server.await {
        tracing::warn!(target: "api", "api.app.shutdown.connections_cut");
    }
    Ok(())
}

fn spawn_server(
    listener: TcpListener,
    service: EdgeService,
    tls: Option<Tls>,
    stopping: CancellationToken,
) -> JoinHandle<Stopped> {
    tokio::spawn(serve(vec![listener], service, ServerOptions { tls, ..ServerOptions::default() }, stopping))
}

/// Starts every part behind the listener, in order.
async fn start(life: &mut Lifecycle, loaded: &Loaded, logging: &Arc<Logging>) -> Result<App, Failure> {
    let config = &loaded.config;
    let clock = SystemClock::shared();
    let started = clock.monotonic();

    backups::recover(loaded)?;
    let store = Store::open(local::database(config)?).await?;
    let closing = store.clone();
    life.started("persistence", Duration::from_secs(5), async move { closing.close().await });

    let settings = open_settings(loaded, store.clone(), Arc::clone(&clock)).await?;
    let secret = resolve_secret(&store, &clock, &config.api.auth.jwt_secret).await?;
    let mut identity = config.api.auth.clone();
    identity.exclude_paths = public_paths(&settings)?;
    let auth = Auth::start(identity, store.clone(), Arc::clone(&clock), secret, HashCost::PRODUCTION).await?;
    auth.ensure_system_user().await?;

    let limits = start_limits(life, config, &settings, Arc::clone(&clock)).await?;
    let dispatcher = Arc::new(Dispatcher::new(settings.clone()));
    let sweep = Arc::new(Mutex::new(Duration::from_secs(60)));
    follow::identity(&settings, &dispatcher, &auth, &sweep);
    follow::limits(&settings, &dispatcher, &limits);
    follow::logging(&settings, &dispatcher, logging);
    dispatcher.start()?;
    let stopping = Arc::clone(&dispatcher);
    life.started("settings", Duration::from_secs(2), async move {
        // Too slow a stop is logged by the dispatcher.
        let _ = stopping.stop(Duration::from_secs(2)).await;
    });

    let backups = backups::start(life, loaded, &settings, &store, &clock, &dispatcher).await?;
    if let Err(error) = auth.ensure_owner().await {
        tracing::warn!(target: "auth", error = %error, "auth.first_owner.failed");
    }
    let edge = Arc::new(Edge::new(edge_config(&config.api, &settings)?)?);
    let bus = news::bus(life, config, &settings, &store, &clock).await?;
    let (messages, bridge) = news::messages(life, config, &settings, &bus, &clock).await?;
    let tasks = Tasks::new(store.clone(), settings.clone(), Arc::clone(&clock), Some(messages.clone()));
    let stopping = tasks.clone();
    life.started("tasks", Duration::from_secs(310), async move { stopping.stop().await });
    let sockets = Sockets::new(
        news::socket_options(&config.api, &settings),
        edge.metrics().recorder(),
        Arc::clone(&clock),
    );
    let queue =
        usize::try_from(settings.get(&communication::EVENT_STREAM_MAX_QUEUE_SIZE)).unwrap_or_default();
    let streams = SessionHub::start(queue, Arc::clone(&clock));
    let interrupts = Interrupts::new(store.clone(), Arc::clone(&streams), Arc::clone(&clock));
    let escalations = gatherings::escalations(life, config, &store, &clock);
    let meetings = gatherings::meetings(life, config, &store, &clock);
    let projects = Projects::new(store.clone(), Arc::clone(&clock));
    let artifacts = artifacts::start(life, config, store.clone(), Arc::clone(&clock)).await?;
    let rights = Rights::of(&store);
    let notifications = notifications(life, loaded, &clock);
    alerts::of_lockouts(&auth, &notifications, Arc::clone(&clock));
    let audit = Audit::new(store.clone(), Arc::clone(&clock), notifications.clone());
    audit.started(VERSION).await?;
    let budget =
        Budget::open(store.clone(), settings.clone(), Arc::clone(&clock), notifications.clone()).await?;
    let coordination_metrics = CoordinationMetrics::new(store.clone());
    let approvals = Approvals::new(
        store.clone(),
        settings.clone(),
        Arc::clone(&clock),
        tasks.clone(),
        notifications.clone(),
    );
    let upkeep = Upkeep {
        approvals: approvals.clone(),
        audit: audit.clone(),
        notifications: notifications.clone(),
        tasks: tasks.clone(),
        budget: budget.clone(),
        coordination_metrics: coordination_metrics.clone(),
        interrupts: interrupts.clone(),
        bus: bus.clone(),
        auth: Arc::clone(&auth),
        edge: Arc::clone(&edge),
        limits: Arc::clone(&limits),
        logging: Arc::clone(logging),
        sweep,
    };
    upkeep.start(life);
    Ok(App::new(Parts {
        auth,
        escalations,
        meetings,
        autonomy: Autonomy::new(settings.clone(), approvals.clone()),
        messages: messages.clone(),
        analytics: Analytics::new(store.clone(), budget.clone(), Arc::clone(&clock)),
        activities: Activities::new(store.clone(), Arc::clone(&clock)),
        reviews: Reviews::new(store.clone(), settings.clone(), Arc::clone(&clock)),
        health: Health::new(store.clone(), Arc::clone(&clock)).with_messages({
            let bus = bus.clone();
            move || {
                let (bus, messages, bridge) = (bus.clone(), messages.clone(), bridge.clone());
                Box::pin(async move {
                    let flows = bus.is_linked() != Some(false) && bridge.health().dead.is_empty();
                    flows && messages.health_check().await.is_ok()
                })
            }
        }),
        store,
        settings,
        limits,
        bus,
        streams,
        interrupts,
        backups,
        budget,
        coordination_metrics,
        tasks,
        approvals,
        audit,
        notifications,
        projects,
        artifacts,
        sockets,
        rights,
        edge,
        clock,
        api_prefix: config.api.api_prefix.clone(),
        started,
    }))
}

/// The settings over the configuration that was loaded.
pub(crate) async fn open_settings(
    loaded: &Loaded,
    store: Store,
    clock: SharedClock,
) -> Result<Settings, Failure> {
    let keys =
        loaded.config.settings_key.as_ref().map(Keyring::parse).transpose().map_err(Failure::runtime)?;
    let sources = Sources {
        environment: loaded.setting_environment.clone().into_iter().collect(),
        file: loaded.chosen.clone().into_iter().collect(),
    };
    let auth = &loaded.config.api.auth;
    let (refresh_on, refresh_minutes) = (auth.jwt_refresh_enabled, auth.jwt_refresh_expiry_minutes);
    let outlived = Rule::over([api::JWT_EXPIRY_MINUTES.definition()], move |values| {
        if refresh_on && i64::from(refresh_minutes) <= values.get(&api::JWT_EXPIRY_MINUTES) {
            return Err(format!("must be less than the {refresh_minutes} minutes of a refresh token"));
        }
        Ok(())
    });
    let floor = i64::from(loaded.config.api.rate_limit.floor_max_requests);
    let tiers =
        [api::RATE_LIMIT_UNAUTH_MAX_REQUESTS.definition(), api::RATE_LIMIT_AUTH_MAX_REQUESTS.definition()];
    let within_floor = Rule::over(tiers, move |values| {
        let most = values
            .get(&api::RATE_LIMIT_UNAUTH_MAX_REQUESTS)
            .max(values.get(&api::RATE_LIMIT_AUTH_MAX_REQUESTS));
        if most > floor { Err(format!("must not exceed the floor of {floor} requests")) } else { Ok(()) }
    });
    let registry = Registry::of_this_program().map_err(Failure::runtime)?;
    let rules = vec![outlived, within_floor, log_settings::rule(), budget::rule()];
    let setup = Setup { registry, sources, keys, rules };
    Ok(Settings::open(store, clock, setup).await?)
}

/// Limits in Redis when one is named, else in memory.
async fn start_limits(
    life: &mut Lifecycle,
    config: &Config,
    settings: &Settings,
    clock: SharedClock,
) -> Result<Arc<Limits>, Failure> {
    let limiter = match &config.redis_url {
        Some(url) => Limiter::redis(url, RedisOptions::default(), Arc::clone(&clock)).await?,
        None => Limiter::memory(Arc::clone(&clock), DEFAULT_MAX_KEYS),
    };
    let closing = limiter.clone();
    life.started("limits", Duration::from_secs(2), async move { closing.close().await });
    let limits = Limits::new(limiter, clock, tiers(config, settings)).map_err(Failure::runtime)?;
    Ok(Arc::new(limits))
}

fn tiers(config: &Config, settings: &Settings) -> Tiers {
    let number = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
    let seconds = match settings.get(&api::RATE_LIMIT_TIME_UNIT).as_str() {
        "second" => 1,
        "hour" => 3600,
        "day" => 86_400,
        _ => 60,
    };
    Tiers {
        floor: config.api.rate_limit.floor_max_requests,
        anonymous: number(settings.get(&api::RATE_LIMIT_UNAUTH_MAX_REQUESTS)),
        authenticated: number(settings.get(&api::RATE_LIMIT_AUTH_MAX_REQUESTS)),
        window: Duration::from_secs(seconds),
        excluded: excluded_paths(config, settings),
        credential_checks: true,
    }
}

/// Paths no tier counts. Unless somebody chose them, they are the configuration's: they follow the prefix
/// and hold every probe, which the setting's own default cannot.
fn excluded_paths(config: &Config, settings: &Settings) -> Vec<String> {
    let setting = &api::RATE_LIMIT_EXCLUDE_PATHS;
    let id = setting.definition().id();
    let chosen = settings
        .entries()
        .iter()
        .any(|entry| entry.definition.id() == id && entry.source != SettingSource::Default);
    if !chosen {
        return config.api.rate_limit.exclude_paths.clone();
    }
    let listed = settings.get(setting);
    listed.as_array().into_iter().flatten().filter_map(|path| path.as_str().map(str::to_owned)).collect()
}

/// The sinks of notifications; they are among the last to stop, for others may have something to say.
fn notifications(life: &mut Lifecycle, loaded: &Loaded, clock: &SharedClock) -> Notifications {
    let variable = |name: &str| loaded.environment.text(name).map(str::to_owned);
    let config = &loaded.config.notifications;
    let notifications = Notifications::start(config, &variable, Arc::clone(clock), &Patience::default());
    let stopping = notifications.clone();
    life.started("notifications", Duration::from_secs(5), async move {
        stopping.stop(Duration::from_secs(4)).await;
    });
    notifications
}

/// What is done again and again while the server runs.
struct Upkeep {
    approvals: Approvals,
    audit: Audit,
    notifications: Notifications,
    budget: Budget,
    coordination_metrics: CoordinationMetrics,
    interrupts: Interrupts,
    tasks: Tasks,
    bus: Bus,
    auth: Arc<Auth>,
    edge: Arc<Edge>,
    limits: Arc<Limits>,
    logging: Arc<Logging>,
    sweep: Arc<Mutex<Duration>>,
}

impl Upkeep {
    fn start(self, life: &mut Lifecycle) {
        let stopping = CancellationToken::new();
        let (sweeping, ending, folding) = (stopping.clone(), stopping.clone(), stopping.clone());
        let Self {
            approvals,
            audit,
            notifications,
            interrupts,
            tasks,
            budget,
            coordination_metrics,
            bus,
            auth,
            edge,
            limits,
            logging,
            sweep,
        } = self;
        let watch = tokio::spawn(audit.clone().watch(stopping.clone()));
        let sweeps = tokio::spawn(async move {
            loop {
                let pause = *sweep.lock().unwrap_or_else(|e| e.into_inner());
                tokio::select! {
                    () = sweeping.cancelled() => return,
                    () = tokio::time::sleep(pause) => {
                        auth.upkeep().await;
                        interrupts.upkeep().await;
                        tasks.upkeep().await;
                        budget.upkeep().await;
                        coordination_metrics.upkeep().await;
                    }
                }
            }
        });
        let ends = tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = ending.cancelled() => return,
                    () = tokio::time::sleep(DEADLINE_INTERVAL) => approvals.upkeep().await,
                }
            }
        });
        let folds = tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = folding.cancelled() => return,
                    () = tokio::time::sleep(METRICS_INTERVAL) => {
                        limits.limiter().sweep();
                        limits.limiter().publish(edge.metrics().recorder());
                        bus.publish_stats(edge.metrics().recorder());
                        audit.publish(edge.metrics().recorder());
                        notifications.publish(edge.metrics().recorder());
                        edge.metrics().run_upkeep();
                        edge.metrics().set_dropped_log_lines(logging.dropped());
                    }
                }
            }
        });
        life.started("upkeep", Duration::from_secs(2), async move {
            stopping.cancel();
            for task in [watch, sweeps, ends, folds] {
                if let Err(error) = task.await {
                    tracing::error!(target: "api", error = %error, "api.app.upkeep.ended");
                }
            }
        });
    }
}

/// The operator's list of public paths; `None` leaves it to what the endpoints declare.
fn public_paths(settings: &Settings) -> Result<Option<Vec<PathPattern>>, Failure> {
    let listed = settings.get(&api::AUTH_EXCLUDE_PATHS);
    let Some(listed) = listed.as_array() else { return Ok(None) };
    let patterns = listed.iter().map(|path| PathPattern::new(path.as_str().unwrap_or_default()));
    patterns.collect::<Result<_, _>>().map(Some).map_err(Failure::runtime)
}

fn edge_config(config: &ApiConfig, settings: &Settings) -> Result<EdgeConfig, Failure> {
    let (server, cors) = (&config.server, &config.cors);
    let cors = CorsPolicy::new(
        &cors.allowed_origins,
        &cors.allow_methods,
        &cors.allow_headers,
        cors.allow_credentials,
    )
    .map_err(Failure::runtime)?;
    let proxies = server.trusted_proxies.iter().map(ToString::to_string);
    Ok(EdgeConfig {
        error_base: config.error_docs_base_url(),
        cors,
        trusted_proxies: TrustedProxies::parse(proxies).map_err(Failure::runtime)?,
        max_body_bytes: settings.get(&api::REQUEST_MAX_BODY_SIZE_BYTES).unsigned_abs(),
        compression_minimum_size: u16::try_from(settings.get(&api::COMPRESSION_MINIMUM_SIZE_BYTES))
            .unwrap_or(u16::MAX),
        version: VERSION,
        api_prefix: config.api_prefix.clone(),
        ..EdgeConfig::default()
    })
}

fn load_tls(api: &ApiConfig) -> Result<Option<Tls>, Failure> {
    let Some(files) = api.server.tls() else { return Ok(None) };
    let tls =
        Tls::load(PathBuf::from(files.cert), PathBuf::from(files.key), files.client_ca.map(PathBuf::from))
            .map_err(Failure::runtime)?;
    tracing::info!(target: "api", "api.tls.configured");
    Ok(Some(tls))
}

/// Takes the address before anything is opened: a second server must not touch the first one's files.
async fn bind(api: &ApiConfig) -> Result<TcpListener, Failure> {
    let (host, port) = (api.server.host.as_str(), api.server.port);
    TcpListener::bind((host, port)).await.map_err(|e| {
        Failure::runtime(format!("cannot listen on {host} port {port} ({e})"))
            .hint("stop what uses the port, or choose another with --port")
    })
}

/// The signals that end the server, heard from before the start so that none is lost.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    hang_up: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let open = |kind| signal(kind).map_err(|e| Failure::runtime(format!("cannot hear signals ({e})")));
        Ok(Self {
            terminate: open(SignalKind::terminate())?,
            interrupt: open(SignalKind::interrupt())?,
            hang_up: open(SignalKind::hangup())?,
        })
    }

    /// Waits for the end; a hang-up reads certificates anew meanwhile.
    async fn wait(mut self, tls: Option<&Tls>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
                _ = self.hang_up.recv() => match tls.map(Tls::reload) {
                    Some(Err(why)) => tracing::error!(target: "api", why, "api.tls.reload_failed"),
                    Some(Ok(())) => tracing::info!(target: "api", "api.tls.configured"),
                    None => {}
                },
            }
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            std::process::exit(130);
        });
    }
}

#[cfg(not(unix))]
impl Signals {
    fn listen() -> Result<Self, Failure> {
        Ok(Self {})
    }

    async fn wait(self, _: Option<&Tls>) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
