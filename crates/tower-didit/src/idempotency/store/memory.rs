//! A store in memory: one process, gone with it.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    future::ready,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Begun, Claim, Epoch, Key, Record, Retention, Settlement, Store, StoreError, StoreFuture, Timestamp};
use crate::idempotency::HashSecret;

/// A store in memory, bounded in number and time; clones share it.
///
/// It holds calls together within one process. A restart forgets everything, so it does not protect against a crash.
/// When it is full, what has been settled longest makes room; if nothing is settled, new operations are refused, because
/// forgetting what is in flight or unknown could lead to a second execution.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

struct Shared {
    secret: HashSecret,
    retention: Retention,
    capacity: usize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    records: HashMap<Key, Record>,
    // The same keys, by when their records may be thrown away.
    expiries: BTreeSet<(Timestamp, Key)>,
    epoch: u64,
}

// ===== impl MemoryStore =====

impl MemoryStore {
    /// How many operations it holds unless told otherwise: some 150 bytes each without bodies.
    pub const DEFAULT_CAPACITY: usize = 100_000;

    /// A store of [`DEFAULT_CAPACITY`](Self::DEFAULT_CAPACITY) and [`Retention::DEFAULT`].
    pub fn new() -> Self {
        Self::with(Self::DEFAULT_CAPACITY, Retention::DEFAULT)
    }

    /// A store of at most `capacity` operations, kept for so long. With 0, every operation is refused.
    pub fn with(capacity: usize, retention: Retention) -> Self {
        let (secret, table) = (HashSecret::random(), Mutex::default());
        Self { shared: Arc::new(Shared { secret, retention, capacity, table }) }
    }

    /// How many operations it holds.
    pub fn len(&self) -> usize {
        self.shared.table().records.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("operations", &self.len()).finish_non_exhaustive()
    }
}

impl Store for MemoryStore {
    fn secret(&self) -> &HashSecret {
        &self.shared.secret
    }

    fn begin(&self, key: Key, claim: Claim, now: Timestamp) -> StoreFuture<Begun> {
        Box::pin(ready(self.shared.begin(key, &claim, now)))
    }

    fn settle(&self, key: Key, epoch: Epoch, settlement: Settlement, now: Timestamp) -> StoreFuture<()> {
        Box::pin(ready(self.shared.settle(key, epoch, settlement, now)))
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing in here panics half-way.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, key: Key, claim: &Claim, now: Timestamp) -> Result<Begun, StoreError> {
        let mut table = self.table();
        table.epoch += 1;
        let epoch = Epoch(table.epoch);
        let claimed = Record::begin(table.records.get(&key), claim, epoch, &self.retention, now);
        if let Some(record) = claimed.write {
            if !table.records.contains_key(&key) {
                table.make_room(self.capacity, now)?;
            }
            table.put(key, Some(record), &self.retention);
        }
        Ok(claimed.begun)
    }

    fn settle(&self, key: Key, epoch: Epoch, settlement: Settlement, now: Timestamp) -> Result<(), StoreError> {
        let mut table = self.table();
        let record = Record::settle(table.records.get(&key), epoch, settlement, now)?;
        table.put(key, record, &self.retention);
        Ok(())
    }
}

impl Table {
    fn put(&mut self, key: Key, record: Option<Record>, retention: &Retention) {
        let expires = record.as_ref().map(|record| record.expires(retention));
        let before = match record {
            Some(record) => self.records.insert(key, record),
            None => self.records.remove(&key),
        };
        if let Some(before) = before {
            self.expiries.remove(&(before.expires(retention), key));
        }
        self.expiries.extend(expires.map(|expires| (expires, key)));
    }

    /// Throws away what has expired, and what was settled longest if that is not enough.
    fn make_room(&mut self, capacity: usize, now: Timestamp) -> Result<(), StoreError> {
        while let Some((_, key)) = self.expiries.first().copied().filter(|(expires, _)| *expires <= now) {
            self.expiries.pop_first();
            self.records.remove(&key);
        }
        while self.records.len() >= capacity {
            // What is settled expires long before what is not, so the first looked at is usually the one.
            let is_settled = |(_, key): &&(Timestamp, Key)| !self.records.get(key).is_some_and(Record::is_unsettled);
            let Some(oldest) = self.expiries.iter().find(is_settled).copied() else {
                return Err(StoreError::Full { capacity });
            };
            self.expiries.remove(&oldest);
            self.records.remove(&oldest.1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::*;
    use crate::idempotency::store::Answer;

    const CLAIM: Claim = Claim { fingerprint: [0; 32], lease: Duration::from_secs(60) };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn lead(store: &MemoryStore, key: u8, now: u64) -> Result<Epoch, StoreError> {
        match store.shared.begin([key; 32], &CLAIM, at(now))? {
            Begun::Lead { epoch } => Ok(epoch),
            other => panic!("{other:?}"),
        }
    }

    fn finish(store: &MemoryStore, key: u8, now: u64) {
        let epoch = lead(store, key, now).unwrap();
        let done = Settlement::Done(Answer::new(StatusCode::OK));
        store.shared.settle([key; 32], epoch, done, at(now)).unwrap();
    }

    #[test]
    fn what_was_settled_longest_makes_room_and_what_is_not_settled_never_does() {
        let store = MemoryStore::with(3, Retention::DEFAULT);
        lead(&store, 1, 0).unwrap();
        finish(&store, 2, 1);
        finish(&store, 3, 2);
        lead(&store, 4, 3).unwrap();
        assert!(matches!(store.shared.begin([3; 32], &CLAIM, at(4)), Ok(Begun::Done(_))));
        lead(&store, 5, 5).unwrap();
        assert!(matches!(lead(&store, 6, 6), Err(StoreError::Full { capacity: 3 })));
        assert_eq!((store.len(), store.shared.table().expiries.len()), (3, 3));
    }

    #[test]
    fn what_has_expired_is_thrown_away() {
        let store = MemoryStore::new();
        finish(&store, 1, 0);
        finish(&store, 2, 86_401);
        assert_eq!((store.len(), store.shared.table().expiries.len()), (1, 1));
    }

    #[test]
    fn a_key_that_is_forgotten_and_taken_again_has_a_new_epoch() {
        let store = MemoryStore::new();
        let first = lead(&store, 1, 0).unwrap();
        store.shared.settle([1; 32], first, Settlement::Forget, at(1)).unwrap();
        assert!(store.is_empty());
        assert!(lead(&store, 1, 2).unwrap() > first);
        let late = store.shared.settle([1; 32], first, Settlement::Forget, at(3));
        assert!(matches!(late, Err(StoreError::Fenced)));
    }
}
