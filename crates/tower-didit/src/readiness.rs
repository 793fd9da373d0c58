//! Readiness that is not used after all.

/// Gives the readiness of a service back, for a layer that waits or refuses instead of calling it.
///
/// A readied service may hold what others wait for, and so may the call that it was readied for: a permit of tower's
/// `ConcurrencyLimit` is held until the service is called or dropped, and `ready().await?.call(..)` keeps it alive.
pub(crate) fn give_back<S: Clone>(service: &mut S) {
    *service = service.clone();
}
