use std::time::Duration;

use tower::Layer;

use super::Deadline;

/// Gives every call a total time; see the [module](super).
#[derive(Clone, Debug)]
pub struct DeadlineLayer {
    total: Duration,
}

impl DeadlineLayer {
    /// The default total time: two rate windows.
    pub const DEFAULT: Duration = Duration::from_secs(120);

    /// The longest total time; more is cut to this, so that no instant overflows: a day.
    pub const MAX: Duration = Duration::from_secs(86_400);

    /// Gives every call `total`, unless its [`CallOptions`](crate::call::CallOptions) say otherwise.
    pub const fn new(total: Duration) -> Self {
        Self { total }
    }
}

/// [`DeadlineLayer::DEFAULT`].
impl Default for DeadlineLayer {
    fn default() -> Self {
        Self::new(Self::DEFAULT)
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Deadline::new(inner, self.total)
    }
}
