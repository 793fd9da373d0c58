//! What the layers know about the call that is running, without an allocation and without request extensions.
//!
//! The outermost layer of a call owns its state, inside its own future. While that future (or the `call` that makes
//! it) runs, the state lies in a thread-local, where the layers below read and write it; in between it moves back
//! into the future, so two calls on one thread never see each other. An inner service that hands requests to another
//! task simply sees no call: every layer works without one, it only knows less.

use std::{
    cell::RefCell,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    thread::LocalKey,
};
#[cfg(any(feature = "attempt-timeout", feature = "deadline"))]
use std::{ptr, task::Waker};

#[cfg(any(feature = "correlation", feature = "idempotency", feature = "telemetry"))]
use http::HeaderValue;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::Instant;

#[cfg(feature = "telemetry")]
use super::phases::{Phase, Phases};
use super::{CallOptions, CallReport};
#[cfg(any(feature = "correlation", feature = "telemetry"))]
use crate::trace::TraceContext;
use crate::{
    outcome::{NotSent, Outcome},
    pool::{self, Pooled},
};

/// The state of a running call.
#[derive(Debug, Default)]
pub(crate) struct Call {
    pub(crate) report: CallReport,
    /// When the whole call must have ended.
    pub(crate) deadline: Option<Instant>,
    /// Whether a retry layer further out already repeats what is being done.
    pub(crate) retried: bool,
    /// How many attempts of calls of their own that failed within this one may have been carried out.
    #[cfg(feature = "stack")]
    pub(crate) doubts_within: u32,
    /// The trace that the call belongs to.
    #[cfg(any(feature = "correlation", feature = "telemetry"))]
    pub(crate) trace: Option<TraceContext>,
    /// The place of its first attempt in there, and what that is written as, made together with the call's id.
    #[cfg(any(feature = "correlation", feature = "telemetry"))]
    pub(crate) first_place: Option<(TraceContext, HeaderValue)>,
    /// A new idempotency key, made together with the call's id.
    #[cfg(any(feature = "correlation", feature = "idempotency"))]
    pub(crate) spare_key: Option<HeaderValue>,
    /// The call's span, while nobody has taken it on himself to write into it.
    #[cfg(feature = "telemetry")]
    unclaimed_span: Option<tracing::Id>,
    /// How many requests went to the client.
    #[cfg(feature = "telemetry")]
    pub(crate) sent: u32,
    /// What the last attempt was cut off by, if it was.
    #[cfg(feature = "telemetry")]
    pub(crate) cut_off: Option<&'static str>,
    /// What its time goes into, if anybody wants to know.
    #[cfg(feature = "telemetry")]
    phases: Option<Box<Phases>>,
    wants_report: bool,
    // When the layers that are running began to, once one of them has asked.
    now: Option<Instant>,
    // When the first timer ends that was polled since, and whom it will wake.
    #[cfg(any(feature = "attempt-timeout", feature = "deadline"))]
    timed: Option<(Instant, Woken)>,
}

