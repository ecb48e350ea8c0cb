//! What handlers share, and the router made of the declared endpoints.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use quarterdeck_auth::Auth;
use quarterdeck_bus::Bus;
use quarterdeck_bus::message::MessageBus;
use quarterdeck_bus::sessions::SessionHub;
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_store::{Signal, Store};
use quarterdeck_work::activities::Activities;
use quarterdeck_work::analytics::Analytics;
use quarterdeck_work::approvals::Approvals;
use quarterdeck_work::artifacts::Artifacts;
use quarterdeck_work::audit::Audit;
use quarterdeck_work::autonomy::Autonomy;
use quarterdeck_work::backups::Backups;
use quarterdeck_work::budget::Budget;
use quarterdeck_work::coordination_metrics::CoordinationMetrics;
use quarterdeck_work::escalations::Escalations;
use quarterdeck_work::interrupts::Interrupts;
use quarterdeck_work::meetings::Meetings;
use quarterdeck_work::notifications::Notifications;
use quarterdeck_work::projects::Projects;
use quarterdeck_work::reviews::Reviews;
use quarterdeck_work::settings::Settings;
use quarterdeck_work::tasks::Tasks;

use crate::edge::{Edge, RouteTemplate};
use crate::endpoint::Endpoint;
use crate::gate::{self, Gate};
use crate::limits::Limits;
use crate::rights::Rights;
use crate::v1::health::Health;
use crate::ws::Sockets;
use crate::{docs, openapi, pages, v1};

/// Version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Everything a handler may need; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// The parts an [`App`] is made of.
pub struct Parts {
    /// Identity.
    pub auth: Arc<Auth>,
    /// The database.
    pub store: Store,
    /// Run-time settings.
    pub settings: Settings,
    /// How often and how many.
    pub limits: Arc<Limits>,
    /// News of what has happened.
    pub bus: Bus,
    /// Session events, for event streams.
    pub streams: Arc<SessionHub>,
    /// Agents that wait for people.
    pub interrupts: Interrupts,
    /// Backups.
    pub backups: Backups,
    /// Conflicts that wait for people.
    pub escalations: Escalations,
    /// Meetings of agents.
    pub meetings: Meetings,
    /// How freely agents act.
    pub autonomy: Autonomy,
    /// Messages between agents.
    pub messages: MessageBus,
    /// Money.
    pub budget: Budget,
    /// Figures of the company.
    pub analytics: Analytics,
    /// What has happened lately.
    pub activities: Activities,
    /// Reviews of tasks.
    pub reviews: Reviews,
    /// Figures of teamwork.
    pub coordination_metrics: CoordinationMetrics,
    /// Tasks.
    pub tasks: Tasks,
    /// What people have to decide.
    pub approvals: Approvals,
    /// The audit trail.
    pub audit: Audit,
    /// Tells people what they did not ask for.
    pub notifications: Notifications,
    /// What teams work towards.
    pub projects: Projects,
    /// What came out of tasks.
    pub artifacts: Artifacts,
    /// WebSockets.
    pub sockets: Arc<Sockets>,
    /// Rights of callers that stay.
    pub rights: Arc<Rights>,
    /// The edge the router is wrapped in.
    pub edge: Arc<Edge>,
    /// Clocks.
    pub clock: SharedClock,
    /// Prefix of every endpoint, such as `/api/v1`.
    pub api_prefix: String,
    /// Probes behind the health endpoints.
    pub health: Health,
    /// Monotonic time of the start.
    pub started: Duration,
}

impl App {
    /// Shares the parts. Whichever copy of the program begins to replace the database, this one steps aside.
    pub fn new(parts: Parts) -> Self {
        let edge = Arc::clone(&parts.edge);
        parts.store.on_signal(move |signal| {
            if let Signal::Maintenance { begins } = signal {
                edge.set_maintenance(*begins);
            }
        });
        Self(Arc::new(parts))
    }

    /// The router of everything the server answers; [`edge::wrap`](crate::edge::wrap) goes around it.
    pub fn router(&self) -> Router {
        self.router_of(v1::endpoints())
    }

    /// The router of these endpoints and of everything that is none.
    pub fn router_of(&self, endpoints: Vec<Endpoint>) -> Router {
        let document = openapi::document(&self.api_prefix, &endpoints, VERSION);
        let mut router = Router::<App>::new()
            .merge(docs::routes(&document))
            .merge(pages::routes())
            .fallback(|| async { StatusCode::NOT_FOUND })
            .layer(from_fn_with_state(self.clone(), gate::charge_floor));
        for Endpoint { docs, route } in endpoints {
            let path = format!("{}{}", self.api_prefix, docs.path);
            if docs.ungated {
                router = router.route(&path, route);
                continue;
            }
            // Labels of metrics live as long as the program; routers are built once.
            let template = RouteTemplate(Box::leak(path.clone().into_boxed_str()));
            let operation = self.limits.operation(&docs);
            let gate = Gate { app: self.clone(), docs: Arc::new(docs), template, operation };
            router = router.route(&path, route.route_layer(gate));
        }
        router.method_not_allowed_fallback(gate::wrong_method).with_state(self.clone())
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// The OpenAPI document of the default prefix, as JSON with line breaks.
pub fn openapi_document() -> String {
    let document = openapi::document(crate::config::DEFAULT_API_PREFIX, &v1::endpoints(), VERSION);
    serde_json::to_string_pretty(&document).unwrap_or_default()
}
