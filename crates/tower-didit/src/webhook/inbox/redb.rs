//! An inbox in a file, which outlives the process.

use std::{
    fmt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{Notify, mpsc, oneshot};

use super::{
    Arrival, Capacity, Claim, Counts, Inbox, InboxError, InboxFuture, Parked, Receipt, Settlement, Terms, Ticket,
    Timestamp,
    book::{Book, Changed},
};
use crate::{call::CorrelationId, timestamp::Clock};

/// An inbox in a file: what was accepted is still there after a crash, `kill -9` or loss of power. Clones share it.
///
/// # How it is written
///
/// The file is a [redb] database, whose commits are on the disk (`fsync`) when they return. One thread of the inbox's own
/// writes, so that no thread of the runtime waits for the disk; whatever has queued up meanwhile shares a commit. What the
/// file holds is in memory as well, so its [`Capacity`] bounds both.
///
/// One process at a time has the file. When it is opened again, every event that was being handled is due at once.
///
/// # Example
///
/// ```
/// use tower_didit::webhook::inbox::{Capacity, RedbInbox};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let path = std::env::temp_dir().join(format!("tower-didit-inbox-{}.redb", std::process::id()));
/// let inbox = RedbInbox::open(&path, Capacity::DEFAULT).await?;
/// # drop(inbox);
/// # std::fs::remove_file(path)?;
/// # Ok(())
/// # }
/// ```
///
/// [redb]: https://docs.rs/redb
#[derive(Clone)]
pub struct RedbInbox {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    changed: Arc<Notify>,
    // `None` once it is to stop. Unbounded, because those who ask are bounded: requests, by the receiver's places, and
    // workers; and what became of an event must never wait for a place.
    jobs: Option<mpsc::UnboundedSender<Job>>,
    writer: Option<JoinHandle<()>>,
}

/// Something to do, or why it cannot be done.
type Job = Box<dyn FnOnce(Result<&mut Book, InboxError>) -> Reply + Send>;

/// What to say once it is written, or cannot be.
type Reply = Box<dyn FnOnce(Result<(), InboxError>) + Send>;

/// Events by key, without their bodies.
const EVENTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("webhook events 1");
/// Bodies by key.
const PAYLOADS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("webhook payloads 1");
/// Streams by name.
const STREAMS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("webhook streams 1");
/// Correlation ids by session.
const JOURNEYS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("webhook journeys 1");
/// Since when nothing was forgotten, in milliseconds since 1970.
const ABOUT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("webhook inbox 1");
const KNOWN_SINCE: &str = "known since";

/// How many jobs share one commit at most, so that nobody waits for a commit without end.
const BATCH: usize = 256;

// ===== impl RedbInbox =====

impl RedbInbox {
    /// Opens a file, or makes it.
    ///
    /// # Errors
    ///
    /// [`InboxError::Database`] if the file cannot be opened, is no inbox, or another process has it.
    pub async fn open(path: impl AsRef<Path>, capacity: Capacity) -> Result<Self, InboxError> {
        let path = path.as_ref().to_owned();
        // It does not panic, so it can only have been cancelled, by the end of the runtime.
        tokio::task::spawn_blocking(move || open(path, capacity)).await.unwrap_or(Err(InboxError::Closed))
    }

    fn ask<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Book) -> Result<T, InboxError> + Send + 'static,
    ) -> InboxFuture<T> {
        self.ask_then(act, || {})
    }

    /// The same, and tells the worker once it is written, even if nobody waits for that any more.
    fn ask_and_tell<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Book) -> Result<T, InboxError> + Send + 'static,
    ) -> InboxFuture<T> {
        let changed = Arc::clone(&self.shared.changed);
        self.ask_then(act, move || changed.notify_one())
    }

    fn ask_then<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Book) -> Result<T, InboxError> + Send + 'static,
        then: impl FnOnce() + Send + 'static,
    ) -> InboxFuture<T> {
        let (reply, replied) = oneshot::channel();
        let job: Job = Box::new(move |book| {
            let result = book.and_then(act);
            Box::new(move |written| {
                drop(reply.send(written.and(result)));
                then();
            })
        });
        let sent = self.shared.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        Box::pin(async move {
            if !sent {
                return Err(InboxError::Closed);
            }
            replied.await.unwrap_or(Err(InboxError::Closed))
        })
    }
}

