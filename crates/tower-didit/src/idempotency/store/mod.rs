//! Where the state of operations is kept.
//!
//! A [`Store`] remembers, under keyed hashes, how far each operation has come. What a state means and what follows from
//! it is [`Record`]'s to say, a state machine that takes the time as an argument; a store only has to apply it to one
//! key at a time, and not to lose what it wrote.
//!
//! ```text
//!            claim              NotSent
//!   absent ────────▶ in flight ────────▶ absent
//!                     ▲  │ │ │  Refused
//!            claim    │  │ │ └─────────▶ intended   (nothing was done; the key stays taken)
//!   intended ─────────┘  │ │  Ambiguous, cancelled, crashed
//!   unknown ──▶ look ──▶ │ └───────────▶ unknown    (nobody sends it before somebody has looked)
//!                        │  Answered
//!                        └─────────────▶ done       (kept for a day)
//! ```
//!
//! # What is kept
//!
//! | what | form |
//! |---|---|
//! | the key, or the operation's id, method and path | HMAC-SHA-256 under the store's secret |
//! | the payload: method, path, query, body | the same, in one hash |
//! | where the operation stands, since when | an epoch, a state, milliseconds |
//! | of an answer: its status and, if it is a UUID, its `session_id` or `request_id` | as they are |
//! | of an answer: its body and `Content-Type` | only if replay is turned on |
//!
//! # A store of one's own
//!
//! It reads the record of a key, calls [`Record::begin`], [`Record::renew`] or [`Record::settle`], and writes the
//! record that comes of it, as one step that no other claim on that key can get between. [`Record::to_bytes`] gives it
//! as bytes. Beside the records it remembers which key was the last to be done with which [id](Record::session_id), and
//! asks [`Settlement::check`] before it settles, so that one operation does not adopt what another has made.
//!
//! Processes that share a store have to share its [secret](Store::secret), and their clocks have to agree to well
//! within a lease: each measures by its own whether a leader's time is over.

mod answer;
mod codec;
mod memory;
mod record;
#[cfg(feature = "idempotency-redb")]
mod redb;

use std::{error::Error as StdError, fmt, pin::Pin, sync::Arc};

use uuid::Uuid;

#[cfg(feature = "idempotency-redb")]
pub use self::redb::{OpenError, RedbStore};
pub use self::{
    answer::{Answer, KeptBody},
    codec::Unreadable,
    memory::MemoryStore,
    record::{Begun, Claim, Claimed, Epoch, Fenced, Fingerprint, Record, Retention, Settlement},
};
use super::HashSecret;
pub(super) use crate::timestamp::Clock;
pub use crate::timestamp::Timestamp;

/// A keyed hash of what names an operation.
pub type Key = [u8; 32];

/// What a store's methods return: it borrows nothing, so that it can be finished in the background.
pub type StoreFuture<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

/// Remembers how far each operation has come; see the [module](self).
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// The secret that everything in the store is hashed under.
    fn secret(&self) -> &HashSecret;

    /// Claims an operation; [`Record::begin`] says what that comes to.
    ///
    /// If the future is dropped before it is ready, a claim that was granted is taken back.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`]; the call is not sent then.
    fn begin(&self, key: Key, claim: Claim, now: Timestamp) -> StoreFuture<Begun>;

    /// Keeps a claim until then; [`Record::renew`] says what follows. `false` if somebody else leads by now, or the
    /// operation is settled: whoever asked must not send anything more under that epoch.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`]; nothing is known then, and the lease runs on as it was.
    fn renew(&self, key: Key, epoch: Epoch, until: Timestamp) -> StoreFuture<bool>;

    /// Writes down what a led call came to; [`Record::settle`] says what follows.
    ///
    /// The first poll of the future hands the settlement over; nobody may be there for a second one.
    ///
    /// # Errors
    ///
    /// [`StoreError::Fenced`] if somebody else leads by now; [`StoreError::Taken`] for a [`Settlement::Adopted`] whose
    /// id has another [holder](Self::holder), with nothing changed; any other [`StoreError`].
    fn settle(&self, key: Key, epoch: Epoch, settlement: Settlement, now: Timestamp) -> StoreFuture<()>;

    /// Which operation was the last to be done with this id, as long as it is remembered.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`].
    fn holder(&self, id: Uuid) -> StoreFuture<Option<Key>>;
}

/// Why a store cannot do what it is asked to.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It is full of operations that are in flight or unknown.
    #[error("the store is full: none of its {capacity} operations is settled")]
    Full {
        /// How many it holds.
        capacity: usize,
    },
    /// Somebody else leads by now.
    #[error("the operation was taken over, or is settled already")]
    Fenced,
    /// What was to be adopted belongs to another operation.
    #[error("what was found belongs to another operation")]
    Taken,
    /// What it runs on has ended.
    #[error("the store is closed")]
    Closed,
    /// It holds something that it did not write.
    #[error("the store holds a record that cannot be read")]
    Unreadable(#[from] Unreadable),
    /// What it keeps its records in failed.
    #[error("the store's database failed")]
    Database(#[source] Arc<dyn StdError + Send + Sync>),
}

impl From<Fenced> for StoreError {
    fn from(Fenced: Fenced) -> Self {
        Self::Fenced
    }
}
