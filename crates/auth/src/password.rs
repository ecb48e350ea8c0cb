//! Passwords: hashed with Argon2id (RFC 9106) on a bounded pool that gives way to requests.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{self, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use quarterdeck_domain::clock::random_bytes;
use quarterdeck_domain::text::NotBlank;
use quarterdeck_domain::{Error, Result};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use crate::MAX_NAME;

/// A password as typed: 1 to 128 characters, not blank; wiped from memory when dropped.
#[derive(Clone)]
pub struct Password(SecretString);

impl Password {
    /// Checks the shape; the error names the rule.
    pub fn new(text: String) -> Result<Self, String> {
        NotBlank::<MAX_NAME>::new(text).map(|text| Self(text.into_inner().into()))
    }

    /// Length in Unicode characters.
    pub fn characters(&self) -> usize {
        self.0.expose_secret().chars().count()
    }

    /// Canonical composition, so that the same password typed on another system is the same
    /// (NIST SP 800-63B §5.1.1.2).
    fn normalised(&self) -> Zeroizing<String> {
        let text = self.0.expose_secret();
        // Room for the longest result (UAX #15: three times), as growing would leave copies behind.
        let mut normalised = Zeroizing::new(String::with_capacity(text.len() * 3));
        normalised.extend(text.nfc());
        normalised
    }

    pub(crate) fn same_as(&self, other: &Self) -> bool {
        self.normalised() == other.normalised()
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(********)")
    }
}

impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// What one hash costs.
#[derive(Clone, Copy, Debug)]
pub struct HashCost {
    /// Memory in KiB.
    pub memory: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl HashCost {
    /// What people's passwords are hashed with.
    pub const PRODUCTION: Self = Self { memory: 65_536, passes: 3, lanes: 4 };
    /// Next to nothing, for tests that are not about hashing.
    pub const TEST: Self = Self { memory: 32, passes: 1, lanes: 4 };
}

const HASH_BYTES: usize = 32;
/// Hashes that may wait for a free thread; more are refused with 503.
const QUEUE: usize = 64;

/// How far the hashing threads step back, on the scale of `nice`: whatever else the program does goes
/// first at once, and on a core that never rests a tenth is left for them, so that signing in stays possible.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

pub(crate) struct Hasher {
    argon2: Argon2<'static>,
    pool: Pool,
    /// Places to run in: each hash holds 64 MiB.
    running: Arc<Semaphore>,
    /// Places to wait or run in.
    admitted: Arc<Semaphore>,
    /// A hash no password has, at full cost, for callers who do not exist.
    dummy: String,
}

impl Hasher {
    pub(crate) fn new(cost: HashCost) -> Result<Self> {
        // The three constants are within Argon2's bounds.
        let params = Params::new(cost.memory, cost.passes, cost.lanes, Some(HASH_BYTES)).unwrap_or_default();
        let dummy = phc(&params, &random_bytes::<16>(), &random_bytes::<HASH_BYTES>());
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
        Ok(Self {
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            pool: Pool::new(threads)?,
            running: Arc::new(Semaphore::new(threads)),
            admitted: Arc::new(Semaphore::new(threads + QUEUE)),
            dummy,
        })
    }

    pub(crate) fn dummy(&self) -> &str {
        &self.dummy
    }

    /// A new hash with a new salt, as a PHC string.
    pub(crate) async fn hash(&self, password: &Password) -> Result<String> {
        let (argon2, password) = (self.argon2.clone(), password.normalised());
        self.run(move || {
            let salt = random_bytes::<16>();
            let mut output = [0; HASH_BYTES];
            argon2
                .hash_password_into(password.as_bytes(), &salt, &mut output)
                .map_err(|e| Error::internal(format_args!("password hashing failed: {e}")))?;
            Ok(phc(argon2.params(), &salt, &output))
        })
        .await?
    }

    /// Whether the password has this hash. A hash that cannot be read is an error, never a mismatch.
    pub(crate) async fn verify(&self, password: &Password, phc: &str) -> Result<bool> {
        let (argon2, password, phc) = (self.argon2.clone(), password.normalised(), phc.to_owned());
        self.run(move || {
            let corrupt = |e: password_hash::Error| {
                tracing::error!(target: "auth", "auth.password_hash.unreadable");
                Error::internal(format_args!("a stored password hash cannot be read: {e}"))
            };
            let hash = PasswordHash::new(&phc).map_err(|_| corrupt(password_hash::Error::EncodingInvalid))?;
            if hash.algorithm.as_str() != "argon2id" || hash.hash.is_none() || hash.salt.is_none() {
                return Err(corrupt(password_hash::Error::Algorithm));
            }
            match argon2.verify_password(password.as_bytes(), &hash) {
                Ok(()) => Ok(true),
                Err(password_hash::Error::PasswordInvalid) => Ok(false),
                Err(e) => Err(corrupt(e)),
            }
        })
        .await?
    }

    /// Whether a hash was made with other parameters than today's.
    pub(crate) fn is_outdated(&self, phc: &str) -> bool {
        let prefix = prefix(self.argon2.params());
        !phc.starts_with(&prefix)
    }

    async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let admitted = Arc::clone(&self.admitted)
            .try_acquire_owned()
            .map_err(|_| Error::unavailable("too many passwords are waiting to be hashed", 1))?;
        let running = Arc::clone(&self.running)
            .acquire_owned()
            .await
            .map_err(|_| Error::unavailable("the password pool is closed", 1))?;
        let job = move || {
            // The places are held until the work is done, even if the caller goes away.
            let _places = (admitted, running);
            job()
        };
        self.pool
            .handle
            .spawn_blocking(job)
            .await
            .map_err(|e| Error::internal(format_args!("a password job failed: {e}")))
    }
}

/// Threads for nothing but hashing, started when there is something to hash. Not those for other blocking
/// work: a thread that has stepped back cannot step forward again.
struct Pool {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Pool {
    fn new(threads: usize) -> Result<Self> {
        let runtime = Builder::new_current_thread()
            .max_blocking_threads(threads)
            .thread_name("password")
            .on_thread_start(step_back)
            .build()
            .map_err(|e| Error::internal(format_args!("the password pool cannot start: {e}")))?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Waiting for hashes is not for a thread that drives requests.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Lowers the priority of the calling thread, where threads have their own: elsewhere it would be that of
/// the whole program.
fn step_back() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::getpriority_process(None)
        // A program that was started further back stays there.
        .and_then(|now| rustix::process::setpriority_process(None, now.max(NICENESS)))
    {
        tracing::debug!(target: "auth", %error, "auth.password_pool.priority_unchanged");
    }
}

fn prefix(params: &Params) -> String {
    format!("$argon2id$v=19$m={},t={},p={}$", params.m_cost(), params.t_cost(), params.p_cost())
}

fn phc(params: &Params, salt: &[u8], output: &[u8]) -> String {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    format!("{}{}${}", prefix(params), STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(output))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hashing_steps_back_and_nothing_else_does() {
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let before = niceness();
        let hasher = Hasher::new(HashCost::TEST).unwrap();
        assert_eq!(hasher.run(niceness).await.unwrap(), before.max(NICENESS));
        assert_eq!(tokio::task::spawn_blocking(niceness).await.unwrap(), before);
        assert_eq!(niceness(), before);
    }
}
