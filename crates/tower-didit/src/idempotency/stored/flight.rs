//! Calls with one key in one process: one leads, the others wait for what it comes to.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Provenance;
use crate::idempotency::store::{Fingerprint, Key};

/// A key, and what is asked for under it.
///
/// NOTE: both, so that a call with another payload neither waits for the right one nor gets it refused: which of them
/// is right is the store's to say.
type Call = (Key, Fingerprint);

/// All that calls are under way for.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<Call, Arc<Flight>>>);

/// What the calls with one key and one payload share.
struct Flight {
    // One permit: who holds it leads. Tokio hands it on in order, and from a waiter that is dropped to the next.
    lead: Arc<Semaphore>,
    answer: OnceLock<Left>,
}

/// A whole answer, for those who waited for it.
#[derive(Clone)]
pub(super) struct Left {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) data: Bytes,
    pub(super) provenance: Provenance,
}

/// A call's part in a flight. The flight ends with its last one.
pub(super) struct Seat {
    flights: Arc<Flights>,
    call: Call,
    flight: Arc<Flight>,
}

/// The lead. Dropped, it goes to the next in the queue.
pub(super) struct Turn {
    // NOTE: dropped before the seat, so that whoever it goes to still finds the flight.
    _permit: OwnedSemaphorePermit,
    seat: Seat,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<Call, Arc<Flight>>> {
        // Nothing in here panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the calls with this key and payload, or is the first.
    pub(super) fn join(self: &Arc<Self>, call: Call) -> Seat {
        let first = || Flight { lead: Arc::new(Semaphore::new(1)), answer: OnceLock::new() };
        let flight = Arc::clone(self.lock().entry(call).or_insert_with(|| Arc::new(first())));
        Seat { flights: Arc::clone(self), call, flight }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}

impl Seat {
    /// Waits for the lead.
    pub(super) async fn turn(self) -> Turn {
        // The semaphore is never closed; if it were, nobody would lead and waiting would be right.
        match Arc::clone(&self.flight.lead).acquire_owned().await {
            Ok(permit) => Turn { _permit: permit, seat: self },
            Err(_closed) => std::future::pending().await,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        // The table's and this one: a new one can only be made under the lock.
        if Arc::strong_count(&self.flight) == 2 {
            flights.remove(&self.call);
        }
    }
}

impl Turn {
    /// What an earlier leader left for those who waited.
    pub(super) fn answer(&self) -> Option<&Left> {
        self.seat.flight.answer.get()
    }

    /// Leaves an answer for those who wait.
    pub(super) fn leave(&self, answer: Left) {
        let _ = self.seat.flight.answer.set(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_lead_passes_on_in_order_over_those_who_gave_up() {
        let flights = Arc::new(Flights::default());
        let seat = || flights.join(([1; 32], [2; 32]));
        let first = seat().turn().await;
        let mut waiting: Vec<_> = (0..3).map(|_| tokio::spawn(seat().turn())).collect();
        tokio::task::yield_now().await;
        waiting.remove(0).abort();
        tokio::task::yield_now().await;
        drop(first);
        for next in waiting {
            drop(next.await.unwrap());
        }
        assert_eq!(flights.len(), 0, "the last one takes the flight with it");
    }

    #[tokio::test]
    async fn another_payload_is_another_flight() {
        let flights = Arc::new(Flights::default());
        let first = flights.join(([1; 32], [2; 32])).turn().await;
        // At once.
        let other = flights.join(([1; 32], [3; 32])).turn().await;
        drop((first, other));
        assert_eq!(flights.len(), 0);
    }
}
