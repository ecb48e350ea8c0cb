//! Names of channels and subscribers in the alphabet of subjects, keys and consumers.

use data_encoding::BASE32_NOPAD;

use crate::message::error::{BusError, Result};

/// Longest name of a consumer, the server's rule.
const MAX_CONSUMER_NAME: usize = 255;

/// A name as subjects, keys and consumers can hold it.
pub(super) fn token(name: &str) -> String {
    BASE32_NOPAD.encode(name.as_bytes()).to_lowercase()
}

pub(super) fn name_of(token: &str) -> Option<String> {
    String::from_utf8(BASE32_NOPAD.decode(token.to_uppercase().as_bytes()).ok()?).ok()
}

pub(super) fn consumer_name(channel: &str, subscriber: &str) -> Result<String> {
    let name = format!("{}__{}", token(channel), token(subscriber));
    if name.len() > MAX_CONSUMER_NAME {
        return Err(BusError::Invalid("channel and subscriber are together too long for NATS".to_owned()));
    }
    Ok(name)
}

pub(super) fn parse_consumer(name: &str) -> Option<(String, String)> {
    let (channel, subscriber) = name.split_once("__")?;
    Some((name_of(channel)?, name_of(subscriber)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_base32_in_lower_case_without_padding() {
        assert_eq!(token("#all-hands"), "enqwy3bnnbqw4zdt");
        assert_eq!(name_of("enqwy3bnnbqw4zdt").as_deref(), Some("#all-hands"));
    }

    #[test]
    fn any_two_names_make_a_consumer_that_tells_them_apart() {
        let name = consumer_name("#ä _.*>", "a__b").unwrap();
        assert_eq!(parse_consumer(&name), Some(("#ä _.*>".to_owned(), "a__b".to_owned())));
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{name}");
        assert!(consumer_name(&"c".repeat(128), &"s".repeat(128)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn what_a_consumer_is_named_after_can_be_read_back(channel in "\\PC{1,20}", subscriber in "\\PC{1,20}") {
            if let Ok(name) = consumer_name(&channel, &subscriber) {
                proptest::prop_assert_eq!(parse_consumer(&name), Some((channel, subscriber)));
            }
        }

        #[test]
        fn a_strange_consumer_is_nobodys_subscription(name in ".{0,60}") {
            if let Some((channel, subscriber)) = parse_consumer(&name) {
                proptest::prop_assert_eq!(consumer_name(&channel, &subscriber).unwrap(), name.to_lowercase());
            }
        }
    }
}
