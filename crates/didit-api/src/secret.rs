//! Text that must not be printed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Text whose holder can do something: a session's token, a link that carries one.
///
/// `Debug` shows that it is there and nothing else, and there is no `Display`; [`expose`](Self::expose) is the one
/// way out, so that a search for it finds every use. It is written whole by serde, since that is how it is sent.
///
/// # Example
///
/// ```
/// use didit_api::Secret;
///
/// let token = Secret::from("aB3dE5fG7hJ9");
/// assert_eq!(format!("{token:?}"), "[redacted]");
/// assert_eq!(token.expose(), "aB3dE5fG7hJ9");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

// ===== impl Secret =====

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}
