//! What must not be read in a log: values under telling keys, and values whose shape tells.
//!
//! Every text of every line passes [`scrub`], so the common case is one pass over the bytes that
//! finds nothing. Where a value's end is in doubt, too much is taken rather than too little.

use std::borrow::Cow;

/// What stands in the place of a secret.
pub(super) const REDACTED: &str = "**REDACTED**";
/// Characters of a session id that stay readable.
const SESSION_ID_SHOWN: usize = 8;
/// Length of the API keys and tickets this program mints: 32 bytes as unpadded base64.
const MINTED: usize = 43;

const PEM: &[u8] = b"-----BEGIN";
const JWT: &[u8] = b"eyJ";
const AUTHORITY: &[u8] = b"://";

/// Which bytes stand first (1) or second (2) in a word or shape: two look-ups rule out almost every
/// place of an innocent text.
const STARTS: [u8; 256] = {
    let mut table = [0; 256];
    let (first, second) = (b"pstacbPSTACB-e:", b"areopuAREOPUy-/");
    let mut i = 0;
    while i < first.len() {
        table[first[i] as usize] |= 1;
        table[second[i] as usize] |= 2;
        i += 1;
    }
    table
};

/// How the value under a key is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Shown, after its text was scrubbed.
    Plain,
    /// Never shown.
    Secret,
    /// Never shown unless it is a number: `tokens_used`, `session_count`.
    Count,
    /// A session id: its beginning is shown.
    SessionId,
}

/// Reads a key in any letter case, with `-` for `_`.
pub(super) fn key(name: &str) -> Key {
    let bytes = name.as_bytes();
    if !bytes.windows(2).enumerate().any(|(at, pair)| may_start(pair) && word_at(&bytes[at..]).is_some()) {
        return Key::Plain;
    }
    if starts_with(bytes, b"session_id") && bytes.len() == b"session_id".len() {
        return Key::SessionId;
    }
    let counts: [&[u8]; 8] =
        [b"s", b"_count", b"_used", b"_limit", b"_max", b"_min", b"_seconds", b"_minutes"];
    let is_count = counts
        .iter()
        .any(|end| bytes.len() > end.len() && starts_with(&bytes[bytes.len() - end.len()..], end));
    // `tokens_in` counts, `token_in` does not.
    let plural = bytes.windows(7).any(|part| starts_with(part, b"tokens_"));
    if is_count || plural { Key::Count } else { Key::Secret }
}

/// The readable beginning of a session id, quotes of a debug form aside.
pub(super) fn session_id(value: &str) -> &str {
    let value = value.trim_start_matches(['"', '\\']).trim_end_matches(['"', '\\']);
    match value.char_indices().nth(SESSION_ID_SHOWN) {
        Some((end, _)) => &value[..end],
        None => value,
    }
}

/// The text without secrets: borrowed and untouched when nothing looks like one.
pub(super) fn scrub(text: &str) -> Cow<'_, str> {
    if suspicious(text.as_bytes()) { Cow::Owned(Scrubber::new(text).run()) } else { Cow::Borrowed(text) }
}

fn may_start(pair: &[u8]) -> bool {
    STARTS[usize::from(pair[0])] & 1 != 0 && STARTS[usize::from(pair[1])] & 2 != 0
}

fn suspicious(bytes: &[u8]) -> bool {
    let telling = |(at, pair): (usize, &[u8])| {
        let rest = &bytes[at..];
        may_start(pair)
            && (word_at(rest).is_some()
                || rest.starts_with(AUTHORITY)
                || rest.starts_with(JWT)
                || rest.starts_with(PEM))
    };
    bytes.windows(2).enumerate().any(telling)
        || bytes.len() >= MINTED && bytes.split(|byte| !is_token(*byte)).any(is_minted)
}

/// Length of the telling word `rest` begins with.
fn word_at(rest: &[u8]) -> Option<usize> {
    let [first, second, ..] = rest else { return None };
    let words: &[&[u8]] = match (first | 0x20, second | 0x20) {
        (b'p', b'a') => &[b"password", b"passwd"],
        (b'p', b'r') => &[b"private_key", b"privatekey"],
        (b's', b'e') => &[b"secret", b"session"],
        (b't', b'o') => &[b"token"],
        (b'a', b'p') => &[b"api_key", b"apikey"],
        (b'a', b'u') => &[b"authorization"],
        (b'c', b'r') => &[b"credential"],
        (b'c', b'o') => &[b"cookie"],
        (b'b', b'e') => &[b"bearer"],
        _ => return None,
    };
    words.iter().find(|word| starts_with(rest, word)).map(|word| word.len())
}

