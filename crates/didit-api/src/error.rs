//! What Didit's error bodies say.
//!
//! There is no single envelope. Didit's api-errors page and the examples of its OpenAPI file show eight shapes of
//! JSON, and some 500s and gateway pages are no JSON at all; [`ErrorBody::parse`] takes them all and never fails.
//! Its recognisers tell apart what looks alike: a duplicate from a mistake
//! ([`is_duplicate_transaction`](ErrorBody::is_duplicate_transaction)), and a 429 that is no rate window from one that
//! is ([`odd_throttle`](ErrorBody::odd_throttle)).

use std::fmt;

use serde_json::{Map, Value};

mod recognise;
mod scrub;

pub use recognise::OddThrottle;
use scrub::scrubbed;

/// What one error body says, whatever its shape.
///
/// It keeps a bounded part of the body: at most [`MAX_MESSAGES`](Self::MAX_MESSAGES) messages and as many field
/// messages, each of at most [`MAX_TEXT`](Self::MAX_TEXT) characters.
///
/// Messages may repeat what was sent, so `Debug` and `Display` leave out field messages and blank words that look
/// like an address, a long number, a link or a key. The accessors give everything.
///
/// # Example
///
/// ```
/// use didit_api::error::{ErrorBody, ErrorShape};
///
/// let body = ErrorBody::parse(br#"{"workflow_id":["This field is required."]}"#);
/// assert_eq!(body.shape(), ErrorShape::Fields);
/// assert_eq!((body.fields()[0].field(), body.fields()[0].message()), ("workflow_id", "This field is required."));
///
/// let body = ErrorBody::parse(br#"{"code":"contract_billing_suspended","detail":"Billing is suspended."}"#);
/// assert_eq!((body.code(), body.message()), (Some("contract_billing_suspended"), Some("Billing is suspended.")));
///
/// let page = ErrorBody::parse(b"<html>502 Bad Gateway</html>");
/// assert_eq!(page.shape(), ErrorShape::NotJson);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ErrorBody {
    shape: ErrorShape,
    code: Option<String>,
    messages: Vec<String>,
    fields: Vec<FieldError>,
}

/// How an error body is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorShape {
    /// `{"detail":"text"}`: most refusals, 404 and 429.
    Detail,
    /// `{"code":"…","detail":"…"}`: the newer stable codes.
    CodeDetail,
    /// `{"error":"text"}`: the standalone checks.
    Error,
    /// `{"error":["text"]}`: rules on AML parameters.
    ErrorList,
    /// `{"error":"code", …}`: wallets of digital identities.
    ErrorCode,
    /// `{"field":["text", …]}`, nested as the input is: form validation.
    Fields,
    /// `{"field":"text"}`: business rules.
    FieldText,
    /// `["text"]`: a status set twice, a scenario armed too late.
    List,
    /// JSON of no known shape.
    Other,
    /// Not JSON, or nested too deep to be an error of Didit's.
    NotJson,
    /// Longer than [`ErrorBody::MAX_BYTES`], and not looked at.
    TooLarge,
    /// No body.
    Empty,
}

/// What is wrong with one field of the request.
#[derive(Clone, PartialEq, Eq)]
pub struct FieldError {
    field: String,
    message: String,
}

// ===== impl FieldError =====

impl FieldError {
    /// The field, with dots where the input is nested: `contact_details.email`.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// What Didit says about it. It may repeat the value that was sent.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Debug for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FieldError").field("field", &scrubbed(&self.field)).finish_non_exhaustive()
    }
}

// ===== impl ErrorBody =====

impl ErrorBody {
    /// The longest body that is looked at: 64 KiB, far above any documented error and cheap to parse.
    pub const MAX_BYTES: usize = 64 * 1024;

    /// The most messages, and the most field messages, that are kept.
    pub const MAX_MESSAGES: usize = 32;

    /// The most characters of a message that are kept; Didit's longest documented sentence has about 110.
    pub const MAX_TEXT: usize = 512;

    /// How deep validation messages are followed; Didit's requests nest two levels.
    const MAX_DEPTH: usize = 8;

    /// Reads a body. Whatever the bytes are, there is an answer.
    pub fn parse(body: &[u8]) -> Self {
        let mut read = Self { shape: ErrorShape::Empty, code: None, messages: Vec::new(), fields: Vec::new() };
        if body.trim_ascii().is_empty() {
            return read;
        }
        if body.len() > Self::MAX_BYTES {
            read.shape = ErrorShape::TooLarge;
            return read;
        }
        // serde_json gives up at 128 levels, so a hostile body cannot exhaust the stack here or below.
        read.shape = match serde_json::from_slice(body) {
            Ok(Value::Object(object)) => read.object(&object),
            Ok(Value::Array(items)) => read.list(&items),
            Ok(value) => {
                read.say(&value);
                ErrorShape::Other
            }
            Err(_) => {
                read.plain(body);
                ErrorShape::NotJson
            }
        };
        read
    }

    /// How the body is laid out.
    pub fn shape(&self) -> ErrorShape {
        self.shape
    }

    /// The stable code, where there is one. The set is open.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// The sentence for people, where the body has one that belongs to no field.
    pub fn message(&self) -> Option<&str> {
        self.messages.first().map(String::as_str)
    }

