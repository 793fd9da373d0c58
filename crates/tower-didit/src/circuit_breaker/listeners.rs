//! Who wants to know when a circuit changes.

use std::{
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use didit_api::ServiceGroup;
use tokio::time::Instant;

use super::machine::CircuitState;

/// A change of a circuit's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StateChange {
    /// Whose circuit it is.
    pub group: ServiceGroup,
    /// What it was.
    pub from: CircuitState,
    /// What it is.
    pub to: CircuitState,
}

/// Returns whether it wants to hear more.
type Listener = Arc<dyn Fn(&StateChange) -> bool + Send + Sync>;

/// Tells listeners of changes: outside every lock, one change after another, and whatever one of them does.
#[derive(Default)]
pub(super) struct Listeners {
    listeners: RwLock<Vec<Listener>>,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    changes: VecDeque<StateChange>,
    // Somebody is telling them already, and will tell what is added meanwhile.
    telling: bool,
}

impl Listeners {
    pub(super) fn add(&self, listener: impl Fn(&StateChange) -> bool + Send + Sync + 'static) {
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(listener));
    }

    /// Notes a change. Called under the machine's lock, so that the order is the machine's.
    pub(super) fn note(&self, change: StateChange) {
        self.pending().changes.push_back(change);
    }

    /// Tells what was noted. Called without any lock; a listener may call the circuit breaker itself.
    pub(super) fn tell(&self) {
        {
            let mut pending = self.pending();
            if pending.telling || pending.changes.is_empty() {
                return;
            }
            pending.telling = true;
        }
        loop {
            let mut pending = self.pending();
            let Some(change) = pending.changes.pop_front() else {
                pending.telling = false;
                return;
            };
            drop(pending);
            log(&change);
            let listeners = self.listeners.read().unwrap_or_else(PoisonError::into_inner).clone();
            for listener in listeners {
                // A listener that panics is heard of by the panic hook, and harms nobody else.
                let wants_more = catch_unwind(AssertUnwindSafe(|| listener(&change))).unwrap_or(true);
                if !wants_more {
                    let mut listeners = self.listeners.write().unwrap_or_else(PoisonError::into_inner);
                    listeners.retain(|known| !Arc::ptr_eq(known, &listener));
                }
            }
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log(change: &StateChange) {
    let group = change.group.name();
    match change.to {
        CircuitState::Open { until } => {
            let open = until.saturating_duration_since(Instant::now());
            let open_ms = u64::try_from(open.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(group, open_ms, "circuit opened");
        }
        CircuitState::HalfOpen => tracing::debug!(group, "circuit lets probes through"),
        CircuitState::Closed => tracing::info!(group, "circuit closed"),
        CircuitState::ForcedOpen => tracing::warn!(group, "circuit held open by an operator"),
        CircuitState::ForcedClosed => tracing::warn!(group, "circuit held closed by an operator"),
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listeners").finish_non_exhaustive()
    }
}
