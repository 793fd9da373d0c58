//! JSON as Didit signs it: keys sorted, nothing between tokens, every character as it is.
//!
//! The reference is Python's `json.dumps` of what `json.loads` read, with whole-number floats made integers. Values are
//! rewritten from their tokens and never through a number type of serde's, so that an integer keeps all its digits.
//! Nothing recurses: nesting is a stack of frames, and objects that came unsorted are put in order in one pass at the
//! end, so that the cost is that of sorting keys whatever the shape is.

use std::{cmp::Ordering, fmt::Write as _};

use super::{Malformed, MalformedKind};

/// The deepest nesting that is read: 127 levels, the deepest that `serde_json` reads. Didit's own need about ten.
pub const MAX_DEPTH: usize = 127;

/// By how many bytes canonical JSON may be longer than the body: 64 KiB.
///
/// It only grows where whole-number floats are written out, and `1e308` becomes 309 digits: a body of such numbers
/// would ask for sixty times its size.
const MOST_GROWTH: usize = 64 * 1024;

/// How the numbers that are floats in Python are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Floats {
    /// As they came.
    Kept,
    /// Whole ones as integers, all others as they came.
    Shortened,
    /// Whole ones as integers, all others as Python writes them.
    Python,
}

/// A body in canonical form.
#[derive(Debug)]
pub(super) struct Canonical {
    pub(super) text: String,
    pub(super) head: Head,
    /// Whether there is a number that is not whole, which may have come in another form than Python's.
    pub(super) has_fractions: bool,
}

/// The fields that are read before anything else is, as canonical JSON.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) timestamp: Option<String>,
    pub(super) session_id: Option<String>,
    pub(super) status: Option<String>,
    pub(super) webhook_type: Option<String>,
}

/// Writes a JSON object as Didit signs it for `X-Signature-V2`.
///
/// Keys are sorted by code point; nothing stands between tokens; only `"`, `\` and control characters are escaped;
/// floats that are whole numbers become integers (`98.0` and `9.8e1` are `98`, `-0.0` is `0`). Integers keep all their
/// digits, and other fractions are kept as they came.
///
/// # Errors
///
/// [`Malformed`] if the body is no JSON object in UTF-8, or one that two readers may understand differently: with a key
/// that is there twice, a number beyond a double's range or half a surrogate pair. Also if it nests deeper than
/// [`MAX_DEPTH`].
///
/// # Example
///
/// ```
/// use didit_api::webhook::canonical_json;
///
/// let body = br#"{ "score": 98.0, "name": "Zo\u00eb", "id": 12345678901234567890123 }"#;
/// assert_eq!(canonical_json(body)?, r#"{"id":12345678901234567890123,"name":"Zoë","score":98}"#);
/// # Ok::<(), didit_api::webhook::Malformed>(())
/// ```
pub fn canonical_json(body: &[u8]) -> Result<String, Malformed> {
    canonical(body, Floats::Shortened, MAX_DEPTH).map(|canonical| canonical.text)
}

pub(super) fn canonical(body: &[u8], floats: Floats, max_depth: usize) -> Result<Canonical, Malformed> {
    let text = std::str::from_utf8(body)
        .map_err(|error| Malformed { at: error.valid_up_to(), kind: MalformedKind::NotUtf8 })?;
    let mut reader = Reader {
        text,
        at: 0,
        out: String::with_capacity(text.len()),
        floats,
        max_depth,
        has_fractions: false,
        frames: Vec::new(),
        pending: Vec::new(),
        members: Vec::new(),
        unsorted: Vec::new(),
        head: Head::default(),
    };
    reader.read()?;
    Ok(reader.finish())
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Canonical but for the order of keys.
    out: String,
    floats: Floats,
    max_depth: usize,
    has_fractions: bool,
    frames: Vec<Frame>,
    /// The members so far of all objects that are open.
    pending: Vec<Member>,
    /// The members of all unsorted objects, in order.
    members: Vec<Member>,
    unsorted: Vec<Unsorted>,
    head: Head,
}

/// A container that is open.
enum Frame {
    Array,
    Object {
        /// Where it begins in `out`.
        start: usize,
        /// Where its members begin in `pending`.
        first: usize,
    },
}

/// A key and its value, as places in `out`. The key has its quotes.
#[derive(Clone, Copy)]
struct Member {
    start: usize,
    key_end: usize,
    end: usize,
}

