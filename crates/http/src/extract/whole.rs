//! Whole numbers that are written as fractions: JSON has one kind of number, and `2.0` is as whole as `2`.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Largest number up to which every whole one has a fraction of its own.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Reads a value from JSON text in which whole numbers may be written as fractions.
pub(super) fn read<T: DeserializeOwned>(json: &[u8]) -> serde_json::Result<T> {
    let mut value = serde_json::from_slice(json)?;
    make_whole(&mut value);
    serde_json::from_value(value)
}

#[allow(clippy::cast_possible_truncation, reason = "whole and within the exact range")]
fn make_whole(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let whole = number.as_f64().filter(|n| number.is_f64() && n.fract() == 0.0 && n.abs() <= EXACT);
            if let Some(whole) = whole {
                *number = (whole as i64).into();
            }
        }
        Value::Array(list) => list.iter_mut().for_each(make_whole),
        Value::Object(members) => members.values_mut().for_each(make_whole),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_is_one_however_it_is_written() {
        assert_eq!(read::<Vec<i64>>(b"[2, 2.0, 2e3, -1.0]").unwrap(), [2, 2, 2000, -1]);
        assert_eq!(read::<Vec<u32>>(b"[0.0, -0.0]").unwrap(), [0, 0]);
        assert_eq!(read::<Vec<f64>>(b"[2.0, 2.5]").unwrap(), [2.0, 2.5]);
    }

    #[test]
    fn fractions_and_what_may_have_been_rounded_are_no_whole_numbers() {
        for json in ["2.5", "1e300", "9007199254740994.0", "\"2.0\""] {
            assert!(read::<i64>(json.as_bytes()).is_err(), "{json}");
        }
    }
}
