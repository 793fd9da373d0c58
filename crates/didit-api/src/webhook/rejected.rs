//! Why a webhook is not taken.

use std::time::Duration;

use http::StatusCode;

use super::{HEADER_TIMESTAMP, SignatureKind};

/// Why a webhook is not taken. It holds no secret, no signature and nothing of the body but its time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// The body is longer than the receiver takes.
    #[error("the body is longer than {limit} bytes")]
    TooLarge {
        /// The most bytes that are taken.
        limit: usize,
    },
    /// The body is not what an event is.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A header that is missing, there twice, or not of its form.
    #[error("header {name} {}", fault.text())]
    Header {
        /// The header's name, in lower case.
        name: &'static str,
        /// What is wrong with it.
        fault: HeaderFault,
    },
    /// No signature came.
    #[error("the request is not signed")]
    Unsigned,
    /// Only `X-Signature-Simple` came, which does not cover the decision.
    #[error("the request is signed in {} alone, which does not cover its content", SignatureKind::Simple.header())]
    OnlySimple,
    /// A signature that none of the secrets makes.
    #[error("{} was made with none of the secrets", kind.header())]
    Forged {
        /// The strongest signature that came.
        kind: SignatureKind,
    },
    /// One signature is right and another one is not.
    ///
    /// If the wrong one is [`Raw`](SignatureKind::Raw), something between Didit and the receiver is likely to write the
    /// JSON anew; [`Verifier::strongest_only`](super::Verifier::strongest_only) lets such events in.
    #[error("{} is right and {} is not", right.header(), wrong.header())]
    Contradiction {
        /// The strongest one that is right.
        right: SignatureKind,
        /// The strongest one that is wrong.
        wrong: SignatureKind,
    },
    /// The header `X-Timestamp` differs from the time that was signed: an old event under a new header.
    #[error("{HEADER_TIMESTAMP} says {header}, but {signed} was signed")]
    TimestampHeader {
        /// The time in the header, in seconds since the Unix epoch.
        header: u64,
        /// The time that was signed, likewise.
        signed: u64,
    },
    /// Signed too long ago: a replay, a delivery that took long, or a receiver's clock that is ahead.
    #[error("signed {} s ago, and {} s are allowed", age.as_secs(), tolerance.as_secs())]
    Stale {
        /// How long ago it was signed.
        age: Duration,
        /// How old an event may be.
        tolerance: Duration,
    },
    /// Signed in the future: a receiver's clock that is behind.
    #[error("signed {} s in the future, and {} s are allowed", ahead.as_secs(), tolerance.as_secs())]
    Future {
        /// How far ahead it was signed.
        ahead: Duration,
        /// How far ahead an event may be.
        tolerance: Duration,
    },
}

/// What kind of refusal it is, and so which answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectedKind {
    /// Not from Didit, or changed on the way: 401.
    Forged,
    /// Cannot be read in one way only: 400.
    Malformed,
    /// Longer or deeper than is taken: 413.
    TooLarge,
    /// Signed by Didit, at a time too far from now: 400.
    Stale,
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HeaderFault {
    /// It is not there.
    Missing,
    /// It is there more than once.
    Repeated,
    /// It is not 64 lower-case hexadecimal digits, or not a number of seconds.
    Malformed,
}

/// Why a body is no event that can be verified, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the body, at byte {at}: {}", kind.text())]
#[non_exhaustive]
pub struct Malformed {
    /// The place in the body, in bytes from 0.
    pub at: usize,
    /// What is wrong.
    pub kind: MalformedKind,
}

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MalformedKind {
    /// Not UTF-8.
    NotUtf8,
    /// Not JSON.
    Syntax,
    /// JSON, but not an object.
    NotAnObject,
    /// A key that one object has twice: readers disagree about which value counts.
    DuplicateKey,
    /// A number beyond the range of a double.
    NotFinite,
    /// Half a surrogate pair, which is no character.
    LoneSurrogate,
    /// Nested deeper than [`MAX_DEPTH`](super::MAX_DEPTH).
    TooDeep,
    /// Numbers that would take far more room written out.
    TooLong,
    /// `timestamp` is missing, or is not a whole number of seconds since 1970.
    NoTimestamp,
    /// Signed, but with a number that this crate cannot hold.
    Unreadable,
}

// ===== impl Rejected =====

impl Rejected {
    /// What kind of refusal it is.
    pub fn kind(&self) -> RejectedKind {
        match self {
            Self::TooLarge { .. } => RejectedKind::TooLarge,
            Self::Malformed(malformed) => match malformed.kind {
                MalformedKind::TooDeep | MalformedKind::TooLong => RejectedKind::TooLarge,
                _ => RejectedKind::Malformed,
            },
            Self::Header { .. } => RejectedKind::Malformed,
            Self::Unsigned
            | Self::OnlySimple
            | Self::Forged { .. }
            | Self::Contradiction { .. }
            | Self::TimestampHeader { .. } => RejectedKind::Forged,
            Self::Stale { .. } | Self::Future { .. } => RejectedKind::Stale,
        }
    }

    /// The status to answer with: 401 for a forgery, 413 for what is too large, else 400. Didit repeats none of them.
    ///
    /// It is never a 5xx, since whoever sends must not be able to bring one about.
    pub fn status(&self) -> StatusCode {
        match self.kind() {
            RejectedKind::Forged => StatusCode::UNAUTHORIZED,
            RejectedKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            RejectedKind::Malformed | RejectedKind::Stale => StatusCode::BAD_REQUEST,
        }
    }
}

impl HeaderFault {
    fn text(self) -> &'static str {
        match self {
            Self::Missing => "is missing",
            Self::Repeated => "is there more than once",
            Self::Malformed => "is not of its form",
        }
    }
}

impl MalformedKind {
    fn text(self) -> &'static str {
        match self {
            Self::NotUtf8 => "not UTF-8",
            Self::Syntax => "not JSON",
            Self::NotAnObject => "not a JSON object",
            Self::DuplicateKey => "an object has a key twice",
            Self::NotFinite => "a number beyond the range of a double",
            Self::LoneSurrogate => "half a surrogate pair",
            Self::TooDeep => "nested too deep",
            Self::TooLong => "numbers too long when written out",
            Self::NoTimestamp => "`timestamp` is not a number of seconds",
            Self::Unreadable => "a number that cannot be held",
        }
    }
}