fn starts_with(bytes: &[u8], word: &[u8]) -> bool {
    let same = |(byte, expected): (&u8, &u8)| match byte {
        b'-' => *expected == b'_',
        byte => byte.eq_ignore_ascii_case(expected),
    };
    bytes.len() >= word.len() && bytes.iter().zip(word).all(same)
}

/// Characters of unpadded URL-safe base64.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn is_minted(run: &[u8]) -> bool {
    run.len() == MINTED
        && run.iter().any(u8::is_ascii_uppercase)
        && run.iter().any(u8::is_ascii_lowercase)
        && run.iter().any(|byte| !byte.is_ascii_alphabetic())
}

/// One pass from left to right; every cut is at an ASCII byte, so on a character boundary.
struct Scrubber<'a> {
    text: &'a str,
    bytes: &'a [u8],
    out: String,
    /// Everything before is in `out` or left out.
    done: usize,
}

impl<'a> Scrubber<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, bytes: text.as_bytes(), out: String::with_capacity(text.len()), done: 0 }
    }

    fn run(mut self) -> String {
        let mut at = 0;
        while at < self.bytes.len() {
            at = self.step(at).max(at + 1);
        }
        self.out.push_str(&self.text[self.done..]);
        self.out
    }

    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    fn replace(&mut self, start: usize, end: usize) -> usize {
        self.replace_by(start, end, REDACTED)
    }

    fn replace_by(&mut self, start: usize, end: usize, by: &str) -> usize {
        self.out.push_str(&self.text[self.done..start]);
        self.out.push_str(by);
        self.done = end;
        end
    }

    /// Treats what begins at `at`; answers where to go on.
    fn step(&mut self, at: usize) -> usize {
        let bytes = self.bytes;
        let rest = &bytes[at..];
        let begins = at == 0 || !is_token(bytes[at - 1]);
        if begins && is_token(rest[0]) {
            let run = rest.iter().position(|byte| !is_token(*byte)).unwrap_or(rest.len());
            if is_minted(&rest[..run]) {
                return self.replace(at, at + run);
            }
            if rest.starts_with(JWT)
                && let Some(length) = jwt(rest)
            {
                return self.replace(at, at + length);
            }
        }
        if rest.starts_with(PEM) {
            return self.replace(at, at + pem(rest));
        }
        if rest.starts_with(AUTHORITY) {
            return self.authority(at + AUTHORITY.len());
        }
        match word_at(rest) {
            Some(length) => self.word(at, at + length),
            None => at + 1,
        }
    }

    /// `user:password@` between `://` and the host.
    fn authority(&mut self, start: usize) -> usize {
        let rest = &self.bytes[start..];
        let ends = |byte: &u8| byte.is_ascii_whitespace() || b"/?#\"'<>\\`".contains(byte);
        let end = rest.iter().position(ends).unwrap_or(rest.len());
        match rest[..end].iter().rposition(|byte| *byte == b'@') {
            Some(user) if user > 0 => self.replace(start, start + user),
            _ => start,
        }
    }

    /// A telling word: a scheme before its credentials, a key before its value, or only a word.
    fn word(&mut self, start: usize, end: usize) -> usize {
        let bytes = self.bytes;
        let is_key = |byte: u8| is_token(byte) || byte == b'.';
        let key_start = start - bytes[..start].iter().rev().take_while(|byte| is_key(**byte)).count();
        let key_end = end + bytes[end..].iter().take_while(|byte| is_key(**byte)).count();
        if let Some((value, quoted)) = self.separator(key_start, key_end) {
            return self.value(&self.text[key_start..key_end], value, quoted);
        }
        if starts_with(&bytes[start..], b"bearer") && self.byte(end) == b' ' {
            let value = end + bytes[end..].iter().take_while(|byte| **byte == b' ').count();
            let credentials = |byte: &&u8| is_token(**byte) || b".~+/=".contains(byte);
            let length = bytes[value..].iter().take_while(credentials).count();
            if length > 0 {
                return self.replace(value, value + length);
            }
        }
        key_end
    }

    /// Where the value of a key starts, and whether the key stood in quotes.
    fn separator(&self, key_start: usize, key_end: usize) -> Option<(usize, bool)> {
        let mut at = key_end;
        while self.byte(at) == b'\\' {
            at += 1;
        }
        let quoted = matches!(self.byte(at), b'"' | b'\'');
        at += usize::from(quoted);
        at += self.blanks(at);
        match (self.byte(at), self.byte(at + 1)) {
            (b':', b':') => return None,
            (b'=', b'>') => at += 2,
            (b':' | b'=', _) => at += 1,
            // A pair: ("name", "value").
            (b',', _) if quoted && self.opens_pair(key_start) => at += 1,
            _ => return None,
        }
        Some((at + self.blanks(at), quoted))
    }

    fn opens_pair(&self, key_start: usize) -> bool {
        let before = self.bytes[..key_start].iter().rev().copied();
        let mut before = before.skip_while(|byte| matches!(byte, b'"' | b'\'' | b'\\'));
        matches!(before.next(), Some(b'(' | b'['))
    }

    fn blanks(&self, at: usize) -> usize {
        let rest = self.bytes.get(at..).unwrap_or_default();
        rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
    }

    fn value(&mut self, name: &str, start: usize, key_quoted: bool) -> usize {
        let (end, quote) = self.value_end(start, key_quoted);
        let inner = &self.text[start + quote..end.max(start + quote)];
        let class = key(name);
        if inner.is_empty() || matches!(inner, "null" | "None" | "true" | "false") {
            return end;
        }
        if class == Key::Count && inner.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return end;
        }
        let by = if class == Key::SessionId { session_id(inner) } else { REDACTED };
        if quote == 0 {
            return self.replace_by(start, end, by);
        }
        let mark = &self.text[start..start + quote];
        let by = format!("{mark}{by}{mark}");
        self.replace_by(start, end, &by)
    }

    /// Where the value ends, and how long its opening quote is (with its backslashes).
    fn value_end(&self, start: usize, key_quoted: bool) -> (usize, usize) {
        let rest = &self.bytes[start.min(self.bytes.len())..];
        let escapes = rest.iter().take_while(|byte| **byte == b'\\').count();
        if let Some(quote @ (b'"' | b'\'')) = rest.get(escapes).copied() {
            return (self.string_end(start + escapes + 1, quote, escapes), escapes + 1);
        }
        // The debug form of a wrapper: Some("x"), Object {"a": "b"}.
        let name = rest.iter().take_while(|byte| is_token(**byte) || b":<>&".contains(byte)).count();
        let open = name + usize::from(rest.get(name) == Some(&b' '));
        if matches!(rest.get(open), Some(b'(' | b'[' | b'{')) && (open == name || name > 0) {
            return (self.balanced_end(start + open), 0);
        }
        let ends = |at: &usize| match rest[*at] {
            b'"' | b'\n' => true,
            byte if key_quoted => byte.is_ascii_whitespace() || b",)]}".contains(&byte),
            b'&' => true,
            b',' | b';' => rest.get(at + 1).is_none_or(u8::is_ascii_whitespace),
            b' ' => self.bytes[..start].ends_with(b"="),
            _ => false,
        };
        (start + (0..rest.len()).find(ends).unwrap_or(rest.len()), 0)
    }

    /// Just after the closing quote. Quoting text again doubles backslashes and adds one before each
    /// quote, so a quote belongs to the string opened by a quote with `escapes` backslashes when the
    /// rest of the run before it is made of escaped backslashes; fewer close a string around it.
    fn string_end(&self, from: usize, quote: u8, escapes: usize) -> usize {
        let mut run = 0;
        for (at, byte) in self.bytes.iter().enumerate().skip(from) {
            match *byte {
                b'\\' => run += 1,
                byte if byte == quote && run % (2 * (escapes + 1)) <= escapes => return at + 1,
                _ => run = 0,
            }
        }
        self.bytes.len()
    }

    fn balanced_end(&self, open: usize) -> usize {
        let (mut at, mut depth, mut escapes) = (open, 0_usize, 0);
        while at < self.bytes.len() {
            let byte = self.bytes[at];
            at += 1;
            match byte {
                b'\\' => {
                    escapes += 1;
                    continue;
                }
                b'"' => at = self.string_end(at, b'"', escapes),
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' => {
                    depth -= 1;
                    if depth == 0 {
                        return at;
                    }
                }
                _ => {}
            }
            escapes = 0;
        }
        self.bytes.len()
    }
}

/// Length of the signed token `rest` begins with; the signature may be empty.
fn jwt(rest: &[u8]) -> Option<usize> {
    let part = |from: usize| rest[from..].iter().take_while(|byte| is_token(**byte)).count();
    let header = part(0);
    if rest.get(header) != Some(&b'.') || header < 8 {
        return None;
    }
    let payload = part(header + 1);
    let mut end = header + 1 + payload;
    while rest.get(end) == Some(&b'.') {
        end += 1 + part(end + 1);
    }
    (payload > 0).then_some(end)
}

/// Length of the armoured block `rest` begins with: to its end line, or to the end of the text.
fn pem(rest: &[u8]) -> usize {
    let find = |from: usize, needle: &[u8]| {
        rest[from..].windows(needle.len()).position(|part| part == needle).map(|at| from + at + needle.len())
    };
    find(0, b"-----END").and_then(|end| find(end, b"-----")).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests;
