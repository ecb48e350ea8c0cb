//! The registered settings, and the rules their declarations and values obey.

use regex::Regex;

use super::{Definition, MASK, MAX_VALUE_CHARS, SettingType, SettingValue};

/// Every setting the program knows, sorted by namespace and key.
#[derive(Debug)]
pub struct Registry {
    definitions: Vec<Definition>,
    patterns: Vec<Option<Regex>>,
}

impl Registry {
    /// The settings of this program.
    ///
    /// # Errors
    /// See [`Registry::new`].
    pub fn of_this_program() -> Result<Self, String> {
        Self::new(super::definitions::all())
    }

    /// Checks the declarations: an enum has words; only numbers have bounds, finite and in order; a
    /// pattern compiles; the default obeys the definition; nothing is declared twice; what is read-only
    /// needs a restart.
    ///
    /// # Errors
    /// A sentence that names the setting and the broken rule.
    pub fn new(definitions: impl IntoIterator<Item = Definition>) -> Result<Self, String> {
        let mut definitions: Vec<_> = definitions.into_iter().collect();
        definitions.sort_by_key(|d| (d.namespace.as_str(), d.key));
        if let Some(twice) =
            definitions.windows(2).find(|d| (d[0].namespace, d[0].key) == (d[1].namespace, d[1].key))
        {
            return Err(format!("setting {} is declared twice", twice[0].id()));
        }
        let mut registry = Self { patterns: Vec::with_capacity(definitions.len()), definitions };
        for definition in &registry.definitions {
            let pattern =
                well_formed(definition).map_err(|rule| format!("setting {} {rule}", definition.id()))?;
            registry.patterns.push(pattern);
        }
        for (index, definition) in registry.definitions.iter().enumerate() {
            if let Some(default) = definition.default {
                registry
                    .check(index, default)
                    .map_err(|rule| format!("the default of setting {} {rule}", definition.id()))?;
            }
        }
        Ok(registry)
    }

    /// Every definition, sorted by namespace and key.
    pub fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    /// Where a definition stands in [`Registry::definitions`].
    pub fn position(&self, namespace: &str, key: &str) -> Option<usize> {
        self.definitions.binary_search_by(|d| (d.namespace.as_str(), d.key).cmp(&(namespace, key))).ok()
    }

    /// Checks a value against the definition at `position`: type, shape, bounds, then pattern.
    ///
    /// # Errors
    /// The broken rule, never the value.
    pub fn check(&self, position: usize, value: &str) -> Result<(), String> {
        let definition = &self.definitions[position];
        if value.len() > MAX_VALUE_CHARS && value.chars().count() > MAX_VALUE_CHARS {
            return Err(format!("must have at most {MAX_VALUE_CHARS} characters"));
        }
        if value.contains('\0') {
            return Err("must not contain the NUL character".to_owned());
        }
        if definition.sensitive && value == MASK {
            return Err("must not be the mask that stands for the current value".to_owned());
        }
        check_type(definition, value)?;
        match &self.patterns[position] {
            Some(pattern) if !pattern.is_match(value) => {
                Err(format!("must match {}", definition.validator_pattern.unwrap_or_default()))
            }
            _ => Ok(()),
        }
    }

    /// Checks only that a value is of the setting's type; for sources whose own checks came first.
    ///
    /// # Errors
    /// The broken rule, never the value.
    pub fn check_type(&self, position: usize, value: &str) -> Result<(), String> {
        let unbounded =
            Definition { min_value: None, max_value: None, shape: None, ..self.definitions[position] };
        check_type(&unbounded, value)
    }
}

