//! One scope: which of its slots are taken, until when, and what else keeps a call out of it.

use std::{collections::VecDeque, num::NonZeroU32, time::Duration};

use didit_api::Scope as Documented;
use tokio::time::Instant;

use super::{Rules, forecast::RoundTrips, learn::Limit};
use crate::pacing::shape::Shape;

/// Slots that are taken: by attempts in flight, and by those of the last window.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    /// When attempts in flight took their slots, in order.
    pub(super) in_flight: VecDeque<Instant>,
    /// When slots of answered attempts become free, in order.
    pub(super) cooling: VecDeque<Instant>,
}

#[derive(Debug)]
pub(super) struct Scope {
    pub(super) limit: Limit,
    /// W + ε.
    pub(super) hold: Duration,
    /// How many endpoints it counts; all of a method's are more than any number.
    pub(super) breadth: usize,
    pub(super) trips: RoundTrips,
    pub(super) all: Held,
    /// Those of `all` that calls of low priority hold.
    pub(super) low: Held,
    /// When those slots of `all` become free whose requests the server has not let in, as far as is known, in order.
    unproven: VecDeque<Instant>,
    /// How many calls stand in queues for it.
    pub(super) waiting: usize,
    pub(super) paused_until: Option<Instant>,
    pub(super) shape: Option<Shape>,
    /// Spreads what gathered during a pause, until the instant.
    pub(super) spread: Option<(Shape, Instant)>,
}

/// When attempts in flight will free their slots, as far as can be told: each is answered when it has taken as long as
/// others of late, or at once if it already has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Landing {
    now: Instant,
    trip: Duration,
    hold: Duration,
}

// ===== impl Landing =====

impl Landing {
    /// When an attempt that began at `taken` frees its slots.
    pub(super) fn of(self, taken: Instant) -> Instant {
        (taken + self.trip).max(self.now) + self.hold
    }
}

// ===== impl Held =====

impl Held {
    pub(super) fn used(&self) -> usize {
        self.in_flight.len() + self.cooling.len()
    }

    fn expire(&mut self, now: Instant) {
        drop_until(&mut self.cooling, now);
    }

    /// An attempt that took its slot at `taken`, or a little earlier, has ended.
    fn land(&mut self, taken: Instant, free: Option<Instant>) {
        // Nearly always the oldest, if answers come in order.
        if self.in_flight.get(1).is_none_or(|second| *second > taken) {
            self.in_flight.pop_front();
        } else {
            let index = self.in_flight.partition_point(|other| *other <= taken).saturating_sub(1);
            self.in_flight.remove(index);
        }
        if let Some(free) = free {
            self.cool(free);
        }
    }

    /// Notes when a slot becomes free. Nearly always the latest so far; only lost attempts come out of order.
    pub(super) fn cool(&mut self, free: Instant) {
        insert_in_order(&mut self.cooling, free);
    }

    /// When fewer than `cap` slots are taken, as far as that is known: `None` if it hangs on attempts in flight.
    fn room_at(&self, cap: usize, now: Instant) -> Option<Instant> {
        match self.used().checked_sub(cap) {
            None => Some(now),
            Some(surplus) => self.cooling.get(surplus).copied(),
        }
    }

    /// When the slot that becomes free as the `n`-th does.
    pub(super) fn release(&self, n: usize, landing: Landing) -> Option<Instant> {
        let (cooling, in_flight) = (&self.cooling, &self.in_flight);
        // How many of the `n` before it are in flight, found by bisection: both lists are in order.
        let (mut least, mut most) = (n.saturating_sub(cooling.len()), n.min(in_flight.len()));
        while least < most {
            let middle = usize::midpoint(least, most);
            if landing.of(in_flight[middle]) < cooling[n - 1 - middle] {
                least = middle + 1;
            } else {
                most = middle;
            }
        }
        let landed = in_flight.get(least).map(|taken| landing.of(*taken));
        landed.into_iter().chain(cooling.get(n - least).copied()).min()
    }
}

fn drop_until(times: &mut VecDeque<Instant>, now: Instant) {
    while times.pop_front_if(|time| *time <= now).is_some() {}
    // What a flood left behind, once it is over.
    if times.is_empty() && times.capacity() > 1_024 {
        *times = VecDeque::new();
    }
}

/// Nearly always behind the last.
fn insert_in_order(times: &mut VecDeque<Instant>, time: Instant) {
    if times.back().is_none_or(|last| *last <= time) {
        return times.push_back(time);
    }
    let index = times.partition_point(|known| *known <= time);
    times.insert(index, time);
}

// ===== impl Scope =====

impl Scope {
    pub(super) fn new(scope: &Documented, rules: &Rules, now: Instant) -> Self {
        let breadth = Some(scope.endpoint_names().count()).filter(|count| *count > 0).unwrap_or(usize::MAX);
        Self::counting(breadth, scope.limit(), scope.window() + rules.epsilon, rules, now)
    }

    /// A scope of so many endpoints, of which nothing else is known.
    pub(super) fn counting(breadth: usize, limit: NonZeroU32, hold: Duration, rules: &Rules, now: Instant) -> Self {
        Self {
            limit: Limit::new(limit),
            hold,
            breadth,
            trips: RoundTrips::default(),
            all: Held::default(),
            low: Held::default(),
            unproven: VecDeque::new(),
            waiting: 0,
            paused_until: None,
            shape: rules.burst.map(|burst| Shape::new(limit, hold, burst, now)),
            spread: None,
        }
    }

