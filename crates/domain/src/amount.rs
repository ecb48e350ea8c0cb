//! Amounts that are never below zero.

use serde::{Deserialize, Deserializer, Serialize};

/// A finite number that is not negative, such as money or a share.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize)]
pub struct Amount(f64);

impl Amount {
    /// Checks the rule; the error names it.
    pub fn new(amount: f64) -> Result<Self, &'static str> {
        if amount.is_finite() && amount >= 0.0 { Ok(Self(amount)) } else { Err("must not be negative") }
    }

    /// The number.
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
