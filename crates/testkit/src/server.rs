//! The whole router on a fresh store, with cheap password hashes and a clock that stands still.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use quarterdeck_auth::{Auth, AuthConfig, HashCost, JwtSecret, NewKey, Password};
use quarterdeck_bus::message::{self, MessageBus, MessageBusConfig};
use quarterdeck_bus::sessions::{QUEUE, SessionHub};
use quarterdeck_bus::{Bus, Options as BusOptions};
use quarterdeck_domain::artifact::MAX_TOTAL_BYTES;
use quarterdeck_domain::audit::Actor;
use quarterdeck_domain::channel::Shared;
use quarterdeck_domain::clock::{Clock, ManualClock, SharedClock};
use quarterdeck_domain::role::HumanRole;
use quarterdeck_domain::setting::Registry;
use quarterdeck_domain::text::NotBlank;
use quarterdeck_http::alerts;
use quarterdeck_http::app::{App, Parts, VERSION};
use quarterdeck_http::edge::{Edge, EdgeConfig, EdgeService, wrap};
use quarterdeck_http::endpoint::Endpoint;
use quarterdeck_http::limits::{Limits, Overrides, Tiers};
use quarterdeck_http::rights::Rights;
use quarterdeck_http::v1::{self, health::Health};
use quarterdeck_http::ws::{SocketOptions, Sockets};
use quarterdeck_limits::{DEFAULT_MAX_KEYS, Limiter};
use quarterdeck_store::Store;
use quarterdeck_work::activities::Activities;
use quarterdeck_work::analytics::Analytics;
use quarterdeck_work::approvals::Approvals;
use quarterdeck_work::artifacts::{Artifacts, Contents};
use quarterdeck_work::audit::Audit;
use quarterdeck_work::autonomy::Autonomy;
use quarterdeck_work::backups::{Backups, Places};
use quarterdeck_work::budget::Budget;
use quarterdeck_work::coordination_metrics::CoordinationMetrics;
use quarterdeck_work::escalations::{EscalationConfig, Escalations};
use quarterdeck_work::interrupts::Interrupts;
use quarterdeck_work::meetings::{Conductor, Meetings, MeetingsConfig};
use quarterdeck_work::notifications::{Notifications, NotificationsConfig, Patience};
use quarterdeck_work::projects::Projects;
use quarterdeck_work::reviews::Reviews;
use quarterdeck_work::settings::{Settings, Setup, Sources};
use quarterdeck_work::tasks::Tasks;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::{Caller, Listening, TestDb};

/// Password of every person a test makes.
pub const PASSWORD: &str = "correct horse battery";
/// Signing secret of every test server, so that tests can forge tokens with it.
pub const SECRET: &str = "a signing secret that only the tests know";

/// A running server without a socket.
pub struct TestServer {
    /// What handlers share.
    pub app: App,
    /// The database, for a second server beside this one.
    pub db: TestDb,
    /// Time; moves when told to.
    pub clock: Arc<ManualClock>,
    service: EdgeService,
}

/// What a test changes about its server.
pub struct Options {
    /// Identity.
    pub auth: AuthConfig,
    /// Edge.
    pub edge: EdgeConfig,
    /// Cost of password hashes.
    pub cost: HashCost,
    /// Values of environment and configuration file.
    pub sources: Sources,
    /// Global limits; out of the way unless a test is about them.
    pub tiers: Tiers,
    /// Limits of single operations; off unless a test is about them.
    pub overrides: Overrides,
    /// Where limits are counted.
    pub limiter: Option<Limiter>,
    /// How news travels.
    pub bus: BusOptions,
    /// WebSockets.
    pub sockets: SocketOptions,
    /// Events that may wait for a reader of an event stream.
    pub stream_queue: usize,
    /// Conflicts that wait for people.
    pub escalations: EscalationConfig,
    /// Meetings of agents.
    pub meetings: MeetingsConfig,
    /// Who holds them.
    pub conductor: Option<Arc<dyn Conductor>>,
    /// Messages between agents.
    pub messages: MessageBusConfig,
    /// Who is told what; nobody but the log unless a test is about it.
    pub notifications: NotificationsConfig,
    /// Where contents of artifacts are; `None` for the folder of the database.
    pub contents: Option<Contents>,
    /// Most bytes of them.
    pub artifact_bytes: u64,
    /// Endpoints beside those of the program.
    pub endpoints: Vec<Endpoint>,
    /// Folder with what is beside the database; that of the database unless a test says otherwise.
    pub data_dir: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        let auth = AuthConfig { jwt_secret: SECRET.into(), ..AuthConfig::default() };
        let tiers = Tiers {
            floor: 1_000_000,
            anonymous: 1_000_000,
            authenticated: 1_000_000,
            window: Duration::from_secs(60),
            excluded: vec!["/api/v1/health".to_owned()],
            credential_checks: false,
        };
        Self {
            auth,
            edge: EdgeConfig::default(),
            cost: HashCost::TEST,
            sources: Sources::default(),
            tiers,
            overrides: Overrides::new(false, &json!({}), true, &json!({})),
            limiter: None,
            bus: BusOptions::default(),
            sockets: SocketOptions::default(),
            stream_queue: QUEUE,
            escalations: EscalationConfig::default(),
            meetings: MeetingsConfig::default(),
            conductor: None,
            messages: MessageBusConfig::default(),
            notifications: NotificationsConfig::default(),
            contents: None,
            artifact_bytes: MAX_TOTAL_BYTES,
            endpoints: Vec::new(),
            data_dir: PathBuf::new(),
        }
    }
}

