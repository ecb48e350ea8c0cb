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

/// What became of a failure.
pub(crate) enum Recorded {
    /// It was counted, and the name is still open.
    Counted,
    /// It was one too many: the name is locked until then.
    Locks(DateTime<Utc>),
    /// The name was locked already; failures do not count then.
    Locked(DateTime<Utc>),
}

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

    /// Counts one failure of a name.
    pub(crate) async fn record_failure(
        &self,
        tx: &Tx,
        name: &str,
        network: &str,
        now: DateTime<Utc>,
    ) -> Result<Recorded> {
        lock_name(tx, name).await?;
        if let Some(until) = self.locked_until(&**tx, name, now).await? {
            return Ok(Recorded::Locked(until));
        }
        login_attempt::insert(tx, name, network, now).await?;
        Ok(self.locked_until(&**tx, name, now).await?.map_or(Recorded::Counted, Recorded::Locks))
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
