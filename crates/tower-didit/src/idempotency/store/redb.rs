//! A store in a file, which outlives the process.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use redb::{Database, Durability, ReadableTable, ReadableTableMetadata, Table, TableDefinition, backends::FileBackend};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use uuid::Uuid;

use super::{Begun, Claim, Epoch, Key, Record, Retention, Settlement, Store, StoreError, StoreFuture, Timestamp};
use crate::idempotency::HashSecret;

/// A store in a file: what was written down is still there after a crash, `kill -9` or loss of power. Clones share it.
///
/// # What happens after a crash
///
/// An intent is on the disk before its call is sent. When the file is opened again, every operation that was in flight
/// is *unknown*: the next call with its name is [looked up](crate::idempotency::reconcile) before anything is sent. One
/// process at a time has the file; a second one is refused when it opens it.
///
/// # How it is written
///
/// The file is a [redb] database: copy-on-write B-trees, whose commits are on the disk (`fsync`) when they return, and
/// of which the last good one is found after a crash. One thread of the store's own writes, so that no thread of the
/// runtime ever waits for the disk; whatever has queued up meanwhile shares a commit. [So many](Self::QUEUE) claims may
/// queue, and further calls wait for a place; an outcome never does, and there are no more of them than calls that were
/// sent. Every write is durable, the outcome's too: without it an answered call would have to be looked up after a
/// crash, and not every call can be.
///
/// # Damage
///
/// The file is read through when it is opened, against the checksum of each page, which takes a tenth of a second for
/// 100 000 operations: one that something else has changed, or cut off, is repaired as far as nothing is lost by it,
/// and otherwise refused with [`OpenError::Database`]. Nobody knows then what was in it, so nothing in it may be sent
/// again unseen: a backup does not help, because it is older than what was sent. An **empty** file is taken for a new
/// one, because that is what a process leaves that is killed while it makes one.
///
/// # Who may read the file
///
/// A new file is for its owner alone (mode 0600, on Unix); one that is there keeps its mode. It holds what the
/// [module](super) lists, and the secret that hashes are made under, unless
/// [`open_with_secret`](Self::open_with_secret) keeps it elsewhere. Keep the file as private as the secret would be.
///
/// # Example
///
/// ```
/// use tower_didit::idempotency::{IdempotencyLayer, store::RedbStore};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let path = std::env::temp_dir().join(format!("tower-didit-{}.redb", std::process::id()));
/// let store = RedbStore::open(&path).await?;
/// println!("{} operations have to be looked up", store.orphans());
/// let layer = IdempotencyLayer::new().store(store);
/// # drop(layer);
/// # std::fs::remove_file(path)?;
/// # Ok(())
/// # }
/// ```
///
/// [redb]: https://docs.rs/redb
#[derive(Clone)]
pub struct RedbStore {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    secret: HashSecret,
    orphans: usize,
    unreadable: usize,
    // NOTE: one lane for everything, so that what is asked first is done first. Only claims need a place in it: a
    // settlement that had to wait for one would be lost with a caller who goes away meanwhile.
    orders: mpsc::UnboundedSender<Order>,
    places: Arc<Semaphore>,
    stop: Arc<AtomicBool>,
    // `None` once it has been waited for.
    writer: Option<JoinHandle<()>>,
}

/// Records by key.
const RECORDS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("records 1");

/// The same keys, each after the time when its record may be thrown away, big end first.
const EXPIRIES: TableDefinition<'_, &[u8; 40], ()> = TableDefinition::new("expiries 1");

/// By what it was done with: the key of the last operation.
const HOLDERS: TableDefinition<'_, &[u8; 16], &[u8; 32]> = TableDefinition::new("holders 1");

/// The last epoch, and what the secret is known by.
const ABOUT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("about 1");

const EPOCH: &str = "epoch";
const SECRET: &str = "secret";
const SECRET_HASH: &str = "hash of the secret";

/// How many orders share one commit at most, so that nobody waits for a commit without end.
const BATCH: usize = 256;

/// How many expired records a commit throws away at most, beyond two for each of its orders.
const SWEEP: usize = 16;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file cannot be opened, is no database, or another process has it.
    #[error("the idempotency store {} cannot be opened", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: StoreError,
    },
    /// Its hashes were made under another secret, so that nothing in it would ever be found.
    #[error("the idempotency store {} belongs to another secret", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
    },
}