impl TestServer {
    /// A server on SQLite with default settings.
    pub async fn start() -> Self {
        Self::on(TestDb::sqlite()).await
    }

    /// A server on this database with default settings.
    pub async fn on(db: TestDb) -> Self {
        Self::with(db, |_| {}).await
    }

    /// A server on this database with changed settings.
    pub async fn with(db: TestDb, change: impl FnOnce(&mut Options)) -> Self {
        let clock = ManualClock::at(DateTime::from_timestamp(1_800_000_000, 0).unwrap_or_default());
        Self::with_clock(db, clock, change).await
    }

    /// Another copy of the program on the same database and clock.
    pub async fn second(&self, change: impl FnOnce(&mut Options)) -> Self {
        Self::with_clock(self.db.clone(), Arc::clone(&self.clock), change).await
    }

    async fn with_clock(db: TestDb, clock: Arc<ManualClock>, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options { data_dir: db.folder().to_owned(), ..Options::default() };
        change(&mut options);
        options.contents.get_or_insert_with(|| Contents::in_folder(db.artifacts()));
        let store = db.open().await;
        let mut endpoints = v1::endpoints();
        endpoints.append(&mut options.endpoints);
        let app = Self::wire(store, Arc::clone(&clock) as SharedClock, options).await;
        let service = wrap(app.router_of(endpoints), Arc::clone(&app.edge));
        Self { app, db, clock, service }
    }

    /// The parts of a server on any store and clock, for one that really listens.
    pub async fn wire(store: Store, clock: SharedClock, options: Options) -> App {
        let secret = JwtSecret::new(options.auth.jwt_secret.clone()).expect("a long secret");
        let auth = Auth::start(options.auth, store.clone(), Arc::clone(&clock), secret, options.cost);
        let auth = auth.await.expect("identity starts");
        auth.ensure_system_user().await.expect("the system user");
        auth.ensure_owner().await.expect("the first owner");
        let setup = Setup {
            registry: Registry::of_this_program().expect("sound definitions"),
            sources: options.sources,
            keys: None,
            rules: vec![quarterdeck_work::budget::rule()],
        };
        let settings = Settings::open(store.clone(), Arc::clone(&clock), setup).await.expect("settings open");
        let limiter =
            options.limiter.unwrap_or_else(|| Limiter::memory(Arc::clone(&clock), DEFAULT_MAX_KEYS));
        let limits =
            Limits::new(limiter, Arc::clone(&clock), options.tiers).expect("tiers that let something pass");
        limits.set_overrides(options.overrides);
        let bus = Bus::start(store.clone(), Arc::clone(&clock), options.bus).await.expect("news travels");
        let edge = Arc::new(Edge::new(options.edge).expect("the edge"));
        let streams = SessionHub::start(options.stream_queue, Arc::clone(&clock));
        let config_file = options.data_dir.join("quarterdeck.toml");
        let chosen = settings.get(&quarterdeck_domain::setting::backup::PATH);
        let places = Places::new(&chosen, &options.data_dir, Some(config_file)).expect("sound places");
        let backups = Backups::new(store.clone(), settings.clone(), Arc::clone(&clock), &places, VERSION);
        backups.sweep().await;
        let shared = Shared::ALL.iter().map(|channel| channel.as_str()).chain(["#settings"]);
        let messages =
            MessageBus::new(options.messages.with_channels(shared), message::BusOptions::default());
        let messages = messages.expect("a sound configuration");
        messages.start().await.expect("messages travel");
        let config = &options.notifications;
        let notifications = Notifications::start(config, &|_| None, Arc::clone(&clock), &Patience::default());
        alerts::of_lockouts(&auth, &notifications, Arc::clone(&clock));
        let budget =
            Budget::open(store.clone(), settings.clone(), Arc::clone(&clock), notifications.clone()).await;
        let budget = budget.expect("a sound budget");
        let tasks = Tasks::new(store.clone(), settings.clone(), Arc::clone(&clock), None);
        let approvals = Approvals::new(
            store.clone(),
            settings.clone(),
            Arc::clone(&clock),
            tasks.clone(),
            notifications.clone(),
        );
        let contents = options.contents.unwrap_or_else(|| Contents::in_folder(std::env::temp_dir()));
        App::new(Parts {
            messages,
            autonomy: Autonomy::new(settings.clone(), approvals.clone()),
            escalations: Escalations::new(store.clone(), Arc::clone(&clock), options.escalations),
            meetings: Meetings::new(store.clone(), Arc::clone(&clock), options.meetings, options.conductor),
            auth,
            backups,
            projects: Projects::new(store.clone(), Arc::clone(&clock)),
            artifacts: Artifacts::new(store.clone(), Arc::clone(&clock), contents, options.artifact_bytes),
            bus,
            analytics: Analytics::new(store.clone(), budget.clone(), Arc::clone(&clock)),
            activities: Activities::new(store.clone(), Arc::clone(&clock)),
            reviews: Reviews::new(store.clone(), settings.clone(), Arc::clone(&clock)),
            budget,
            coordination_metrics: CoordinationMetrics::new(store.clone()),
            interrupts: Interrupts::new(store.clone(), Arc::clone(&streams), Arc::clone(&clock)),
            streams,
            audit: Audit::new(store.clone(), Arc::clone(&clock), notifications.clone()),
            notifications,
            sockets: Sockets::new(options.sockets, edge.metrics().recorder(), Arc::clone(&clock)),
            rights: Rights::of(&store),
            approvals,
            tasks,
            limits: Arc::new(limits),
            health: Health::new(store.clone(), Arc::clone(&clock)),
            store,
            settings,
            edge,
            started: clock.monotonic(),
            clock,
            api_prefix: "/api/v1".to_owned(),
        })
    }