impl Call {
    /// Notes what an attempt came to.
    pub(crate) fn attempted(&mut self, outcome: Outcome) {
        self.report.doubts += u32::from(outcome == Outcome::Ambiguous);
        self.report.held_back += u32::from(matches!(outcome, Outcome::NotSent(NotSent::Local { .. })));
        self.report.outcome = Some(outcome);
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Box<Call>>> = const { RefCell::new(None) };
    // Boxed, because every layer's future has room for one, and only that of the outermost holds it: in place, they would
    // be half of what a call copies about.
    static SPARE: pool::Spare<Call> = const { RefCell::new(Vec::new()) };
}

impl Pooled for Call {
    fn spare() -> &'static LocalKey<pool::Spare<Self>> {
        &SPARE
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Reads or writes the running call, if there is one. While a thread ends there is none, though futures may be dropped.
pub(crate) fn with<R>(visit: impl FnOnce(&mut Call) -> R) -> Option<R> {
    CURRENT.try_with(|current| current.borrow_mut().as_deref_mut().map(visit)).ok().flatten()
}

/// When the running call must have ended.
pub(crate) fn deadline() -> Option<Instant> {
    with(|call| call.deadline).flatten()
}

/// What time it is for a layer on the call's way in: the clock is read once for all of them.
///
/// It is the time at which the first of them asked, so it is never ahead of the clock, and never older than what the task
/// has been doing without a pause. What a *response* means is measured by a clock read after it came.
#[cfg(any(feature = "attempt-timeout", feature = "circuit-breaker", feature = "deadline", feature = "pacing"))]
pub(crate) fn now() -> Instant {
    with(|call| *call.now.get_or_insert_with(Instant::now)).unwrap_or_else(Instant::now)
}

/// Whom a waker wakes, as far as two can be told to be the same: its addresses.
#[cfg(any(feature = "attempt-timeout", feature = "deadline"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Woken([usize; 2]);

#[cfg(any(feature = "attempt-timeout", feature = "deadline"))]
impl Woken {
    fn by(waker: &Waker) -> Self {
        Self([waker.data().addr(), ptr::from_ref(waker.vtable()).addr()])
    }
}

/// Whether a timer further in wakes the same task at an instant or before it, so that none is needed for that: to register
/// one costs more than all else that a layer does.
#[cfg(any(feature = "attempt-timeout", feature = "deadline"))]
pub(crate) fn is_timed_by(at: Instant, waker: &Waker) -> bool {
    with(|call| call.timed).flatten().is_some_and(|(timed, woken)| timed <= at && woken == Woken::by(waker))
}

/// Notes that a timer waits for this instant.
#[cfg(any(feature = "attempt-timeout", feature = "deadline"))]
pub(crate) fn timer_ends(at: Instant, waker: &Waker) {
    let woken = Woken::by(waker);
    with(|call| {
        // Of timers that wake two tasks, the later to be polled counts: it is further out.
        let known = call.timed.filter(|(_, known)| *known == woken);
        call.timed = Some((known.map_or(at, |(timed, _)| timed.min(at)), woken));
    });
}

/// Notes that a timer will not wake anybody: perhaps it was the one that was relied on.
#[cfg(any(feature = "attempt-timeout", feature = "deadline"))]
pub(crate) fn timer_is_gone() {
    with(|call| call.timed = None);
}

/// Puts the running call under a deadline of its own while the guard lives, if that is earlier than the call's.
#[cfg(feature = "deadline")]
pub(crate) fn until(at: Instant) -> Until {
    Until(with(|call| call.deadline.replace(call.deadline.map_or(at, |outer| outer.min(at)))).flatten())
}

/// Restores the deadline that was there before; see [`until`].
#[cfg(feature = "deadline")]
pub(crate) struct Until(Option<Instant>);

#[cfg(feature = "deadline")]
impl Drop for Until {
    fn drop(&mut self) {
        with(|call| call.deadline = self.0);
    }
}

/// How many attempts of calls of their own that failed within the running one may have been carried out.
#[cfg(feature = "idempotency")]
pub(crate) fn doubts_within() -> u32 {
    #[cfg(feature = "stack")]
    return with(|call| call.doubts_within).unwrap_or_default();
    #[cfg(not(feature = "stack"))]
    0
}

/// Marks what belongs to an attempt as repeated further out while the guard lives; afterwards it is as before, so that the
/// next call within the running one is repeated too.
#[cfg(feature = "retry")]
pub(crate) fn repeating() -> Repeating {
    Repeating(with(|call| mem::replace(&mut call.retried, true)).unwrap_or_default())
}

/// Restores what was so before; see [`repeating`].
#[cfg(feature = "retry")]
pub(crate) struct Repeating(bool);

#[cfg(feature = "retry")]
impl Drop for Repeating {
    fn drop(&mut self) {
        with(|call| call.retried = self.0);
    }
}

/// Notes by what a layer cut off what was under way.
pub(crate) fn cut_off(_by: impl Into<Option<&'static str>>) {
    #[cfg(feature = "telemetry")]
    with(|call| call.cut_off = _by.into());
}

/// By what the last attempt was cut off, if it was.
#[cfg(feature = "retry")]
pub(crate) fn cut_off_by() -> Option<&'static str> {
    #[cfg(feature = "telemetry")]
    return with(|call| call.cut_off).flatten();
    #[cfg(not(feature = "telemetry"))]
    None
}

/// Offers the span of the running call to the layer around the call within, or takes the offer back.
#[cfg(feature = "correlation")]
pub(crate) fn offer_span(_span: Option<&tracing::Span>) {
    #[cfg(feature = "telemetry")]
    with(|call| call.unclaimed_span = _span.and_then(tracing::Span::id));
}

/// Whether this is the span of the running call, and nobody else writes into it: only the first who asks does.
#[cfg(feature = "telemetry")]
pub(crate) fn claims_span(span: &tracing::Span) -> bool {
    let offered = with(|call| call.unclaimed_span.take()).flatten();
    offered.is_some_and(|offered| span.id() == Some(offered))
}

/// Notes that the running call waits for its next attempt.
pub(crate) fn backs_off() {
    #[cfg(feature = "telemetry")]
    enter(Phase::Backoff, None);
}

/// Notes that the wait is over.
pub(crate) fn backed_off() {
    #[cfg(feature = "telemetry")]
    enter(Phase::Queue, None);
}

/// Notes what the running call does from now on. The clock is read only if somebody wants to know.
#[cfg(feature = "telemetry")]
pub(crate) fn enter(phase: Phase, now: Option<Instant>) {
    with_phases(|phases| phases.enter(phase, now.unwrap_or_else(Instant::now)));
}

/// Reads or writes the phases of the running call, if somebody wants to know them.
#[cfg(feature = "telemetry")]
pub(crate) fn with_phases<R>(visit: impl FnOnce(&mut Phases) -> R) -> Option<R> {
    with(|call| call.phases.as_deref_mut().map(visit)).flatten()
}

/// Lends phases to the running call while the guard lives.
#[cfg(feature = "telemetry")]
pub(crate) fn lend_phases(mine: &mut Option<Box<Phases>>) -> LentPhases<'_> {
    with(|call| mem::swap(&mut call.phases, mine));
    LentPhases(mine)
}

