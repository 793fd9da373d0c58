//! Whom a call waits for: the server, or whoever sends its body.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Says that a call waits for the rest of its own request's body; in the request's extensions.
///
/// A body that comes from elsewhere, such as a proxy's, says so whenever it has nothing to give. A call whose time runs
/// out meanwhile then says nothing about the server, and the circuit breaker learns nothing from it.
///
/// All clones are one.
#[derive(Clone, Debug, Default)]
pub struct SenderWait(Arc<AtomicBool>);

impl SenderWait {
    /// Says whether the body is waited for.
    pub fn set(&self, waits: bool) {
        self.0.store(waits, Ordering::Relaxed);
    }

    /// Whether the body is waited for.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Ends the source chain of a timeout that ran out while the rest of the request's body was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rest of the request's body was waited for")]
pub struct SenderSlow;
