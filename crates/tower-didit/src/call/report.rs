//! What a caller may learn about one call afterwards.

use std::time::Duration;

use didit_api::RetryClass;
use http::{Method, StatusCode};

use super::{CorrelationId, IdempotencyKey};
use crate::outcome::{Outcome, Settled, repeated};

/// Where a response comes from, in its extensions and in the [`CallReport`], if the server did not give it to this call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Provenance {
    /// From the store: status, `Content-Type` and body of an earlier answer. `idempotency-replayed` is set.
    Replayed,
    /// From a call with the same key that was under way at the same time. `idempotency-replayed` is set.
    Coalesced,
    /// From a look-up, after the answer was lost. `idempotency-adopted` is set.
    Adopted,
}

/// How one call went: the names it ran under, how often it was sent, and what it waited for.
///
/// Found in the extensions of the response, and in the error of the assembled stack.
#[derive(Clone, Debug, Default)]
pub struct CallReport {
    pub(crate) correlation_id: Option<CorrelationId>,
    pub(crate) idempotency_key: Option<IdempotencyKey>,
    pub(crate) attempts: u32,
    pub(crate) held_back: u32,
    pub(crate) queued: Duration,
    pub(crate) backed_off: Duration,
    pub(crate) outcome: Option<Outcome>,
    /// How many attempts may have been carried out with no answer to show for it.
    pub(crate) doubts: u32,
    pub(crate) provenance: Option<Provenance>,
    /// What the route table knows of the call, kept with the first doubt.
    pub(crate) route: Option<(Method, RetryClass)>,
    pub(crate) settled: Option<Settled>,
}

impl CallReport {
    /// The name of the journey, if the correlation layer is in the stack.
    pub fn correlation_id(&self) -> Option<&CorrelationId> {
        self.correlation_id.as_ref()
    }

    /// The key that every attempt carried, if the idempotency layer is in the stack and the method takes one.
    pub fn idempotency_key(&self) -> Option<&IdempotencyKey> {
        self.idempotency_key.as_ref()
    }

    /// How many attempts were made, those included that a lower layer held back. 0 without the retry layer.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How many of the attempts a lower layer held back: by an open circuit, or for lack of quota in time.
    pub fn held_back(&self) -> u32 {
        self.held_back
    }

    /// How long attempts waited for quota, in total.
    pub fn queued(&self) -> Duration {
        self.queued
    }

    /// How long the call waited between attempts, in total.
    pub fn backed_off(&self) -> Duration {
        self.backed_off
    }

    /// What the last attempt came to, if the retry layer is in the stack.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// Whether an attempt before the one that is answered for may have been carried out.
    pub fn ambiguous_before(&self) -> bool {
        self.doubts > u32::from(self.outcome == Some(Outcome::Ambiguous))
    }

    /// Where the response comes from, if the server did not give it to this call: with an idempotency store only.
    pub fn provenance(&self) -> Option<Provenance> {
        self.provenance
    }

    /// That an earlier attempt worked, where the status of the last answer says so: a `DELETE` that found nothing left.
    ///
    /// Other answers say so in their bodies: [`settled_by`](Self::settled_by).
    pub fn settled(&self) -> Option<Settled> {
        self.settled
    }

    /// That an earlier attempt worked, where the last answer says so by its status and body.
    ///
    /// The retry layer hands bodies out unread, so whoever has read one asks here. Unless there was an
    /// [ambiguous attempt](Self::ambiguous_before) on a route that the table knows, there is nothing to settle.
    /// [`repeated`] lists what counts.
    ///
    /// # Example
    ///
    /// ```
    /// use http::Response;
    /// use tower_didit::call::CallReport;
    ///
    /// /// Whether a transaction was made, by this attempt or by one before it.
    /// fn was_made(response: &Response<Vec<u8>>) -> bool {
    ///     let report = response.extensions().get::<CallReport>();
    ///     let settled = report.and_then(|report| report.settled_by(response.status(), response.body()));
    ///     response.status().is_success() || settled.is_some()
    /// }
    /// # assert!(was_made(&Response::new(vec![])));
    /// ```
    pub fn settled_by(&self, status: StatusCode, body: &[u8]) -> Option<Settled> {
        let (method, class) = self.route.as_ref().filter(|_| self.ambiguous_before())?;
        repeated(method, *class, status, body)
    }

    /// Whether anything happened that a caller may want to know.
    pub(crate) fn is_eventful(&self) -> bool {
        self.attempts > 1 || !self.queued.is_zero() || self.provenance.is_some()
    }
}
