//! A store in memory: one process, gone with it.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    future::ready,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

use super::{Begun, Claim, Epoch, Key, Record, Retention, Settlement, Store, StoreError, StoreFuture, Timestamp};
use crate::idempotency::HashSecret;

/// A store in memory, bounded in number and time; clones share it.
///
/// It holds calls together within one process. A restart forgets everything, so it does not protect against a crash.
/// When it is full, what has been settled longest makes room; if nothing is settled, new operations are refused,
/// because forgetting what is in flight or unknown could lead to a second execution.
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
    // The same keys, by when their records may be thrown away: first those that may be to make room.
    settled: BTreeSet<(Timestamp, Key)>,
    unsettled: BTreeSet<(Timestamp, Key)>,
    // By what it was done with.
    holders: HashMap<Uuid, Key>,
    epoch: u64,
}

/// How many expired records of each kind a claim throws away at most, so that nobody holds the lock for long.
const SWEEP: usize = 16;

// ===== impl MemoryStore =====

impl MemoryStore {
    /// How many operations it holds unless told otherwise: some 150 bytes each without bodies.
    ///
    /// With [replay](crate::idempotency::StoredIdempotencyLayer::replay) the body of an answer is kept too, of up to
    /// [64 KiB](crate::idempotency::stored::AnswerBody::KEPT_AT_MOST): some hundred bytes of a session creation, and
    /// some 6 GiB if every answer is as long as can be. Where answers are long, [`with`](Self::with) bounds them.
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

    fn renew(&self, key: Key, epoch: Epoch, until: Timestamp) -> StoreFuture<bool> {
        Box::pin(ready(Ok(self.shared.renew(key, epoch, until))))
    }

    fn settle(&self, key: Key, epoch: Epoch, settlement: Settlement, now: Timestamp) -> StoreFuture<()> {
        Box::pin(ready(self.shared.settle(key, epoch, settlement, now)))
    }

    fn holder(&self, id: Uuid) -> StoreFuture<Option<Key>> {
        Box::pin(ready(Ok(self.shared.table().holders.get(&id).copied())))
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
                table.make_room(self.capacity, &self.retention, now)?;
            }
            table.put(key, Some(record), &self.retention);
        }
        Ok(claimed.begun)
    }

    fn renew(&self, key: Key, epoch: Epoch, until: Timestamp) -> bool {
        let mut table = self.table();
        let renewed = Record::renew(table.records.get(&key), epoch, until);
        renewed.is_ok_and(|record| {
            table.put(key, Some(record), &self.retention);
            true
        })
    }

    fn settle(&self, key: Key, epoch: Epoch, settlement: Settlement, now: Timestamp) -> Result<(), StoreError> {
        let mut table = self.table();
        settlement.check(&key, |id| Ok(table.holders.get(&id).copied()))?;
        let record = Record::settle(table.records.get(&key), epoch, settlement, now)?;
        table.put(key, record, &self.retention);
        Ok(())
    }
}

impl Table {
    fn put(&mut self, key: Key, record: Option<Record>, retention: &Retention) {
        self.remove(&key, retention);
        if let Some(record) = record {
            self.expiries(&record).insert((record.expires(retention), key));
            self.holders.extend(record.session_id().map(|id| (id, key)));
            self.records.insert(key, record);
        }
    }

    fn remove(&mut self, key: &Key, retention: &Retention) {
        let Some(record) = self.records.remove(key) else { return };
        self.expiries(&record).remove(&(record.expires(retention), *key));
        if let Some(id) = record.session_id()
            && self.holders.get(&id) == Some(key)
        {
            self.holders.remove(&id);
        }
    }

    fn expiries(&mut self, record: &Record) -> &mut BTreeSet<(Timestamp, Key)> {
        if record.is_unsettled() { &mut self.unsettled } else { &mut self.settled }
    }

    /// Throws away some of what has expired, and what was settled longest if that is not enough.
    fn make_room(&mut self, capacity: usize, retention: &Retention, now: Timestamp) -> Result<(), StoreError> {
        let expired = |(expires, _): &&(Timestamp, Key)| *expires <= now;
        let settled = self.settled.iter().take(SWEEP).take_while(expired);
        let unsettled = self.unsettled.iter().take(SWEEP).take_while(expired);
        let expired: Vec<_> = settled.chain(unsettled).map(|(_, key)| *key).collect();
        for key in expired {
            self.remove(&key, retention);
        }
        // Once at most: nothing is put in without room having been made for it.
        while self.records.len() >= capacity {
            let Some((_, oldest)) = self.settled.first().copied() else { return Err(StoreError::Full { capacity }) };
            self.remove(&oldest, retention);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::{super::Answer, *};

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

    fn expiries(store: &MemoryStore) -> usize {
        let table = store.shared.table();
        table.settled.len() + table.unsettled.len()
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
        assert_eq!((store.len(), expiries(&store)), (3, 3));
    }

    #[test]
    fn what_has_expired_is_thrown_away() {
        let store = MemoryStore::new();
        finish(&store, 1, 0);
        finish(&store, 2, 86_401);
        assert_eq!((store.len(), expiries(&store)), (1, 1));
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

    #[test]
    fn what_has_expired_is_thrown_away_little_by_little() {
        let store = MemoryStore::new();
        for key in 0..100 {
            finish(&store, key, 0);
        }
        finish(&store, 100, 86_401);
        assert_eq!((store.len(), expiries(&store)), (101 - SWEEP, 101 - SWEEP));
        for key in 101..110 {
            finish(&store, key, 86_401);
        }
        assert_eq!((store.len(), expiries(&store)), (10, 10));
    }

    #[test]
    fn an_id_belongs_to_the_last_operation_that_was_done_with_it_and_no_other_adopts_it() {
        let store = MemoryStore::with(3, Retention::DEFAULT);
        let id = Uuid::from_bytes([7; 16]);
        let answer = || Answer { session_id: Some(id), ..Answer::new(StatusCode::CREATED) };
        let holder = || store.shared.table().holders.get(&id).copied();
        let settle = |key: u8, settlement, now| {
            let epoch = lead(&store, key, now)?;
            store.shared.settle([key; 32], epoch, settlement, at(now)).inspect_err(|_| {
                store.shared.settle([key; 32], epoch, Settlement::Forget, at(now)).unwrap();
            })
        };
        settle(1, Settlement::Adopted(answer()), 0).unwrap();
        assert_eq!(holder(), Some([1; 32]));
        assert!(matches!(settle(2, Settlement::Adopted(answer()), 1), Err(StoreError::Taken)));
        // What the server itself says is true, whoever has it already.
        settle(2, Settlement::Done(answer()), 2).unwrap();
        assert_eq!(holder(), Some([2; 32]));
        // It is remembered for as long as its operation is.
        finish(&store, 3, 3);
        finish(&store, 4, 4);
        assert_eq!(holder(), Some([2; 32]), "the first made room");
        finish(&store, 5, 5);
        assert_eq!(holder(), None);
    }
}