/// An object whose members did not come in order: its place in `out`, and its members' in `members`.
struct Unsorted {
    start: usize,
    end: usize,
    first: usize,
    last: usize,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), Malformed> {
        self.space();
        if self.peek() != Some(b'{') {
            return Err(self.fault(MalformedKind::NotAnObject));
        }
        loop {
            if !self.value()? {
                continue;
            }
            // A value has ended; it may end what it stands in.
            loop {
                self.space();
                let Some(frame) = self.frames.last() else {
                    return if self.at == self.text.len() { Ok(()) } else { Err(self.fault(MalformedKind::Syntax)) };
                };
                let object = match frame {
                    Frame::Array => None,
                    Frame::Object { start, first } => Some((*start, *first)),
                };
                match (self.next(), object) {
                    (Some(b','), None) => {
                        self.out.push(',');
                        self.space();
                        break;
                    }
                    (Some(b','), Some(_)) => {
                        self.end_member();
                        self.out.push(',');
                        self.key()?;
                        break;
                    }
                    (Some(b']'), None) => {
                        self.out.push(']');
                        self.frames.pop();
                    }
                    (Some(b'}'), Some((start, first))) => {
                        self.end_member();
                        self.end_object(start, first)?;
                    }
                    _ => return Err(self.fault_before(MalformedKind::Syntax)),
                }
            }
        }
    }

    /// Reads a value, or the beginning of one. `false` if a value follows.
    fn value(&mut self) -> Result<bool, Malformed> {
        match self.peek() {
            Some(b'{') => {
                self.open(Frame::Object { start: self.out.len(), first: self.pending.len() }, '{')?;
                if self.peek() == Some(b'}') {
                    self.close('}');
                    return Ok(true);
                }
                self.key()?;
                return Ok(false);
            }
            Some(b'[') => {
                self.open(Frame::Array, '[')?;
                if self.peek() == Some(b']') {
                    self.close(']');
                    return Ok(true);
                }
                return Ok(false);
            }
            Some(b'"') => self.string()?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => self.word()?,
        }
        Ok(true)
    }

    fn open(&mut self, frame: Frame, bracket: char) -> Result<(), Malformed> {
        if self.frames.len() == self.max_depth {
            return Err(self.fault(MalformedKind::TooDeep));
        }
        self.frames.push(frame);
        self.at += 1;
        self.out.push(bracket);
        self.space();
        Ok(())
    }

    /// Closes a container that is empty.
    fn close(&mut self, bracket: char) {
        self.frames.pop();
        self.at += 1;
        self.out.push(bracket);
    }

    /// Reads a key and the colon behind it.
    fn key(&mut self) -> Result<(), Malformed> {
        self.space();
        if self.peek() != Some(b'"') {
            return Err(self.fault(MalformedKind::Syntax));
        }
        let start = self.out.len();
        self.string()?;
        let key_end = self.out.len();
        self.pending.push(Member { start, key_end, end: key_end });
        self.space();
        if self.next() != Some(b':') {
            return Err(self.fault_before(MalformedKind::Syntax));
        }
        self.out.push(':');
        self.space();
        Ok(())
    }

    fn end_member(&mut self) {
        let end = self.out.len();
        if let Some(member) = self.pending.last_mut() {
            member.end = end;
        }
    }

    fn end_object(&mut self, start: usize, first: usize) -> Result<(), Malformed> {
        self.out.push('}');
        self.frames.pop();
        let out = &self.out;
        let own = &mut self.pending[first..];
        let order = |a: &Member, b: &Member| by_code_point(a.key(out), b.key(out));
        if !own.is_sorted_by(|a, b| order(a, b) == Ordering::Less) {
            own.sort_by(order);
            if own.windows(2).any(|pair| order(&pair[0], &pair[1]) == Ordering::Equal) {
                return Err(self.fault_before(MalformedKind::DuplicateKey));
            }
            let first_kept = self.members.len();
            self.members.extend_from_slice(own);
            self.unsorted.push(Unsorted { start, end: self.out.len(), first: first_kept, last: self.members.len() });
        }
        if self.frames.is_empty() {
            self.read_head(first);
        }
        self.pending.truncate(first);
        Ok(())
    }

    /// Keeps what is needed of the outermost object. None of it is an object in an event; if one is, its keys may
    /// still be out of order here, and whoever reads it refuses it for being one.
    fn read_head(&mut self, first: usize) {
        for member in &self.pending[first..] {
            let field = match member.key(&self.out) {
                "timestamp" => &mut self.head.timestamp,
                "session_id" => &mut self.head.session_id,
                "status" => &mut self.head.status,
                "webhook_type" => &mut self.head.webhook_type,
                _ => continue,
            };
            *field = Some(self.out[member.key_end + 1..member.end].to_owned());
        }
    }

    fn string(&mut self) -> Result<(), Malformed> {
        self.at += 1;
        self.out.push('"');
        loop {
            let run = self.at;
            while self.peek().is_some_and(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
                self.at += 1;
            }
            self.out.push_str(&self.text[run..self.at]);
            match self.next() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                // The end, or a control character that has to be escaped.
                _ => return Err(self.fault_before(MalformedKind::Syntax)),
            }
        }
        self.out.push('"');
        Ok(())
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        let character = match self.next() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => self.code_point()?,
            _ => return Err(self.fault_before(MalformedKind::Syntax)),
        };
        push_escaped(&mut self.out, character);
        Ok(())
    }

    fn code_point(&mut self) -> Result<char, Malformed> {
        let unit = self.four_digits()?;
        let code = if (0xd800..0xdc00).contains(&unit) {
            if !self.text.as_bytes()[self.at..].starts_with(b"\\u") {
                return Err(self.fault(MalformedKind::LoneSurrogate));
            }
            self.at += 2;
            let low = self.four_digits()?;
            if !(0xdc00..0xe000).contains(&low) {
                return Err(self.fault(MalformedKind::LoneSurrogate));
            }
            0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00)
        } else {
            unit
        };
        // What is left to refuse is the second half of a pair without its first.
        char::from_u32(code).ok_or_else(|| self.fault(MalformedKind::LoneSurrogate))
    }

    fn four_digits(&mut self) -> Result<u32, Malformed> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.next().and_then(|byte| char::from(byte).to_digit(16));
            unit = unit * 16 + digit.ok_or_else(|| self.fault_before(MalformedKind::Syntax))?;
        }
        Ok(unit)
    }

    fn number(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        let whole = self.at;
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        let token = &self.text[start..self.at];
        if self.at == whole {
            // Python has no negative zero among its integers.
            self.out.push_str(if token == "-0" && self.floats != Floats::Kept { "0" } else { token });
        } else {
            self.float(token)?;
        }
        Ok(())
    }

    fn float(&mut self, token: &str) -> Result<(), Malformed> {
        let value = token.parse().unwrap_or(f64::NAN);
        if !value.is_finite() {
            return Err(self.fault(MalformedKind::NotFinite));
        }
        if self.floats == Floats::Kept {
            self.out.push_str(token);
        } else if value == 0.0 {
            self.out.push('0');
        } else if value.fract() == 0.0 {
            // With all its digits, as Python's int(float) has them. Writing to a string cannot fail.
            let _ = write!(self.out, "{value:.0}");
            // What is still to come needs at most as much as it has now.
            if self.out.len() > self.at + MOST_GROWTH {
                return Err(self.fault(MalformedKind::TooLong));
            }
        } else {
            self.has_fractions = true;
            match self.floats {
                Floats::Python => self.out.push_str(&python_fraction(value)),
                Floats::Kept | Floats::Shortened => self.out.push_str(token),
            }
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(self.fault(MalformedKind::Syntax)) } else { Ok(()) }
    }

    fn word(&mut self) -> Result<(), Malformed> {
        let rest = &self.text.as_bytes()[self.at..];
        let Some(word) = ["true", "false", "null"].into_iter().find(|word| rest.starts_with(word.as_bytes())) else {
            return Err(self.fault(MalformedKind::Syntax));
        };
        self.at += word.len();
        self.out.push_str(word);
        Ok(())
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek();
        self.at += 1;
        byte
    }

    fn fault(&self, kind: MalformedKind) -> Malformed {
        Malformed { at: self.at, kind }
    }

    /// For a byte that [`next`](Self::next) has taken already.
    fn fault_before(&self, kind: MalformedKind) -> Malformed {
        Malformed { at: self.at.saturating_sub(1), kind }
    }

    fn finish(mut self) -> Canonical {
        let text = if self.unsorted.is_empty() { self.out } else { self.in_order() };
        Canonical { text, head: self.head, has_fractions: self.has_fractions }
    }

    /// Puts the members of unsorted objects in order. Every byte is copied once.
    fn in_order(&mut self) -> String {
        self.unsorted.sort_unstable_by_key(|object| object.start);
        let mut sorted = String::with_capacity(self.out.len());
        let mut todo = vec![Todo::Span { start: 0, end: self.out.len() }];
        while let Some(next) = todo.pop() {
            match next {
                Todo::Span { start, end } => {
                    let index = self.unsorted.partition_point(|object| object.start < start);
                    match self.unsorted.get(index).filter(|object| object.start < end) {
                        None => sorted.push_str(&self.out[start..end]),
                        Some(object) => {
                            sorted.push_str(&self.out[start..=object.start]);
                            todo.push(Todo::Span { start: object.end, end });
                            todo.push(Todo::Members { next: object.first, first: object.first, last: object.last });
                        }
                    }
                }
                Todo::Members { next, last, .. } if next == last => sorted.push('}'),
                Todo::Members { next, first, last } => {
                    if next != first {
                        sorted.push(',');
                    }
                    let member = self.members[next];
                    todo.push(Todo::Members { next: next + 1, first, last });
                    todo.push(Todo::Span { start: member.start, end: member.end });
                }
            }
        }
        sorted
    }
}