    /// All sentences that belong to no field.
    pub fn messages(&self) -> impl Iterator<Item = &str> {
        self.messages.iter().map(String::as_str)
    }

    /// What is wrong with which field.
    pub fn fields(&self) -> &[FieldError] {
        &self.fields
    }

    fn object(&mut self, object: &Map<String, Value>) -> ErrorShape {
        let text = |name| object.get(name).and_then(Value::as_str);
        // NOTE: `code` is also the name of an input, whose rejection is a sentence or a list.
        self.code = text("code").filter(|code| is_token(code)).map(cut);
        let detail = object.get("detail").filter(|detail| self.say(detail)).is_some();
        let shape = match object.get("error") {
            error if self.code.is_some() => {
                if let Some(error) = error {
                    self.say(error);
                }
                ErrorShape::CodeDetail
            }
            Some(Value::String(error)) if is_code(error) || (detail && is_token(error)) => {
                self.code = Some(cut(error));
                ErrorShape::ErrorCode
            }
            _ if detail => ErrorShape::Detail,
            Some(error @ Value::String(_)) if self.say(error) => ErrorShape::Error,
            Some(error @ Value::Array(_)) if self.say(error) => ErrorShape::ErrorList,
            _ if object.is_empty() => ErrorShape::Other,
            _ if object.values().all(Value::is_string) => ErrorShape::FieldText,
            _ => ErrorShape::Fields,
        };
        let bare = matches!(shape, ErrorShape::Fields | ErrorShape::FieldText);
        for (name, value) in object {
            // Beside a message, a plain value is context (an id, a balance); only lists and objects blame a field.
            let told = !bare && (matches!(name.as_str(), "code" | "detail" | "error") || !is_nested(value));
            if !told {
                self.blame(name, value, 0);
            }
        }
        if bare && self.fields.is_empty() { ErrorShape::Other } else { shape }
    }

    fn list(&mut self, items: &[Value]) -> ErrorShape {
        let mut said = false;
        for (index, item) in items.iter().enumerate() {
            if item.is_string() {
                said |= self.say(item);
            } else {
                self.blame(&index.to_string(), item, 0);
            }
        }
        if said { ErrorShape::List } else { ErrorShape::Other }
    }

    /// The first line of a body that is not JSON, unless it is a page.
    fn plain(&mut self, body: &[u8]) {
        let text = String::from_utf8_lossy(body);
        let line = text.trim().lines().next().unwrap_or_default();
        if !line.starts_with(['<', '{', '[']) {
            self.messages.push(cut(line));
        }
    }

    /// Keeps a string, or the strings of a list, as messages; whether there was one.
    fn say(&mut self, value: &Value) -> bool {
        let texts = match value {
            Value::String(_) => std::slice::from_ref(value),
            Value::Array(items) => items,
            _ => return false,
        };
        let before = self.messages.len();
        let room = Self::MAX_MESSAGES.saturating_sub(before);
        self.messages.extend(texts.iter().filter_map(Value::as_str).take(room).map(cut));
        self.messages.len() > before
    }

    /// Keeps what a value says about a field, and about the fields in it.
    fn blame(&mut self, field: &str, value: &Value, depth: usize) {
        if depth > Self::MAX_DEPTH || self.fields.len() >= Self::MAX_MESSAGES {
            return;
        }
        match value {
            Value::String(message) => self.fields.push(FieldError { field: cut(field), message: cut(message) }),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate().take(Self::MAX_MESSAGES) {
                    match item {
                        Value::String(_) => self.blame(field, item, depth + 1),
                        _ => self.blame(&format!("{field}.{index}"), item, depth + 1),
                    }
                }
            }
            Value::Object(object) => {
                for (name, item) in object.iter().take(Self::MAX_MESSAGES) {
                    self.blame(&cut(&format!("{field}.{name}")), item, depth + 1);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

impl fmt::Debug for ErrorBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorBody")
            .field("shape", &self.shape)
            .field("code", &self.code.as_deref().map(scrubbed))
            .field("message", &self.message().map(scrubbed))
            .field("fields", &self.fields)
            .finish()
    }
}

impl fmt::Display for ErrorBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code(), self.message(), self.fields.first()) {
            (Some(code), Some(message), _) => write!(f, "{}: {}", scrubbed(code), scrubbed(message)),
            (Some(text), None, _) | (None, Some(text), _) => f.write_str(&scrubbed(text)),
            (None, None, Some(first)) => {
                write!(f, "refused field {}", scrubbed(&first.field))?;
                self.fields[1..].iter().try_for_each(|other| write!(f, ", {}", scrubbed(&other.field)))
            }
            (None, None, None) => f.write_str(match self.shape {
                ErrorShape::Empty => "no body",
                ErrorShape::TooLarge => "a body too large for an error",
                ErrorShape::NotJson => "a body that is not JSON",
                _ => "a body of no known shape",
            }),
        }
    }
}

/// The text, or as much of it as is kept.
fn cut(text: &str) -> String {
    text.chars().take(ErrorBody::MAX_TEXT).collect()
}

fn is_nested(value: &Value) -> bool {
    value.is_array() || value.is_object()
}

/// One word: what a code may look like where a code is expected.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// One word in small letters: what tells a code from a sentence where both occur.
fn is_code(text: &str) -> bool {
    is_token(text) && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.'))
}
