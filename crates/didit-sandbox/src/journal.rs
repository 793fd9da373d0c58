//! What arrived, line by line.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// One arrival. It holds no key, no token and no body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JournalEntry {
    /// Milliseconds from the start of the sandbox to the arrival.
    pub at_ms: u64,
    /// The HTTP method.
    pub method: String,
    /// The route's name, as in [`Stats::arrivals`](crate::Stats::arrivals).
    pub route: String,
    /// The status answered; `None` if the connection was broken instead.
    pub status: Option<u16>,
    /// Milliseconds from the start of the sandbox to the work; `None` if it was not done, or not yet.
    #[serde(default)]
    pub worked_at_ms: Option<u64>,
    /// The fault injected, by kind, if there was one.
    pub fault: Option<String>,
    /// The request's `X-Correlation-ID`.
    pub correlation_id: Option<String>,
    /// The request's `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// The request's `X-Operation-Id`.
    #[serde(default)]
    pub operation_id: Option<String>,
    /// Whether the client had gone away when the request arrived.
    #[serde(default)]
    pub abandoned: bool,
    /// The session that was asked for, or made, or reused.
    pub session_id: Option<String>,
}

/// The last entries, up to a bound.
#[derive(Debug)]
pub(crate) struct Journal {
    entries: VecDeque<JournalEntry>,
    capacity: usize,
    /// How many entries made room.
    gone: usize,
}

impl Journal {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { entries: VecDeque::new(), capacity, gone: 0 }
    }

    /// The number of the entry that is written next.
    pub(crate) fn next_number(&self) -> usize {
        self.gone + self.entries.len()
    }

    pub(crate) fn write(&mut self, entry: JournalEntry) {
        if self.capacity == 0 {
            return;
        }
        if self.entries.len() == self.capacity {
            self.entries.pop_front();
            self.gone += 1;
        }
        self.entries.push_back(entry);
    }

    /// An entry by its number, unless it made room.
    pub(crate) fn entry(&mut self, number: usize) -> Option<&mut JournalEntry> {
        self.entries.get_mut(number.checked_sub(self.gone)?)
    }

    pub(crate) fn entries(&self) -> Vec<JournalEntry> {
        self.entries.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_entries_make_room() {
        let mut journal = Journal::new(2);
        for at_ms in 0..5 {
            journal.write(JournalEntry { at_ms, ..JournalEntry::default() });
        }
        assert_eq!(journal.entries().iter().map(|entry| entry.at_ms).collect::<Vec<_>>(), [3, 4]);
        assert_eq!((journal.next_number(), journal.entry(4).map(|entry| entry.at_ms)), (5, Some(4)));
        assert!(journal.entry(2).is_none() && journal.entry(5).is_none());
    }
}
