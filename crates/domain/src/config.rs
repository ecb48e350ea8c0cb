//! Rules that configuration values of every room share. A refusal names the dotted field and the
//! rule, never the value: some values are secrets.

use std::fmt::Display;

/// Refuses a number outside `min..=max`; a float that is not finite lies outside every range.
pub fn between<T: PartialOrd + Display>(field: &str, value: T, min: T, max: T) -> Result<(), String> {
    if value >= min && value <= max {
        Ok(())
    } else {
        Err(format!("{field} must be between {min} and {max}"))
    }
}

/// Refuses text that is empty or only white space.
pub fn not_blank(field: &str, text: &str) -> Result<(), String> {
    if text.trim().is_empty() { Err(format!("{field} must not be blank")) } else { Ok(()) }
}

/// Refuses text that cannot stand as a name in an HTTP header: a `token` of RFC 9110.
pub fn token(field: &str, text: &str) -> Result<(), String> {
    not_blank(field, text)?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.bytes().all(fits) {
        Ok(())
    } else {
        Err(format!("{field} must consist of letters, digits and !#$%&'*+-.^_`|~"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_on_either_edge_is_inside() {
        assert!(between("n", 1, 1, 3).is_ok() && between("n", 3, 1, 3).is_ok());
        assert_eq!(between("n", 0, 1, 3).unwrap_err(), "n must be between 1 and 3");
        assert!(between("n", 4, 1, 3).is_err());
    }

    #[test]
    fn a_float_that_is_not_finite_lies_outside_every_range() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(between("n", value, 0.0, f64::MAX).is_err());
        }
    }

    #[test]
    fn a_token_has_no_separators() {
        assert!(token("n", "x-csrf-token").is_ok());
        for text in ["", " ", "a b", "a;b", "a=b", "ä", "a\n"] {
            assert!(token("n", text).is_err(), "{text:?}");
        }
    }
}
