//! The connection to the server: how it is made, and whether it is there.

use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event};
use secrecy::ExposeSecret;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::message::config::{Address, Login, NatsConfig};
use crate::message::error::{BusError, Result};

/// A client of the server, and news of it. It connects again by itself.
pub(super) struct Link {
    pub(super) client: Client,
    news: watch::Receiver<News>,
}

#[derive(Clone, Copy, Default)]
struct News {
    /// How often the connection was lost.
    losses: u64,
    /// No connection will be made any more.
    closed: bool,
}

/// A client of the server for another subject; the error does not show credentials.
pub(crate) async fn connect(config: &NatsConfig, stopping: CancellationToken) -> Result<Client> {
    Ok(Link::connect(config, stopping).await?.client)
}

impl Link {
    /// The first connection, which has to work; the error does not show credentials.
    pub(super) async fn connect(config: &NatsConfig, stopping: CancellationToken) -> Result<Self> {
        let address = config.address().map_err(BusError::Invalid)?;
        let (sender, news) = watch::channel(News::default());
        let wait = config.reconnect_wait();
        let attempts = usize::try_from(config.max_reconnect_attempts).ok();
        let mut options = ConnectOptions::new()
            .name("quarterdeck")
            .connection_timeout(config.connect_timeout())
            .max_reconnects(attempts)
            .reconnect_delay_callback(move |attempt| match attempt {
                0 | 1 => Duration::ZERO,
                // Nothing else ends a client that looks for its server: after a stop it is put to sleep.
                _ if stopping.is_cancelled() => Duration::MAX,
                _ => wait,
            })
            .event_callback(move |event| {
                sender.send_modify(|news| note(event, news));
                std::future::ready(())
            });
        if let Some(path) = &config.credentials_path {
            options = options.credentials_file(path).await.map_err(|error| {
                BusError::server(&format!("read credentials from {}", path.display()), error)
            })?;
        }
        options = match &address.login {
            None => options,
            Some(Login::Token(token)) => options.token(token.expose_secret().to_owned()),
            Some(Login::Password(user, password)) => {
                options.user_and_password(user.clone(), password.expose_secret().to_owned())
            }
        };
        let client = tokio::time::timeout(config.connect_timeout(), options.connect(&address.server)).await;
        let client = client.map_err(|_| BusError::server(&connecting(&address), "no answer in time"))?;
        let client = client.map_err(|error| BusError::server(&connecting(&address), error))?;
        Ok(Self { client, news })
    }

    /// Fails at once while there is no connection, instead of leaving what is asked for later.
    pub(super) fn check(&self) -> Result<()> {
        if self.client.connection_state() == State::Connected { Ok(()) } else { Err(lost()) }
    }

    /// Resolves when a connection that is there now is lost.
    pub(super) fn loss(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut news = self.news.clone();
        let losses = news.borrow_and_update().losses;
        async move {
            // An error means that the client is gone, which is a loss too.
            let _ = news.wait_for(|news| news.losses != losses || news.closed).await;
        }
    }

    /// Hands over what was said, and leaves. Nothing to do for a connection that is not there.
    pub(super) async fn close(&self) {
        if self.check().is_ok() {
            let loss = self.loss();
            if self.client.drain().await.is_ok() {
                loss.await;
            }
        }
    }
}

pub(super) fn lost() -> BusError {
    BusError::Unavailable("there is no connection to the server".to_owned())
}

fn connecting(address: &Address) -> String {
    format!("connect to {address}")
}

fn note(event: Event, news: &mut News) {
    match event {
        Event::Disconnected => {
            news.losses += 1;
            tracing::warn!(target: "communication", "communication.nats.lost");
        }
        Event::Connected if news.losses > 0 => {
            tracing::info!(target: "communication", "communication.nats.recovered");
        }
        Event::Closed => news.closed = true,
        Event::ClientError(async_nats::ClientError::MaxReconnects) => {
            news.closed = true;
            tracing::error!(target: "communication", "communication.nats.given_up");
        }
        Event::ServerError(error) => {
            tracing::warn!(target: "communication", %error, "communication.nats.server_error");
        }
        _ => {}
    }
}
