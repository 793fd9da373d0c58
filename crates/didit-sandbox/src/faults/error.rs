//! Why a list of faults cannot be used.

use std::time::Duration;

use super::Fault;

/// Why faults cannot be used. Rules are counted from 1.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultsError {
    /// A file that cannot be read as a list of rules.
    #[error("faults, line {line}, column {column}: {message}")]
    File {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// A route that the table does not have.
    #[error("fault rule {rule}: no route is named {name:?}; allowed are the names in the route table")]
    Route {
        /// The rule's number.
        rule: usize,
        /// The name.
        name: String,
    },
    /// A probability outside 0 to 1.
    #[error("fault rule {rule}: a probability of {value} is not from 0 to 1")]
    Probability {
        /// The rule's number.
        rule: usize,
        /// The offending value.
        value: f64,
    },
    /// A request number of 0.
    #[error("fault rule {rule}: requests are counted from 1, not 0")]
    Nth {
        /// The rule's number.
        rule: usize,
    },
    /// A time that is over before it begins.
    #[error("fault rule {rule}: the time from {from:?} to {until:?} is empty")]
    Between {
        /// The rule's number.
        rule: usize,
        /// Its beginning.
        from: Duration,
        /// Its end.
        until: Duration,
    },
    /// A status that is not an error.
    #[error("fault rule {rule}: status {code} is no error; allowed are 400 to 599")]
    Status {
        /// The rule's number.
        rule: usize,
        /// The offending status.
        code: u16,
    },
    /// A delay beyond [`Fault::LONGEST_DELAY`].
    #[error("fault rule {rule}: a delay of {delay:?} is longer than {:?}", Fault::LONGEST_DELAY)]
    Delay {
        /// The rule's number.
        rule: usize,
        /// The offending delay.
        delay: Duration,
    },
    /// A slow body that never gets anywhere.
    #[error("fault rule {rule}: a body in pieces of 0 bytes never ends; the least is 1")]
    Piece {
        /// The rule's number.
        rule: usize,
    },
    /// A body cut off beyond its end.
    #[error("fault rule {rule}: a body cannot be cut off at {percent} percent; allowed are 0 to 100")]
    Percent {
        /// The rule's number.
        rule: usize,
        /// The offending share.
        percent: u8,
    },
}
