//! Calls and failures of the recent past, in a ring of time buckets.

use std::time::Duration;

use tokio::time::Instant;

/// How finely the past is kept: it is forgotten in tenths of the window.
const BUCKETS: usize = 10;

/// Calls and failures within a sliding window.
///
/// Every bucket covers a tenth of the window and is cleared when its turn comes again, so what is older than the window
/// weighs nothing, however many calls there were. A gap of silence is skipped in one step.
#[derive(Debug)]
pub(super) struct Window {
    buckets: [Bucket; BUCKETS],
    // The bucket that is being filled, and when it began.
    current: usize,
    began: Instant,
    width: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    calls: u32,
    failures: u32,
}

impl Window {
    pub(super) fn new(length: Duration, now: Instant) -> Self {
        let width = length / 10;
        Self { buckets: [Bucket::default(); BUCKETS], current: 0, began: now, width }
    }

    /// Counts a call.
    pub(super) fn record(&mut self, failed: bool, now: Instant) {
        self.advance(now);
        let bucket = &mut self.buckets[self.current];
        bucket.calls = bucket.calls.saturating_add(1);
        bucket.failures = bucket.failures.saturating_add(u32::from(failed));
    }

    /// Calls and failures within the window.
    pub(super) fn totals(&mut self, now: Instant) -> (u64, u64) {
        self.advance(now);
        self.buckets.iter().fold((0, 0), |(calls, failures), bucket| {
            (calls + u64::from(bucket.calls), failures + u64::from(bucket.failures))
        })
    }

    fn advance(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.began);
        if elapsed < self.width {
            return;
        }
        let steps = elapsed.as_nanos() / self.width.as_nanos().max(1);
        let Some(steps) = usize::try_from(steps).ok().filter(|steps| *steps < BUCKETS) else {
            self.buckets = [Bucket::default(); BUCKETS];
            self.began = now;
            return;
        };
        for _ in 0..steps {
            self.current = (self.current + 1) % BUCKETS;
            self.buckets[self.current] = Bucket::default();
            self.began += self.width;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    #[test]
    fn what_is_older_than_the_window_weighs_nothing() {
        let start = Instant::now();
        let mut window = Window::new(WINDOW, start);
        for _ in 0..1_000 {
            window.record(true, start);
        }
        assert_eq!(window.totals(start + Duration::from_millis(9_999)), (1_000, 1_000));
        assert_eq!(window.totals(start + WINDOW), (0, 0));
    }

    #[test]
    fn the_window_slides_by_buckets() {
        let start = Instant::now();
        let mut window = Window::new(WINDOW, start);
        for second in 0..20 {
            window.record(second % 2 == 0, start + Duration::from_secs(second));
        }
        // Seconds 10 to 19 are left.
        assert_eq!(window.totals(start + Duration::from_secs(19)), (10, 5));
    }

    #[test]
    fn an_idle_week_is_one_step() {
        let start = Instant::now();
        let mut window = Window::new(WINDOW, start);
        window.record(true, start);
        let later = start + Duration::from_secs(7 * 86_400);
        window.record(false, later);
        assert_eq!(window.totals(later), (1, 0));
        assert_eq!(window.totals(later + Duration::from_secs(5)), (1, 0));
    }
}
