//! What goes wrong with webhooks on request.

use std::time::Duration;

/// Something that goes wrong with one event on its way to one destination.
///
/// Rules are counted by copies of events: each destination's is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WebhookFault {
    /// It is never sent. [`resend_webhook`](crate::Sandbox::resend_webhook) sends it all the same.
    Drop,
    /// It is sent so many times more, at the same time; each with attempts of its own.
    Duplicate(u32),
    /// Its first attempt comes so much later, so that later events overtake it.
    Delay(Duration),
    /// Its first attempt comes later by a time drawn uniformly up to this one, so that events come in any order.
    Shuffle(Duration),
}

/// What a repeated attempt has for a time. Didit's documentation leaves it open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryStamp {
    /// That of the first attempt, in the body and in `X-Timestamp`.
    #[default]
    Kept,
    /// Its own, in both: the body is signed anew.
    Fresh,
    /// Its own in `X-Timestamp`, and that of the first attempt in the body.
    FreshHeader,
}
