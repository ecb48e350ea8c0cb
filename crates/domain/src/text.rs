//! Text with a rule: never blank, bounded in characters, compared in a folded form.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize};
use unicode_normalization::UnicodeNormalization;

/// A string of 1 to `MAX` Unicode characters that is not only white space. Never trimmed.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct NotBlank<const MAX: usize>(String);

impl<const MAX: usize> NotBlank<MAX> {
    /// Checks the rule and keeps the text as it is; the error names the broken rule, not the text.
    pub fn new(text: impl Into<String>) -> Result<Self, String> {
        let text = text.into();
        if text.chars().all(char::is_whitespace) {
            return Err("must not be blank".to_owned());
        }
        // Bytes bound characters from above, so most texts are not counted.
        if text.len() > MAX && text.chars().count() > MAX {
            return Err(format!("must have at most {MAX} characters"));
        }
        Ok(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Gives the text away.
    pub fn into_inner(self) -> String {
        self.0
    }
}

impl<const MAX: usize> Deref for NotBlank<MAX> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for NotBlank<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for NotBlank<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A string of at most `MAX` Unicode characters. Never trimmed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bounded<const MAX: usize>(String);

impl<const MAX: usize> Bounded<MAX> {
    /// Checks the rule and keeps the text as it is; the error names the broken rule, not the text.
    pub fn new(text: impl Into<String>) -> Result<Self, String> {
        let text = text.into();
        if text.len() > MAX && text.chars().count() > MAX {
            return Err(format!("must have at most {MAX} characters"));
        }
        Ok(Self(text))
    }
}

impl<const MAX: usize> Deref for Bounded<MAX> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Bounded<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Folds case and compatibility forms (NFKC, then lower case, then NFKC again), for comparing names
/// that a reader would take for the same.
pub fn fold(text: &str) -> String {
    text.nfkc().flat_map(char::to_lowercase).nfkc().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_bounded_in_characters_not_bytes() {
        assert!(NotBlank::<3>::new("äöü").is_ok());
        assert_eq!(NotBlank::<3>::new("abcd").unwrap_err(), "must have at most 3 characters");
        assert_eq!(NotBlank::<3>::new(" \t").unwrap_err(), "must not be blank");
        assert_eq!(NotBlank::<3>::new(" a ").unwrap().as_str(), " a ");
        assert_eq!(&*Bounded::<3>::new("").unwrap(), "");
        assert_eq!(&*Bounded::<3>::new("äöü").unwrap(), "äöü");
        assert_eq!(Bounded::<3>::new("abcd").unwrap_err(), "must have at most 3 characters");
    }

    #[test]
    fn folding_sees_through_case_and_compatibility_forms() {
        assert_eq!(fold("Ｓystem"), "system");
        assert_eq!(fold("SYSTEM"), "system");
        assert_ne!(fold("sytem"), "system");
    }
}
