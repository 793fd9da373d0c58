//! What became of the calls of a run.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, StatusCode};
use tokio::time::Instant;
use tower::ServiceExt;

use super::{
    strategies::Client,
    world::{Trace, locked},
};
use crate::Body;

/// Counts the calls that go through it; clones count together.
#[derive(Clone, Debug)]
pub struct Tally {
    start: Instant,
    counts: Arc<Mutex<Counts>>,
}

/// What was counted. Times are in milliseconds from the start.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Calls that were made.
    pub made: u64,
    /// Calls that have ended.
    pub calls: u64,
    /// Calls that ended without a success.
    pub lost: u64,
    /// How often all of them were sent.
    pub attempts: u64,
    /// When calls ended in success.
    pub served: Vec<u32>,
    /// How long those that were served had waited: from the call to when its last attempt was sent, in milliseconds.
    pub waits: Vec<u32>,
}

/// How one call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With this status.
    Answered(StatusCode),
    /// With an error of the client's, or of a layer.
    Failed,
}

impl Tally {
    /// Starts counting.
    pub fn start() -> Self {
        Self { start: Instant::now(), counts: Arc::default() }
    }

    /// When it started.
    pub fn began(&self) -> Instant {
        self.start
    }

    /// Makes a call and counts what became of it.
    pub async fn call(&self, client: &Client, request: Request<Body>) -> Ending {
        self.traced(client, request, &Trace::default()).await
    }

    /// The same, with a trace that somebody else watches.
    pub async fn traced(&self, client: &Client, mut request: Request<Body>, trace: &Trace) -> Ending {
        let made = Instant::now();
        locked(&self.counts).made += 1;
        request.extensions_mut().insert(trace.clone());
        let result = client.clone().oneshot(request).await;
        let ending = result.map_or(Ending::Failed, |response| Ending::Answered(response.status()));
        let mut counts = locked(&self.counts);
        counts.calls += 1;
        counts.attempts += u64::from(trace.attempts());
        if matches!(ending, Ending::Answered(status) if status.is_success()) {
            counts.served.push(millis(self.start.elapsed()));
            let sent = trace.last_sent().unwrap_or(made);
            counts.waits.push(millis(sent.saturating_duration_since(made)));
        } else {
            counts.lost += 1;
        }
        ending
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        locked(&self.counts).clone()
    }
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

impl Counts {
    /// How many calls were served in a span of time.
    pub fn served_in(&self, from: Duration, until: Duration) -> usize {
        // Calls end in the order of time.
        let (from, until) = (millis(from), millis(until));
        self.served.partition_point(|at| *at < until) - self.served.partition_point(|at| *at < from)
    }

    /// Calls served per minute in a span of time.
    pub fn per_minute(&self, from: Duration, until: Duration) -> f64 {
        self.served_in(from, until) as f64 * 60.0 / (until - from).as_secs_f64()
    }

    /// Calls served per minute, step by step through a run; the times are in minutes, and those of the ends of the steps.
    pub fn curve(&self, length: Duration, step: Duration) -> Vec<(f64, f64)> {
        let mut points = Vec::new();
        let mut from = Duration::ZERO;
        while from + step <= length {
            points.push(((from + step).as_secs_f64() / 60.0, self.per_minute(from, from + step)));
            from += step;
        }
        points
    }

    /// The wait that a share of the served calls did not exceed, in milliseconds.
    pub fn wait(&self, share: f64) -> Option<f64> {
        percentile(&self.waits, share)
    }

    /// Attempts for each call.
    pub fn attempts_per_call(&self) -> f64 {
        self.attempts as f64 / self.calls.max(1) as f64
    }

    /// How long after `event` the first stretch of `window` begins in which `needed` calls are served; `None` if there is
    /// none before `end`.
    pub fn recovery(&self, event: Duration, window: Duration, needed: f64, end: Duration) -> Option<f64> {
        let step = Duration::from_secs(1);
        let mut from = event;
        while from + window <= end {
            if self.served_in(from, from + window) as f64 >= needed {
                return Some((from - event).as_secs_f64());
            }
            from += step;
        }
        None
    }
}

/// What a share of the numbers does not exceed.
pub fn percentile(numbers: &[u32], share: f64) -> Option<f64> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map(|number| f64::from(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_numbers_that_occurred() {
        let numbers: Vec<u32> = (1..=100).rev().collect();
        assert_eq!((percentile(&numbers, 0.5), percentile(&numbers, 0.99)), (Some(50.0), Some(99.0)));
        assert_eq!((percentile(&[7], 0.01), percentile(&[], 0.5)), (Some(7.0), None));
    }

    #[test]
    fn recovery_begins_with_the_first_full_stretch() {
        let secs = Duration::from_secs;
        // One a second, but none from 10 s to 25 s.
        let served = (0..60).filter(|second| !(10..25).contains(second)).map(|second| second * 1_000).collect();
        let counts = Counts { served, ..Counts::default() };
        assert_eq!(counts.recovery(secs(10), secs(10), 10.0, secs(60)), Some(15.0));
        assert_eq!(counts.recovery(secs(10), secs(10), 11.0, secs(60)), None);
        assert_eq!(counts.per_minute(secs(0), secs(10)), 60.0);
    }
}
