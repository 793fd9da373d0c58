//! What a run left behind, in numbers.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

/// Counts since the sandbox started or was last reset; also the JSON of `GET /_sandbox/stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Stats {
    /// Requests that arrived, by route name. `redirect` are those without their final slash, `unknown` those that no
    /// route matches.
    pub arrivals: BTreeMap<String, u64>,
    /// Arrivals that no rate limit refused, faulted and invalid ones included.
    pub accepted: u64,
    /// Arrivals that a rate limit refused with 429. A 429 injected as a fault is in [`faults`](Self::faults) instead.
    pub throttled: u64,
    /// Faults injected, by kind: `status`, `delay`, `reset-before-work`, `work-then-drop`.
    pub faults: BTreeMap<String, u64>,
    /// Sessions that came into being.
    pub sessions_made: u64,
    /// Session creations answered with a session that already existed.
    pub sessions_reused: u64,
    /// Sessions made beyond the first for each `vendor_data`.
    pub duplicates_by_vendor_data: u64,
    /// Effects beyond the first for each operation id and route. An effect is a session made, a check carried out,
    /// or any other POST that succeeded; a replayed answer or a reused session is none. The operation id is the
    /// string `operation_id` in the request's `metadata`, else the header `X-Operation-Id`.
    pub duplicates_by_operation_id: u64,
    /// Checks that Didit would have billed.
    pub billed_checks: u64,
    /// The fullest window of each scope, over all keys.
    pub peak: BTreeMap<String, Peak>,
}

/// The fullest that any window of one scope has been.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Peak {
    /// The scope's limit, in requests per window.
    pub limit: u32,
    /// The most requests that counted within one window. Above the limit only where refused requests count.
    pub counted: u64,
    /// The most requests that arrived within one window, refused ones included.
    pub arrived: u64,
}

impl Peak {
    pub(crate) fn raise(&mut self, counted: usize, arrived: usize) {
        self.counted = self.counted.max(u64::try_from(counted).unwrap_or(u64::MAX));
        self.arrived = self.arrived.max(u64::try_from(arrived).unwrap_or(u64::MAX));
    }
}

/// The counters, and what is needed to recognise a duplicate.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) stats: Stats,
    made_for: HashMap<String, u64>,
    effects: HashMap<(String, String), u64>,
}

impl Book {
    pub(crate) fn arrived(&mut self, route: &str) {
        bump(&mut self.stats.arrivals, route);
    }

    pub(crate) fn faulted(&mut self, kind: &str) {
        bump(&mut self.stats.faults, kind);
    }

    pub(crate) fn session_made(&mut self, vendor_data: Option<&str>) {
        self.stats.sessions_made += 1;
        if let Some(vendor_data) = vendor_data {
            let made = self.made_for.entry(vendor_data.to_owned()).or_default();
            *made += 1;
            self.stats.duplicates_by_vendor_data += u64::from(*made > 1);
        }
    }

    /// Books an effect of a route for an operation, if the request named one.
    pub(crate) fn effect(&mut self, route: &str, operation: Option<String>) {
        if let Some(operation) = operation {
            let effects = self.effects.entry((route.to_owned(), operation)).or_default();
            *effects += 1;
            self.stats.duplicates_by_operation_id += u64::from(*effects > 1);
        }
    }
}

fn bump(counts: &mut BTreeMap<String, u64>, name: &str) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => {
            counts.insert(name.to_owned(), 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_after_the_first_is_a_duplicate() {
        let mut book = Book::default();
        for vendor in [Some("a"), Some("b"), Some("a"), Some("a"), None, None] {
            book.session_made(vendor);
        }
        assert_eq!((book.stats.sessions_made, book.stats.duplicates_by_vendor_data), (6, 2));
    }

    #[test]
    fn one_operation_may_have_one_effect_on_each_route() {
        let mut book = Book::default();
        for route in ["session-create", "aml", "aml"] {
            book.effect(route, Some("op-1".to_owned()));
        }
        book.effect("aml", None);
        assert_eq!(book.stats.duplicates_by_operation_id, 1);
    }
}
