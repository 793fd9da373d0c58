//! Transactions and events: what is known of each id.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

/// The ids that an application has used.
#[derive(Debug, Default)]
pub(crate) struct Ingested {
    /// Until when the request that made the transaction is in flight.
    transactions: HashMap<String, Duration>,
    /// Transactions that are being made and are not there yet.
    under_way: HashSet<String>,
    events: HashSet<String>,
}

/// What is known of a `transaction_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing.
    No,
    /// The request that makes it is in flight.
    InFlight,
    /// It is there.
    Yes,
}

impl Ingested {
    pub(crate) fn transaction(&self, id: &str, now: Duration) -> Known {
        match self.transactions.get(id) {
            _ if self.under_way.contains(id) => Known::InFlight,
            Some(until) if now < *until => Known::InFlight,
            Some(_) => Known::Yes,
            None => Known::No,
        }
    }

    /// Remembers a transaction, made by a request that is in flight until then.
    pub(crate) fn keep_transaction(&mut self, id: String, until: Duration) {
        self.transactions.insert(id, until);
    }

    /// Takes an id for a transaction that is made later. `false` if it is taken or used.
    pub(crate) fn reserve(&mut self, id: &str) -> bool {
        !self.transactions.contains_key(id) && self.under_way.insert(id.to_owned())
    }

    /// Gives an id back, for its transaction to be made now.
    pub(crate) fn release(&mut self, id: &str) {
        self.under_way.remove(id);
    }

    /// Whether an event is new; it is not from then on.
    pub(crate) fn is_new_event(&mut self, id: &str) -> bool {
        self.events.insert(id.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_in_flight_until_its_answer_has_left() {
        let mut ingested = Ingested::default();
        let at = Duration::from_secs;
        assert_eq!(ingested.transaction("t", at(0)), Known::No);
        ingested.keep_transaction("t".to_owned(), at(5));
        assert_eq!(ingested.transaction("t", at(4)), Known::InFlight);
        assert_eq!(ingested.transaction("t", at(5)), Known::Yes);
    }

    #[test]
    fn a_reserved_id_is_in_flight_and_belongs_to_one() {
        let mut ingested = Ingested::default();
        assert!(ingested.reserve("t") && !ingested.reserve("t"));
        assert_eq!(ingested.transaction("t", Duration::MAX), Known::InFlight);
        ingested.release("t");
        assert_eq!(ingested.transaction("t", Duration::ZERO), Known::No);
    }
}
