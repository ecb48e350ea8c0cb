//! Lockout: too many failures of one name close it for a while, whether it exists or not.
//!
//! The stored failures are the only state: the newest row and the count in the window that ends at it
//! say whether a name is locked and until when, on every copy and after every restart.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use quarterdeck_domain::approval::RiskLevel;
use quarterdeck_domain::audit::{Entry, STRANGER, Verdict};
use quarterdeck_domain::role::HumanRole;
use quarterdeck_domain::user::User;
use quarterdeck_domain::{Error, ErrorCode, Result};
use quarterdeck_store::{Connection, Tx, audit, login_attempt};

use crate::{Auth, Client};

/// Failures from one network may reach this many times the threshold of one name.
const NETWORK_FACTOR: u64 = 5;

/// Most entries about names that no account has, in the time failures are counted in: a flood of them must
/// not bury what else is in the audit trail.
const STRANGERS: u64 = 100;

/// An account that was just locked.
#[derive(Clone, Debug)]
pub struct Lockout {
    /// Whose.
    pub username: String,
    /// Their role.
    pub role: HumanRole,
    /// Until when.
    pub until: DateTime<Utc>,
    /// Where the last failure came from.
    pub ip: Option<IpAddr>,
}

/// A failure to prove who one is.
pub(crate) struct Attempt {
    /// The lower-cased name it is counted under.
    pub(crate) name: String,
    /// The account of that name.
    pub(crate) account: Option<User>,
    /// Where it came from.
    pub(crate) client: Client,
    /// What was asked for.
    pub(crate) operation: &'static str,
}

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

    /// Keeps a failure in the audit trail. Not each: the first of an account within the window and the one
    /// that locks it, and of names that no account has the first of a network. Such names are not kept at
    /// all, for people type passwords where names belong.
    pub(crate) async fn record_attempt(
        &self,
        tx: &Tx,
        attempt: &Attempt,
        recorded: &Recorded,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let (window, actor) = (now - self.window(), attempt.client.stranger(attempt.operation));
        let locks = matches!(recorded, Recorded::Locks(_));
        let is_first = match (recorded, &attempt.account) {
            (Recorded::Locked(_), _) => return Ok(()),
            (Recorded::Locks(_), _) => true,
            (Recorded::Counted, Some(_)) => login_attempt::count(&**tx, &attempt.name, window).await? == 1,
            (Recorded::Counted, None) => {
                login_attempt::count_from(&**tx, &attempt.client.network, window).await? == 1
            }
        };
        if !is_first
            || attempt.account.is_none()
                && audit::recent(&**tx, STRANGER, window, STRANGERS).await? >= STRANGERS
        {
            return Ok(());
        }
        let who = attempt.account.as_ref().map_or_else(
            || "a name that no account has".to_owned(),
            |user| format!("the account {}", user.username),
        );
        let (action, reason) = match locks {
            true => ("auth:lockout", format!("Too many failures have locked {who} for a while")),
            false => ("auth:login_failed", format!("A wrong password for {who}")),
        };
        let risk = match &attempt.account {
            Some(user) if locks && matches!(user.role, HumanRole::Ceo | HumanRole::Manager) => {
                RiskLevel::High
            }
            _ if locks => RiskLevel::Medium,
            _ => RiskLevel::Low,
        };
        tx.audit(Entry::new(&actor, action, now, reason).verdict(Verdict::Deny).risk(risk));
        Ok(())
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
