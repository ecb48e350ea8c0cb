//! Entity tags of settings, and the `If-Match` conditions they are compared with.

use chrono::{DateTime, SecondsFormat, Utc};
use sha2::{Digest, Sha256};

use super::Entry;

/// Strong entity tag of a shown value: a quoted prefix of SHA-256 over `<shown value>:<updated_at>`.
/// A masked value takes part as its mask, so the tag tells nothing about it.
pub fn etag(shown: &str, updated_at: Option<DateTime<Utc>>) -> String {
    quote(Sha256::new().chain_update(shown).chain_update(":").chain_update(moment(updated_at)))
}

/// Strong entity tag of a set of settings: changes when any member's tag changes.
pub fn etag_of_all<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> String {
    let mut hash = Sha256::new();
    for entry in entries {
        hash.update(entry.definition.id());
        hash.update(entry.etag());
    }
    quote(hash)
}

fn moment(time: Option<DateTime<Utc>>) -> String {
    time.map(|time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true)).unwrap_or_default()
}

fn quote(hash: Sha256) -> String {
    let digest = hash.finalize();
    let prefix = u64::from_be_bytes(std::array::from_fn(|i| digest[i]));
    format!("\"{prefix:016x}\"")
}

/// The condition a write was made under.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum IfMatch {
    /// None: the write always happens.
    #[default]
    Unconditional,
    /// `*`: the thing has to exist, and every registered setting does.
    Any,
    /// The current tag has to be one of these. Weak tags are left out, for they never match.
    Tags(Vec<String>),
}

impl IfMatch {
    /// Reads the header; several header lines are joined with commas first.
    ///
    /// Nothing but a quoted tag can match; what cannot be read is a tag that never matches, so a
    /// mangled condition refuses the write instead of dropping the condition.
    pub fn parse(header: &str) -> Self {
        match header.trim_matches([' ', '\t']) {
            "" => Self::Unconditional,
            "*" => Self::Any,
            list => Self::Tags(strong_tags(list)),
        }
    }

    /// Whether a write to something whose current tag is `current` may go on.
    pub fn allows(&self, current: &str) -> bool {
        match self {
            Self::Unconditional | Self::Any => true,
            Self::Tags(tags) => tags.iter().any(|tag| tag == current),
        }
    }
}

fn strong_tags(mut list: &str) -> Vec<String> {
    let mut tags = Vec::new();
    loop {
        list = list.trim_start_matches([' ', '\t', ',']);
        if list.is_empty() {
            return tags;
        }
        let weak = list.strip_prefix("W/");
        let Some((tag, rest)) = weak.unwrap_or(list).strip_prefix('"').and_then(|rest| rest.split_once('"'))
        else {
            list = after_comma(list);
            continue;
        };
        // A tag ends at a comma; with anything else behind it, it is not a tag.
        let ends = rest.trim_start_matches([' ', '\t']);
        if weak.is_none() && (ends.is_empty() || ends.starts_with(',')) {
            tags.push(format!("\"{tag}\""));
        }
        list = after_comma(rest);
    }
}

fn after_comma(list: &str) -> &str {
    list.split_once(',').map_or("", |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allows(header: &str, current: &str) -> bool {
        IfMatch::parse(header).allows(current)
    }

    #[test]
    fn a_tag_is_sixteen_quoted_hex_digits_of_the_shown_value_and_its_time() {
        // printf 20: | sha256sum
        assert_eq!(etag("20", None), "\"b87efa86c9b1e22e\"");
        let time = "2026-01-02T03:04:05Z".parse().ok();
        assert_ne!(etag("20", time), etag("20", None));
        assert_ne!(etag("20", time), etag("21", time));
        assert_eq!(etag("20", time).len(), 18);
    }

    #[test]
    fn an_absent_or_empty_condition_always_holds_and_a_star_too() {
        for header in ["", "  ", "\t", "*", " * "] {
            assert!(allows(header, "\"a\""), "{header:?}");
        }
    }

    #[test]
    fn any_strong_tag_of_the_list_matches_and_weak_ones_never() {
        for header in ["\"a\"", "\"x\", \"a\"", "W/\"a\",\"a\"", ",, \"a\" ,", "junk, \"a\""] {
            assert!(allows(header, "\"a\""), "{header:?}");
        }
        for header in ["W/\"a\"", "a", "\"a", "'a'", "\"b\"", "\"a\"x", "\"x\", *", ",", "\"A\"", "w/\"a\""] {
            assert!(!allows(header, "\"a\""), "{header:?}");
        }
    }

    #[test]
    fn commas_inside_quotes_belong_to_the_tag() {
        assert!(allows("\"a,b\", \"c\"", "\"a,b\""));
        assert!(allows("\"a,b\", \"c\"", "\"c\""));
        assert!(!allows("\"x,\"a\",y\"", "\"y\""));
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_panic(header in "[ \t,\"*W/a-c\u{e9}]{0,40}|.{0,60}") {
            let _ = IfMatch::parse(&header);
        }

        #[test]
        fn a_list_matches_exactly_its_strong_members(
            tags in proptest::collection::vec(("[a-z,*/W]{0,6}", any::<bool>()), 1..6),
            wanted in "[a-z,*/W]{0,6}",
        ) {
            let list: Vec<_> =
                tags.iter().map(|(tag, weak)| format!("{}\"{tag}\"", if *weak { "W/" } else { "" })).collect();
            let parsed = IfMatch::parse(&list.join(" , "));
            for (tag, _) in &tags {
                let strong = tags.iter().any(|(other, weak)| other == tag && !weak);
                prop_assert_eq!(parsed.allows(&format!("\"{tag}\"")), strong);
            }
            let strong = tags.iter().any(|(other, weak)| *other == wanted && !weak);
            prop_assert_eq!(parsed.allows(&format!("\"{wanted}\"")), strong);
        }
    }
}
