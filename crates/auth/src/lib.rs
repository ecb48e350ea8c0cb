//! Identity: who calls, how that is proved, and how accounts, sessions, keys and tickets live and die.
//!
//! [`Auth`] is the one handle. It knows no HTTP: the front door hands it the cookie, the bearer token
//! and the client's address, and gets an [`Identity`](quarterdeck_domain::identity::Identity) or an
//! error of the table back.

mod api_keys;
mod hot;
mod identify;
mod jwt;
mod lockout;
mod login;
mod password;
mod password_change;
mod refresh;
mod secret;
mod sessions;
mod system_user;
mod tickets;
mod upkeep;
mod users;

pub mod cli_token;
pub mod config;

use std::sync::{Arc, OnceLock, RwLock};

use quarterdeck_domain::clock::SharedClock;
use quarterdeck_domain::{Error, Result};
use quarterdeck_store::audit::AuditKey;
use quarterdeck_store::{Signal, Store};

pub use api_keys::{IssuedKey, NewKey};
pub use config::AuthConfig;
pub use identify::Credentials;
pub use jwt::{Claims, Signer};
pub use lockout::Lockout;
pub use login::{Client, Issued};
pub use password::{HashCost, Password};
pub use secret::{JwtSecret, audit_key, resolve_secret, stored_secret};
pub use sessions::Scope;
pub use tickets::IssuedTicket;

use hot::Hot;
use password::Hasher;
use tickets::Tickets;

/// Bounds of a name or password in the API, in characters.
pub const MAX_NAME: usize = 128;

/// Identity as a service. Shared as `Arc<Auth>`.
pub struct Auth {
    config: AuthConfig,
    store: Store,
    clock: SharedClock,
    secret: JwtSecret,
    signer: Signer,
    hasher: Hasher,
    hot: Arc<Hot>,
    tickets: Arc<Tickets>,
    live: RwLock<Live>,
    on_lockout: OnceLock<OnLockout>,
}

type OnLockout = Box<dyn Fn(&Lockout) + Send + Sync>;

/// What an operator may change while the server runs; bounds are those of [`AuthConfig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Lifetime of tokens minted from now on, minutes.
    pub jwt_expiry_minutes: u32,
    /// Shortest password accepted, characters.
    pub min_password_length: u32,
    /// Sessions a user may hold at once; 0 = any number.
    pub max_concurrent_sessions: u32,
    /// Failed sign-ins inside the window that lock an account.
    pub lockout_threshold: u32,
    /// Length of the window, minutes.
    pub lockout_window_minutes: u32,
    /// How long a lock holds, minutes.
    pub lockout_duration_minutes: u32,
}

impl From<&AuthConfig> for Live {
    fn from(config: &AuthConfig) -> Self {
        Self {
            jwt_expiry_minutes: config.jwt_expiry_minutes,
            min_password_length: config.min_password_length,
            max_concurrent_sessions: config.max_concurrent_sessions,
            lockout_threshold: config.lockout_threshold,
            lockout_window_minutes: config.lockout_window_minutes,
            lockout_duration_minutes: config.lockout_duration_minutes,
        }
    }
}

impl Auth {
    /// Wires identity to a store. `secret` comes from [`resolve_secret`]; `cost` is
    /// [`HashCost::PRODUCTION`] outside tests.
    ///
    /// Loads the sessions that were revoked before their time, so no request is served without them.
    ///
    /// # Errors
    /// When the store cannot be read, or the threads that hash passwords cannot be had.
    pub async fn start(
        config: AuthConfig,
        store: Store,
        clock: SharedClock,
        secret: JwtSecret,
        cost: HashCost,
    ) -> Result<Arc<Self>> {
        let hot = Arc::new(Hot::new(store.clone(), Arc::clone(&clock)));
        let tickets = Arc::new(Tickets::new(&store, Arc::clone(&clock)));
        let (news, tickets_news) = (Arc::clone(&hot), Arc::clone(&tickets));
        store.on_signal(move |signal| {
            Hot::hear(&news, signal);
            if let Signal::SessionRevoked { session_id, .. } = signal {
                tickets_news.purge_session(session_id);
            }
        });
        hot.load_revoked().await?;
        store.sign_audit_with(AuditKey::derive(secret.bytes()));
        let live = RwLock::new(Live::from(&config));
        let signer = Signer::new(&secret, config.jwt_algorithm);
        let hasher = Hasher::new(cost)?;
        Ok(Arc::new(Self {
            config,
            store,
            clock,
            secret,
            signer,
            hasher,
            hot,
            tickets,
            live,
            on_lockout: OnceLock::new(),
        }))
    }

    /// The configuration it was started with.
    pub fn config(&self) -> &AuthConfig {
        &self.config
    }

    /// What may change while the server runs, as it is now.
    pub fn live(&self) -> Live {
        *self.live.read().unwrap_or_else(|e| e.into_inner())
    }

    /// Changes what may change while the server runs; counts from the next request on.
    pub fn set_live(&self, live: Live) {
        *self.live.write().unwrap_or_else(|e| e.into_inner()) = live;
    }

    /// Calls `told` for every account that gets locked through this copy of the program, once that is
    /// stored. It must not block; only the first listener counts.
    pub fn on_lockout(&self, told: impl Fn(&Lockout) + Send + Sync + 'static) {
        let _ = self.on_lockout.set(Box::new(told));
    }

    fn tell_of_lockout(&self, lockout: &Lockout) {
        if let Some(told) = self.on_lockout.get() {
            told(lockout);
        }
    }

    /// How many unused WebSocket tickets a user may hold.
    pub fn set_max_pending_tickets(&self, tickets: usize) {
        self.tickets.set_max_pending(tickets);
    }

    fn jwt_expiry_seconds(&self) -> i64 {
        i64::from(self.live().jwt_expiry_minutes) * 60
    }

    fn check_length(&self, password: &Password) -> std::result::Result<(), String> {
        let minimum = self.live().min_password_length as usize;
        if password.characters() < minimum {
            return Err(format!("must have at least {minimum} characters"));
        }
        Ok(())
    }

    /// 400/2001 for a too short password in a request body.
    fn short_password(&self, pointer: &str, password: &Password) -> Result<()> {
        self.check_length(password).map_err(|rule| {
            Error::shape(format!("The password {rule}")).fields(vec![quarterdeck_domain::error::FieldError {
                pointer: pointer.to_owned(),
                detail: rule,
            }])
        })
    }
}
