//! Secrets at rest: XChaCha20-Poly1305 with the record's name as associated data, so that a stored
//! secret opens only in the place it was sealed for, and with a key id, so that keys can be replaced.
//!
//! Text form: `v1.<key id, 16 hex digits>.<URL-safe base64 of nonce and ciphertext>`.

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use quarterdeck_domain::clock::random_bytes;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const VERSION: &str = "v1";
const NONCE_BYTES: usize = 24;

/// Why a sealed text could not be opened or made. Names keys by their id only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealError {
    /// No key is configured.
    NoKey,
    /// Not the text form of a sealed secret.
    Malformed,
    /// Sealed with a key that is not at hand.
    UnknownKey(String),
    /// Altered, or sealed for another record.
    NotAuthentic,
    /// The secret is too long to be sealed.
    TooLong,
}

impl std::fmt::Display for SealError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoKey => f.write_str("no key is configured"),
            Self::Malformed => f.write_str("not a sealed secret"),
            Self::UnknownKey(id) => write!(f, "sealed with key {id}, which is not configured"),
            Self::NotAuthentic => f.write_str("altered, or sealed for another record"),
            Self::TooLong => f.write_str("too long to be sealed"),
        }
    }
}

impl std::error::Error for SealError {}

struct Key {
    id: String,
    bytes: Zeroizing<[u8; 32]>,
}

impl Key {
    fn parse(text: &str) -> Result<Self, String> {
        let mut bytes = Zeroizing::new([0; 32]);
        // The engine wants room for a whole last group of three bytes.
        let mut decoded = Zeroizing::new([0; 33]);
        match URL_SAFE.decode_slice(text, &mut decoded[..]) {
            Ok(32) if text.len() == 44 => bytes.copy_from_slice(&decoded[..32]),
            _ => return Err("must be the URL-safe base64 of 32 bytes, 44 characters long".to_owned()),
        }
        let digest = Sha256::digest(&bytes[..]);
        let id = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { id, bytes })
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.bytes).into())
    }
}

/// The keys secrets are sealed with: the first seals, all of them open.
pub struct Keyring {
    keys: Vec<Key>,
}

impl Keyring {
    /// Reads a comma-separated list of keys, the current one first, each the URL-safe base64 of 32
    /// bytes (44 characters).
    ///
    /// # Errors
    /// The broken rule and the place of the key in the list, never the key.
    pub fn parse(text: &SecretString) -> Result<Self, String> {
        let mut keys: Vec<Key> = Vec::new();
        for (place, text) in text.expose_secret().split(',').enumerate() {
            let key = Key::parse(text.trim()).map_err(|rule| format!("key {} {rule}", place + 1))?;
            if keys.iter().any(|earlier| earlier.id == key.id) {
                return Err(format!("key {} is in the list twice", place + 1));
            }
            keys.push(key);
        }
        Ok(Self { keys })
    }

    /// Seals a secret for `record`, such as `namespace/key`, with the current key.
    ///
    /// # Errors
    /// [`SealError::TooLong`] for secrets of hundreds of gigabytes.
    pub fn seal(&self, record: &str, secret: &SecretString) -> Result<String, SealError> {
        let key = &self.keys[0];
        let nonce = random_bytes::<NONCE_BYTES>();
        let payload = Payload { msg: secret.expose_secret().as_bytes(), aad: record.as_bytes() };
        let sealed = key.cipher().encrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::TooLong)?;
        let body = URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat());
        Ok(format!("{VERSION}.{}.{body}", key.id))
    }

    /// Opens what was sealed for the same record with any of the keys.
    ///
    /// # Errors
    /// [`SealError`] says why not.
    pub fn open(&self, record: &str, sealed: &str) -> Result<SecretString, SealError> {
        let (id, body) = parts(sealed).ok_or(SealError::Malformed)?;
        let key =
            self.keys.iter().find(|key| key.id == id).ok_or_else(|| SealError::UnknownKey(id.to_owned()))?;
        let body = URL_SAFE_NO_PAD.decode(body).map_err(|_| SealError::Malformed)?;
        let (nonce, ciphertext) = body.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Malformed)?;
        let payload = Payload { msg: ciphertext, aad: record.as_bytes() };
        let plain =
            key.cipher().decrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::NotAuthentic)?;
        match String::from_utf8(plain) {
            Ok(text) => Ok(SecretString::from(text)),
            Err(bytes) => {
                drop(Zeroizing::new(bytes.into_bytes()));
                Err(SealError::Malformed)
            }
        }
    }

    /// Whether a sealed text was made with the current key.
    pub fn is_current(&self, sealed: &str) -> bool {
        parts(sealed).is_some_and(|(id, _)| id == self.keys[0].id)
    }
}

