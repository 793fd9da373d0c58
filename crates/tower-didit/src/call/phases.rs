//! What the time of a call goes into.

use std::time::Duration;

use tokio::time::Instant;

/// What a call is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It waits in this process before an attempt: for quota, for a ready client, for another call of the same name.
    Queue,
    /// It waits between attempts.
    Backoff,
    /// An attempt is under way.
    Wire,
}

/// Times of the phases. Since a call is in one phase at a time, they add up to its duration, to the nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Phases {
    phase: Phase,
    since: Instant,
    spent: Split,
    /// How many attempts the call has made.
    pub(crate) attempts: u32,
}

/// How long a call was in each phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) queue: Duration,
    pub(crate) backoff: Duration,
    pub(crate) wire: Duration,
}

impl Split {
    pub(crate) fn total(&self) -> Duration {
        self.queue + self.backoff + self.wire
    }
}

impl Phases {
    pub(crate) fn new(now: Instant) -> Self {
        Self { phase: Phase::Queue, since: now, spent: Split::default(), attempts: 0 }
    }

    pub(crate) fn enter(&mut self, phase: Phase, now: Instant) {
        let spent = match self.phase {
            Phase::Queue => &mut self.spent.queue,
            Phase::Backoff => &mut self.spent.backoff,
            Phase::Wire => &mut self.spent.wire,
        };
        *spent += now.saturating_duration_since(self.since);
        (self.phase, self.since) = (phase, now);
    }

    /// The attempt is over. One that is dropped late, when the call waits for the next one already, changes nothing.
    pub(crate) fn leave_wire(&mut self, now: Instant) {
        if self.phase == Phase::Wire {
            self.enter(Phase::Queue, now);
        }
    }

    /// How long the call was in each phase until now.
    pub(crate) fn split(mut self, now: Instant) -> Split {
        self.enter(self.phase, now);
        self.spent
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever a call does, and in whatever order, nothing of its time is lost or counted twice.
        #[test]
        fn the_phases_add_up_to_the_duration(
            steps in prop::collection::vec((0..4_u8, 0..u64::from(u32::MAX)), 0..40), last in 0..u64::from(u32::MAX),
        ) {
            let start = Instant::now();
            let (mut phases, mut now) = (Phases::new(start), start);
            for (step, nanos) in steps {
                now += Duration::from_nanos(nanos);
                match step {
                    0 => phases.enter(Phase::Queue, now),
                    1 => phases.enter(Phase::Backoff, now),
                    2 => phases.enter(Phase::Wire, now),
                    _ => phases.leave_wire(now),
                }
            }
            now += Duration::from_nanos(last);
            prop_assert_eq!(phases.split(now).total(), now - start);
        }
    }

    #[test]
    fn an_attempt_that_is_dropped_during_the_backoff_changes_nothing() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut phases = Phases::new(start);
        phases.enter(Phase::Wire, at(1));
        phases.enter(Phase::Backoff, at(3));
        phases.leave_wire(at(4));
        let split = phases.split(at(10));
        let [queue, backoff, wire] = [1, 7, 2].map(Duration::from_secs);
        assert_eq!(split, Split { queue, backoff, wire });
    }
}
