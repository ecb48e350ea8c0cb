//! Backups: what one holds, how it is named, and which ones make way for newer ones.

use std::fmt;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, ErrorCode, Result};
use crate::role::wire_enum;

/// Most bytes of a manifest; a longer one is none.
pub const MAX_MANIFEST: u64 = 65_536;
/// How the checksum is computed: kind, path and content of every entry, each preceded by its length.
pub const CHECKSUM_VERSION: u32 = 2;
/// Hex digits of an id.
const ID_DIGITS: usize = 12;

wire_enum! {
    /// A part of an installation that is saved on its own.
    #[schema(as = BackupComponent)]
    Component {
        /// The database and the content of artifacts.
        Persistence = "persistence",
        /// What agents remember.
        Memory = "memory",
        /// The configuration file.
        Config = "config",
    }
}

wire_enum! {
    /// Why a backup was made.
    #[schema(as = BackupTrigger)]
    Trigger {
        /// Its time had come.
        Scheduled = "scheduled",
        /// Somebody asked for it.
        Manual = "manual",
        /// The server stopped.
        Shutdown = "shutdown",
        /// The server started.
        Startup = "startup",
        /// What a restore was about to replace.
        PreMigration = "pre_migration",
    }
}

/// Names a backup: 12 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(String);

impl BackupId {
    /// A name nothing else has.
    pub fn fresh() -> Self {
        let mut digits = Uuid::new_v4().simple().to_string();
        digits.truncate(ID_DIGITS);
        Self(digits)
    }

    /// Reads a name.
    ///
    /// # Errors
    /// 404/3001: what is no name names nothing.
    pub fn parse(text: &str) -> Result<Self> {
        let digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if text.len() == ID_DIGITS && text.bytes().all(digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(unknown())
        }
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for BackupId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        Self::parse(&text).map_err(|_| "must be 12 hex digits")
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> Self {
        id.0
    }
}

/// What a backup says of itself, as it is kept beside the saved files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the program that made it. The name of the member is the API's.
    pub synthorg_version: String,
    /// ISO 8601 with offset.
    pub timestamp: String,
    /// Why it was made.
    pub trigger: Trigger,
    /// What it holds.
    pub components: Vec<Component>,
    /// Bytes of the saved files, before compression.
    pub size_bytes: u64,
    /// `sha256:` and 64 hex digits.
    pub checksum: String,
    /// Its name.
    pub backup_id: BackupId,
    /// How `checksum` is computed.
    pub checksum_version: u32,
    /// Migration the database was at; 0 when no database is saved.
    pub schema_version: i64,
    /// Kind of the database that is saved.
    pub database: Option<String>,
}

impl Manifest {
    /// Checks what its type does not.
    ///
    /// # Errors
    /// A sentence for the log.
    pub fn check(&self) -> Result<(), String> {
        if self.synthorg_version.trim().is_empty() {
            return Err("it names no version".to_owned());
        }
        if self.made_at().is_none() {
            return Err("its timestamp is none".to_owned());
        }
        let digits = self.checksum.strip_prefix("sha256:").unwrap_or_default();
        let digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if digits.len() != 64 || !digits.bytes().all(digit) {
            return Err("its checksum is none".to_owned());
        }
        if self.checksum_version != CHECKSUM_VERSION {
            return Err(format!("its checksum is of version {}", self.checksum_version));
        }
        if self.components.is_empty()
            || self.components.iter().enumerate().any(|(at, part)| self.components[..at].contains(part))
        {
            return Err("its components are none or named twice".to_owned());
        }
        Ok(())
    }

    /// When it was made.
    pub fn made_at(&self) -> Option<DateTime<Utc>> {
        DateTime::parse_from_rfc3339(&self.timestamp).ok().map(|time| time.to_utc())
    }
}

/// A time as manifests tell it.
pub fn timestamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, false)
}

/// A backup in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What it says of itself.
    pub manifest: Manifest,
    /// Whether it is one packed file.
    pub compressed: bool,
}

/// How many backups are kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Most backups beside those made before restores.
    pub max_count: usize,
    /// Age after which one goes, in days.
    pub max_age_days: i64,
    /// Backups made before restores that are kept whatever their age.
    pub max_pre_migration: usize,
}

/// The newest first; those of one moment by name.
pub fn sort_newest_first(all: &mut [Kept]) {
    all.sort_by(|a, b| {
        let time = |kept: &Kept| kept.manifest.made_at();
        time(b).cmp(&time(a)).then_with(|| a.manifest.backup_id.cmp(&b.manifest.backup_id))
    });
}

impl Retention {
    /// Names of those that make way, out of all, the newest first. The newest of all stays. Those made before
    /// restores are counted apart, and go only when they are both too many and too old.
    pub fn outdated(&self, newest_first: &[Kept], now: DateTime<Utc>) -> Vec<BackupId> {
        let oldest = now - TimeDelta::days(self.max_age_days);
        let (mut ordinary, mut safety) = (0, 0);
        let mut outdated = Vec::new();
        for (at, Kept { manifest, .. }) in newest_first.iter().enumerate() {
            let is_old = manifest.made_at().is_none_or(|time| time < oldest);
            let goes = if manifest.trigger == Trigger::PreMigration {
                safety += 1;
                safety > self.max_pre_migration && is_old
            } else {
                ordinary += 1;
                ordinary > self.max_count || is_old
            };
            if goes && at > 0 {
                outdated.push(manifest.backup_id.clone());
            }
        }
        outdated
    }
}