fn parts(sealed: &str) -> Option<(&str, &str)> {
    sealed.strip_prefix(VERSION)?.strip_prefix('.')?.split_once('.')
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(fill: u8) -> String {
        URL_SAFE.encode([fill; 32])
    }

    fn keyring(keys: &[u8]) -> Keyring {
        let list: Vec<_> = keys.iter().map(|&fill| key(fill)).collect();
        Keyring::parse(&list.join(", ").into()).unwrap()
    }

    #[test]
    fn a_secret_opens_only_in_the_record_it_was_sealed_for() {
        let keys = keyring(&[1]);
        let sealed = keys.seal("providers/key", &"hunter2".into()).unwrap();
        assert!(!sealed.contains("hunter2"));
        assert_eq!(keys.open("providers/key", &sealed).unwrap().expose_secret(), "hunter2");
        assert_eq!(keys.open("providers/other", &sealed).unwrap_err(), SealError::NotAuthentic);
    }

    #[test]
    fn sealing_twice_gives_two_texts() {
        let keys = keyring(&[1]);
        assert_ne!(keys.seal("a", &"x".into()).unwrap(), keys.seal("a", &"x".into()).unwrap());
    }

    #[test]
    fn the_first_key_seals_and_older_ones_still_open() {
        let (old, both, new) = (keyring(&[1]), keyring(&[2, 1]), keyring(&[2]));
        let sealed_before = old.seal("a", &"x".into()).unwrap();
        assert_eq!(both.open("a", &sealed_before).unwrap().expose_secret(), "x");
        assert!(!both.is_current(&sealed_before) && old.is_current(&sealed_before));
        let sealed_after = both.seal("a", &"x".into()).unwrap();
        assert!(both.is_current(&sealed_after));
        assert_eq!(new.open("a", &sealed_after).unwrap().expose_secret(), "x");
        assert!(matches!(new.open("a", &sealed_before), Err(SealError::UnknownKey(_))));
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let keys = keyring(&[1]);
        let sealed = keys.seal("a", &"secret".into()).unwrap();
        for place in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            assert!(keys.open("a", std::str::from_utf8(&changed).unwrap()).is_err(), "place {place}");
        }
        assert_eq!(keys.open("a", "plain text").unwrap_err(), SealError::Malformed);
    }

    #[test]
    fn a_key_is_44_characters_of_url_safe_base64() {
        let standard = "//////////////////////////////////////////8=";
        for bad in
            ["", "short", &key(1)[..43], standard, &format!("{},", key(1)), &format!("{0},{0}", key(1))]
        {
            let refusal = Keyring::parse(&bad.to_owned().into()).unwrap_err();
            assert!(refusal.starts_with("key "), "{refusal}");
            assert!(bad.len() < 8 || !refusal.contains(&bad[..8]), "the refusal repeats the key");
        }
    }

    #[test]
    fn debug_output_shows_key_ids_only() {
        let shown = format!("{:?}", keyring(&[1]));
        assert!(!shown.contains(&key(1)) && shown.len() < 24, "{shown}");
    }

    proptest! {
        #[test]
        fn opening_garbage_fails_without_a_panic(text in "(v1\\.)?.{0,80}") {
            prop_assert!(keyring(&[1]).open("a", &text).is_err());
        }

        #[test]
        fn any_text_survives_sealing(text in ".{0,200}", record in ".{0,20}") {
            let keys = keyring(&[1]);
            let sealed = keys.seal(&record, &text.clone().into()).unwrap();
            let opened = keys.open(&record, &sealed).unwrap();
            prop_assert_eq!(opened.expose_secret(), text);
        }
    }
}
