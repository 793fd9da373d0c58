//! Whether a webhook is Didit's, and of now.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

use super::{
    Event, HEADER_TEST, HEADER_TIMESTAMP, HeaderFault, Malformed, MalformedKind, Rejected, Secrets, SignatureKind,
    canonical::{Canonical, Floats, Head, MAX_DEPTH, canonical},
    secrets::Signature,
};

/// How far from now an event may have been signed by default: ten minutes.
///
/// Didit's documentation says five, which is also how long its attempts take; whether a repeated attempt is signed anew
/// is not documented. Within that time, an event that comes twice is found by its [key](super::EventKey).
pub const DEFAULT_TOLERANCE: Duration = Duration::from_secs(600);

/// The longest body that is taken by default: 10 MiB. No limit of Didit's is documented.
pub const DEFAULT_MAX_BODY: usize = 10 * 1024 * 1024;

/// A webhook that is Didit's.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Verified {
    /// What it says. Everything in it was signed.
    pub event: Event,
    /// The strongest signature that proves it.
    pub proof: SignatureKind,
    /// Which of the [`Secrets`] it was signed with, from 0, the current one.
    pub secret: usize,
    /// Whether the console sent it for a test (`X-Didit-Test-Webhook`). **Not signed**: whoever repeats a real event can
    /// set it, so it is no reason to pass an event over.
    pub test: bool,
}

/// Verifies webhooks; the settings of it.
///
/// # Example
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use didit_api::webhook::{Secrets, Verifier, sign};
/// use http::{HeaderMap, StatusCode};
///
/// let verifier = Verifier::new().tolerance(Duration::from_secs(300));
/// let secrets = Secrets::new(["example-secret-not-real-0123456789abcdefghi"])?;
/// let body = br#"{"timestamp":1790000000,"webhook_type":"status.updated"}"#;
/// let headers = sign(body, &secrets)?;
///
/// let signed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
/// assert!(verifier.verify(body, &headers, &secrets, signed).is_ok());
/// let late = verifier.verify(body, &headers, &secrets, signed + Duration::from_secs(301)).unwrap_err();
/// assert_eq!(late.status(), StatusCode::BAD_REQUEST);
/// let forged = verifier.verify(body, &HeaderMap::new(), &secrets, signed).unwrap_err();
/// assert_eq!(forged.status(), StatusCode::UNAUTHORIZED);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verifier {
    tolerance: Duration,
    max_body: usize,
    strongest_only: bool,
    accept_simple: bool,
    timestamp_header: bool,
}

/// Verifies a webhook with the default settings; see [`Verifier::verify`].
///
/// # Errors
///
/// [`Rejected`] says which check failed.
pub fn verify(body: &[u8], headers: &HeaderMap, secrets: &Secrets, now: SystemTime) -> Result<Verified, Rejected> {
    Verifier::new().verify(body, headers, secrets, now)
}

// ===== impl Verifier =====

impl Verifier {
    /// The defaults: all signatures that came have to be right, `X-Signature-Simple` alone proves nothing, and the time
    /// that was signed is within [`DEFAULT_TOLERANCE`] and the same as in `X-Timestamp`.
    pub const fn new() -> Self {
        Self {
            tolerance: DEFAULT_TOLERANCE,
            max_body: DEFAULT_MAX_BODY,
            strongest_only: false,
            accept_simple: false,
            timestamp_header: true,
        }
    }

    /// Sets how far from now, either way, an event may have been signed. [`DEFAULT_TOLERANCE`] by default.
    ///
    /// An event can be repeated for twice that time, so its [key](super::EventKey) has to be remembered for longer.
    #[must_use]
    pub const fn tolerance(mut self, tolerance: Duration) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Sets the longest body that is taken, in bytes. [`DEFAULT_MAX_BODY`] by default.
    #[must_use]
    pub const fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// Lets the strongest signature that came decide alone. Off by default: one that is wrong refuses the event.
    ///
    /// For receivers behind something that writes JSON anew: `X-Signature` is then wrong and `X-Signature-V2` still
    /// right, which proves as much.
    #[must_use]
    pub const fn strongest_only(mut self, only: bool) -> Self {
        self.strongest_only = only;
        self
    }

    /// Takes an event that is signed in `X-Signature-Simple` alone. Off by default: it covers four fields, and the
    /// [`Event`] then has no others.
    ///
    /// `event_id` is not among them, so the event has another [key](super::EventKey) than with the other signatures.
    /// Whoever leaves those out of an event that was delivered can have it taken a second time.
    #[must_use]
    pub const fn accept_simple(mut self, accept: bool) -> Self {
        self.accept_simple = accept;
        self
    }

