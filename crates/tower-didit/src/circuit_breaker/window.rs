//! Calls, failures and slow calls of the recent past, in a ring of time buckets without a lock.
//!
//! A bucket is one word, so that recording a call is one compare-and-swap: it counts up if the bucket belongs to the same
//! generation and the same stretch of time as the call, starts the bucket anew if what it holds is older, and leaves it
//! alone if that is newer. Nothing is ever cleared: what is too old, or of another generation, is
//! simply not read. So a million good calls weigh as little as none once they are older than the window, and a gap of
//! silence costs nothing.

use std::time::Duration;

use tokio::time::Instant;

use crate::sync::{AtomicU64, Ordering};

/// How finely the past is kept: it is forgotten in tenths of the window.
const BUCKETS: u64 = 10;

/// Calls and failures within a sliding window, by generation.
#[derive(Debug)]
pub(super) struct Window {
    began: Instant,
    // How wide a bucket is, in nanoseconds: a word, because a division by it is on every call's path.
    width: u64,
    // One ring for failures and one for slow calls; the second is touched only by those.
    failed: [AtomicU64; BUCKETS as usize],
    slow: [AtomicU64; BUCKETS as usize],
}

/// What a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) calls: u64,
    pub(super) failures: u64,
    pub(super) slow: u64,
}

/// A bucket's word: 8 bits of generation, 24 of time, and two counts of 16 that stop at their most.
///
/// Twenty-four bits of tenths of a window last for a year and a half at 30 s; a bucket that is exactly that old and was
/// never written since would count as new.
#[derive(Clone, Copy)]
struct Bucket(u64);

impl Bucket {
    fn tag(generation: u64, stretch: u64) -> u64 {
        (generation & 0xff) << 56 | (stretch & 0xff_ffff) << 32
    }

    fn is_tagged(self, tag: u64) -> bool {
        self.0 & !0xffff_ffff == tag
    }

    /// Whether this is of a later time than a tag, or of the same time and a later generation. Both go round.
    fn is_newer_than(self, tag: u64) -> bool {
        match (self.0 >> 32).wrapping_sub(tag >> 32) & 0xff_ffff {
            0 => (1..0x80).contains(&((self.0 >> 56).wrapping_sub(tag >> 56) & 0xff)),
            ahead => ahead < 0x80_0000,
        }
    }

    fn first(self) -> u64 {
        self.0 >> 16 & 0xffff
    }

    fn second(self) -> u64 {
        self.0 & 0xffff
    }

    /// The word with one more in its first count, and in its second as well if asked for.
    fn counted(self, both: bool) -> u64 {
        // A full count stops both, so that their ratio stays what it was.
        if self.first() == 0xffff { self.0 } else { self.0 + 0x1_0000 + u64::from(both) }
    }
}

// ===== impl Window =====

impl Window {
    pub(super) fn new(length: Duration, now: Instant) -> Self {
        let width = u64::try_from(length.as_nanos() / 10).unwrap_or(u64::MAX).max(1);
        let ring = || std::array::from_fn(|_| AtomicU64::new(0));
        Self { began: now, width, failed: ring(), slow: ring() }
    }

    /// Counts a call of a generation.
    pub(super) fn record(&self, generation: u64, failed: bool, slow: bool, now: Instant) {
        let stretch = self.stretch(now);
        count(&self.failed[place(stretch)], Bucket::tag(generation, stretch), failed);
        if slow {
            count(&self.slow[place(stretch)], Bucket::tag(generation, stretch), false);
        }
    }

    /// What the calls of a generation came to within the window.
    pub(super) fn totals(&self, generation: u64, now: Instant) -> Totals {
        let latest = self.stretch(now);
        (latest.saturating_sub(BUCKETS - 1)..=latest).fold(Totals::default(), |totals, stretch| {
            let read = |ring: &[AtomicU64]| {
                let bucket = Bucket(ring[place(stretch)].load(Ordering::Relaxed));
                if bucket.is_tagged(Bucket::tag(generation, stretch)) { bucket } else { Bucket(0) }
            };
            let (failed, slow) = (read(&self.failed), read(&self.slow));
            Totals {
                calls: totals.calls + failed.first(),
                failures: totals.failures + failed.second(),
                slow: totals.slow + slow.first(),
            }
        })
    }

