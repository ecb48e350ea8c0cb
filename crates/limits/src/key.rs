//! Names of buckets: 128 keyed bits in this process, text in Redis.

use std::fmt::Write;
use std::hash::Hasher;
use std::net::IpAddr;

use quarterdeck_domain::clock::random_bytes;
use sha2::{Digest, Sha256};
use siphasher::sip128::{Hash128, Hasher128, SipHasher13};

use crate::scope::Scope;
use crate::window::Subject;

/// Scope and subject under a key nobody outside the process knows. Two of a million subjects meet with
/// a probability of 2⁻⁸⁸, and nobody can look for such a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) index: u64,
    pub(crate) check: u64,
}

/// SipHash under the process's random key.
pub(crate) struct Keys(SipHasher13);

impl Default for Keys {
    fn default() -> Self {
        Self(SipHasher13::new_with_key(&random_bytes()))
    }
}

impl Keys {
    /// What stands for a scope in its keys.
    pub(crate) fn scope(&self, name: &str) -> u64 {
        self.0.hash(name.as_bytes()).h1
    }

    /// In few steps: the derived way takes longer than the rest of a decision. The last byte tells the
    /// kinds apart, so that no name reads like an address.
    pub(crate) fn key(&self, scope: u64, subject: Subject<'_>) -> Key {
        let mut hasher = self.0;
        hasher.write_u64(scope);
        let kind = match subject {
            Subject::Address(IpAddr::V4(address)) => {
                hasher.write_u32(address.to_bits());
                b'4'
            }
            Subject::Address(IpAddr::V6(address)) => {
                hasher.write_u128(address.to_bits());
                b'6'
            }
            Subject::User(id) => {
                hasher.write(id.as_bytes());
                b'u'
            }
            Subject::Name(name) => {
                hasher.write(name.as_bytes());
                b'n'
            }
        };
        hasher.write_u8(kind);
        let Hash128 { h1: index, h2: check } = hasher.finish128();
        Key { index, check }
    }
}

/// `{prefix}{kind}:{scope}:{subject}`. Scopes hold no colon and the subject comes last, so that two
/// different pairs never read the same. Names are digests: bounded, and no user's input is stored.
pub(crate) fn text(prefix: &str, kind: char, scope: &Scope, subject: Subject<'_>) -> String {
    let mut text = format!("{prefix}{kind}:{}:", scope.name());
    // Writing into a string does not fail.
    let _ = match subject {
        Subject::Address(address) => write!(text, "ip:{address}"),
        Subject::User(id) => write!(text, "user:{id}"),
        Subject::Name(name) => {
            text.push_str("name:");
            Sha256::digest(name).iter().take(16).try_for_each(|byte| write!(text, "{byte:02x}"))
        }
    };
    text
}