impl fmt::Debug for RedbInbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbInbox").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl Inbox for RedbInbox {
    fn accept(&self, arrival: Arrival, now: Timestamp) -> InboxFuture<Receipt> {
        self.ask_and_tell(move |book| book.accept(arrival, now))
    }

    fn claim(&self, terms: Terms, now: Timestamp) -> InboxFuture<Claim> {
        self.ask(move |book| Ok(book.claim(terms, now)))
    }

    fn renew(&self, ticket: Ticket, until: Timestamp, now: Timestamp) -> InboxFuture<()> {
        self.ask(move |book| book.renew(&ticket, until, now))
    }

    fn settle(&self, ticket: Ticket, settlement: Settlement, now: Timestamp) -> InboxFuture<()> {
        self.ask_and_tell(move |book| book.settle(ticket, settlement, now))
    }

    fn is_missing(&self, stream: String, status: String) -> InboxFuture<bool> {
        self.ask(move |book| Ok(book.is_missing(Some(&stream), Some(&status))))
    }

    fn remember(&self, session_id: String, correlation_id: CorrelationId, now: Timestamp) -> InboxFuture<String> {
        self.ask(move |book| Ok(book.remember(session_id, correlation_id.to_string(), now)))
    }

    fn parked(&self, most: usize) -> InboxFuture<Vec<Parked>> {
        self.ask(move |book| Ok(book.parked(most)))
    }

    fn redrive(&self, key: String, now: Timestamp) -> InboxFuture<bool> {
        self.ask_and_tell(move |book| Ok(book.redrive(&key, now)))
    }

    fn counts(&self) -> InboxFuture<Counts> {
        self.ask(|book| Ok(book.counts()))
    }

    fn changed(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(Arc::clone(&self.shared.changed).notified_owned())
    }

    fn known_since(&self) -> InboxFuture<Timestamp> {
        self.ask(|book| Ok(book.known_since()))
    }
}

/// Waits for what is queued to be written, so that the file is free when the last clone is gone: a few milliseconds.
impl Drop for Shared {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

// ===== the one who writes =====

struct Writer {
    database: Database,
    capacity: Capacity,
    clock: Clock,
    // What the file holds; `None` if that is not known, after a write that failed.
    book: Option<Book>,
    queue: mpsc::UnboundedReceiver<Job>,
}

fn open(path: PathBuf, capacity: Capacity) -> Result<RedbInbox, InboxError> {
    let database = Database::create(&path).map_err(failed)?;
    let clock = Clock::start();
    let mut book = load(&database, capacity, true, clock.now())?;
    write(&database, &mut book)?;
    let (jobs, queue) = mpsc::unbounded_channel();
    let writer = Writer { database, capacity, clock, book: Some(book), queue };
    let writer = thread::Builder::new()
        .name("webhook-inbox".to_owned())
        .spawn(move || writer.run())
        .map_err(|error| InboxError::Database(Arc::new(error)))?;
    let changed = Arc::default();
    let shared = Shared { path, changed, jobs: Some(jobs), writer: Some(writer) };
    Ok(RedbInbox { shared: Arc::new(shared) })
}

impl Writer {
    fn run(mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH
                && let Ok(job) = self.queue.try_recv()
            {
                batch.push(job);
            }
            self.carry_out(batch);
        }
    }

    fn carry_out(&mut self, batch: Vec<Job>) {
        let mut book = match self.book.take() {
            Some(book) => book,
            None => match load(&self.database, self.capacity, false, self.clock.now()) {
                Ok(book) => book,
                Err(error) => {
                    for job in batch {
                        job(Err(error.clone()))(Ok(()));
                    }
                    return;
                }
            },
        };
        let replies: Vec<_> = batch.into_iter().map(|job| job(Ok(&mut book))).collect();
        let written = write(&self.database, &mut book);
        match &written {
            // Read again before anything else is done: it has gone further than the file.
            Err(error) => tracing::error!(%error, "the webhook inbox could not be written"),
            Ok(()) => self.book = Some(book),
        }
        for reply in replies {
            reply(written.clone());
        }
    }
}

