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
    /// Requests refused with a 429 that is no rate window: the sandbox's quota, attempts with a phone number, an active
    /// import. They are among the accepted.
    pub odd_throttled: u64,
    /// Faults injected, by [kind](crate::Fault::kind): `status`, `absurd-429`, `odd-429`, `delay`, `reset-before-work`,
    /// `work-then-drop`, `late-commit`, `never-commit`, `truncated-body`, `slow-body`.
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
    /// Operation ids with at least one effect. [`Sandbox::effects`](crate::Sandbox::effects) tells them.
    pub operations: u64,
    /// Effects that carried an operation id.
    pub effects: u64,
    /// Checks that Didit would have billed.
    pub billed_checks: u64,
    /// Transactions that came into being.
    pub transactions_made: u64,
    /// Transactions refused because their `transaction_id` was there (400) or in flight (409).
    pub transactions_refused: u64,
    /// Events taken for the first time, alone or in a batch.
    pub events_accepted: u64,
    /// Events that had been taken before.
    pub events_replayed: u64,
    /// Events of a batch that were rejected.
    pub events_rejected: u64,
    /// Requests of [neighbours](crate::Neighbour) that no rate limit refused.
    pub neighbour_accepted: u64,
    /// Requests of [neighbours](crate::Neighbour) that a rate limit refused with 429.
    pub neighbour_throttled: u64,
    /// Late commits that are still to be carried out.
    pub late_commits_pending: u64,
    /// Late commits that have been carried out.
    pub late_commits_done: u64,
    /// Requests whose client went away before they arrived.
    pub abandoned_before_arrival: u64,
    /// Those among them that are still to arrive.
    pub abandoned_pending: u64,
    /// Requests that arrived and whose client went away before the head of the answer.
    pub abandoned_after_arrival: u64,
    /// Attempts to deliver a webhook.
    pub webhooks_sent: u64,
    /// Webhooks that reached their destination: one event to two destinations is two of them.
    pub webhooks_delivered: u64,
    /// Webhooks that a destination refused, or that no attempt is left for.
    pub webhooks_given_up: u64,
    /// Webhooks never sent, by a [fault](crate::WebhookFault::Drop).
    pub webhooks_dropped: u64,
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
    /// By operation, then by route.
    effects: HashMap<String, BTreeMap<String, u64>>,
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
            let routes = self.effects.entry(operation).or_default();
            self.stats.operations += u64::from(routes.is_empty());
            self.stats.effects += 1;
            bump(routes, route);
            self.stats.duplicates_by_operation_id += u64::from(routes.get(route).is_some_and(|effects| *effects > 1));
        }
    }

    /// How many sessions were made for a `vendor_data`.
    pub(crate) fn made_for(&self, vendor_data: &str) -> u64 {
        self.made_for.get(vendor_data).copied().unwrap_or_default()
    }

    /// How many effects each operation had, by operation and route.
    pub(crate) fn effects(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        self.effects.iter().map(|(operation, routes)| (operation.clone(), routes.clone())).collect()
    }

    /// How many effects an operation had, over all routes.
    pub(crate) fn effects_of(&self, operation: &str) -> u64 {
        self.effects.get(operation).map_or(0, |routes| routes.values().sum())
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
        assert_eq!((book.made_for("a"), book.made_for("c")), (3, 0));
    }

    #[test]
    fn one_operation_may_have_one_effect_on_each_route() {
        let mut book = Book::default();
        for route in ["session-create", "aml", "aml"] {
            book.effect(route, Some("op-1".to_owned()));
        }
        book.effect("aml", None);
        let stats = &book.stats;
        assert_eq!((stats.duplicates_by_operation_id, stats.operations, stats.effects), (1, 1, 3));
        assert_eq!((book.effects()["op-1"]["aml"], book.effects_of("op-1"), book.effects_of("op-2")), (2, 3, 0));
    }
}