/// Something to write.
enum Order {
    Begin {
        key: Key,
        claim: Claim,
        now: Timestamp,
        reply: oneshot::Sender<Result<Begun, StoreError>>,
        place: OwnedSemaphorePermit,
    },
    Settle {
        key: Key,
        epoch: Epoch,
        settlement: Settlement,
        now: Timestamp,
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
    Renew {
        key: Key,
        epoch: Epoch,
        until: Timestamp,
        reply: oneshot::Sender<Result<bool, StoreError>>,
    },
    Holder {
        id: Uuid,
        reply: oneshot::Sender<Result<Option<Key>, StoreError>>,
    },
    Undo(Undo),
    // Only wakes the writer up, to see that it is to stop.
    Stop,
}

/// A granted claim that nobody came for.
struct Undo {
    key: Key,
    epoch: Epoch,
    settlement: Settlement,
    now: Timestamp,
}

/// What a claim will come to; dropped before that was read, the claim is taken back.
struct Claiming {
    key: Key,
    now: Timestamp,
    replied: oneshot::Receiver<Result<Begun, StoreError>>,
    orders: mpsc::UnboundedSender<Order>,
}

// ===== impl RedbStore =====

impl RedbStore {
    /// How many claims wait for the disk before calls wait for a place: four commits' worth.
    pub const QUEUE: usize = 1_024;

    /// Opens a file, or makes it with a new secret, which is kept in it. Records are kept for [`Retention::DEFAULT`].
    ///
    /// # Errors
    ///
    /// [`OpenError::Database`] if the file cannot be opened, is no store, or another process has it;
    /// [`OpenError::Secret`] if it was made with a secret that is not kept in it.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_as(path.as_ref().to_owned(), None, Retention::DEFAULT).await
    }

    /// Opens or makes a file whose secret is kept elsewhere.
    ///
    /// # Errors
    ///
    /// [`OpenError::Database`] as for [`open`](Self::open); [`OpenError::Secret`] if its secret is another.
    pub async fn open_with_secret(
        path: impl AsRef<Path>,
        secret: HashSecret,
        retention: Retention,
    ) -> Result<Self, OpenError> {
        Self::open_as(path.as_ref().to_owned(), Some(secret), retention).await
    }

    async fn open_as(path: PathBuf, secret: Option<HashSecret>, retention: Retention) -> Result<Self, OpenError> {
        let at = path.clone();
        let opened = tokio::task::spawn_blocking(move || open(path, secret, retention)).await;
        opened.unwrap_or_else(|ended| {
            // Cancelled by the end of the runtime, or redb met something in the file that it has no error for.
            let error = if ended.is_panic() { StoreError::Database(Arc::new(ended)) } else { StoreError::Closed };
            Err(OpenError::Database { path: at, error })
        })
    }

    /// How many operations were in flight when the process that had the file before ended.
    pub fn orphans(&self) -> usize {
        self.shared.orphans
    }

    /// How many records of the file could not be read when it was opened: torn by something else than this store, or
    /// written by a later version of it.
    ///
    /// They stay in the file, for whoever can read them. What they are about may have been done, so it is not sent:
    /// every call with such a key is refused with [`StoreError::Unreadable`].
    pub fn unreadable(&self) -> usize {
        self.shared.unreadable
    }

