//! Signing as Didit does, for whoever plays it.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::{
    HEADER_TIMESTAMP, Malformed, Secrets, SignatureKind,
    canonical::{Floats, MAX_DEPTH, canonical, to_ascii},
    secrets::Signature,
};

/// Signs an event as Didit does: the three signatures, and `X-Timestamp` as the body says.
///
/// For tests of a receiver, and for a local Didit.
///
/// # Errors
///
/// [`Malformed`] if the body is not a JSON object with a `timestamp`.
///
/// # Example
///
/// ```
/// use didit_api::webhook::{Secrets, encode, sign};
/// use serde_json::json;
///
/// let secrets = Secrets::new(["example-secret-not-real-0123456789abcdefghi"])?;
/// let body = encode(&json!({ "webhook_type": "status.updated", "timestamp": 1_790_000_000, "status": "In Review" }))?;
/// let headers = sign(body.as_bytes(), &secrets)?;
/// assert_eq!(headers["x-timestamp"], "1790000000");
/// assert_eq!(headers.len(), 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn sign(body: &[u8], secrets: &Secrets) -> Result<HeaderMap, Malformed> {
    let canonical = canonical(body, Floats::Shortened, MAX_DEPTH)?;
    let timestamp = canonical.head.timestamp()?;
    let mut headers = HeaderMap::with_capacity(4);
    for kind in SignatureKind::ALL {
        let signature = match kind {
            SignatureKind::Canonical => secrets.sign(canonical.text.as_bytes()),
            SignatureKind::Raw => secrets.sign(body),
            SignatureKind::Simple => match canonical.head.simple_message() {
                Some(message) => secrets.sign(message.as_bytes()),
                None => continue,
            },
        };
        headers.insert(HeaderName::from_static(kind.header()), hex(&signature));
    }
    headers.insert(HeaderName::from_static(HEADER_TIMESTAMP), HeaderValue::from(timestamp));
    Ok(headers)
}

/// Writes an event as Didit sends it: keys sorted, nothing between tokens, everything outside ASCII escaped.
///
/// # Errors
///
/// [`Malformed`] if it is no object, or nests too deep.
pub fn encode(event: &Value) -> Result<String, Malformed> {
    canonical(event.to_string().as_bytes(), Floats::Kept, MAX_DEPTH).map(|canonical| to_ascii(&canonical.text))
}

fn hex(signature: &Signature) -> HeaderValue {
    let digits = signature.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let text: Vec<_> = digits.map(|digit| b"0123456789abcdef"[usize::from(digit)]).collect();
    // Digits can stand in a header.
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static(""))
}
