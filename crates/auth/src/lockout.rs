//! Lockout: too many failures of one name close it for a while, whether it exists or not.
//!
//! The stored failures are the only state: the newest row and the count in the window that ends at it
//! say whether a name is locked and until when, on every copy and after every restart.

use chrono::{DateTime, TimeDelta, Utc};
use quarterdeck_domain::{Error, ErrorCode, Result};
use quarterdeck_store::{Connection, Tx, login_attempt};

use crate::Auth;

/// Failures from one network may reach this many times the threshold of one name.
const NETWORK_FACTOR: u64 = 5;

impl Auth {
    fn window(&self) -> TimeDelta {
        TimeDelta::minutes(i64::from(self.live().lockout_window_minutes))
    }

    fn lock_duration(&self) -> TimeDelta {
        TimeDelta::minutes(i64::from(self.live().lockout_duration_minutes))
    }

    /// How long stored failures still matter.
    pub(crate) fn attempts_kept(&self) -> TimeDelta {
        self.window() + self.lock_duration()
    }

    /// When the lock of a name ends, if it is locked now.
    pub(crate) async fn locked_until(
        &self,
        connection: &impl Connection,
        name: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>> {
        let Some(newest) = login_attempt::newest(connection, name).await? else { return Ok(None) };
        let until = newest + self.lock_duration();
        if until <= now {
            return Ok(None);
        }
        let failures = login_attempt::count(connection, name, newest - self.window()).await?;
        Ok((failures >= u64::from(self.live().lockout_threshold)).then_some(until))
    }

    /// Counts one failure and says what to answer: `otherwise`, or 429/1003 if the name is locked now.
    pub(crate) async fn record_failure(
        &self,
        tx: &Tx,
        name: &str,
        network: &str,
        now: DateTime<Utc>,
        otherwise: Error,
    ) -> Result<Error> {
        lock_name(tx, name).await?;
        if let Some(until) = self.locked_until(&**tx, name, now).await? {
            return Ok(locked(until, now));
        }
        login_attempt::insert(tx, name, network, now).await?;
        let Some(until) = self.locked_until(&**tx, name, now).await? else { return Ok(otherwise) };
        tracing::warn!(
            target: "auth",
            username = name,
            threshold = self.live().lockout_threshold,
            duration_minutes = self.live().lockout_duration_minutes,
            "auth.account_locked"
        );
        Ok(locked(until, now))
    }

    /// Refuses a network that has failed with many names.
    pub(crate) async fn check_network(&self, network: &str, now: DateTime<Utc>) -> Result<()> {
        let allowed = u64::from(self.live().lockout_threshold) * NETWORK_FACTOR;
        let failures = login_attempt::count_from(self.store.read(), network, now - self.window()).await?;
        if failures < allowed {
            return Ok(());
        }
        Err(Error::new(ErrorCode::RateLimited).because("network_blocked").retry_after(60))
    }
}

/// Serialises everything that reads and changes the failures of one name.
pub(crate) async fn lock_name(tx: &Tx, name: &str) -> Result<()> {
    tx.lock(&format!("quarterdeck.lockout.{name}")).await
}

/// 429/1003 with the seconds until the lock ends, at least one.
pub(crate) fn locked(until: DateTime<Utc>, now: DateTime<Utc>) -> Error {
    let seconds = (until - now).num_milliseconds().max(1).unsigned_abs().div_ceil(1000);
    Error::new(ErrorCode::AccountLocked)
        .because("account_locked")
        .retry_after(u32::try_from(seconds).unwrap_or(u32::MAX))
}