    /// Hands an order over when it is first polled, and waits for what comes of it.
    fn order<T: Send + 'static>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Order + Send + 'static,
    ) -> StoreFuture<T> {
        let orders = self.shared.orders.clone();
        Box::pin(async move {
            let (reply, replied) = oneshot::channel();
            orders.send(order(reply)).map_err(|_| StoreError::Closed)?;
            replied.await.map_err(|_| StoreError::Closed)?
        })
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl Store for RedbStore {
    fn secret(&self) -> &HashSecret {
        &self.shared.secret
    }

    fn begin(&self, key: Key, claim: Claim, now: Timestamp) -> StoreFuture<Begun> {
        let (reply, replied) = oneshot::channel();
        let orders = self.shared.orders.clone();
        let places = Arc::clone(&self.shared.places);
        let mut claiming = Claiming { key, now, replied, orders };
        Box::pin(async move {
            let place = places.acquire_owned().await.map_err(|_| StoreError::Closed)?;
            let order = Order::Begin { key, claim, now, reply, place };
            claiming.orders.send(order).map_err(|_| StoreError::Closed)?;
            (&mut claiming.replied).await.map_err(|_| StoreError::Closed)?
        })
    }

    fn renew(&self, key: Key, epoch: Epoch, until: Timestamp) -> StoreFuture<bool> {
        self.order(move |reply| Order::Renew { key, epoch, until, reply })
    }

    fn settle(&self, key: Key, epoch: Epoch, settlement: Settlement, now: Timestamp) -> StoreFuture<()> {
        self.order(move |reply| Order::Settle { key, epoch, settlement, now, reply })
    }

    fn holder(&self, id: Uuid) -> StoreFuture<Option<Key>> {
        self.order(move |reply| Order::Holder { id, reply })
    }
}

impl Undo {
    /// What takes a claim back; `None` if none was granted.
    fn of(key: Key, begun: &Begun, now: Timestamp) -> Option<Self> {
        let (epoch, settlement) = match begun {
            Begun::Lead { epoch } => (*epoch, Settlement::Forget),
            Begun::Reconcile { epoch, .. } => (*epoch, Settlement::Unknown),
            Begun::Busy { .. } | Begun::Done(_) | Begun::Conflict => return None,
        };
        Some(Self { key, epoch, settlement, now })
    }
}

impl Drop for Claiming {
    fn drop(&mut self) {
        // From here on the writer is told that nobody is there; what it said before is here.
        self.replied.close();
        if let Ok(Ok(begun)) = self.replied.try_recv()
            && let Some(undo) = Undo::of(self.key, &begun, self.now)
        {
            // A store that is closed gives it to whoever opens the file next, to look up.
            let _ = self.orders.send(Order::Undo(undo));
        }
    }
}

/// Waits for what is queued to be written, so that the file is free when the last clone is gone: a few milliseconds.
impl Drop for Shared {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.orders.send(Order::Stop);
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

// ===== opening =====

fn open(path: PathBuf, secret: Option<HashSecret>, retention: Retention) -> Result<RedbStore, OpenError> {
    let failed = |error| OpenError::Database { path: path.clone(), error };
    let database = open_file(&path).map_err(failed)?;
    let Some(Prepared { secret, epoch, orphans, unreadable }) =
        prepare(&database, secret, &retention).map_err(failed)?
    else {
        return Err(OpenError::Secret { path });
    };
    if unreadable > 0 {
        tracing::warn!(path = %path.display(), unreadable, "the idempotency store holds records that cannot be read");
    }
    let (orders, queue) = mpsc::unbounded_channel();
    let places = Arc::new(Semaphore::new(RedbStore::QUEUE));
    let stop = Arc::new(AtomicBool::new(false));
    let writer = Writer { database, retention, epoch, queue, stop: Arc::clone(&stop), undo: Vec::new() };
    let writer = thread::Builder::new()
        .name("idempotency-store".to_owned())
        .spawn(move || writer.run())
        .map_err(|error| OpenError::Database { path: path.clone(), error: StoreError::Database(Arc::new(error)) })?;
    let shared = Shared { path, secret, orphans, unreadable, orders, places, stop, writer: Some(writer) };
    Ok(RedbStore { shared: Arc::new(shared) })
}

/// Opens the file, or makes one that is for its owner alone, and reads it through: bytes that something else has
/// changed must not pass for an operation that is not there.
fn open_file(path: &Path) -> Result<Database, StoreError> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(database_failed)?;
    let backend = FileBackend::new(file).map_err(database_failed)?;
    Database::builder().set_check_integrity_on_open(true).create_with_backend(backend).map_err(database_failed)
}

/// What is known of a file that was opened.
struct Prepared {
    secret: HashSecret,
    epoch: u64,
    orphans: usize,
    unreadable: usize,
}

/// Makes the tables, checks the secret, and takes every operation away from the dead; `None` if the secret is wrong.
fn prepare(
    database: &Database,
    given: Option<HashSecret>,
    retention: &Retention,
) -> Result<Option<Prepared>, StoreError> {
    let transaction = database.begin_write().map_err(database_failed)?;
    let (secret, epoch, mut orphans) = {
        let mut about = transaction.open_table(ABOUT).map_err(database_failed)?;
        let stored = |name| -> Result<Option<Vec<u8>>, StoreError> {
            Ok(about.get(name).map_err(database_failed)?.map(|value| value.value().to_vec()))
        };
        let (kept, hash, epoch) = (stored(SECRET)?, stored(SECRET_HASH)?, stored(EPOCH)?);
        let kept = kept.and_then(|kept| kept.try_into().ok()).map(HashSecret::new);
        let is_new = hash.is_none();
        let secret = match (given, kept) {
            (Some(given), _) => given,
            (None, Some(kept)) => kept,
            (None, None) if is_new => {
                let secret = HashSecret::random();
                about.insert(SECRET, secret.expose().as_slice()).map_err(database_failed)?;
                secret
            }
            (None, None) => return Ok(None),
        };
        let known_by = secret.hash("store", []);
        if hash.is_some_and(|hash| hash != known_by) {
            return Ok(None);
        }
        about.insert(SECRET_HASH, known_by.as_slice()).map_err(database_failed)?;
        let epoch = epoch.and_then(|epoch| epoch.try_into().ok()).map_or(0, u64::from_le_bytes);
        (secret, epoch, Vec::new())
    };
    let (mut unreadable, mut held) = (0, Vec::new());
    {
        let mut tables = Tables::open(&transaction, retention)?;
        for row in tables.records.iter().map_err(database_failed)? {
            let (key, record) = row.map_err(database_failed)?;
            // NOTE: left where it is: a claim on its key finds it, and is refused.
            let Ok(record) = Record::from_bytes(record.value()) else {
                unreadable += 1;
                continue;
            };
            held.extend(record.session_id().map(|id| (id, *key.value())));
            if record.is_in_flight() {
                orphans.push((*key.value(), record.orphaned()));
            }
        }
        for (key, record) in &orphans {
            tables.put(*key, Some(record))?;
        }
        // A file from before the table was kept.
        if tables.holders.is_empty().map_err(database_failed)? {
            for (id, key) in &held {
                tables.holders.insert(id.as_bytes(), key).map_err(database_failed)?;
            }
        }
    }
    transaction.commit().map_err(database_failed)?;
    Ok(Some(Prepared { secret, epoch, orphans: orphans.len(), unreadable }))
}

fn database_failed(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Database(Arc::new(error.into()))
}

// ===== writing =====

/// The one who writes.
struct Writer {
    database: Database,
    retention: Retention,
    epoch: u64,
    queue: mpsc::UnboundedReceiver<Order>,
    stop: Arc<AtomicBool>,
    // Granted claims whose claimants have gone: taken back with the next batch.
    undo: Vec<Undo>,
}

/// A reply that waits for the commit.
enum Reply {
    Begin {
        key: Key,
        now: Timestamp,
        reply: oneshot::Sender<Result<Begun, StoreError>>,
        result: Result<Begun, StoreError>,
    },
    Renew(Told<bool>),
    Settle(Told<()>),
    Holder(Told<Option<Key>>),
}

/// A result, and who waits for it.
struct Told<T> {
    reply: oneshot::Sender<Result<T, StoreError>>,
    result: Result<T, StoreError>,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(first) = self.next() {
            self.sort(first, &mut batch);
            for _ in 1..BATCH {
                let Ok(order) = self.queue.try_recv() else { break };
                self.sort(order, &mut batch);
            }
            let replies = self.write(&mut batch);
            self.reply(replies);
            // Nobody waits for these, so they may be all there is to write.
            if !self.undo.is_empty() {
                let _ = self.write(&mut batch);
            }
        }
    }

    fn sort(&mut self, order: Order, batch: &mut Vec<Order>) {
        match order {
            Order::Undo(undo) => self.undo.push(undo),
            order => batch.push(order),
        }
    }

    /// The next order; `None` once the store was dropped and everything is written.
    fn next(&mut self) -> Option<Order> {
        if self.stop.load(Ordering::Acquire) {
            self.queue.close();
            return self.queue.try_recv().ok();
        }
        self.queue.blocking_recv()
    }

    /// Carries a batch out and commits it; empties it in any case.
    fn write(&mut self, batch: &mut Vec<Order>) -> Vec<Reply> {
        let undo = std::mem::take(&mut self.undo);
        let mut replies = Vec::with_capacity(batch.len());
        let written = self.transact(batch, &undo, &mut replies);
        if let Err(error) = written {
            tracing::warn!(%error, "the idempotency store could not be written");
            for reply in &mut replies {
                reply.fail(&error);
            }
            // Still to be done, by the next batch.
            self.undo = undo;
        }
        // Orders that were not reached are dropped, which their senders read as a store that is closed.
        batch.clear();
        replies
    }

    fn transact(&mut self, batch: &mut Vec<Order>, undo: &[Undo], replies: &mut Vec<Reply>) -> Result<(), StoreError> {
        let mut transaction = self.database.begin_write().map_err(database_failed)?;
        // On the disk when the commit returns: an intent that a crash could take back would be none.
        transaction.set_durability(Durability::Immediate).map_err(database_failed)?;
        let changed = {
            let mut tables = Tables::open(&transaction, &self.retention)?;
            for Undo { key, epoch, settlement, now } in undo {
                // Fenced means that there is nothing left to take back.
                let _ = alone(tables.settle(*key, *epoch, settlement.clone(), *now))?;
            }
            for order in batch.drain(..) {
                match order {
                    // Whoever wanted it has gone.
                    Order::Begin { reply, .. } if reply.is_closed() => {}
                    Order::Begin { key, claim, now, reply, place } => {
                        drop(place);
                        self.epoch += 1;
                        let result = alone(tables.begin(key, &claim, Epoch(self.epoch), now))?;
                        replies.push(Reply::Begin { key, now, reply, result });
                    }
                    Order::Settle { key, epoch, settlement, now, reply } => {
                        let result = alone(tables.settle(key, epoch, settlement, now))?;
                        replies.push(Reply::Settle(Told { reply, result }));
                    }
                    Order::Renew { reply, .. } if reply.is_closed() => {}
                    Order::Renew { key, epoch, until, reply } => {
                        let result = alone(tables.renew(key, epoch, until))?;
                        replies.push(Reply::Renew(Told { reply, result }));
                    }
                    Order::Holder { id, reply } => {
                        let result = alone(tables.holder(id))?;
                        replies.push(Reply::Holder(Told { reply, result }));
                    }
                    // The one is sorted out before, the other writes nothing.
                    Order::Undo(_) | Order::Stop => {}
                }
            }
            tables.changed
        };
        if !changed {
            return transaction.abort().map_err(database_failed);
        }
        {
            let mut about = transaction.open_table(ABOUT).map_err(database_failed)?;
            about.insert(EPOCH, self.epoch.to_le_bytes().as_slice()).map_err(database_failed)?;
        }
        transaction.commit().map_err(database_failed)
    }

    fn reply(&mut self, replies: Vec<Reply>) {
        for reply in replies {
            match reply {
                Reply::Renew(told) => told.send(),
                Reply::Settle(told) => told.send(),
                Reply::Holder(told) => told.send(),
                Reply::Begin { key, now, reply, result } => {
                    let undo = result.as_ref().ok().and_then(|begun| Undo::of(key, begun, now));
                    if reply.send(result).is_err() {
                        self.undo.extend(undo);
                    }
                }
            }
        }
    }
}

