//! A granted claim, which is settled however it ends.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::runtime::Handle;

use super::flight::Turn;
use crate::idempotency::store::{Clock, Epoch, Key, Settlement, Store, StoreFuture};

/// A granted claim. If the call is dropped on the way, it is settled all the same, and only then is the lead passed on.
pub(super) struct Lead {
    store: Arc<dyn Store>,
    clock: Clock,
    key: Key,
    epoch: Epoch,
    /// Whether the call may have been carried out, by this leader or one before it.
    pub(super) in_doubt: bool,
    /// `None` once the claim is settled.
    turn: Option<Turn>,
    /// A settlement that the store has not finished yet.
    settling: Option<StoreFuture<()>>,
}

impl Lead {
    pub(super) fn new(store: Arc<dyn Store>, clock: Clock, key: Key, epoch: Epoch, in_doubt: bool, turn: Turn) -> Self {
        Self { store, clock, key, epoch, in_doubt, turn: Some(turn), settling: None }
    }

    /// Writes down what the call came to.
    ///
    /// A store that fails here changes nothing about the answer, which is real: it is logged, and what the store still
    /// has for in flight is looked up by the first call after its lease.
    pub(super) async fn settle(mut self, settlement: Settlement) -> Option<Turn> {
        // If the store panics, what was done must not be taken for undone.
        self.in_doubt = matches!(settlement, Settlement::Done(_) | Settlement::Unknown);
        self.settling = Some(self.store.settle(self.key, self.epoch, settlement, self.clock.now()));
        let settled = poll_fn(|cx| {
            // NOTE: out of `self` meanwhile, so that one that panics is not polled again when `self` is dropped.
            let Some(mut settling) = self.settling.take() else { return Poll::Ready(Ok(())) };
            let poll = settling.as_mut().poll(cx);
            if poll.is_pending() {
                self.settling = Some(settling);
            }
            poll
        });
        if let Err(error) = settled.await {
            tracing::warn!(%error, "the outcome of a call was not written to the idempotency store");
        }
        self.turn.take()
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let Some(turn) = self.turn.take() else { return };
        // One that is under way is finished in the background: it says more than can be said here.
        let mut settled = self.settling.take().unwrap_or_else(|| {
            let settlement = if self.in_doubt { Settlement::Unknown } else { Settlement::Forget };
            self.store.settle(self.key, self.epoch, settlement, self.clock.now())
        });
        // NOTE: a store takes a settlement over when it is first polled; a store in memory is done with it then.
        if let Poll::Pending = settled.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                let _ = settled.await;
                drop(turn);
            });
        }
    }
}