    /// Requires `X-Timestamp`, and that it says what was signed. On by default.
    ///
    /// The header itself is not signed, and how old an event is is told by its body either way. Off, the header is not
    /// read, whatever it says: Didit's documentation leaves open whether a repeated attempt has a new one.
    #[must_use]
    pub const fn timestamp_header(mut self, required: bool) -> Self {
        self.timestamp_header = required;
        self
    }

    /// Verifies a webhook: `body` as it was received, to the byte, and `now` by the receiver's clock.
    ///
    /// What is looked at, in this order: the body's length; the form of the headers; whether there is a signature; the
    /// form of the body; the signatures; the time that was signed. A body that is longer or deeper than is taken costs
    /// no more than reading it once.
    ///
    /// # Errors
    ///
    /// [`Rejected`] says which check failed, and [`Rejected::status`] how to answer.
    pub fn verify(
        &self,
        body: &[u8],
        headers: &HeaderMap,
        secrets: &Secrets,
        now: SystemTime,
    ) -> Result<Verified, Rejected> {
        if body.len() > self.max_body {
            return Err(Rejected::TooLarge { limit: self.max_body });
        }
        let given = Given::read(headers, self.timestamp_header)?;
        let strongest = given.strongest().ok_or(Rejected::Unsigned)?;
        if strongest == SignatureKind::Simple && !self.accept_simple {
            return Err(Rejected::OnlySimple);
        }
        let canonical = canonical(body, Floats::Shortened, MAX_DEPTH)?;
        let secret = self.check_signatures(body, &canonical, &given, strongest, secrets)?;
        let signed = canonical.head.timestamp()?;
        self.check_time(signed, given.timestamp, now)?;
        let event = if strongest == SignatureKind::Simple {
            canonical.head.event(signed)
        } else {
            Event::read(body).ok_or(Malformed { at: 0, kind: MalformedKind::Unreadable })?
        };
        Ok(Verified { event, proof: strongest, secret, test: is_test(headers) })
    }

    /// Which secret made the signatures.
    fn check_signatures(
        &self,
        body: &[u8],
        canonical: &Canonical,
        given: &Given,
        strongest: SignatureKind,
        secrets: &Secrets,
    ) -> Result<usize, Rejected> {
        let mut checked = Vec::with_capacity(SignatureKind::ALL.len());
        for kind in SignatureKind::ALL {
            let Some(signature) = given.signature(kind) else { continue };
            if self.strongest_only && kind != strongest {
                continue;
            }
            let made = match kind {
                SignatureKind::Canonical => canonical_made(body, canonical, signature, secrets),
                SignatureKind::Raw => secrets.made(body, signature),
                SignatureKind::Simple => match canonical.head.simple_message() {
                    Some(message) => secrets.made(message.as_bytes(), signature),
                    // Which text Didit signs then is not documented; the others prove more.
                    None if strongest != SignatureKind::Simple => continue,
                    None => Vec::new(),
                },
            };
            checked.push((kind, made));
        }
        // One secret has to have made them all.
        let secret = checked
            .first()
            .and_then(|(_, made)| (0..made.len()).find(|secret| checked.iter().all(|(_, made)| made[*secret])));
        secret.ok_or_else(|| {
            let any = |made: &[bool]| made.contains(&true);
            let first = |right: bool| checked.iter().find(|(_, made)| any(made) == right).map(|(kind, _)| *kind);
            match (first(true), first(false)) {
                (Some(right), Some(wrong)) => Rejected::Contradiction { right, wrong },
                // Each is right, and not with the same secret.
                (Some(right), None) => {
                    Rejected::Contradiction { right, wrong: checked.last().map_or(right, |(kind, _)| *kind) }
                }
                (None, _) => Rejected::Forged { kind: strongest },
            }
        })
    }

    fn check_time(&self, signed: u64, header: Option<u64>, now: SystemTime) -> Result<(), Rejected> {
        let at = Duration::from_secs(signed);
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let tolerance = self.tolerance;
        let (age, ahead) = (now.saturating_sub(at), at.saturating_sub(now));
        if age > tolerance {
            return Err(Rejected::Stale { age, tolerance });
        }
        if ahead > tolerance {
            return Err(Rejected::Future { ahead, tolerance });
        }
        match header {
            _ if !self.timestamp_header => Ok(()),
            Some(header) if header == signed => Ok(()),
            Some(header) => Err(Rejected::TimestampHeader { header, signed }),
            None => Err(Rejected::Header { name: HEADER_TIMESTAMP, fault: HeaderFault::Missing }),
        }
    }
}