/// Keeps what concerns one order, and changed nothing, from failing all that share its commit.
fn alone<T>(result: Result<T, StoreError>) -> Result<Result<T, StoreError>, StoreError> {
    match result {
        Err(error) if !matches!(error, StoreError::Fenced | StoreError::Taken | StoreError::Unreadable(_)) => {
            Err(error)
        }
        result => Ok(result),
    }
}

impl Reply {
    /// Nothing of the batch was written.
    fn fail(&mut self, error: &StoreError) {
        match self {
            Self::Begin { result, .. } => *result = Err(error.clone()),
            Self::Renew(told) => told.result = Err(error.clone()),
            Self::Settle(told) => told.result = Err(error.clone()),
            Self::Holder(told) => told.result = Err(error.clone()),
        }
    }
}

impl<T> Told<T> {
    fn send(self) {
        let _ = self.reply.send(self.result);
    }
}

/// The tables of one transaction.
struct Tables<'t> {
    records: Table<'t, &'static [u8; 32], &'static [u8]>,
    expiries: Table<'t, &'static [u8; 40], ()>,
    holders: Table<'t, &'static [u8; 16], &'static [u8; 32]>,
    retention: &'t Retention,
    changed: bool,
    swept: usize,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t redb::WriteTransaction, retention: &'t Retention) -> Result<Self, StoreError> {
        let records = transaction.open_table(RECORDS).map_err(database_failed)?;
        let expiries = transaction.open_table(EXPIRIES).map_err(database_failed)?;
        let holders = transaction.open_table(HOLDERS).map_err(database_failed)?;
        Ok(Self { records, expiries, holders, retention, changed: false, swept: 0 })
    }

    fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        let bytes = self.records.get(key).map_err(database_failed)?;
        Ok(bytes.map(|bytes| Record::from_bytes(bytes.value())).transpose()?)
    }

    fn put(&mut self, key: Key, record: Option<&Record>) -> Result<(), StoreError> {
        self.changed = true;
        if let Some(before) = self.get(&key)? {
            self.expiries.remove(&self.expiry(&before, &key)).map_err(database_failed)?;
            self.let_go(&key, &before)?;
        }
        match record {
            Some(record) => {
                self.records.insert(&key, record.to_bytes().as_slice()).map_err(database_failed)?;
                self.expiries.insert(&self.expiry(record, &key), ()).map_err(database_failed)?;
                if let Some(id) = record.session_id() {
                    self.holders.insert(id.as_bytes(), &key).map_err(database_failed)?;
                }
            }
            None => drop(self.records.remove(&key).map_err(database_failed)?),
        }
        Ok(())
    }

    fn begin(&mut self, key: Key, claim: &Claim, epoch: Epoch, now: Timestamp) -> Result<Begun, StoreError> {
        let current = self.get(&key)?;
        let claimed = Record::begin(current.as_ref(), claim, epoch, self.retention, now);
        if let Some(record) = claimed.write {
            self.put(key, Some(&record))?;
            self.sweep(now)?;
        }
        Ok(claimed.begun)
    }

    fn renew(&mut self, key: Key, epoch: Epoch, until: Timestamp) -> Result<bool, StoreError> {
        match Record::renew(self.get(&key)?.as_ref(), epoch, until) {
            Ok(record) => self.put(key, Some(&record)).map(|()| true),
            Err(_fenced) => Ok(false),
        }
    }

    fn holder(&self, id: Uuid) -> Result<Option<Key>, StoreError> {
        Ok(self.holders.get(id.as_bytes()).map_err(database_failed)?.map(|key| *key.value()))
    }

    /// Forgets that an operation holds what it was done with.
    fn let_go(&mut self, key: &Key, record: &Record) -> Result<(), StoreError> {
        if let Some(id) = record.session_id()
            && self.holder(id)?.is_some_and(|holder| holder == *key)
        {
            self.holders.remove(id.as_bytes()).map_err(database_failed)?;
        }
        Ok(())
    }

    fn settle(&mut self, key: Key, epoch: Epoch, settlement: Settlement, now: Timestamp) -> Result<(), StoreError> {
        settlement.check(&key, |id| self.holder(id))?;
        let current = self.get(&key)?;
        let record = Record::settle(current.as_ref(), epoch, settlement, now)?;
        self.put(key, record.as_ref())
    }

    /// Throws away some of what has expired.
    fn sweep(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let mut left = if self.swept == 0 { SWEEP } else { 2 };
        while left > 0 {
            let first = self.expiries.first().map_err(database_failed)?.map(|(entry, _)| *entry.value());
            let Some((expires, key)) = first.as_ref().and_then(|entry| entry.split_first_chunk()) else { break };
            if u64::from_be_bytes(*expires) > now.as_millis() {
                break;
            }
            let key = *<&Key>::try_from(key).unwrap_or(&[0; 32]);
            self.expiries.pop_first().map_err(database_failed)?;
            // NOTE: what cannot be read is kept: nobody knows that its time is over.
            if let Ok(Some(record)) = self.get(&key) {
                if record.expires(self.retention) > now {
                    // The entry is of a time when records were kept for less long.
                    self.expiries.insert(&self.expiry(&record, &key), ()).map_err(database_failed)?;
                } else {
                    self.records.remove(&key).map_err(database_failed)?;
                    self.let_go(&key, &record)?;
                }
            }
            left -= 1;
        }
        self.swept += 1;
        Ok(())
    }

    fn expiry(&self, record: &Record, key: &Key) -> [u8; 40] {
        let mut entry = [0; 40];
        entry[..8].copy_from_slice(&record.expires(self.retention).as_millis().to_be_bytes());
        entry[8..].copy_from_slice(key);
        entry
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;
    use redb::ReadableDatabase;

    use super::{super::Answer, *};

    const CLAIM: Claim = Claim { fingerprint: [0; 32], lease: Duration::from_secs(60) };

    /// A file that is gone after the test.
    struct File(PathBuf);

    impl File {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("tower-didit-{}-{name}.redb", std::process::id())))
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    async fn begin(store: &RedbStore, key: u8, now: u64) -> Begun {
        store.begin([key; 32], CLAIM, at(now)).await.unwrap()
    }

    async fn lead(store: &RedbStore, key: u8, now: u64) -> Epoch {
        match begin(store, key, now).await {
            Begun::Lead { epoch } => epoch,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_was_done_is_done_after_a_restart_and_what_was_in_flight_is_looked_up() {
        let file = File::new("restart");
        let store = RedbStore::open(&file.0).await.unwrap();
        let (first, second) = (lead(&store, 1, 0).await, lead(&store, 2, 0).await);
        let answer = Answer::new(StatusCode::CREATED);
        store.settle([1; 32], first, Settlement::Done(answer.clone()), at(1)).await.unwrap();
        let secret = store.secret().clone();
        drop(store);
        let store = RedbStore::open(&file.0).await.unwrap();
        assert_eq!((store.orphans(), store.secret() == &secret), (1, true));
        assert_eq!(begin(&store, 1, 2).await, Begun::Done(answer));
        // Well within the lease of the dead: nobody else can have the file.
        let Begun::Reconcile { epoch, since } = begin(&store, 2, 2).await else { panic!("not looked up") };
        assert_eq!((since, epoch > second), (at(0), true));
        let late = store.settle([2; 32], second, Settlement::Forget, at(3)).await;
        assert!(matches!(late, Err(StoreError::Fenced)));
    }

    #[tokio::test]
    async fn a_second_owner_and_another_secret_are_refused() {
        let file = File::new("owner");
        let secret = HashSecret::new([7; 32]);
        let store = RedbStore::open_with_secret(&file.0, secret.clone(), Retention::DEFAULT).await.unwrap();
        assert!(matches!(RedbStore::open(&file.0).await, Err(OpenError::Database { .. })));
        drop(store);
        assert!(matches!(RedbStore::open(&file.0).await, Err(OpenError::Secret { .. })));
        let other = RedbStore::open_with_secret(&file.0, HashSecret::random(), Retention::DEFAULT).await;
        assert!(matches!(other, Err(OpenError::Secret { .. })));
        assert!(RedbStore::open_with_secret(&file.0, secret, Retention::DEFAULT).await.is_ok());
        assert!(!fs::read(&file.0).unwrap().windows(32).any(|bytes| bytes == [7; 32]), "it is not in the file");
    }

    #[tokio::test]
    async fn a_claim_that_nobody_waits_for_any_more_is_taken_back() {
        let file = File::new("gone");
        let store = RedbStore::open(&file.0).await.unwrap();
        for _ in 0..50 {
            let mut claim = store.begin([1; 32], CLAIM, at(0));
            // Handed over, and given up at some moment of its being written.
            let _ = std::future::poll_fn(|cx| std::task::Poll::Ready(claim.as_mut().poll(cx).is_ready())).await;
            for _ in 0..rand::random_range(0..200) {
                tokio::task::yield_now().await;
            }
            drop(claim);
            // Whoever comes next leads at once: the writer takes it back before it reads on.
            let epoch = lead(&store, 1, 1).await;
            store.settle([1; 32], epoch, Settlement::Forget, at(2)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_read_fails_its_own_order_only() {
        let file = File::new("unreadable");
        let database = Database::create(&file.0).unwrap();
        let retention = Retention::DEFAULT;
        let Prepared { epoch, .. } = prepare(&database, None, &retention).unwrap().unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(RECORDS).unwrap().insert(&[2; 32], [0xff].as_slice()).unwrap();
        transaction.commit().unwrap();
        let (orders, queue) = mpsc::unbounded_channel();
        let mut writer = Writer { database, retention, epoch, queue, stop: Arc::default(), undo: Vec::new() };
        let places = Arc::new(Semaphore::new(3));
        let mut replies = Vec::new();
        for key in 1..=3 {
            let (reply, replied) = oneshot::channel();
            let place = Arc::clone(&places).try_acquire_owned().unwrap();
            let _ = orders.send(Order::Begin { key: [key; 32], claim: CLAIM, now: at(0), reply, place });
            replies.push(replied);
        }
        drop(orders);
        let thread = thread::spawn(move || {
            // One batch of the three.
            let mut batch: Vec<_> = std::iter::from_fn(|| writer.queue.try_recv().ok()).collect();
            let told = writer.write(&mut batch);
            writer.reply(told);
        });
        let mut told = Vec::new();
        for reply in replies {
            told.push(reply.await.unwrap());
        }
        thread.join().unwrap();
        assert!(
            matches!(&told[..], [Ok(Begun::Lead { .. }), Err(StoreError::Unreadable(_)), Ok(Begun::Lead { .. })]),
            "{told:?}"
        );
    }

    #[tokio::test]
    async fn a_file_with_unreadable_records_opens_and_their_keys_stay_taken_for_ever() {
        let file = File::new("quarantine");
        let store = RedbStore::open(&file.0).await.unwrap();
        let epochs = (lead(&store, 1, 0).await, lead(&store, 2, 0).await);
        store.settle([1; 32], epochs.0, Settlement::Done(Answer::new(StatusCode::OK)), at(0)).await.unwrap();
        drop(store);
        // A later version wrote them: one that was done, one in flight.
        let database = Database::open(&file.0).unwrap();
        let transaction = database.begin_write().unwrap();
        for key in 1..=2 {
            transaction.open_table(RECORDS).unwrap().insert(&[key; 32], [0xff].as_slice()).unwrap();
        }
        transaction.commit().unwrap();
        drop(database);
        let store = RedbStore::open(&file.0).await.unwrap();
        assert_eq!((store.unreadable(), store.orphans()), (2, 0));
        // Years later other calls have swept everything that has expired.
        for now in [1, 10_000_000, 20_000_000] {
            for key in 3..40 {
                store.begin([key; 32], CLAIM, at(now)).await.unwrap();
            }
            for key in 1..=2 {
                let begun = store.begin([key; 32], CLAIM, at(now)).await;
                assert!(matches!(begun, Err(StoreError::Unreadable(_))), "{key} at {now}: {begun:?}");
            }
        }
        let renewed = store.renew([2; 32], epochs.1, at(1)).await;
        assert!(matches!(renewed, Err(StoreError::Unreadable(_))), "{renewed:?}");
    }

    #[tokio::test]
    async fn a_renewed_claim_is_on_the_disk_and_one_that_was_taken_is_not_renewed() {
        let file = File::new("renewed");
        let store = RedbStore::open(&file.0).await.unwrap();
        let epoch = lead(&store, 1, 0).await;
        assert!(store.renew([1; 32], epoch, at(100)).await.unwrap());
        assert_eq!(begin(&store, 1, 99).await, Begun::Busy { until: at(100) });
        assert!(matches!(begin(&store, 1, 100).await, Begun::Reconcile { since, .. } if since == at(0)));
        assert!(!store.renew([1; 32], epoch, at(200)).await.unwrap());
    }

    #[tokio::test]
    async fn who_holds_what_survives_a_restart_and_an_older_file_is_read_for_it() {
        let file = File::new("holders");
        let id = Uuid::from_bytes([7; 16]);
        let answer = || Answer { session_id: Some(id), ..Answer::new(StatusCode::CREATED) };
        let store = RedbStore::open(&file.0).await.unwrap();
        let epoch = lead(&store, 1, 0).await;
        store.settle([1; 32], epoch, Settlement::Done(answer()), at(0)).await.unwrap();
        drop(store);
        for older in [false, true] {
            if older {
                let database = Database::open(&file.0).unwrap();
                let transaction = database.begin_write().unwrap();
                transaction.delete_table(HOLDERS).unwrap();
                transaction.commit().unwrap();
            }
            let store = RedbStore::open(&file.0).await.unwrap();
            assert_eq!(store.holder(id).await.unwrap(), Some([1; 32]), "{older}");
            let epoch = lead(&store, 2, 1).await;
            let adopted = store.settle([2; 32], epoch, Settlement::Adopted(answer()), at(1)).await;
            assert!(matches!(adopted, Err(StoreError::Taken)), "{adopted:?}");
            store.settle([2; 32], epoch, Settlement::Forget, at(1)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_has_expired_leaves_the_file() {
        let file = File::new("expiry");
        let store = RedbStore::open(&file.0).await.unwrap();
        for key in 0..30 {
            let epoch = lead(&store, key, 0).await;
            store.settle([key; 32], epoch, Settlement::Done(Answer::new(StatusCode::OK)), at(0)).await.unwrap();
        }
        for key in 30..34 {
            lead(&store, key, 86_401).await;
        }
        drop(store);
        let database = Database::open(&file.0).unwrap();
        let transaction = database.begin_read().unwrap();
        let records = transaction.open_table(RECORDS).unwrap().iter().unwrap().count();
        let expiries = transaction.open_table(EXPIRIES).unwrap().iter().unwrap().count();
        assert_eq!((records, expiries), (4, 4));
    }

    /// A file of 200 operations that are done.
    async fn filled(name: &str) -> File {
        let file = File::new(name);
        let store = RedbStore::open(&file.0).await.unwrap();
        for key in 0..200 {
            let epoch = lead(&store, key, 0).await;
            store.settle([key; 32], epoch, Settlement::Done(Answer::new(StatusCode::OK)), at(0)).await.unwrap();
        }
        file
    }

    #[tokio::test]
    async fn a_damaged_file_is_refused_or_forgets_nothing() {
        let file = filled("damage").await;
        let good = fs::read(&file.0).unwrap();
        let random = crate::Randomness::seeded(7);
        let below = |bound: usize| usize::try_from(random.bits() % u64::try_from(bound).unwrap()).unwrap();
        let mut refused = 0;
        for round in 0..30 {
            let mut bytes = good.clone();
            match round % 3 {
                // Never to nothing: that would be a new file.
                0 => bytes.truncate(1 + below(good.len() - 1)),
                1 => {
                    let start = below(bytes.len() / 4096) * 4096;
                    bytes[start..start + 4096].fill(0);
                }
                _ => (0..200).for_each(|_| bytes[below(good.len())] = 0xa5),
            }
            fs::write(&file.0, &bytes).unwrap();
            match RedbStore::open(&file.0).await {
                Err(error) => {
                    assert!(matches!(error, OpenError::Database { .. } | OpenError::Secret { .. }), "{round}: {error}");
                    refused += 1;
                }
                Ok(store) => {
                    for key in 0..200 {
                        let begun = store.begin([key; 32], CLAIM, at(1)).await;
                        assert!(!matches!(begun, Ok(Begun::Lead { .. })), "{round}: operation {key} is forgotten");
                    }
                }
            }
        }
        assert!(refused > 0);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_new_file_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;

        let file = filled("mode").await;
        assert_eq!(fs::metadata(&file.0).unwrap().permissions().mode() & 0o777, 0o600);
    }

    async fn open_kept(file: &File, settled: u64, unsettled: u64) -> RedbStore {
        let [settled, unsettled] = [settled, unsettled].map(Duration::from_secs);
        let retention = Retention { settled, unsettled };
        RedbStore::open_with_secret(&file.0, HashSecret::new([7; 32]), retention).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_in_doubt_is_kept_for_as_long_as_the_store_is_told_now() {
        let file = File::new("longer");
        let store = open_kept(&file, 3_600, 3_600).await;
        let epoch = lead(&store, 1, 0).await;
        store.settle([1; 32], epoch, Settlement::Unknown, at(1)).await.unwrap();
        drop(store);
        let store = open_kept(&file, 86_400, 86_400).await;
        // Other calls come by when it would have been thrown away, and when it is.
        lead(&store, 2, 7_200).await;
        assert!(matches!(begin(&store, 1, 7_201).await, Begun::Reconcile { since, .. } if since == at(0)));
        lead(&store, 3, 8 * 86_400).await;
        lead(&store, 1, 8 * 86_400).await;
    }

    #[tokio::test]
    async fn a_leader_keeps_its_lead_when_the_time_of_an_older_record_is_over() {
        let file = File::new("shorter");
        let store = open_kept(&file, 864_000, 864_000).await;
        let epoch = lead(&store, 1, 0).await;
        store.settle([1; 32], epoch, Settlement::Done(Answer::new(StatusCode::OK)), at(0)).await.unwrap();
        drop(store);
        let store = open_kept(&file, 86_400, 864_000).await;
        // What was done is forgotten by now, and its entry is still to come.
        let epoch = lead(&store, 1, 863_999).await;
        lead(&store, 2, 864_001).await;
        assert!(matches!(begin(&store, 1, 864_002).await, Begun::Busy { .. }));
        assert!(store.renew([1; 32], epoch, at(864_060)).await.unwrap());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn orders_that_queue_up_share_commits() {
        let file = File::new("batch");
        let store = RedbStore::open(&file.0).await.unwrap();
        let calls: Vec<_> = (0..200_u8)
            .map(|key| {
                let store = store.clone();
                tokio::spawn(async move {
                    let epoch = lead(&store, key, 0).await;
                    store.settle([key; 32], epoch, Settlement::Keep, at(1)).await.unwrap();
                })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
    }
}