/// Takes the phases back, even after a panic; see [`lend_phases`].
#[cfg(feature = "telemetry")]
pub(crate) struct LentPhases<'a>(&'a mut Option<Box<Phases>>);

#[cfg(feature = "telemetry")]
impl Drop for LentPhases<'_> {
    fn drop(&mut self) {
        with(|call| mem::swap(&mut call.phases, self.0));
    }
}

/// Makes this the running call, or none; returns what ran before.
fn replace(call: Option<Box<Call>>) -> Option<Box<Call>> {
    CURRENT.try_with(|current| current.replace(call)).ok().flatten()
}

/// A layer at work on a request, within a call: from [`enter`](Self::enter) to [`around`](Self::around).
///
/// A guard and no closure: what a closure takes along is copied into it, and that would be the whole request at each layer.
#[must_use]
pub(crate) struct Scope {
    // Whether the call was opened here.
    opened: bool,
    // What ran before it.
    outer: Option<Box<Call>>,
}

impl Scope {
    /// Joins the running call, or opens one if none is running.
    pub(crate) fn enter<B>(request: &Request<B>) -> Self {
        if with(|_| ()).is_some() {
            return Self { opened: false, outer: None };
        }
        Self::open(request)
    }

    /// Opens a call of its own, even within another: a stack that is used inside the client of another stack, to fetch a
    /// token say, repeats and reports for itself. It has no more time than the call around it.
    pub(crate) fn open<B>(request: &Request<B>) -> Self {
        let mut call = pool::take::<Call>();
        call.wants_report = request.extensions().get::<CallOptions>().is_some_and(|options| options.report);
        call.deadline = deadline();
        Self::opened(call)
    }

    /// Opens a call of its own, on the journey of whatever call is running.
    #[cfg(feature = "idempotency")]
    pub(crate) fn apart() -> Self {
        let mut own = pool::take::<Call>();
        with(|call| {
            own.report.correlation_id.clone_from(&call.report.correlation_id);
            #[cfg(any(feature = "correlation", feature = "telemetry"))]
            own.trace.clone_from(&call.trace);
        });
        Self::opened(own)
    }

    fn opened(call: Box<Call>) -> Self {
        Self { opened: true, outer: replace(Some(call)) }
    }

    /// Ends the scope; `inner`, which was made in it, goes on in the same call.
    #[inline]
    pub(crate) fn around<F>(mut self, inner: F) -> InCall<F> {
        InCall { call: if self.opened { self.leave() } else { None }, inner }
    }

    // Out of line, because most layers join a call.
    #[inline(never)]
    fn leave(&mut self) -> Option<Box<Call>> {
        self.opened = false;
        replace(self.outer.take())
    }
}

/// Leaves the thread as it was, even after a panic.
impl Drop for Scope {
    fn drop(&mut self) {
        if self.opened {
            self.leave();
        }
    }
}

