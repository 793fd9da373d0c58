//! The last answer of each thread.
//!
//! One call is looked up by every layer that it passes, five times in the assembled stack and a dozen times if it is
//! repeated, with nothing in between. Comparing a path with the last one costs a tenth of walking down the tree.

use std::{
    cell::RefCell,
    sync::atomic::{AtomicU64, Ordering},
};

use http::Method;

use super::EndpointId;

/// Tells one table from every other of the process, also from one that was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TableId(u64);

/// The longest path that is remembered: Didit's longest template, its variables filled with UUIDs, and half as much again.
const LONGEST: usize = 128;

struct Recent {
    table: TableId,
    method: Method,
    length: usize,
    path: [u8; LONGEST],
    found: Option<EndpointId>,
}

thread_local! {
    // No table has the id 0.
    static RECENT: RefCell<Recent> = const {
        RefCell::new(Recent { table: TableId(0), method: Method::GET, length: 0, path: [0; LONGEST], found: None })
    };
}

// ===== impl TableId =====

impl TableId {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// What this thread was answered last, if it asked this table for the same, else what is found now.
    pub(super) fn recall(
        self,
        method: &Method,
        path: &str,
        find: impl Fn() -> Option<EndpointId>,
    ) -> Option<EndpointId> {
        let recalled = RECENT.try_with(|recent| {
            let mut recent = recent.borrow_mut();
            if !recent.holds(self, method, path) {
                recent.keep(self, method, path, find());
            }
            recent.found
        });
        // While a thread ends, nothing is remembered.
        recalled.unwrap_or_else(|_| find())
    }
}

// ===== impl Recent =====

impl Recent {
    fn holds(&self, table: TableId, method: &Method, path: &str) -> bool {
        self.table == table
            && self.length == path.len()
            && self.path.get(..self.length) == Some(path.as_bytes())
            && self.method == *method
    }

    /// Remembers an answer; one to a path that is too long stands here until the next question and answers no other.
    fn keep(&mut self, table: TableId, method: &Method, path: &str, found: Option<EndpointId>) {
        self.table = table;
        self.length = path.len();
        if let Some(kept) = self.path.get_mut(..path.len()) {
            kept.copy_from_slice(path.as_bytes());
        }
        if self.method != *method {
            self.method = method.clone();
        }
        self.found = found;
    }
}