fn failed(error: impl Into<redb::Error>) -> InboxError {
    InboxError::Database(Arc::new(error.into()))
}

fn unreadable(error: serde_json::Error) -> InboxError {
    InboxError::Database(Arc::new(error))
}

/// Writes what was changed, in one commit that is on the disk when this returns.
fn write(database: &Database, book: &mut Book) -> Result<(), InboxError> {
    let changed = book.take_changed();
    if changed.is_empty() {
        return Ok(());
    }
    let mut transaction = database.begin_write().map_err(failed)?;
    transaction.set_durability(Durability::Immediate).map_err(failed)?;
    for changed in &changed {
        match changed {
            Changed::Event(key) => put(&transaction, EVENTS, key, json(book.entry(key))?),
            Changed::Payload(key) => {
                let payload = book.entry(key).map(|entry| entry.payload.to_vec()).filter(|payload| !payload.is_empty());
                put(&transaction, PAYLOADS, key, payload)
            }
            Changed::Stream(name) => put(&transaction, STREAMS, name, json(book.stream(name))?),
            Changed::KnownSince => put(&transaction, ABOUT, KNOWN_SINCE, json(Some(&book.known_since().as_millis()))?),
            Changed::Journey(session) => put(&transaction, JOURNEYS, session, json(book.journey_of(session))?),
        }?;
    }
    transaction.commit().map_err(failed)
}

fn json(value: Option<&impl Serialize>) -> Result<Option<Vec<u8>>, InboxError> {
    value.map(serde_json::to_vec).transpose().map_err(unreadable)
}

fn put(
    transaction: &WriteTransaction,
    table: TableDefinition<'_, &'static str, &'static [u8]>,
    key: &str,
    value: Option<Vec<u8>>,
) -> Result<(), InboxError> {
    let mut table = transaction.open_table(table).map_err(failed)?;
    match value {
        Some(value) => table.insert(key, value.as_slice()).map(drop),
        None => table.remove(key).map(drop),
    }
    .map_err(failed)
}

/// Reads the file. If it was `orphaned`, whoever had claimed events is dead.
fn load(database: &Database, capacity: Capacity, orphaned: bool, now: Timestamp) -> Result<Book, InboxError> {
    let mut book = Book::new(capacity, now);
    let mut is_new = true;
    each(database, ABOUT, |_, row| {
        is_new = false;
        book.restore_known_since(Timestamp::from_millis(read(row)?));
        Ok(())
    })?;
    each(database, STREAMS, |name, row| {
        book.restore_stream(name, read(row)?);
        Ok(())
    })?;
    each(database, JOURNEYS, |session, row| {
        book.restore_journey(session, read(row)?);
        Ok(())
    })?;
    let mut payloads = std::collections::HashMap::new();
    each(database, PAYLOADS, |key, row| {
        payloads.insert(key, Bytes::copy_from_slice(row));
        Ok(())
    })?;
    each(database, EVENTS, |key, row| {
        let mut entry: super::entry::Entry = read(row)?;
        entry.payload = payloads.remove(&key).unwrap_or_default();
        book.restore_event(key, entry, orphaned, now);
        Ok(())
    })?;
    if !is_new {
        drop(book.take_changed());
    }
    Ok(book)
}

fn read<T: DeserializeOwned>(row: &[u8]) -> Result<T, InboxError> {
    serde_json::from_slice(row).map_err(unreadable)
}

fn each(
    database: &Database,
    table: TableDefinition<'_, &'static str, &'static [u8]>,
    mut visit: impl FnMut(String, &[u8]) -> Result<(), InboxError>,
) -> Result<(), InboxError> {
    let transaction = database.begin_read().map_err(failed)?;
    let table = match transaction.open_table(table) {
        Ok(table) => table,
        // A new file.
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for row in table.iter().map_err(failed)? {
        let (key, row) = row.map_err(failed)?;
        visit(key.value().to_owned(), row.value())?;
    }
    Ok(())
}