fn check_type(definition: &Definition, value: &str) -> Result<(), String> {
    match definition.kind {
        SettingType::Str => definition.shape.map_or(Ok(()), |shape| shape(&value.into())),
        SettingType::Int => {
            let number = i64::read(value).ok_or("must be a whole number of at most 64 bits")?;
            check_bounds(definition, number as f64)
        }
        SettingType::Float => check_bounds(definition, f64::read(value).ok_or("must be a finite number")?),
        SettingType::Bool => bool::read(value).map(drop).ok_or("must be true, false, 1 or 0".to_owned()),
        SettingType::Enum if definition.enum_values.contains(&value) => Ok(()),
        SettingType::Enum => Err(format!("must be one of {}", definition.enum_values.join(", "))),
        SettingType::Json => {
            let document = serde_json::Value::read(value).ok_or("must be valid JSON")?;
            definition.shape.map_or(Ok(()), |shape| shape(&document))
        }
    }
}

fn check_bounds(definition: &Definition, number: f64) -> Result<(), String> {
    match (definition.min_value, definition.max_value) {
        (Some(min), _) if number < min => Err(format!("must be at least {min}")),
        (_, Some(max)) if number > max => Err(format!("must be at most {max}")),
        _ => Ok(()),
    }
}

/// The rules of a declaration; the compiled pattern when there is one.
fn well_formed(definition: &Definition) -> Result<Option<Regex>, String> {
    let number = matches!(definition.kind, SettingType::Int | SettingType::Float);
    let bounds = [definition.min_value, definition.max_value];
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if definition.key.is_empty() || definition.key.len() > 128 || !definition.key.chars().all(plain) {
        return Err("must be named in lower case, digits and underscores".to_owned());
    }
    if definition.description.trim().is_empty() || definition.group.trim().is_empty() {
        return Err("must have a description and a group".to_owned());
    }
    if (definition.kind == SettingType::Enum) == definition.enum_values.is_empty() {
        return Err("must have words if and only if it is an enum".to_owned());
    }
    if bounds.iter().flatten().any(|bound| !number || !bound.is_finite()) {
        return Err("may have bounds only as a number, and only finite ones".to_owned());
    }
    if let [Some(min), Some(max)] = bounds
        && min > max
    {
        return Err("must have its smallest value below its largest".to_owned());
    }
    if definition.read_only_post_init && !definition.restart_required {
        return Err("is read-only and so must require a restart".to_owned());
    }
    let Some(pattern) = definition.validator_pattern else { return Ok(None) };
    if pattern.is_empty() || pattern.chars().count() > 256 {
        return Err("must have a pattern of 1 to 256 characters".to_owned());
    }
    Regex::new(&format!(r"\A(?:{pattern})\z"))
        .map(Some)
        .map_err(|_| "must have a pattern that compiles".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setting::{Namespace, Setting};

    const INT: Setting<i64> = Setting::int(Namespace::Api, "int", "5").described("d").within(1, 10);
    const FLOAT: Setting<f64> =
        Setting::float(Namespace::Api, "float", "0.5").described("d").within(0.0, 1.0);
    const WORD: Setting<String> =
        Setting::word(Namespace::Api, "word", &["minute", "hour"], "hour").described("d");
    const SWITCH: Setting<bool> = Setting::switch(Namespace::Api, "switch", "true").described("d");
    const JSON: Setting<serde_json::Value> = Setting::json(Namespace::Api, "json", Some("[]")).described("d");
    const TEXT: Setting<String> =
        Setting::text(Namespace::Api, "text", Some("ab")).described("d").pattern("[a-c]+|x");
    const SECRET: Setting<super::super::Sensitive> = Setting::secret(Namespace::Api, "secret").described("d");

    fn refusal(definition: &Definition, value: &str) -> Option<String> {
        Registry::new([*definition]).unwrap().check(0, value).err()
    }

    #[test]
    fn the_declarations_of_this_program_are_well_formed_and_sorted() {
        let registry = Registry::of_this_program().unwrap();
        let ids: Vec<_> = registry.definitions().iter().map(Definition::id).collect();
        assert!(ids.is_sorted());
        for (position, definition) in registry.definitions().iter().enumerate() {
            assert_eq!(registry.position(definition.namespace.as_str(), definition.key), Some(position));
        }
        assert_eq!(registry.position("auth", "jwt_secret"), None);
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused() {
        let cases: [(&Definition, &[&str], &[&str]); 5] = [
            (
                INT.definition(),
                &["1", "+5", "10", "007"],
                &["", " 5", "1e3", "true", "999999999999999999999", "5.0", "٥", "0", "11", "-1"],
            ),
            (
                FLOAT.definition(),
                &["0", "1", "1e-3", ".5"],
                &["nan", "inf", "-inf", "1e400", "", "half", "1.01", "-0.1"],
            ),
            (WORD.definition(), &["minute"], &["Minute", "", "day"]),
            (SWITCH.definition(), &["TRUE", "False", "1", "0"], &["yes", "", "2", " true"]),
            (JSON.definition(), &["{}", "null", " [1] "], &["", "{", "[1,]", "{'a':1}", "nan"]),
        ];
        for (definition, good, bad) in cases {
            for value in good {
                assert_eq!(refusal(definition, value), None, "{} {value:?}", definition.key);
            }
            for value in bad {
                assert!(refusal(definition, value).is_some(), "{} {value:?}", definition.key);
            }
        }
    }

    #[test]
    fn a_pattern_matches_the_whole_value() {
        assert_eq!(refusal(TEXT.definition(), "abc"), None);
        for bad in ["abcd", "xy", "", "a\n"] {
            assert_eq!(refusal(TEXT.definition(), bad).unwrap(), "must match [a-c]+|x", "{bad:?}");
        }
    }

    #[test]
    fn no_value_holds_nul_or_outgrows_its_bound() {
        let plain = Definition { validator_pattern: None, default: None, ..*TEXT.definition() };
        assert!(refusal(&plain, "a\0b").unwrap().contains("NUL"));
        assert_eq!(refusal(&plain, &"ä".repeat(MAX_VALUE_CHARS)), None);
        assert!(refusal(&plain, &"ä".repeat(MAX_VALUE_CHARS + 1)).unwrap().contains("65536"));
    }

    #[test]
    fn a_refusal_never_repeats_the_value() {
        assert!(refusal(SECRET.definition(), MASK).is_some());
        let sensitive = |d: &Definition| Definition { sensitive: true, ..*d };
        for definition in [INT, INT.advanced()].map(|s| sensitive(s.definition())) {
            assert!(!refusal(&definition, "hunter2").unwrap().contains("hunter2"));
        }
        for definition in
            [sensitive(WORD.definition()), sensitive(JSON.definition()), sensitive(TEXT.definition())]
        {
            assert!(!refusal(&definition, "hunter2").unwrap().contains("hunter2"));
        }
    }

    #[test]
    fn each_rule_of_a_declaration_is_checked() {
        let int = *INT.definition();
        let text = Definition { validator_pattern: None, ..*TEXT.definition() };
        let broken = [
            Definition { enum_values: &[], ..*WORD.definition() },
            Definition { enum_values: &["a"], ..int },
            Definition { min_value: Some(1.0), ..text },
            Definition { max_value: Some(f64::NAN), ..int },
            Definition { min_value: Some(f64::NEG_INFINITY), ..int },
            Definition { min_value: Some(6.0), max_value: Some(4.0), default: None, ..int },
            Definition { validator_pattern: Some("("), ..text },
            Definition { validator_pattern: Some(""), ..text },
            Definition { default: Some("x"), ..int },
            Definition { default: Some("11"), ..int },
            Definition { default: Some("abz"), ..*TEXT.definition() },
            Definition { read_only_post_init: true, restart_required: false, ..int },
            Definition { key: "Port", ..int },
            Definition { description: " ", ..int },
        ];
        for definition in broken {
            assert!(Registry::new([definition]).is_err(), "{definition:?}");
        }
        assert!(Registry::new([int, int]).unwrap_err().contains("api/int is declared twice"));
    }
}