/// What is still to be copied.
enum Todo {
    /// A part of `out`, unsorted objects within it in order.
    Span { start: usize, end: usize },
    /// The members of an object from `next` on, and its closing bracket.
    Members { next: usize, first: usize, last: usize },
}

impl Member {
    /// The key without its quotes, escaped.
    fn key<'a>(&self, out: &'a str) -> &'a str {
        &out[self.start + 1..self.key_end - 1]
    }
}

/// Compares two escaped keys by what they mean. Bytes of UTF-8 are in the order of code points.
fn by_code_point(a: &str, b: &str) -> Ordering {
    if a.contains('\\') || b.contains('\\') { unescaped(a).cmp(unescaped(b)) } else { a.cmp(b) }
}

/// The bytes that a canonically escaped text stands for: every escape is one of ASCII.
fn unescaped(text: &str) -> impl Iterator<Item = u8> {
    let mut bytes = text.bytes();
    std::iter::from_fn(move || {
        Some(match bytes.next()? {
            b'\\' => match bytes.next()? {
                b'b' => 0x8,
                b'f' => 0xc,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'u' => {
                    let mut digits = bytes.by_ref().take(4).filter_map(|digit| char::from(digit).to_digit(16));
                    let code = digits.by_ref().fold(0, |code, digit| code * 16 + digit);
                    u8::try_from(code).unwrap_or_default()
                }
                other => other,
            },
            byte => byte,
        })
    })
}

