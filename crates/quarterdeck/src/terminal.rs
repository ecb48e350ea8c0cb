//! Text from elsewhere, made harmless for a terminal.

use serde_json::Value;

/// Drops escape sequences, control characters and marks that turn the direction of writing. Line breaks
/// and tabs stay.
pub(crate) fn harmless(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => match rest.next() {
                Some('[') => skip_control_sequence(&mut rest),
                Some(']' | 'P' | 'X' | '^' | '_') => skip_string(&mut rest),
                _ => {}
            },
            '\u{9b}' => skip_control_sequence(&mut rest),
            '\u{9d}' | '\u{90}' | '\u{98}' | '\u{9e}' | '\u{9f}' => skip_string(&mut rest),
            '\n' | '\t' => kept.push(c),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            c if c.is_control() => {}
            c => kept.push(c),
        }
    }
    kept
}

fn skip_control_sequence(rest: &mut std::str::Chars<'_>) {
    rest.find(|c| matches!(c, '\u{40}'..='\u{7e}'));
}

/// A string ends with BEL or ST; one that does not end takes the rest of its line only.
fn skip_string(rest: &mut std::str::Chars<'_>) {
    while let Some(c) = rest.next() {
        match c {
            '\u{7}' | '\u{9c}' | '\n' => return,
            '\u{1b}' => {
                rest.next();
                return;
            }
            _ => {}
        }
    }
}

/// [`harmless`] for every text in a document.
pub(crate) fn harmless_json(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(harmless(&text)),
        Value::Array(items) => items.into_iter().map(harmless_json).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(name, value)| (harmless(&name), harmless_json(value))).collect()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_cannot_paint_on_the_terminal() {
        for (text, kept) in [
            ("plain ä\n\ttext", "plain ä\n\ttext"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}x", "x"),
            ("\u{1b}]8;;http://evil\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("\u{9b}2Jx", "x"),
            ("a\rb\u{8}c\u{7f}", "abc"),
            ("\u{202e}evil", "evil"),
            ("\u{1b}Pq\u{1b}\\x", "x"),
            ("\u{1b}", ""),
        ] {
            assert_eq!(harmless(text), kept, "{text:?}");
        }
    }

    #[test]
    fn documents_are_cleaned_in_names_and_values() {
        let dirty = serde_json::json!({"a\u{1b}[1m": ["\u{7}b", 1, null]});
        assert_eq!(harmless_json(dirty), serde_json::json!({"a": ["b", 1, null]}));
    }

    proptest! {
        #[test]
        fn nothing_that_controls_survives(text in ".*|(\u{1b}[\\[\\]P^_]?|[a-z;0-9]|\u{7}|\u{9b}){0,20}") {
            prop_assert!(!harmless(&text).chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
        }
    }
}