    /// The server on a socket of the loopback address, until what is given back is dropped.
    pub async fn listen(&self) -> Listening {
        Listening::start(self.app.clone(), self.service.clone()).await
    }

    /// Somebody without credentials.
    pub fn anonymous(&self) -> Caller {
        Caller::new(self.service.clone())
    }

    /// The CEO with session cookies; made by the first call, signed in by later ones.
    pub async fn ceo(&self) -> Caller {
        let mut caller = self.anonymous();
        let body = json!({"username": "ceo", "password": PASSWORD});
        if caller.post("/api/v1/auth/setup", &body).await.status != 201 {
            caller.post("/api/v1/auth/login", &body).await.expect(200);
        }
        caller
    }

    /// A person with this role, made if need be, with session cookies and no password to change.
    pub async fn person(&self, username: &str, role: HumanRole) -> Caller {
        let name = NotBlank::new(username).expect("a name");
        let first = "the first password";
        let password = Password::new(first.to_owned()).expect("a password");
        let created = self.app.auth.create_user(&Actor::system("test"), name, password, role).await;
        let mut caller = self.anonymous();
        if created.is_ok() {
            let body = json!({"username": username, "password": first});
            caller.post("/api/v1/auth/login", &body).await.expect(200);
            let body = json!({"current_password": first, "new_password": PASSWORD});
            caller.post("/api/v1/auth/change-password", &body).await.expect(200);
        } else {
            caller = self.sign_in(username).await;
        }
        caller
    }

    /// A new session of a person a test made.
    pub async fn sign_in(&self, username: &str) -> Caller {
        let mut caller = self.anonymous();
        let body = json!({"username": username, "password": PASSWORD});
        caller.post("/api/v1/auth/login", &body).await.expect(200);
        caller
    }

    /// A script with an API key of this person.
    pub async fn key_of(&self, owner: &Caller, role: HumanRole) -> Caller {
        let cookie = owner.cookie("session").unwrap_or_default().to_owned();
        let shown = quarterdeck_auth::Credentials { cookie: Some(&cookie), authorization: None };
        let identity = self.app.auth.identify(shown).await.expect("a signed-in owner");
        let wanted = NewKey { name: NotBlank::new("test").expect("a name"), role, expires_at: None };
        let issued = self.app.auth.issue_key(&identity, &Actor::system("test"), wanted).await.expect("a key");
        self.bearer(issued.raw.expose_secret())
    }

    /// A script with this bearer token.
    pub fn bearer(&self, token: &str) -> Caller {
        self.anonymous().with_bearer(token)
    }

    /// The command line, with a fresh system token.
    pub fn system_cli(&self) -> Caller {
        let token = quarterdeck_auth::cli_token::mint_cli_token(
            &SecretString::from(SECRET),
            self.app.auth.config().jwt_algorithm,
            self.now(),
        );
        self.bearer(&token.expect("a token"))
    }

    /// What the clock says.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }
}
