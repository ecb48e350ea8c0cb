//! A first look at JSON text, before it is read into anything: an object, well-formed, not too deep,
//! no member twice, wherever it stands, and no NUL, which not every database can store. Parsers that differ on twins let attackers say two things
//! at once; and structs could otherwise be read from arrays.

use std::collections::HashSet;
use std::fmt;

use quarterdeck_domain::error::FieldError;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

const TWICE: &str = "must not appear twice";
pub(super) const NUL: &str = "must not hold the character NUL";

pub(super) fn check(json: &[u8]) -> Result<(), FieldError> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let checked = serde_path_to_error::deserialize::<_, Strict>(&mut deserializer);
    let (pointer, error) = match checked {
        Ok(Strict) => match deserializer.end() {
            Ok(()) if json.trim_ascii_start().starts_with(b"{") => return Ok(()),
            Ok(()) => {
                return Err(FieldError { pointer: String::new(), detail: "must be an object".to_owned() });
            }
            Err(error) => (String::new(), error),
        },
        Err(error) => (super::refusal::pointer(error.path()), error.into_inner()),
    };
    let at = || format!("at line {}, column {}", error.line(), error.column());
    Err(match error.classify() {
        Category::Data if error.to_string().starts_with(TWICE) => {
            FieldError { pointer, detail: TWICE.to_owned() }
        }
        Category::Data if error.to_string().starts_with(NUL) => {
            FieldError { pointer, detail: NUL.to_owned() }
        }
        Category::Eof => FieldError { pointer: String::new(), detail: format!("ends too early {}", at()) },
        _ if error.to_string().starts_with("recursion limit") => {
            FieldError { pointer: String::new(), detail: "is nested too deeply".to_owned() }
        }
        _ => FieldError { pointer: String::new(), detail: format!("is not valid JSON {}", at()) },
    })
}

struct Strict;

impl<'de> serde::Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Strict, E> {
        if text.contains('\0') { Err(E::custom(NUL)) } else { Ok(Strict) }
    }

    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Strict, A::Error> {
        while seq.next_element::<Strict>()?.is_some() {}
        Ok(Strict)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if name.contains('\0') {
                map.next_value_seed(Refused(NUL))?;
            }
            if !seen.insert(name) {
                map.next_value_seed(Refused(TWICE))?;
            }
            map.next_value::<Strict>()?;
        }
        Ok(Strict)
    }
}

/// Fails at the value, so that the pointer names the member.
struct Refused(&'static str);

impl<'de> DeserializeSeed<'de> for Refused {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, _: D) -> Result<(), D::Error> {
        Err(D::Error::custom(self.0))
    }
}
