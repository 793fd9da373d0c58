//! An inbox in memory: one process, gone with it.

use std::{
    fmt,
    future::ready,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{
    Arrival, Capacity, Claim, Counts, Inbox, InboxError, InboxFuture, Parked, Receipt, Settlement, Terms, Ticket,
    Timestamp, book::Book,
};
use crate::{call::CorrelationId, timestamp::Clock};

/// An inbox in memory, bounded in number, bytes and time; clones share it.
///
/// Its events are gone with the process: Didit has had its 2xx by then and does not send them again. For tests, and for
/// services that a [sweep](crate::webhook::sweep) tells what they missed.
#[derive(Clone)]
pub struct MemoryInbox {
    shared: Arc<Shared>,
}

struct Shared {
    book: Mutex<Book>,
    changed: Arc<Notify>,
}

// ===== impl MemoryInbox =====

impl MemoryInbox {
    /// An inbox of [`Capacity::DEFAULT`].
    pub fn new() -> Self {
        Self::with(Capacity::DEFAULT)
    }

    /// An inbox that holds so much.
    pub fn with(capacity: Capacity) -> Self {
        let (book, changed) = (Mutex::new(Book::new(capacity, Clock::start().now())), Arc::default());
        Self { shared: Arc::new(Shared { book, changed }) }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Nothing in here panics half-way.
        self.shared.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_book<T: Send + 'static>(&self, act: impl FnOnce(&mut Book) -> Result<T, InboxError>) -> InboxFuture<T> {
        let result = {
            let mut book = self.book();
            let result = act(&mut book);
            drop(book.take_changed());
            result
        };
        Box::pin(ready(result))
    }

    fn and_tell<T: Send + 'static>(&self, act: impl FnOnce(&mut Book) -> Result<T, InboxError>) -> InboxFuture<T> {
        let result = self.with_book(act);
        self.shared.changed.notify_one();
        result
    }
}

impl Default for MemoryInbox {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryInbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryInbox").field("counts", &self.book().counts()).finish_non_exhaustive()
    }
}

impl Inbox for MemoryInbox {
    fn accept(&self, arrival: Arrival, now: Timestamp) -> InboxFuture<Receipt> {
        self.and_tell(|book| book.accept(arrival, now))
    }

    fn claim(&self, terms: Terms, now: Timestamp) -> InboxFuture<Claim> {
        self.with_book(|book| Ok(book.claim(terms, now)))
    }

    fn renew(&self, ticket: Ticket, until: Timestamp, now: Timestamp) -> InboxFuture<()> {
        self.with_book(|book| book.renew(&ticket, until, now))
    }

    fn settle(&self, ticket: Ticket, settlement: Settlement, now: Timestamp) -> InboxFuture<()> {
        self.and_tell(|book| book.settle(ticket, settlement, now))
    }

    fn is_missing(&self, stream: String, status: String) -> InboxFuture<bool> {
        self.with_book(|book| Ok(book.is_missing(Some(&stream), Some(&status))))
    }

    fn remember(&self, session_id: String, correlation_id: CorrelationId, now: Timestamp) -> InboxFuture<String> {
        self.with_book(|book| Ok(book.remember(session_id, correlation_id.to_string(), now)))
    }

    fn parked(&self, most: usize) -> InboxFuture<Vec<Parked>> {
        self.with_book(|book| Ok(book.parked(most)))
    }

    fn redrive(&self, key: String, now: Timestamp) -> InboxFuture<bool> {
        self.and_tell(|book| Ok(book.redrive(&key, now)))
    }

    fn counts(&self) -> InboxFuture<Counts> {
        self.with_book(|book| Ok(book.counts()))
    }

    fn changed(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(Arc::clone(&self.shared.changed).notified_owned())
    }

    fn known_since(&self) -> InboxFuture<Timestamp> {
        self.with_book(|book| Ok(book.known_since()))
    }
}
