//! How news and messages travel, as the configuration says, and what the operator set about sockets.

use std::sync::Arc;
use std::time::Duration;

use quarterdeck_bus::message::{self, Bridge, BridgeOptions, BridgeSettings, HistorySettings, MessageBus};
use quarterdeck_bus::{Bus, History, Options as BusOptions};
use quarterdeck_domain::channel::{Channel, Shared};
use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::event::{Event, EventType};
use quarterdeck_domain::setting::{api, communication};
use quarterdeck_http::app::App;
use quarterdeck_http::config::ApiConfig;
use quarterdeck_http::rights::Patience;
use quarterdeck_http::ws::SocketOptions;
use quarterdeck_store::Store;
use quarterdeck_work::settings::Settings;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::Failure;
use crate::config::Config;
use crate::lifecycle::Lifecycle;

/// Messages of agents that may wait to be told to people.
const BRIDGED: usize = 1024;

/// Topic of agents about settings; no channel that people follow.
const SETTINGS: &str = "#settings";

/// News: through NATS where it is named, else through what the database offers.
pub(crate) async fn bus(
    life: &mut Lifecycle,
    config: &Config,
    settings: &Settings,
    store: &Store,
    clock: &SharedClock,
) -> Result<Bus, Failure> {
    let history = History {
        size: usize::try_from(settings.get(&api::WS_HISTORY_SIZE)).unwrap_or_default(),
        ttl: seconds(settings.get(&api::WS_HISTORY_TTL_SECONDS)),
        max_bytes: usize::try_from(settings.get(&api::WS_HISTORY_MAX_BYTES)).unwrap_or(usize::MAX),
    };
    let nats = config.communication.message_bus.nats.clone();
    let bus = Bus::start(store.clone(), Arc::clone(clock), BusOptions { history, nats }).await?;
    let closing = bus.clone();
    life.started("bus", Duration::from_secs(10), async move { closing.stop().await });
    Ok(bus)
}

/// Messages between agents, and the bridge that brings those on shared channels to people who watch.
pub(crate) async fn messages(
    life: &mut Lifecycle,
    config: &Config,
    settings: &Settings,
    news: &Bus,
    clock: &SharedClock,
) -> Result<(MessageBus, Bridge), Failure> {
    let shared = || Shared::ALL.iter().map(|channel| channel.as_str());
    let live = settings.clone();
    let history = move || HistorySettings {
        batch_size: usize::try_from(live.get(&communication::NATS_HISTORY_BATCH_SIZE)).unwrap_or(100),
        fetch_timeout: Duration::from_secs_f64(live.get(&communication::NATS_HISTORY_FETCH_TIMEOUT_SECONDS)),
    };
    let options = message::BusOptions { history: Arc::new(history), ..message::BusOptions::default() };
    let topics = config.communication.message_bus.clone().with_channels(shared().chain([SETTINGS]));
    let messages = MessageBus::new(topics, options).map_err(Failure::runtime)?;
    let live = settings.clone();
    let bridge_settings = move || BridgeSettings {
        poll_timeout: Duration::from_secs_f64(live.get(&communication::BUS_BRIDGE_POLL_TIMEOUT_SECONDS)),
        max_consecutive_errors: u32::try_from(live.get(&communication::BUS_BRIDGE_MAX_CONSECUTIVE_ERRORS))
            .unwrap_or(30),
        drain_timeout: Duration::from_secs_f64(live.get(&communication::BUS_BRIDGE_DRAIN_TIMEOUT_SECONDS)),
    };
    let options = BridgeOptions { settings: Arc::new(bridge_settings), ..BridgeOptions::default() };
    let bridge = Bridge::new(messages.clone(), shared(), options, bridged(news.clone(), Arc::clone(clock)));
    messages.start().await.map_err(|e| unusable(&e))?;
    let closing = messages.clone();
    life.started("messages", Duration::from_secs(12), async move {
        // What goes wrong is logged there.
        let _ = closing.stop().await;
    });
    bridge.start().await.map_err(|e| unusable(&e))?;
    let closing = bridge.clone();
    life.started("bridge", Duration::from_secs(12), async move {
        let _ = closing.stop().await;
    });
    Ok((messages, bridge))
}

fn unusable(error: &message::BusError) -> Failure {
    Failure::runtime(format!("messages between agents cannot travel ({error})"))
        .hint("check communication.message_bus, and that the NATS server runs with JetStream")
}

/// Publishes what agents say, one after the other.
fn bridged(bus: Bus, clock: SharedClock) -> impl Fn(&str, Map<String, Value>) + Send + Sync + 'static {
    let (sender, mut waiting) = tokio::sync::mpsc::channel::<Event>(BRIDGED);
    tokio::spawn(async move {
        while let Some(event) = waiting.recv().await {
            if let Err(error) = bus.publish(event).await {
                tracing::error!(target: "api", error = %error, cause = error.cause(), "api.ws.send_failed");
            }
        }
    });
    move |channel, payload| {
        let Some(place) = Channel::parse(channel) else { return };
        let id = payload.get("message_id").and_then(Value::as_str).and_then(|id| id.parse().ok());
        let event = Event::of_message(id.unwrap_or_else(Uuid::now_v7), place, clock.now(), payload.into());
        // Best effort, as the senders know: people read the whole from the history.
        let told = event.map_err(|error| error.cause().unwrap_or_default().to_owned()).and_then(|event| {
            sender.try_send(event).map_err(|_| "too many messages wait to be told".to_owned())
        });
        if let Err(why) = told {
            tracing::error!(target: "api", channel, why, "api.ws.send_failed");
        }
    }
}

pub(crate) fn socket_options(api: &ApiConfig, settings: &Settings) -> SocketOptions {
    let duration = |seconds: f64| (seconds > 0.0).then(|| Duration::from_secs_f64(seconds));
    let number = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
    let lifetime = settings.get(&api::WS_MAX_LIFETIME_SECONDS);
    SocketOptions {
        ping_interval: duration(api.server.ws_ping_interval),
        ping_timeout: duration(api.server.ws_ping_timeout),
        first_message_auth: settings.get(&api::WS_FIRST_MESSAGE_AUTH),
        auth_timeout: Duration::from_secs_f64(settings.get(&api::WS_AUTH_TIMEOUT_SECONDS)),
        frame_timeout: duration(settings.get(&api::WS_FRAME_TIMEOUT_SECONDS)),
        patience: Patience {
            failures: number(settings.get(&api::AUTH_REVALIDATE_MAX_FAILURES)) as usize,
            window: seconds(settings.get(&api::AUTH_REVALIDATE_WINDOW_SECONDS)),
        },
        deny_by_http: settings.get(&api::WS_DENIAL) == "http",
        max_per_user: number(settings.get(&api::WS_MAX_CONNECTIONS_PER_USER)),
        refused_per_minute: number(settings.get(&api::WS_REFUSED_HANDSHAKE_RATE)),
        command_rate: number(settings.get(&api::WS_COMMAND_RATE)),
        max_lifetime: (lifetime > 0).then(|| seconds(lifetime)),
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds.unsigned_abs())
}

/// Tells everyone who listens; the server goes on without.
pub(crate) async fn announce(app: &App, event_type: EventType, payload: Value) {
    let told = match Event::new(event_type, app.clock.now(), payload) {
        Ok(event) => app.bus.publish_here(event).await,
        Err(refused) => Err(refused),
    };
    if let Err(error) = told {
        tracing::warn!(target: "api", error = %error, cause = error.cause(), "api.ws.send_failed");
    }
}