    /// Spreads at the rate of the limit as it is now.
    pub(super) fn reshape(&mut self, rules: &Rules) {
        if let (Some(shape), Some(burst)) = (&mut self.shape, rules.burst) {
            shape.adapt(self.limit.adopted(), self.hold, burst);
        }
    }

    /// How many slots calls may hold, those of low priority or all.
    pub(super) fn cap(&self, low: bool, rules: &Rules) -> usize {
        let limit = self.limit.effective();
        if low { rules.share_of_low(limit) } else { limit }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.all.expire(now);
        self.low.expire(now);
        drop_until(&mut self.unproven, now);
        self.paused_until.take_if(|until| *until <= now);
        self.spread.take_if(|(_, until)| *until <= now);
    }

    /// When a call may start, whatever slots there are.
    pub(super) fn open_at(&self, now: Instant) -> Instant {
        let shaped = self.shape.as_ref().map_or(now, |shape| shape.ready_at(now));
        let spread = self.spread.as_ref().map_or(now, |(shape, until)| shape.ready_at(now).min(*until));
        shaped.max(spread).max(self.paused_until.unwrap_or(now))
    }

    /// When a call may start, as far as that is known: `None` if it hangs on attempts in flight.
    pub(super) fn room_at(&self, low: bool, rules: &Rules, now: Instant) -> Option<Instant> {
        let limit = self.limit.effective();
        let mut room = self.all.room_at(limit, now)?;
        if low {
            room = room.max(self.low.room_at(rules.share_of_low(limit), now)?);
        }
        Some(room.max(self.open_at(now)))
    }

    pub(super) fn take(&mut self, low: bool, now: Instant) {
        self.all.in_flight.push_back(now);
        if low {
            self.low.in_flight.push_back(now);
        }
        self.shapes().for_each(|shape| shape.pass(now));
    }

    /// An attempt that took its slot at `taken` has ended; the slot is free from then on, or at once if it was not sent.
    pub(super) fn land(&mut self, low: bool, taken: Instant, free: Option<Instant>) {
        self.all.land(taken, free);
        if low {
            self.low.land(taken, free);
        }
        if free.is_none() {
            self.shapes().for_each(Shape::give_back);
        }
    }

    /// The slot that is held until then is that of a request which the server has not let in, as far as is known.
    pub(super) fn not_let_in(&mut self, free: Instant) {
        insert_in_order(&mut self.unproven, free);
    }

    /// A slot is held until then for a request of somebody else's.
    pub(super) fn assume(&mut self, free: Instant) {
        self.all.cool(free);
        self.not_let_in(free);
    }

    /// Whether the scope may have this limit: the server is not known to have let in more within the last window. A slot is
    /// held for longer than that, by ε and by the way back of the answer.
    pub(super) fn may_have(&self, limit: u32, rules: &Rules, now: Instant) -> bool {
        let longer = now + rules.epsilon + self.trips.typical();
        let of_late = |times: &VecDeque<Instant>| times.len() - times.partition_point(|free| *free < longer);
        // A server that fills a bucket by and by lets a little more in.
        let most = limit as usize + limit as usize / 20;
        of_late(&self.all.cooling).saturating_sub(of_late(&self.unproven)) <= most
    }

    /// Keeps to no other limit than the configured one, and lets everybody through who has a slot.
    pub(super) fn set_free(&mut self) {
        self.limit.forget();
        (self.paused_until, self.spread) = (None, None);
    }

    /// From one start to when its slot is free again, as attempts have gone of late.
    pub(super) fn round(&self) -> Duration {
        self.hold + self.trips.typical()
    }

    pub(super) fn landing(&self, now: Instant) -> Landing {
        Landing { now, trip: self.trips.typical(), hold: self.hold }
    }

    fn shapes(&mut self) -> impl Iterator<Item = &mut Shape> {
        self.shape.iter_mut().chain(self.spread.iter_mut().map(|(shape, _)| shape))
    }

    /// Keeps everybody out until the instant, and lets what gathers meanwhile out a tenth of a limit at a time: whoever else
    /// uses up the quota would meet a whole window at once. The ledger's own rate is not lowered by that.
    pub(super) fn pause(&mut self, until: Instant, limit: NonZeroU32) {
        const SHARE_OF_BURST: u32 = 10;

        let until = self.paused_until.map_or(until, |known| known.max(until));
        self.paused_until = Some(until);
        if self.shape.is_none() {
            let burst = NonZeroU32::new(limit.get() / SHARE_OF_BURST).unwrap_or(NonZeroU32::MIN);
            self.spread = Some((Shape::new(limit, self.hold, burst, until), until + self.hold));
        }
    }

    /// When nothing is left of what was sent: a ledger of such scopes is as good as a new one. `None` while anything is in
    /// flight or waits.
    pub(super) fn idle_at(&self, now: Instant) -> Option<Instant> {
        if !self.all.in_flight.is_empty() || self.waiting > 0 {
            return None;
        }
        let cooled = self.all.cooling.back().copied().unwrap_or(now);
        let shaped = self.shape.as_ref().map_or(now, |shape| shape.start_of(0, now));
        let spread = self.spread.as_ref().map_or(now, |(_, until)| *until);
        let paused = self.paused_until.unwrap_or(now);
        Some(cooled.max(shaped).max(spread).max(paused).max(self.limit.forgotten_at(self.hold, now)))
    }
}
