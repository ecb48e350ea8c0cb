//! Money: exact amounts, and the currencies they are in.
//!
//! An amount counts ten-thousand-millionths of a currency unit, because the price of one token lies far
//! below a cent. Adding such counts is exact in any order; only dividing rounds.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::role::wire_enum;

/// Digits kept after the decimal point.
const DIGITS: usize = 10;
/// What one unit of a currency counts.
const UNIT: i128 = 10_i128.pow(DIGITS as u32);
/// Largest amount a single record or limit may state, in units of its currency.
pub const MAX_AMOUNT: i64 = 1_000_000_000_000;

/// An amount of money, never negative. Its currency is told beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(i128);

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The amount nearest to a number as it is written; `None` when it is negative, not finite or above [`MAX_AMOUNT`].
    pub fn from_f64(amount: f64) -> Option<Self> {
        if !(0.0..=MAX_AMOUNT as f64).contains(&amount) {
            return None;
        }
        // The shortest decimal that reads as this number is what its writer meant.
        let text = amount.abs().to_string();
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let digits: String =
            fraction.chars().chain("0".repeat(DIGITS + 1).chars()).take(DIGITS + 1).collect();
        let tenths: i64 = digits.parse().ok()?;
        Some(Self::from_parts(whole.parse().ok()?, (tenths + 5) / 10))
    }

    /// The number nearest to the amount.
    pub fn to_f64(self) -> f64 {
        self.to_string().parse().unwrap_or_default()
    }

    /// The amount of sums of whole units and of what [`Money::parts`] gives beside them.
    pub fn from_parts(whole: i64, fraction: i64) -> Self {
        Self((i128::from(whole) * UNIT + i128::from(fraction)).max(0))
    }

    /// Whole units, and the rest counted as this type does. Sums of each fit a column of 64 bits where
    /// sums of the whole count would not.
    pub fn parts(self) -> (i64, i64) {
        let saturated = |part: i128| i64::try_from(part).unwrap_or(i64::MAX);
        (saturated(self.0 / UNIT), saturated(self.0 % UNIT))
    }

    /// What is left of it, at least nothing.
    pub fn less(self, other: Self) -> Self {
        Self((self.0 - other.0).max(0))
    }

    /// `times / by` of it, rounded to the nearest; nothing when `by` is 0.
    pub fn scaled(self, times: u64, by: u64) -> Self {
        let by = i128::from(by);
        if by == 0 { Self::ZERO } else { Self((self.0 * i128::from(times) + by / 2) / by) }
    }

    /// Part of `total` in percent, with two digits; 0 when there is no total.
    pub fn percent_of(self, total: Self) -> f64 {
        if total == Self::ZERO {
            return 0.0;
        }
        ((self.0 * 10_000 + total.0 / 2) / total.0) as f64 / 100.0
    }

    /// Whether it is at least `percent` of `total`.
    pub fn reaches(self, percent: i64, total: Self) -> bool {
        self.0 * 100 >= total.0 * i128::from(percent)
    }

    /// How many times `share / by` has to be taken until nothing is left; `None` when it never ends.
    pub fn lasts(self, share: Self, by: u64) -> Option<u64> {
        if share == Self::ZERO {
            return None;
        }
        u64::try_from((self.0 * i128::from(by) + share.0 - 1) / share.0).ok()
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:0DIGITS$}", self.0 / UNIT, self.0 % UNIT);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl Add for Money {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl AddAssign for Money {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.to_f64())
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let amount = f64::deserialize(deserializer)?;
        Self::from_f64(amount).ok_or_else(|| serde::de::Error::custom("must be an amount from 0"))
    }
}

wire_enum! {
    /// What amounts are in. Nothing here ever converts one into another.
    Currency {
        /// Australian dollar.
        Aud = "AUD",
        /// Bahraini dinar.
        Bhd = "BHD",
        /// Burundian franc.
        Bif = "BIF",
        /// Brazilian real.
        Brl = "BRL",
        /// Canadian dollar.
        Cad = "CAD",
        /// Swiss franc.
        Chf = "CHF",
        /// Chilean peso.
        Clp = "CLP",
        /// Renminbi.
        Cny = "CNY",
        /// Czech koruna.
        Czk = "CZK",
        /// Djiboutian franc.
        Djf = "DJF",
        /// Danish krone.
        Dkk = "DKK",
        /// Euro.
        Eur = "EUR",
        /// Pound sterling.
        Gbp = "GBP",
        /// Guinean franc.
        Gnf = "GNF",
        /// Hong Kong dollar.
        Hkd = "HKD",
        /// Forint.
        Huf = "HUF",
        /// Rupiah.
        Idr = "IDR",
        /// New shekel.
        Ils = "ILS",
        /// Indian rupee.
        Inr = "INR",
        /// Iraqi dinar.
        Iqd = "IQD",
        /// Icelandic króna.
        Isk = "ISK",
        /// Jordanian dinar.
        Jod = "JOD",
        /// Yen.
        Jpy = "JPY",
        /// Comorian franc.
        Kmf = "KMF",
        /// Won.
        Krw = "KRW",
        /// Kuwaiti dinar.
        Kwd = "KWD",
        /// Libyan dinar.
        Lyd = "LYD",
        /// Ariary.
        Mga = "MGA",
        /// Mexican peso.
        Mxn = "MXN",
        /// Norwegian krone.
        Nok = "NOK",
        /// New Zealand dollar.
        Nzd = "NZD",
        /// Omani rial.
        Omr = "OMR",
        /// Złoty.
        Pln = "PLN",
        /// Guaraní.
        Pyg = "PYG",
        /// Rwandan franc.
        Rwf = "RWF",
        /// Swedish krona.
        Sek = "SEK",
        /// Singapore dollar.
        Sgd = "SGD",
        /// Baht.
        Thb = "THB",
        /// Tunisian dinar.
        Tnd = "TND",
        /// Turkish lira.
        Try = "TRY",
        /// New Taiwan dollar.
        Twd = "TWD",
        /// Ugandan shilling.
        Ugx = "UGX",
        /// United States dollar.
        Usd = "USD",
        /// Đồng.
        Vnd = "VND",
        /// Vatu.
        Vuv = "VUV",
        /// Central African CFA franc.
        Xaf = "XAF",
        /// West African CFA franc.
        Xof = "XOF",
        /// CFP franc.
        Xpf = "XPF",
        /// Rand.
        Zar = "ZAR",
    }
}