pin_project! {
    /// A future that belongs to a call, and owns the call's state if it is the outermost of its layers.
    #[derive(Debug)]
    pub(crate) struct InCall<F> {
        call: Option<Box<Call>>,
        #[pin]
        inner: F,
    }
}

impl<F> InCall<F> {
    /// Takes the report out of a call that failed, if this future owns it, and tells the call around it of its doubts: an
    /// error's type hides its report, and whoever sees the error has to know.
    #[cfg(feature = "stack")]
    pub(crate) fn take_report(self: Pin<&mut Self>) -> Option<CallReport> {
        let mut call = self.project().call.take()?;
        let report = mem::take(&mut call.report);
        pool::put_back(call);
        with(|outer| outer.doubts_within += report.doubts);
        Some(report)
    }
}

/// The state of a call while its future is polled.
struct Lent<'a>(&'a mut Option<Box<Call>>);

impl<'a> Lent<'a> {
    fn new(state: &'a mut Option<Box<Call>>) -> Self {
        if let Some(call) = state {
            // Time has passed since the task last ran, and what it waits for now is not known yet.
            call.now = None;
            #[cfg(any(feature = "attempt-timeout", feature = "deadline"))]
            {
                call.timed = None;
            }
        }
        *state = replace(state.take());
        Self(state)
    }
}

/// Takes the state back, even after a panic.
impl Drop for Lent<'_> {
    fn drop(&mut self) {
        *self.0 = replace(self.0.take());
    }
}

impl<F, B, E> Future for InCall<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.call.is_none() {
            return this.inner.poll(cx);
        }
        let lent = Lent::new(this.call);
        let result = ready!(this.inner.poll(cx));
        drop(lent);
        Poll::Ready(result.map(|mut response| {
            if let Some(mut call) = this.call.take() {
                if call.wants_report || call.report.is_eventful() {
                    response.extensions_mut().insert(mem::take(&mut call.report));
                }
                pool::put_back(call);
            }
            response
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth() -> Option<u32> {
        with(|call| {
            call.report.attempts += 1;
            call.report.attempts
        })
    }

    #[tokio::test]
    async fn two_calls_on_one_thread_never_see_each_other() {
        let call = || {
            Scope::enter(&Request::new(())).around(async {
                depth();
                tokio::task::yield_now().await;
                depth();
                tokio::task::yield_now().await;
                Ok::<_, std::convert::Infallible>(Response::new(depth()))
            })
        };
        let (one, other) = tokio::join!(call(), call());
        assert_eq!(one.unwrap().into_body(), Some(3));
        assert_eq!(other.unwrap().into_body(), Some(3));
        assert_eq!(depth(), None, "nothing is left behind");
    }

    #[cfg(any(feature = "attempt-timeout", feature = "circuit-breaker", feature = "deadline", feature = "pacing"))]
    #[tokio::test(start_paused = true)]
    async fn layers_on_the_way_in_see_one_time_and_those_after_a_pause_another() {
        let scope = Scope::enter(&Request::new(()));
        let entered = (now(), now());
        let call = scope.around(async move {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            Ok::<_, std::convert::Infallible>(Response::new((entered, now())))
        });
        let ((first, second), later) = call.await.unwrap().into_body();
        assert_eq!(first, second);
        assert_eq!(later - first, std::time::Duration::from_secs(1));
        assert_eq!(now(), Instant::now(), "without a call it is the clock");
    }

    #[tokio::test]
    async fn a_panic_inside_a_call_leaves_the_thread_clean() {
        let panicked = std::panic::catch_unwind(|| {
            let _scope = Scope::enter(&Request::new(()));
            assert!(depth().is_some());
            panic!("inside")
        });
        assert!(panicked.is_err());
        assert_eq!(depth(), None);
    }

    #[tokio::test]
    async fn an_eventful_call_reports_and_a_quiet_one_only_when_asked() {
        async fn run(request: Request<()>, attempts: u32) -> Option<CallReport> {
            let call = Scope::enter(&request).around(async move {
                with(|call| call.report.attempts = attempts);
                Ok::<_, std::convert::Infallible>(Response::new(()))
            });
            call.await.unwrap().extensions_mut().remove()
        }
        assert!(run(Request::new(()), 1).await.is_none());
        assert_eq!(run(Request::new(()), 2).await.map(|report| report.attempts()), Some(2));
        let asked = Request::builder().extension(CallOptions::new().report()).body(()).unwrap();
        assert_eq!(run(asked, 1).await.map(|report| report.attempts()), Some(1));
    }
}
