//! The error that stands for a broken connection.

use std::{error::Error, fmt, io};

/// The connection broke and there is no answer.
///
/// What a client sees of it is a reset, and [`source`](Error::source) is the [`io::Error`] of kind
/// [`ConnectionReset`](io::ErrorKind::ConnectionReset) that a socket would have given. Whether the work was done is
/// known here and nowhere else: a client cannot tell, which is what this error is for.
#[derive(Debug)]
pub struct ConnectionLost {
    work_done: bool,
    io: io::Error,
}

impl ConnectionLost {
    pub(crate) fn new(work_done: bool) -> Self {
        Self { work_done, io: io::Error::from(io::ErrorKind::ConnectionReset) }
    }

    /// Whether the request had been carried out when the connection broke.
    pub fn work_done(&self) -> bool {
        self.work_done
    }
}

impl fmt::Display for ConnectionLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.work_done {
            true => "the sandbox did the work and dropped the connection",
            false => "the sandbox reset the connection before the work",
        })
    }
}

impl Error for ConnectionLost {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.io)
    }
}
