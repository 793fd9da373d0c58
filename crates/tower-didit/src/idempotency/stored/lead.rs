//! A granted claim, which is kept while its call is under way and settled however it ends.

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use tokio::{
    runtime::Handle,
    time::{Instant, sleep_until, timeout_at},
};

use super::flight::Turn;
use crate::{
    clock::wall,
    idempotency::store::{Clock, Epoch, Key, Settlement, Store, StoreError, StoreFuture},
};

/// The least that a renewal is waited for: 10 s, a hundred times what a disk takes. A store that is slower than that
/// while the lease is over cannot be asked.
const RENEWAL_TIME: Duration = Duration::from_secs(10);

/// A granted claim. If the call is dropped on the way, it is settled all the same, and only then is the lead passed on.
pub(super) struct Lead {
    store: Arc<dyn Store>,
    clock: Clock,
    key: Key,
    epoch: Epoch,
    lease: Lease,
    /// Whether the call may have been carried out, by this leader or one before it.
    pub(super) in_doubt: bool,
    /// `None` once the claim is settled.
    turn: Option<Turn>,
    /// A settlement that the store has not finished yet.
    settling: Option<StoreFuture<()>>,
}

/// What was to be adopted belongs to another operation.
pub(super) struct Taken;

/// How long nobody else can lead.
pub(super) struct Lease {
    time: Duration,
    until: Instant,
    // The same by the date, which goes on while a machine sleeps.
    until_date: Option<SystemTime>,
}

impl Lease {
    /// NOTE: made before the store is asked for it, so that it never ends later here than there.
    pub(super) fn from_now(time: Duration) -> Self {
        Self { time, until: Instant::now() + time, until_date: wall().checked_add(time) }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until || self.until_date.is_some_and(|until| wall() >= until)
    }

    /// Half-way, so that a store has as long again to answer.
    fn renew_at(&self) -> Instant {
        self.until - self.time / 2
    }
}

impl Lead {
    pub(super) fn new(
        store: Arc<dyn Store>,
        clock: Clock,
        (key, epoch): (Key, Epoch),
        lease: Lease,
        turn: Turn,
    ) -> Self {
        Self { store, clock, key, epoch, lease, in_doubt: false, turn: Some(turn), settling: None }
    }

    /// Does some work as the leader: the lease is renewed in time, and nothing is done while it is over.
    ///
    /// # Errors
    ///
    /// [`StoreError::Fenced`] if somebody else leads by now, another if that cannot be known any more: the work is
    /// dropped.
    pub(super) async fn hold<T>(&mut self, work: impl Future<Output = T>) -> Result<T, StoreError> {
        let mut work = pin!(work);
        let mut due = pin!(sleep_until(self.lease.renew_at()));
        let mut renewing = None;
        poll_fn(|cx| {
            loop {
                if renewing.is_none() && (self.lease.is_over() || Instant::now() >= due.deadline()) {
                    renewing = Some(Box::pin(self.renewal()));
                }
                if let Some(renewal) = &mut renewing
                    && let Poll::Ready(renewed) = renewal.as_mut().poll(cx)
                {
                    renewing = None;
                    match renewed {
                        Ok(lease) => self.lease = lease,
                        Err(error) if matches!(error, StoreError::Fenced) || self.lease.is_over() => {
                            return Poll::Ready(Err(error));
                        }
                        Err(error) => tracing::warn!(%error, "the lease of a call was not renewed"),
                    }
                    // After a failure, as often again as the rest of the lease has room for.
                    let again = Instant::now() + self.lease.time / 8;
                    due.as_mut().reset(self.lease.renew_at().max(again));
                    continue;
                }
                // NOTE: whatever sends something does so when it is polled, so this is the fence.
                if self.lease.is_over() {
                    return Poll::Pending;
                }
                if let Poll::Ready(done) = work.as_mut().poll(cx) {
                    return Poll::Ready(Ok(done));
                }
                if renewing.is_some() || due.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Asks the store whether this is still the leader, and renews the lease.
    ///
    /// # Errors
    ///
    /// As [`hold`](Self::hold).
    pub(super) async fn confirm(&mut self) -> Result<(), StoreError> {
        self.lease = self.renewal().await?;
        Ok(())
    }

    /// The lease anew; it borrows nothing.
    fn renewal(&self) -> impl Future<Output = Result<Lease, StoreError>> + Send + use<> {
        let lease = Lease::from_now(self.lease.time);
        let by = self.lease.until.max(Instant::now() + RENEWAL_TIME);
        let renewed = self.store.renew(self.key, self.epoch, self.clock.now().plus(lease.time));
        async move {
            match timeout_at(by, renewed).await {
                Ok(Ok(true)) => Ok(lease),
                Ok(Ok(false)) => Err(StoreError::Fenced),
                Ok(Err(error)) => Err(error),
                Err(elapsed) => Err(StoreError::Database(Arc::new(elapsed))),
            }
        }
    }

    /// Gives up what somebody else has by now.
    pub(super) fn resign(mut self) -> Option<Turn> {
        self.turn.take()
    }

    /// Writes down what the call came to.
    ///
    /// A store that fails here changes nothing about the answer, which is real: it is logged, and what the store still
    /// has for in flight is looked up by the first call after its lease.
    pub(super) async fn settle(&mut self, settlement: Settlement) -> Option<Turn> {
        // What the server said is never somebody else's.
        let _never_taken = self.write(settlement).await;
        self.turn.take()
    }

    /// As [`settle`](Self::settle), unless it belongs to another operation: then this one is still to be settled.
    pub(super) async fn adopt(&mut self, settlement: Settlement) -> Result<Option<Turn>, Taken> {
        self.write(settlement).await?;
        Ok(self.turn.take())
    }

    async fn write(&mut self, settlement: Settlement) -> Result<(), Taken> {
        // If the store panics, what was done must not be taken for undone.
        self.in_doubt = !matches!(settlement, Settlement::Forget | Settlement::Keep);
        self.settling = Some(self.store.settle(self.key, self.epoch, settlement, self.clock.now()));
        let written = poll_fn(|cx| {
            // NOTE: out of `self` meanwhile, so that one that panics is not polled again when `self` is dropped.
            let Some(mut settling) = self.settling.take() else { return Poll::Ready(Ok(())) };
            let poll = settling.as_mut().poll(cx);
            if poll.is_pending() {
                self.settling = Some(settling);
            }
            poll
        })
        .await;
        match written {
            Ok(()) => Ok(()),
            Err(StoreError::Taken) => Err(Taken),
            Err(error) => {
                tracing::warn!(%error, "the outcome of a call was not written to the idempotency store");
                Ok(())
            }
        }
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
