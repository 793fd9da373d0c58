//! The trace that a call belongs to, as W3C Trace Context (level 2) carries it: one trace id on every hop, and a parent
//! id for each request.
//!
//! Pure: headers go in, headers come out. Who continues a trace when is decided where it is used.

mod parent;
mod state;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    num::{NonZeroU64, NonZeroU128},
};

use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) use self::parent::LENGTH;
use crate::random::Randomness;

/// The header that names trace and parent.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header that carries what the vendors along the way need.
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// The header that carries what applications along the way told one another; never sent.
pub(crate) const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// The place of a request in a trace: what `traceparent` and `tracestate` say.
///
/// Follows [W3C Trace Context level 2]. Whatever does not is treated as absent, as the recommendation asks.
///
/// [W3C Trace Context level 2]: https://www.w3.org/TR/trace-context-2/
#[derive(Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: NonZeroU128,
    parent_id: NonZeroU64,
    flags: u8,
    state: Option<HeaderValue>,
}

impl TraceContext {
    /// The caller may have recorded its part of the trace.
    const SAMPLED: u8 = 0b01;

    /// The right-most 7 bytes of the trace id are random.
    const RANDOM: u8 = 0b10;

    /// Reads the headers of a request; `None` if there is no `traceparent`, more than one, or one that is not valid.
    ///
    /// A `tracestate` that is not valid is left out, and one of more than 512 characters is shortened: entries of more
    /// than 128 characters go first, then those at the end.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let parent = parents.next()?;
        if parents.next().is_some() {
            return None;
        }
        let context = parent::parse(parent.as_bytes())?;
        Some(Self { state: state::read(headers.get_all(TRACESTATE).iter()), ..context })
    }

    /// Starts a trace whose first request is made as a [`child`](Self::child). `sampled` says whether its beginning is
    /// recorded.
    pub(crate) fn root(random: &Randomness, sampled: bool) -> Self {
        let [high, low] = random.many();
        let id = u128::from(high) << 64 | u128::from(low);
        Self {
            trace_id: NonZeroU128::new(id).unwrap_or(NonZeroU128::MIN),
            // Drawn with each child.
            parent_id: NonZeroU64::MIN,
            flags: Self::RANDOM | if sampled { Self::SAMPLED } else { 0 },
            state: None,
        }
    }

    /// The same trace with a new parent id, for the next request.
    pub(crate) fn child(&self, random: &Randomness) -> Self {
        Self { parent_id: NonZeroU64::new(random.bits()).unwrap_or(NonZeroU64::MIN), ..self.clone() }
    }

    /// Puts the context into the headers of a request, in the place of any other. `traceparent` is its value if that was
    /// made before.
    pub(crate) fn write_to(&self, headers: &mut HeaderMap, traceparent: Option<HeaderValue>) {
        headers.insert(TRACEPARENT, traceparent.unwrap_or_else(|| self.to_traceparent()));
        match &self.state {
            Some(state) => drop(headers.insert(TRACESTATE, state.clone())),
            // Nearly always there is none: a walk over the names costs less than the look-up for a removal.
            None if headers.keys().any(|name| *name == TRACESTATE) => drop(headers.remove(TRACESTATE)),
            None => {}
        }
    }

    /// The id of the trace: 32 lower-case hexadecimal digits.
    pub fn trace_id(&self) -> impl fmt::Display + use<> {
        Hex { value: self.trace_id.get(), width: 32 }
    }

    /// The id of the request within the trace: 16 lower-case hexadecimal digits.
    pub fn parent_id(&self) -> impl fmt::Display + use<> {
        Hex { value: self.parent_id.get().into(), width: 16 }
    }

    /// Whether whoever sent this may have recorded it.
    pub fn is_sampled(&self) -> bool {
        self.flags & Self::SAMPLED != 0
    }

    /// Whether the trace id is known to be random enough to sample by it.
    pub fn is_random(&self) -> bool {
        self.flags & Self::RANDOM != 0
    }

    /// The value of `traceparent`, in version 00.
    pub fn to_traceparent(&self) -> HeaderValue {
        // Not shared from the start, as ids are: it is of one request and seldom cloned. Digits and hyphens are always a
        // header value.
        HeaderValue::from_bytes(&self.text()).unwrap_or(HeaderValue::from_static("unavailable"))
    }

    /// The value of `traceparent`, as text.
    pub(crate) fn text(&self) -> [u8; LENGTH] {
        parent::write(self)
    }

    /// The value of `tracestate`, if there is anything in it.
    pub fn tracestate(&self) -> Option<&HeaderValue> {
        self.state.as_ref()
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What vendors put into the state is theirs.
        write!(f, "TraceContext({}-{}-{:02x})", self.trace_id(), self.parent_id(), self.flags)
    }
}

struct Hex {
    value: u128,
    width: usize,
}

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0width$x}", self.value, width = self.width)
    }
}

/// Takes out of a request what its application put there: the context, if it is valid, and what must not be sent on.
///
/// One walk over the names instead of three look-ups: nearly always there is nothing.
pub(crate) fn take_out(headers: &mut HeaderMap) -> Option<TraceContext> {
    let ours = |name: &HeaderName| [TRACEPARENT, TRACESTATE, BAGGAGE].contains(name);
    if !headers.keys().any(ours) {
        return None;
    }
    let context = TraceContext::from_headers(headers);
    for name in [TRACEPARENT, TRACESTATE, BAGGAGE] {
        headers.remove(name);
    }
    context
}

/// Between the spans of `tracing` and the ids of OpenTelemetry, where its layer stands in the subscriber.
#[cfg(feature = "opentelemetry")]
mod interop {
    use opentelemetry::{
        Context,
        trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
    };
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    use super::{HeaderValue, NonZeroU64, NonZeroU128, TraceContext};

    impl TraceContext {
        /// The place of a span that OpenTelemetry knows.
        pub(crate) fn of_span(span: &tracing::Span) -> Option<Self> {
            if span.is_disabled() {
                return None;
            }
            let context = span.context();
            let span = context.span();
            let known = span.span_context();
            let state = known.trace_state().header();
            Some(Self {
                trace_id: NonZeroU128::new(u128::from_be_bytes(known.trace_id().to_bytes()))?,
                parent_id: NonZeroU64::new(u64::from_be_bytes(known.span_id().to_bytes()))?,
                flags: known.trace_flags().to_u8() & (Self::SAMPLED | Self::RANDOM),
                state: if state.is_empty() { None } else { HeaderValue::try_from(state).ok() },
            })
        }

        /// Makes a span that has just begun continue this trace.
        pub(crate) fn adopt(&self, span: &tracing::Span) {
            let state = self.state.as_ref().and_then(|state| state.to_str().ok()?.parse().ok());
            let parent = SpanContext::new(
                TraceId::from_bytes(self.trace_id.get().to_be_bytes()),
                SpanId::from_bytes(self.parent_id.get().to_be_bytes()),
                TraceFlags::new(self.flags),
                true,
                state.unwrap_or(TraceState::NONE),
            );
            // Without OpenTelemetry's layer there is nothing that could continue it.
            let _ = span.set_parent(Context::new().with_remote_span_context(parent));
        }
    }
}

#[cfg(not(feature = "opentelemetry"))]
impl TraceContext {
    pub(crate) fn of_span(_span: &tracing::Span) -> Option<Self> {
        None
    }

    #[cfg(feature = "correlation")]
    pub(crate) fn adopt(&self, _span: &tracing::Span) {}
}