/// 404/3001.
pub fn unknown() -> Error {
    Error::with(ErrorCode::RecordNotFound, "Backup not found")
}

/// 409/4000: one thing at a time.
pub fn busy() -> Error {
    Error::conflict("Another backup operation is running")
}

/// 422/2000 with one text for everything that is wrong with a backup; the cause is for the log.
pub fn invalid(cause: impl fmt::Display) -> Error {
    Error::rule("Invalid backup manifest").caused_by(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap() + TimeDelta::days(day)
    }

    fn kept(id: &str, day: i64, trigger: Trigger) -> Kept {
        let manifest = Manifest {
            synthorg_version: "1".to_owned(),
            timestamp: timestamp(at(day)),
            trigger,
            components: vec![Component::Persistence],
            size_bytes: 1,
            checksum: format!("sha256:{}", "0".repeat(64)),
            backup_id: BackupId::parse(id).unwrap(),
            checksum_version: CHECKSUM_VERSION,
            schema_version: 1,
            database: None,
        };
        Kept { manifest, compressed: false }
    }

    fn many(trigger: Trigger, days: impl IntoIterator<Item = i64>) -> Vec<Kept> {
        let mut all: Vec<_> =
            days.into_iter().map(|day| kept(&format!("{:012x}", day.abs()), day, trigger)).collect();
        sort_newest_first(&mut all);
        all
    }

    const RETENTION: Retention = Retention { max_count: 10, max_age_days: 30, max_pre_migration: 20 };

    #[test]
    fn an_id_is_twelve_hex_digits_and_nothing_else() {
        assert!(BackupId::parse("0123456789ab").is_ok());
        for bad in ["../../x", "ABC", "0123456789a", "0123456789abc", "0123456789aB", "0123456789a/", ""] {
            assert_eq!(BackupId::parse(bad).unwrap_err().code(), ErrorCode::RecordNotFound, "{bad}");
        }
        let fresh = BackupId::fresh();
        assert_eq!(BackupId::parse(fresh.as_str()).unwrap(), fresh);
    }

    #[test]
    fn of_twelve_the_ten_newest_stay() {
        let all = many(Trigger::Manual, 1..=12);
        let outdated = RETENTION.outdated(&all, at(12));
        assert_eq!(outdated, [all[10].manifest.backup_id.clone(), all[11].manifest.backup_id.clone()]);
    }

    #[test]
    fn the_newest_stays_however_old() {
        let all = many(Trigger::Scheduled, [1, 2]);
        assert_eq!(RETENTION.outdated(&all, at(400)), [all[1].manifest.backup_id.clone()]);
    }

    #[test]
    fn those_made_before_restores_go_only_when_too_many_and_too_old() {
        let all = many(Trigger::PreMigration, 1..=25);
        assert!(RETENTION.outdated(&all, at(25)).is_empty(), "young ones stay, however many");
        assert_eq!(RETENTION.outdated(&all[5..], at(400)).len(), 0, "old ones stay while there are few");
        assert_eq!(RETENTION.outdated(&all, at(400)).len(), 5);
        let mut mixed = [many(Trigger::PreMigration, 20..=24), many(Trigger::Manual, 1..=12)].concat();
        sort_newest_first(&mut mixed);
        assert_eq!(RETENTION.outdated(&mixed, at(24)).len(), 2, "they take no place of others");
    }

    #[test]
    fn a_list_is_ordered_by_time_and_then_by_name() {
        let mut all =
            vec![kept("00000000000b", 1, Trigger::Manual), kept("00000000000c", 2, Trigger::Manual)];
        all.push(kept("00000000000a", 1, Trigger::Manual));
        sort_newest_first(&mut all);
        let names: Vec<_> = all.iter().map(|kept| kept.manifest.backup_id.as_str()).collect();
        assert_eq!(names, ["00000000000c", "00000000000a", "00000000000b"]);
    }

    #[test]
    fn a_manifest_obeys_its_rules() {
        let sound = kept("0123456789ab", 1, Trigger::Manual).manifest;
        assert_eq!(sound.check(), Ok(()));
        let broken: [fn(&mut Manifest); 6] = [
            |m| m.synthorg_version = " ".to_owned(),
            |m| m.timestamp = "2027-01-15 08:00:00".to_owned(),
            |m| m.checksum = "sha256:0".to_owned(),
            |m| m.checksum_version = 1,
            |m| m.components.clear(),
            |m| m.components.push(Component::Persistence),
        ];
        for (at, change) in broken.into_iter().enumerate() {
            let mut manifest = sound.clone();
            change(&mut manifest);
            assert!(manifest.check().is_err(), "{at}");
        }
        let mut document = serde_json::to_value(&sound).unwrap();
        document["backup_id"] = "../../../../x".into();
        assert!(serde_json::from_value::<Manifest>(document).is_err());
    }
}
