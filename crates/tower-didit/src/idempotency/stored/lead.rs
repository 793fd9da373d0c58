//! A granted claim, which is settled however it ends.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::runtime::Handle;

use super::flight::Turn;
use crate::idempotency::store::{Clock, Epoch, Key, Settlement, Store};

/// A granted claim. If the call is dropped on the way, it is settled all the same, and only then is the lead passed on.
#[derive(Debug)]
pub(super) struct Lead {
    store: Arc<dyn Store>,
    clock: Clock,
    key: Key,
    epoch: Epoch,
    /// Whether the call may have been carried out, by this leader or one before it.
    pub(super) in_doubt: bool,
    /// `None` once the claim is settled.
    turn: Option<Turn>,
}

impl Lead {
    pub(super) fn new(store: Arc<dyn Store>, clock: Clock, key: Key, epoch: Epoch, in_doubt: bool, turn: Turn) -> Self {
        Self { store, clock, key, epoch, in_doubt, turn: Some(turn) }
    }

    /// Writes down what the call came to.
    ///
    /// A store that fails here changes nothing about the answer, which is real: it is logged, and what the store still
    /// has for in flight is looked up the next time.
    pub(super) async fn settle(mut self, settlement: Settlement) -> Option<Turn> {
        let settled = self.store.settle(self.key, self.epoch, settlement, self.clock.now());
        if let Err(error) = settled.await {
            tracing::warn!(%error, "the outcome of a call was not written to the idempotency store");
        }
        self.turn.take()
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let Some(turn) = self.turn.take() else { return };
        let settlement = if self.in_doubt { Settlement::Unknown } else { Settlement::Forget };
        let mut settled = self.store.settle(self.key, self.epoch, settlement, self.clock.now());
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
