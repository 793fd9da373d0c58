//! The journey being served, carried by the task.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::{
    task::{JoinHandle, futures::TaskLocalFuture},
    task_local,
};
use tracing::{Instrument, instrument::Instrumented};

use super::{CorrelationId, TraceContext};

/// What a task knows of the journey that it serves.
#[derive(Clone, Debug)]
pub(super) struct Journey {
    pub(super) id: CorrelationId,
    pub(super) trace: Option<TraceContext>,
}

task_local! {
    static CURRENT: Journey;
}

/// The id of the journey that the running task serves, if [`InboundCorrelationLayer`](super::InboundCorrelationLayer)
/// or [`scope`] set one.
///
/// A task spawned with `tokio::spawn` is another task and knows nothing of it; [`spawn`] takes it along.
pub fn current() -> Option<CorrelationId> {
    CURRENT.try_with(|journey| journey.id.clone()).ok()
}

/// The trace that the running task's journey belongs to, if a request that is being served brought or began one.
pub fn current_trace() -> Option<TraceContext> {
    CURRENT.try_with(|journey| journey.trace.clone()).ok().flatten()
}

/// Runs a future under an id, within the trace of the running task and in a span of its own, so that what it logs has the
/// id. Within a request that is being served, the lines have the ids of both.
///
/// # Example
///
/// ```
/// use tower_didit::correlation::{self, CorrelationId};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let id: CorrelationId = "order-7".parse()?;
/// let found = correlation::scope(id.clone(), async { correlation::current() }).await;
/// assert_eq!(found, Some(id));
/// # Ok(())
/// # }
/// ```
pub fn scope<F: Future>(id: CorrelationId, future: F) -> impl Future<Output = F::Output> {
    let trace = current_trace();
    let span = tracing::info_span!(
        "scope",
        correlation_id = id.as_str(),
        trace_id = trace.as_ref().map(|trace| display(trace.trace_id())),
    );
    CURRENT.scope(Journey { id, trace }, future).instrument(span)
}

/// The same without a span, for whoever opens one that says more.
#[cfg(feature = "webhook")]
pub(crate) fn unlogged_scope<F: Future>(id: CorrelationId, future: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(Journey { id, trace: current_trace() }, future)
}

/// Spawns a task that belongs to the same journey as this one: `tokio::spawn`, with the future taken
/// [along](InCorrelation::in_correlation).
///
/// # Panics
///
/// As `tokio::spawn` does, outside of a runtime.
///
/// # Example
///
/// ```
/// use tower_didit::correlation::{self, CorrelationId};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let id: CorrelationId = "order-7".parse()?;
/// let task = async { correlation::spawn(async { correlation::current() }).await };
/// assert_eq!(correlation::scope(id.clone(), task).await?, Some(id));
/// # Ok(())
/// # }
/// ```
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
    F::Output: 'static,
{
    tokio::spawn(future.in_correlation())
}

/// Takes a future along on the journey of the task that makes it, wherever it is polled.
pub trait InCorrelation: Future + Sized {
    /// The future under the running task's id, in its trace and in its current span. For `JoinSet::spawn`,
    /// `spawn_local`, a channel, or whatever else hands futures to other tasks.
    fn in_correlation(self) -> Carried<Self> {
        let inner = match CURRENT.try_with(Clone::clone) {
            Ok(journey) => Scope::Journey { inner: CURRENT.scope(journey, self) },
            Err(_) => Scope::None { inner: self },
        };
        Carried { inner: inner.in_current_span() }
    }
}

impl<F: Future> InCorrelation for F {}

pin_project! {
    /// A future on the journey of the task that made it; see [`InCorrelation`].
    #[derive(Debug)]
    pub struct Carried<F> {
        #[pin]
        inner: Instrumented<Scope<F>>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = ScopeProjection]
    enum Scope<F> {
        // The task that made it served a journey.
        Journey { #[pin] inner: TaskLocalFuture<Journey, F> },
        // It served none.
        None { #[pin] inner: F },
    }
}

impl<F: Future> Future for Carried<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().inner.poll(cx)
    }
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project() {
            ScopeProjection::Journey { inner } => inner.poll(cx),
            ScopeProjection::None { inner } => inner.poll(cx),
        }
    }
}

/// A future on a journey, whoever polls it.
pub(super) type Scoped<F> = TaskLocalFuture<Journey, F>;

/// Runs `call`, and the future that it makes, on a journey.
pub(super) fn enter<F: Future>(journey: Journey, call: impl FnOnce() -> F) -> Scoped<F> {
    let future = CURRENT.sync_scope(journey.clone(), call);
    CURRENT.scope(journey, future)
}
