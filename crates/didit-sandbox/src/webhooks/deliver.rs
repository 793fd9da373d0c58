//! The task that takes one copy of an event to its destination.

use std::{sync::Weak, time::Duration};

use super::{Job, destination::NoAnswer};
use crate::service::Shared;

/// How long Didit waits for an answer (Didit's webhooks page).
const TIMEOUT: Duration = Duration::from_secs(5);

/// Does a job at its time. Ends when the sandbox is gone.
pub(crate) async fn deliver(sandbox: Weak<Shared>, job: Job) {
    let (letter, due) = match job {
        Job::Deliver { letter, age, due } => (Some((letter, age)), due),
        Job::Wake { due } => (None, due),
    };
    let Some(wait) = sandbox.upgrade().map(|shared| due.saturating_sub(shared.now())) else { return };
    tokio::time::sleep(wait).await;
    let Some(letter) = letter else {
        // Looking at it lets happen what is due.
        if let Some(shared) = sandbox.upgrade() {
            drop(shared.world());
        }
        return;
    };
    for made in 1.. {
        // The sandbox is held for no longer than it is looked at, so that dropping it ends the delivery.
        let attempt = sandbox.upgrade().and_then(|shared| shared.world().begin_webhook(letter, made == 1));
        let Some(attempt) = attempt else { return };
        let answer = tokio::time::timeout(TIMEOUT, (attempt.sender)(attempt.request)).await;
        let answer = answer.unwrap_or(Err(NoAnswer));
        let Some(shared) = sandbox.upgrade() else { return };
        let again = shared.world().outbox.ended(letter, attempt.number, made, answer);
        drop(shared);
        match again {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return,
        }
    }
}
