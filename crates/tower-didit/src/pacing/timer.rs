//! Who keeps time for those who wait: one task for each ledger and runtime, and none while nobody waits.
//!
//! # Why one for each runtime
//!
//! A layer may be shared by several runtimes, and one that is not driven, or that is shut down, must not hold up calls of
//! another. So every call sees to it, whenever it is polled, that a task of its own runtime keeps time; they all look
//! after the whole ledger, and whoever is first serves. A task that ends before its time, with its runtime, wakes everybody
//! who waits, and whoever is still driven begins anew.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    runtime::Handle,
    time::{Instant, Sleep, sleep_until},
};

use super::pacer::Pacer;

/// Ticks a ledger whenever something is due, until nobody waits any more.
#[derive(Debug)]
struct Timekeeper {
    pacer: Arc<Pacer>,
    // Which of the ledger's it is.
    number: u64,
    sleep: Pin<Box<Sleep>>,
}

/// Sees to it that somebody keeps time for a ledger on this runtime.
///
/// # Panics
///
/// As `tokio::time::sleep`, outside of a runtime with a timer.
pub(super) fn keep_time(pacer: &Arc<Pacer>) {
    let runtime = Handle::current();
    if pacer.is_kept_by(runtime.id()) {
        return;
    }
    // Before anybody relies on it: where there is no timer, this panics.
    let sleep = Box::pin(sleep_until(Instant::now()));
    if let Some(number) = pacer.engage(runtime.id()) {
        // It belongs to no call: not to the span of the one that happened to come first.
        drop(runtime.spawn(Timekeeper { pacer: Arc::clone(pacer), number, sleep }));
    }
}

impl Future for Timekeeper {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            match this.pacer.tick(this.number, cx.waker(), Instant::now()) {
                Tick::Over => return Poll::Ready(()),
                // It is woken when there is something to wait for.
                Tick::Until(None) => return Poll::Pending,
                Tick::Until(Some(at)) => {
                    if this.sleep.deadline() != at {
                        this.sleep.as_mut().reset(at);
                    }
                    if this.sleep.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl Drop for Timekeeper {
    fn drop(&mut self) {
        self.pacer.dismiss(self.number);
    }
}

/// What a timekeeper has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tick {
    /// Tick again at this instant, or when woken.
    Until(Option<Instant>),
    /// Nothing: nobody waits.
    Over,
}