impl Currency {
    /// The code of every currency.
    pub const CODES: [&'static str; Self::ALL.len()] = {
        let mut codes = [""; Self::ALL.len()];
        let mut i = 0;
        while i < codes.len() {
            codes[i] = Self::ALL[i].as_str();
            i += 1;
        }
        codes
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn money(amount: f64) -> Money {
        Money::from_f64(amount).unwrap()
    }

    #[test]
    fn what_floating_point_gets_wrong_is_exact() {
        assert_eq!(money(0.1) + money(0.2), money(0.3));
        assert_eq!([0.1; 10].map(money).into_iter().sum::<Money>(), money(1.0));
        assert_eq!(serde_json::to_string(&(money(0.1) + money(0.2))).unwrap(), "0.3");
        assert_eq!(money(0.000_000_075).scaled(1_000_000, 1), money(0.075));
        assert_eq!(money(12_345_678.123_456_7).to_string(), "12345678.1234567");
    }

    #[test]
    fn an_amount_is_finite_not_negative_and_bounded() {
        for bad in [-0.01, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e13] {
            assert_eq!(Money::from_f64(bad), None, "{bad}");
        }
        assert_eq!((money(0.0), money(-0.0)), (Money::ZERO, Money::ZERO));
        assert!(serde_json::from_str::<Money>("-1").is_err());
    }

    #[test]
    fn thresholds_are_compared_exactly() {
        let total = money(0.3);
        assert!((money(0.1) + money(0.2)).reaches(100, total));
        assert!(!money(0.299_999_999_9).reaches(100, total));
        assert_eq!(money(75.0).percent_of(money(100.0)), 75.0);
        assert_eq!(money(3.0).percent_of(Money::ZERO), 0.0);
    }

    #[test]
    fn what_is_left_lasts_for_whole_days() {
        assert_eq!(money(10.0).lasts(money(3.0), 1), Some(4));
        assert_eq!(money(9.0).lasts(money(3.0), 1), Some(3));
        assert_eq!(money(10.0).lasts(money(10.0), 3), Some(3));
        assert_eq!(Money::ZERO.lasts(money(1.0), 1), Some(0));
        assert_eq!(money(1.0).lasts(Money::ZERO, 1), None);
    }

    #[test]
    fn codes_are_three_capitals_and_known_once() {
        assert!(Currency::CODES.iter().all(|c| c.len() == 3 && c.bytes().all(|b| b.is_ascii_uppercase())));
        assert_eq!(Currency::CODES.iter().collect::<std::collections::HashSet<_>>().len(), 49);
        assert_eq!(Currency::parse("usd"), None);
    }

    proptest! {
        #[test]
        fn sums_are_exact_in_any_order_and_through_columns(
            counts in prop::collection::vec(0_i64..20_000_000_000_000, 0..50), turn in any::<prop::sample::Index>(),
        ) {
            let mut amounts: Vec<_> = counts.iter().map(|count| Money::from_parts(0, *count)).collect();
            let sum: Money = amounts.iter().copied().sum();
            prop_assert_eq!(sum.0, counts.iter().map(|count| i128::from(*count)).sum::<i128>());
            let parts = amounts.iter().map(|amount| amount.parts());
            let (whole, fraction) = parts.fold((0, 0), |(w, f), (whole, fraction)| (w + whole, f + fraction));
            prop_assert_eq!(Money::from_parts(whole, fraction), sum);
            if !amounts.is_empty() {
                let middle = turn.index(amounts.len());
                amounts.rotate_left(middle);
            }
            prop_assert_eq!(amounts.into_iter().sum::<Money>(), sum);
        }

        #[test]
        fn amounts_survive_the_way_through_json(count in 0_i64..90_000_000_000_000_000) {
            // Fifteen digits are what a JSON number surely keeps.
            let amount = Money::from_parts(0, count / 100 * 100);
            let text = serde_json::to_string(&amount).unwrap();
            prop_assert_eq!(serde_json::from_str::<Money>(&text).unwrap(), amount);
        }

        #[test]
        fn shares_are_never_negative_and_never_more_than_half_a_count_off(
            count in 0_i64..i64::MAX, times in 0_u64..100, by in 1_u64..100,
        ) {
            let share = Money::from_parts(0, count).scaled(times, by);
            let off = share.0 * i128::from(by) - i128::from(count) * i128::from(times);
            prop_assert!(share >= Money::ZERO && off.abs() * 2 <= i128::from(by));
        }
    }
}
