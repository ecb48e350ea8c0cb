//! Messages between agents: topics, direct lines and broadcasts, in memory or on NATS.
//!
//! [`MessageBus`] is the handle everyone holds, [`Bridge`] brings what is said there to people who watch.
//!
//! # Wiring
//!
//! ```no_run
//! # async fn wire() -> Result<(), Box<dyn std::error::Error>> {
//! use quarterdeck_bus::message::{Bridge, BridgeOptions, BusOptions, MessageBus, MessageBusConfig};
//!
//! // What the configuration says, with the shared channels of the event stream added.
//! let shared = ["tasks", "agents"];
//! let config = MessageBusConfig::default().with_channels(shared);
//! let bus = MessageBus::new(config, BusOptions::default())?;
//! let bridge = Bridge::new(bus.clone(), shared, BridgeOptions::default(), |channel: &str, payload| {
//!     // Publish `message.sent` with this payload on this channel.
//!     println!("{channel}: {payload:?}");
//! });
//!
//! // After the store, before whoever publishes.
//! bus.start().await?;
//! bridge.start().await?;
//!
//! // In reverse. Health asks `bus.health_check()` and `bridge.health()`.
//! bridge.stop().await?;
//! bus.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The environment's `QUARTERDECK_NATS_URL` belongs into `communication.message_bus.nats.url`. The settings
//! that change while the program runs come in as functions: [`BusOptions::history`] and
//! [`BridgeOptions::settings`] are called whenever they matter.

mod bridge;
mod bus;
mod channel;
mod config;
mod error;
mod life;
mod memory;
mod model;
mod nats;

pub use bridge::{Bridge, BridgeHealth, BridgeOptions, BridgeSettings, Publish};
pub use bus::{BusOptions, HistorySettings, MAX_MESSAGE_BYTES, MessageBus};
pub use channel::{ChannelInfo, ChannelType, MAX_NAME, direct_name};
pub use config::{Backend, MessageBusConfig, NatsConfig, RetentionConfig};
pub use error::{BusError, Result};
pub use model::{Cost, Extra, Message, MessageType, Metadata, Name, Part, Parts, Priority};
pub(crate) use nats::connect;