    /// How wide a bucket is: after that long the oldest calls begin to be forgotten.
    pub(super) fn width(&self) -> Duration {
        Duration::from_nanos(self.width)
    }

    fn stretch(&self, now: Instant) -> u64 {
        let elapsed = u64::try_from(now.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX - 1);
        // Counted from 1, so that a bucket that was never written belongs to no time.
        elapsed / self.width + 1
    }
}

fn place(stretch: u64) -> usize {
    (stretch % BUCKETS) as usize
}

/// Counts in a bucket, starting it anew if what it holds is of an older time, or of an older generation. What it holds of a newer one
/// stays: whoever comes that late is not heard.
fn count(bucket: &AtomicU64, tag: u64, both: bool) {
    let mut known = bucket.load(Ordering::Relaxed);
    loop {
        let base = match Bucket(known) {
            held if held.is_tagged(tag) => known,
            held if held.is_newer_than(tag) => return,
            _ => tag,
        };
        match bucket.compare_exchange_weak(known, Bucket(base).counted(both), Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return,
            Err(changed) => known = changed,
        }
    }
}

#[cfg(test)]
#[cfg(not(interleavings))]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(10);

    fn totals(calls: u64, failures: u64, slow: u64) -> Totals {
        Totals { calls, failures, slow }
    }

    #[test]
    fn what_is_older_than_the_window_weighs_nothing() {
        let start = Instant::now();
        let window = Window::new(LENGTH, start);
        for _ in 0..1_000 {
            window.record(0, true, true, start);
        }
        assert_eq!(window.totals(0, start + Duration::from_millis(9_999)), totals(1_000, 1_000, 1_000));
        assert_eq!(window.totals(0, start + LENGTH), totals(0, 0, 0));
    }

    #[test]
    fn the_window_slides_by_buckets() {
        let start = Instant::now();
        let window = Window::new(LENGTH, start);
        for second in 0..20 {
            window.record(0, second % 2 == 0, false, start + Duration::from_secs(second));
        }
        // Seconds 10 to 19 are left.
        assert_eq!(window.totals(0, start + Duration::from_secs(19)), totals(10, 5, 0));
    }

    #[test]
    fn an_idle_week_is_one_step() {
        let start = Instant::now();
        let window = Window::new(LENGTH, start);
        window.record(0, true, false, start);
        let later = start + Duration::from_secs(7 * 86_400);
        window.record(0, false, false, later);
        assert_eq!(window.totals(0, later), totals(1, 0, 0));
        assert_eq!(window.totals(0, later + Duration::from_secs(5)), totals(1, 0, 0));
    }

    #[test]
    fn another_generation_neither_sees_nor_disturbs_what_is_newer() {
        let start = Instant::now();
        let window = Window::new(LENGTH, start);
        window.record(3, true, false, start);
        assert_eq!(window.totals(4, start), totals(0, 0, 0));
        window.record(4, true, false, start);
        window.record(3, true, false, start);
        assert_eq!(window.totals(4, start), totals(1, 1, 0));
        // Generations go round, and what is left of long ago is in nobody's way.
        let later = start + 3 * LENGTH;
        window.record(4 + 200, true, false, later);
        assert_eq!(window.totals(4 + 200, later), totals(1, 1, 0));
    }

    #[test]
    fn a_late_recorder_does_not_wipe_out_what_came_after_it() {
        let start = Instant::now();
        let window = Window::new(LENGTH, start);
        window.record(0, true, false, start + LENGTH);
        window.record(0, false, false, start);
        assert_eq!(window.totals(0, start + LENGTH), totals(1, 1, 0));
    }

    #[test]
    fn a_full_bucket_keeps_its_ratio() {
        let start = Instant::now();
        let window = Window::new(LENGTH, start);
        for number in 0..200_000 {
            window.record(0, number % 4 == 0, false, start);
        }
        let totals = window.totals(0, start);
        assert_eq!(totals.calls, 65_535);
        assert!((totals.failures as f64 / totals.calls as f64 - 0.25).abs() < 0.001);
    }
}
