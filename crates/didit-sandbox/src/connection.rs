//! The error that stands for a broken connection.

use std::{error::Error, fmt, io};

/// The connection broke and there is no answer.
///
/// What a client sees of it is a reset, and [`source`](Error::source) is the [`io::Error`] of kind
/// [`ConnectionReset`](io::ErrorKind::ConnectionReset) that a socket would have given. Whether the work was done is
/// known here and nowhere else: a client cannot tell, which is what this error is for.
#[derive(Debug)]
pub struct ConnectionLost {
    work: Work,
    io: io::Error,
}

/// What had become of the work when a connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Nothing, and nothing will: the connection was reset.
    Refused,
    /// Nothing, and nothing will, although the request was taken.
    Forgotten,
    /// Nothing yet.
    Pending,
    /// It was done.
    Done,
}

impl ConnectionLost {
    pub(crate) fn new(work: Work) -> Self {
        Self { work, io: io::Error::from(io::ErrorKind::ConnectionReset) }
    }

    /// Whether the request had been carried out when the connection broke.
    pub fn work_done(&self) -> bool {
        self.work == Work::Done
    }

    /// Whether the request is still to be carried out, as with a [late commit](crate::Fault::LateCommit).
    pub fn work_pending(&self) -> bool {
        self.work == Work::Pending
    }

    /// Whether a socket ends in RST, not FIN: a client that got FIN cannot tell what became of the work.
    pub(crate) fn is_reset(&self) -> bool {
        self.work == Work::Refused
    }
}

impl fmt::Display for ConnectionLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.work {
            Work::Refused => "the sandbox reset the connection before the work",
            Work::Forgotten => "the sandbox dropped the connection and never does the work",
            Work::Pending => "the sandbox dropped the connection and does the work later",
            Work::Done => "the sandbox did the work and dropped the connection",
        })
    }
}

impl Error for ConnectionLost {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.io)
    }
}
