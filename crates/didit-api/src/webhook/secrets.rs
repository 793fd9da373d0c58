//! The secrets that webhooks are signed with.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A signature: the whole output of HMAC-SHA-256.
pub(super) type Signature = [u8; 32];

/// The secrets of a destination: the current one, and during a rotation the one before it too.
///
/// The key is the **text** of the secret, 43 URL-safe characters at Didit; it is not decoded. `Debug` shows how many
/// there are.
///
/// # Example
///
/// ```
/// use didit_api::webhook::Secrets;
///
/// let secrets = Secrets::new(["the-new-secret-0123456789abcdefghijklmnopqr", "the-old-one"])?;
/// assert_eq!(format!("{secrets:?}"), "Secrets(2)");
/// # Ok::<(), didit_api::webhook::SecretsError>(())
/// ```
#[derive(Clone)]
pub struct Secrets {
    current: Hmac<Sha256>,
    before: Vec<Hmac<Sha256>>,
}

/// Why secrets cannot be used. The secrets themselves are not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretsError {
    /// There are none.
    #[error("no webhook secret; at least one is needed")]
    None,
    /// One is empty, so that anybody could sign with it.
    #[error("webhook secret number {number} is empty")]
    Empty {
        /// Which of the secrets, from 1.
        number: usize,
    },
    /// One begins or ends with white space, as one that was read from a file with its line end does.
    #[error("webhook secret number {number} begins or ends with white space")]
    WhiteSpace {
        /// Which of the secrets, from 1.
        number: usize,
    },
}

// ===== impl Secrets =====

impl Secrets {
    /// Takes the secrets, the current one first: [`sign`](super::sign) uses that one, [`verify`](super::verify) all.
    ///
    /// # Errors
    ///
    /// [`SecretsError`] if there are none, or one is empty or has white space around it.
    pub fn new<S: AsRef<str>>(secrets: impl IntoIterator<Item = S>) -> Result<Self, SecretsError> {
        let mut keyed = secrets.into_iter().zip(1..).map(|(secret, number)| key(secret.as_ref(), number));
        let current = keyed.next().unwrap_or(Err(SecretsError::None))?;
        Ok(Self { current, before: keyed.collect::<Result<_, _>>()? })
    }

    /// Signs with the current one.
    pub(super) fn sign(&self, message: &[u8]) -> Signature {
        self.current.clone().chain_update(message).finalize().into_bytes().into()
    }

    /// For each secret whether it made the signature. The comparison takes the same time wherever they differ.
    pub(super) fn made(&self, message: &[u8], signature: &Signature) -> Vec<bool> {
        let keyed = std::iter::once(&self.current).chain(&self.before);
        keyed.map(|mac| mac.clone().chain_update(message).verify_slice(signature).is_ok()).collect()
    }
}

fn key(secret: &str, number: usize) -> Result<Hmac<Sha256>, SecretsError> {
    if secret.trim() != secret {
        return Err(SecretsError::WhiteSpace { number });
    }
    // A key of any length is taken; an empty one is refused here.
    let mac = Hmac::new_from_slice(secret.as_bytes()).ok().filter(|_| !secret.is_empty());
    mac.ok_or(SecretsError::Empty { number })
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", 1 + self.before.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_anybody_could_sign_with_is_refused() {
        let none: [&str; 0] = [];
        assert_eq!(Secrets::new(none).unwrap_err(), SecretsError::None);
        assert_eq!(Secrets::new(["a", ""]).unwrap_err(), SecretsError::Empty { number: 2 });
        for secret in ["a\n", " a", "\t"] {
            assert_eq!(Secrets::new([secret]).unwrap_err(), SecretsError::WhiteSpace { number: 1 });
        }
        assert!(Secrets::new(["a b"]).is_ok());
    }

    #[test]
    fn a_signature_tells_which_secret_made_it() {
        let (both, old) = (Secrets::new(["new", "old"]).unwrap(), Secrets::new(["old"]).unwrap());
        assert_eq!(both.made(b"text", &old.sign(b"text")), [false, true]);
        assert_eq!(both.made(b"text", &both.sign(b"text")), [true, false]);
        assert_eq!(both.made(b"test", &both.sign(b"text")), [false, false]);
    }
}
