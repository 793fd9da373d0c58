//! One sliding window: how many requests of one key one scope has counted lately.

use std::{collections::VecDeque, time::Duration};

/// How finely a window remembers when a request arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stamps {
    /// To the nanosecond: an arrival at `a` is counted at `t` exactly while `a` lies in `(t − W, t]`.
    Exact,
    /// Whole seconds, compared with `>=`: an arrival is kept for up to `W` + 0.999… s.
    WholeSeconds,
}

/// The arrivals of the last window. Times are since the Unix epoch and never run backwards.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    limit: usize,
    length: Duration,
    stamps: Stamps,
    counted: VecDeque<Duration>,
    /// Refused arrivals that do not count; kept for the peak alone.
    refused: VecDeque<Duration>,
}

impl Window {
    pub(crate) fn new(limit: u32, length: Duration, stamps: Stamps) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self { limit, length, stamps, counted: VecDeque::new(), refused: VecDeque::new() }
    }

    /// `None` if one more request may be counted at `now`, else the time at which one may.
    pub(crate) fn full_until(&mut self, now: Duration) -> Option<Duration> {
        self.forget(now);
        // Where refused requests count there may be more than `limit`; then several have to leave.
        let last_to_leave = self.counted.len().checked_sub(self.limit)?;
        self.counted.get(last_to_leave).map(|stamp| self.leaves_at(*stamp))
    }

    /// Counts a request.
    pub(crate) fn count(&mut self, now: Duration) {
        self.counted.push_back(self.stamp(now));
    }

    /// Remembers a request that was refused and does not count.
    pub(crate) fn note_refused(&mut self, now: Duration) {
        self.refused.push_back(self.stamp(now));
    }

    /// How many requests the window holds that count.
    pub(crate) fn counted(&self) -> usize {
        self.counted.len()
    }

    /// How many requests arrived within the window, refused ones included.
    pub(crate) fn arrived(&self) -> usize {
        self.counted.len() + self.refused.len()
    }

    fn forget(&mut self, now: Duration) {
        while self.counted.front().is_some_and(|stamp| self.leaves_at(*stamp) <= now) {
            self.counted.pop_front();
        }
        while self.refused.front().is_some_and(|stamp| self.leaves_at(*stamp) <= now) {
            self.refused.pop_front();
        }
    }

    fn stamp(&self, now: Duration) -> Duration {
        match self.stamps {
            Stamps::Exact => now,
            Stamps::WholeSeconds => Duration::from_secs(now.as_secs()),
        }
    }

    /// The first moment at which a stamp is no longer counted.
    fn leaves_at(&self, stamp: Duration) -> Duration {
        let end = stamp.saturating_add(self.length);
        match self.stamps {
            Stamps::Exact => end,
            // Kept while `stamp >= floor(now) - W`, so until the first whole second beyond the end.
            Stamps::WholeSeconds => Duration::from_secs(end.as_secs().saturating_add(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const W: Duration = Duration::from_secs(60);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(1_000_000_000_000 + ms)
    }

    /// Asks and counts, as a limiter with free refusals does.
    fn admit(window: &mut Window, now: Duration) -> bool {
        let free = window.full_until(now).is_none();
        if free {
            window.count(now);
        }
        free
    }

    #[test]
    fn an_arrival_leaves_exactly_one_window_later() {
        let mut window = Window::new(1, W, Stamps::Exact);
        assert!(admit(&mut window, ms(0)));
        assert_eq!(window.full_until(ms(59_999)), Some(ms(60_000)));
        assert!(admit(&mut window, ms(60_000)));
    }

    #[test]
    fn the_window_slides_and_never_jumps() {
        let mut window = Window::new(2, W, Stamps::Exact);
        assert!(admit(&mut window, ms(0)));
        assert!(admit(&mut window, ms(30_000)));
        assert!(!admit(&mut window, ms(59_999)));
        assert!(admit(&mut window, ms(60_000)));
        assert!(!admit(&mut window, ms(89_999)));
        assert!(admit(&mut window, ms(90_000)));
    }

    #[test]
    fn a_whole_second_stamp_is_kept_for_up_to_a_second_longer() {
        let mut window = Window::new(1, W, Stamps::WholeSeconds);
        assert!(admit(&mut window, ms(0)));
        assert_eq!(window.full_until(ms(60_999)), Some(ms(61_000)));
        assert!(admit(&mut window, ms(61_000)));

        let mut late = Window::new(1, W, Stamps::WholeSeconds);
        assert!(admit(&mut late, ms(999)));
        assert!(!admit(&mut late, ms(60_999)));
        assert!(admit(&mut late, ms(61_000)));
    }

    #[test]
    fn refused_requests_that_count_push_the_free_moment_out() {
        let mut window = Window::new(2, W, Stamps::Exact);
        for at in [0, 1_000, 2_000, 3_000] {
            window.full_until(ms(at));
            window.count(ms(at));
        }
        // Below the limit again only when one of the newest two is left: the third has to go.
        assert_eq!(window.full_until(ms(4_000)), Some(ms(62_000)));
    }

    #[test]
    fn refused_requests_that_do_not_count_show_in_arrivals_only() {
        let mut window = Window::new(1, W, Stamps::Exact);
        window.count(ms(0));
        window.note_refused(ms(10));
        assert_eq!((window.counted(), window.arrived()), (1, 2));
        window.full_until(ms(60_005));
        assert_eq!((window.counted(), window.arrived()), (0, 1));
    }

    proptest! {
        /// The window against the definition, by brute force over everything it ever admitted.
        #[test]
        fn no_window_ever_holds_more_than_the_limit(
            gaps in prop::collection::vec(0u64..400, 1..300),
            limit in 1u32..6,
            whole in any::<bool>(),
        ) {
            let length = Duration::from_secs(2);
            let stamps = if whole { Stamps::WholeSeconds } else { Stamps::Exact };
            let mut window = Window::new(limit, length, stamps);
            let mut admitted: Vec<Duration> = Vec::new();
            let mut at = 0;
            for gap in gaps {
                at += gap;
                let now = ms(at);
                let held = admitted.iter().filter(|a| if whole {
                    Duration::from_secs(a.as_secs()) + length >= Duration::from_secs(now.as_secs())
                } else {
                    **a + length > now
                });
                let room = held.count() < limit as usize;
                let free_at = window.full_until(now);
                prop_assert_eq!(free_at.is_none(), room);
                if let Some(free_at) = free_at {
                    prop_assert!(free_at > now);
                    prop_assert!(window.clone().full_until(free_at).is_none());
                    prop_assert!(window.clone().full_until(free_at - Duration::from_nanos(1)).is_some());
                } else {
                    window.count(now);
                    admitted.push(now);
                }
            }
        }
    }
}