fn push_escaped(out: &mut String, character: char) {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        control @ ..'\u{20}' => {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(control));
        }
        other => out.push(other),
    }
}

/// A number that is not whole, as Python's `repr` writes it: the fewest digits that mean it, with an exponent of at least
/// two digits below 0.0001.
fn python_fraction(value: f64) -> String {
    let shortest = format!("{value:e}");
    let length = shortest.bytes().take_while(|byte| *byte != b'e').filter(u8::is_ascii_digit).count();
    // Where two decimals of that length are equally near, Rust takes the larger one and Python the one that is even, which
    // is how Rust rounds to a given length.
    let even = format!("{value:.*e}", length.saturating_sub(1));
    let scientific = if even.parse() == Ok(value) { even } else { shortest };
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if exponent < -4 {
        return format!("{digits}e-{:02}", exponent.unsigned_abs());
    }
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let digits = digits.replace('.', "");
    match usize::try_from(exponent) {
        // What is not whole has digits behind its point.
        Ok(exponent) => {
            let (whole, fraction) = digits.split_at_checked(exponent + 1).unwrap_or((&digits, "0"));
            format!("{sign}{whole}.{fraction}")
        }
        Err(_) => format!("{sign}0.{:0>1$}", digits, digits.len() - 1 + exponent.unsigned_abs() as usize),
    }
}

/// Escapes everything outside ASCII, as the body that Didit sends is.
pub(super) fn to_ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