impl Default for Verifier {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether the signature is of the body's canonical form.
///
/// Fractions are taken as they came, and if that fails as Python writes them: whoever wrote the JSON anew may have made
/// `1e-05` into `0.00001`.
fn canonical_made(body: &[u8], canonical_body: &Canonical, signature: &Signature, secrets: &Secrets) -> Vec<bool> {
    let made = secrets.made(canonical_body.text.as_bytes(), signature);
    if made.contains(&true) || !canonical_body.has_fractions {
        return made;
    }
    match canonical(body, Floats::Python, MAX_DEPTH) {
        Ok(python) if python.text != canonical_body.text => secrets.made(python.text.as_bytes(), signature),
        _ => made,
    }
}

/// What the headers give.
struct Given {
    signatures: [Option<Signature>; SignatureKind::ALL.len()],
    timestamp: Option<u64>,
}

impl Given {
    fn read(headers: &HeaderMap, with_timestamp: bool) -> Result<Self, Rejected> {
        let mut signatures = [None; SignatureKind::ALL.len()];
        for (signature, kind) in signatures.iter_mut().zip(SignatureKind::ALL) {
            *signature = one(headers, kind.header(), signature_of)?;
        }
        let timestamp = match with_timestamp {
            true => one(headers, HEADER_TIMESTAMP, |text| seconds(std::str::from_utf8(text).ok()?))?,
            false => None,
        };
        Ok(Self { signatures, timestamp })
    }

    fn signature(&self, kind: SignatureKind) -> Option<&Signature> {
        let index = SignatureKind::ALL.iter().position(|other| *other == kind)?;
        self.signatures[index].as_ref()
    }

    fn strongest(&self) -> Option<SignatureKind> {
        SignatureKind::ALL.into_iter().find(|kind| self.signature(*kind).is_some())
    }
}

/// A header that may be there once.
fn one<T>(headers: &HeaderMap, name: &'static str, read: impl Fn(&[u8]) -> Option<T>) -> Result<Option<T>, Rejected> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Rejected::Header { name, fault: HeaderFault::Repeated });
    }
    let fault = Rejected::Header { name, fault: HeaderFault::Malformed };
    read(value.as_bytes()).map(Some).ok_or(fault)
}

/// 64 lower-case hexadecimal digits.
fn signature_of(text: &[u8]) -> Option<Signature> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut signature = Signature::default();
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != signature.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in signature.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(signature)
}

/// Digits alone: `parse` would also take a plus sign.
fn seconds(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn is_test(headers: &HeaderMap) -> bool {
    headers.get(HEADER_TEST).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

impl Head {
    /// The time that was signed.
    pub(super) fn timestamp(&self) -> Result<u64, Malformed> {
        let none = Malformed { at: 0, kind: MalformedKind::NoTimestamp };
        self.timestamp.as_deref().and_then(seconds).ok_or(none)
    }

    /// The message of `X-Signature-Simple`; `None` if it cannot be told for sure.
    pub(super) fn simple_message(&self) -> Option<String> {
        let timestamp = self.timestamp.as_deref().unwrap_or_default();
        let [session, status, kind] = self.texts()?.map(Option::unwrap_or_default);
        // With a colon in one of them, several events would have this message.
        let clear = [&session, &status, &kind].iter().all(|text| !text.contains(':'));
        (clear && timestamp.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| format!("{timestamp}:{session}:{status}:{kind}"))
    }

    /// Session, status and type; `None` if one is neither text, nor null, nor missing.
    fn texts(&self) -> Option<[Option<String>; 3]> {
        let text = |json: &Option<String>| match json {
            None => Some(None),
            Some(json) => serde_json::from_str::<Option<String>>(json).ok(),
        };
        Some([text(&self.session_id)?, text(&self.status)?, text(&self.webhook_type)?])
    }

    /// An event of nothing but these fields.
    fn event(&self, timestamp: u64) -> Event {
        let [session_id, status, webhook_type] = self.texts().unwrap_or_default();
        Event { session_id, status, webhook_type: webhook_type.as_deref().map(Into::into), ..Event::at(timestamp) }
    }
}
