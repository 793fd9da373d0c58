//! Which windows a request is counted in, and which of them refuses it.

use std::{collections::BTreeMap, time::Duration};

use didit_api::{EndpointId, Limits, Routes, ScopeTable};
use http::Method;

use crate::{
    faults::whole_seconds_up,
    stats::Peak,
    window::{Stamps, Window},
};

/// Every key's windows.
#[derive(Debug)]
pub(crate) struct Limiter {
    limits: Limits,
    table: ScopeTable,
    count_rejected: bool,
    stamps: Stamps,
    /// By key, then by scope.
    windows: Vec<Vec<Window>>,
    peaks: Vec<Peak>,
}

/// A refusal: which scope is full, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Throttled {
    pub(crate) scope: String,
    pub(crate) limit: u32,
    pub(crate) window: Duration,
    /// Since the Unix epoch, rounded up to whole seconds: a client that waits for it finds room.
    pub(crate) reset: u64,
    /// Whole seconds, at least one.
    pub(crate) retry_after: u64,
}

impl Limiter {
    /// `keys` is the number of identities that are counted apart.
    pub(crate) fn new(limits: &Limits, routes: &Routes, keys: usize, count_rejected: bool, stamps: Stamps) -> Self {
        let window = |scope: &didit_api::Scope| Window::new(scope.limit().get(), scope.window(), stamps);
        let of_one_key: Vec<_> = limits.scopes().iter().map(window).collect();
        let peak = |scope: &didit_api::Scope| Peak { limit: scope.limit().get(), counted: 0, arrived: 0 };
        Self {
            limits: limits.clone(),
            table: limits.table(routes),
            count_rejected,
            stamps,
            windows: vec![of_one_key; keys],
            peaks: limits.scopes().iter().map(peak).collect(),
        }
    }

    /// Counts a request of one key in every scope that applies to it, or refuses it and names the first full scope.
    ///
    /// A refused request is counted in no window, or, where refused requests count, in all of them.
    pub(crate) fn arrive(
        &mut self,
        now: Duration,
        key: usize,
        endpoint: Option<EndpointId>,
        method: &Method,
    ) -> Result<(), Throttled> {
        let scopes = self.table.of(endpoint, method);
        let Some(windows) = self.windows.get_mut(key) else { return Ok(()) };
        let mut refusal = None;
        for index in scopes.iter().map(didit_api::ScopeId::index) {
            let Some(window) = windows.get_mut(index) else { continue };
            if let Some(until) = window.full_until(now) {
                refusal = refusal.or(Some((index, until)));
            }
        }
        for index in scopes.iter().map(didit_api::ScopeId::index) {
            let (Some(window), Some(peak)) = (windows.get_mut(index), self.peaks.get_mut(index)) else { continue };
            if refusal.is_none() || self.count_rejected {
                window.count(now);
            } else {
                window.note_refused(now);
            }
            peak.raise(window.counted(), window.arrived());
        }
        match refusal.and_then(|(index, until)| self.limits.scopes().get(index).map(|scope| (scope, until))) {
            None => Ok(()),
            Some((scope, until)) => Err(Throttled {
                scope: scope.name().to_owned(),
                limit: scope.limit().get(),
                window: scope.window(),
                reset: whole_seconds_up(until),
                retry_after: whole_seconds_up(until.saturating_sub(now)).max(1),
            }),
        }
    }

    /// The fullest window of each scope, over all keys.
    pub(crate) fn peaks(&self) -> BTreeMap<String, Peak> {
        self.limits.scopes().iter().map(|scope| scope.name().to_owned()).zip(self.peaks.iter().cloned()).collect()
    }

    /// The same limits with nothing counted.
    pub(crate) fn cleared(&self, routes: &Routes) -> Self {
        Self::new(&self.limits, routes, self.windows.len(), self.count_rejected, self.stamps)
    }
}

#[cfg(test)]
mod tests {
    use didit_api::Scope;

    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(1_000_000 + ms)
    }

    fn limiter(count_rejected: bool) -> Limiter {
        let limits = Limits::none()
            .with(Scope::methods("wide", 3, ["POST"]).unwrap())
            .and_then(|limits| limits.with(Scope::endpoints("narrow", 1, ["session-create"]).unwrap()))
            .unwrap();
        Limiter::new(&limits, &Routes::didit(), 2, count_rejected, Stamps::Exact)
    }

    fn create() -> Option<EndpointId> {
        Routes::didit().find(&Method::POST, "/v3/session/")
    }

    #[test]
    fn the_first_full_scope_answers_and_says_when_to_come_back() {
        let mut limiter = limiter(false);
        limiter.arrive(at(0), 0, create(), &Method::POST).unwrap();
        let refusal = limiter.arrive(at(500), 0, create(), &Method::POST).unwrap_err();
        assert_eq!((refusal.scope.as_str(), refusal.limit), ("narrow", 1));
        assert_eq!((refusal.retry_after, refusal.reset), (60, 1_060));
    }

    #[test]
    fn waiting_as_told_is_always_enough() {
        let mut limiter = limiter(false);
        limiter.arrive(at(700), 0, create(), &Method::POST).unwrap();
        let refusal = limiter.arrive(at(60_699), 0, create(), &Method::POST).unwrap_err();
        assert_eq!(refusal.retry_after, 1);
        assert!(limiter.arrive(at(61_699), 0, create(), &Method::POST).is_ok());
    }

    #[test]
    fn a_refused_request_takes_no_place_in_the_scopes_that_had_room() {
        let mut limiter = limiter(false);
        limiter.arrive(at(0), 0, create(), &Method::POST).unwrap();
        for _ in 0..5 {
            limiter.arrive(at(1), 0, create(), &Method::POST).unwrap_err();
        }
        assert!(limiter.arrive(at(2), 0, None, &Method::POST).is_ok());
        assert_eq!(limiter.peaks()["wide"], Peak { limit: 3, counted: 2, arrived: 7 });
    }

    #[test]
    fn refused_requests_count_where_the_switch_says_so() {
        let mut limiter = limiter(true);
        limiter.arrive(at(0), 0, create(), &Method::POST).unwrap();
        limiter.arrive(at(30_000), 0, create(), &Method::POST).unwrap_err();
        assert!(limiter.arrive(at(60_000), 0, create(), &Method::POST).is_err());
    }

    #[test]
    fn keys_do_not_share_windows() {
        let mut limiter = limiter(false);
        limiter.arrive(at(0), 0, create(), &Method::POST).unwrap();
        assert!(limiter.arrive(at(0), 1, create(), &Method::POST).is_ok());
    }
}
