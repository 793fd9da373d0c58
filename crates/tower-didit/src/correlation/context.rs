//! The id of the request being served, carried by the task.

use tokio::task_local;

use super::CorrelationId;

task_local! {
    static CURRENT: CorrelationId;
}

/// The id of the journey that the running task serves, if [`InboundCorrelationLayer`](super::InboundCorrelationLayer)
/// or [`scope`] set one.
///
/// A task spawned with `tokio::spawn` is another task: wrap its future in [`scope`] to take the id along.
pub fn current() -> Option<CorrelationId> {
    CURRENT.try_with(Clone::clone).ok()
}

/// Runs a future under an id.
///
/// # Example
///
/// ```
/// use tower_didit::correlation::{self, CorrelationId};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let id: CorrelationId = "order-7".parse()?;
/// let task = tokio::spawn(correlation::scope(id.clone(), async { correlation::current() }));
/// assert_eq!(task.await?, Some(id));
/// # Ok(())
/// # }
/// ```
pub fn scope<F: Future>(id: CorrelationId, future: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(id, future)
}

/// What [`scope`] returns, nameable; and what runs `call` under the id as well.
pub(super) type Scoped<F> = tokio::task::futures::TaskLocalFuture<CorrelationId, F>;

/// Runs `call`, and the future that it makes, under an id.
pub(super) fn enter<F: Future>(id: CorrelationId, call: impl FnOnce() -> F) -> Scoped<F> {
    let future = CURRENT.sync_scope(id.clone(), call);
    CURRENT.scope(id, future)
}
