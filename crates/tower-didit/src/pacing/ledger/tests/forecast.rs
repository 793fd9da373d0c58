//! What is foretold against what comes true.

use std::collections::{VecDeque, btree_map::OccupiedEntry};

use super::{
    super::{forecast::RoundTrips, scope::Scope},
    *,
};

/// A ledger with slots taken at random and nothing in flight, and others waiting.
struct Scene {
    ledger: Ledger,
    sets: Sets,
    random: Randomness,
    now: Instant,
    waiting: HashMap<u64, (WaiterId, Asking)>,
}

impl Scene {
    fn new(seed: u64, burst: Option<u32>, waiting: usize, any: impl Fn(&Sets, &Randomness) -> Asking) -> Self {
        let (sets, random, mut now) = (Sets::new(), Randomness::seeded(seed), Instant::now());
        let burst = burst.and_then(NonZeroU32::new);
        let rules = Rules { burst, ..rules(Duration::ZERO) };
        let mut ledger = Ledger::new(&sets.limits, rules, now);
        let mut wake = Wakers::default();
        for _ in 0..60 {
            now += SECOND.mul_f64(random.unit());
            let asking = any(&sets, &random);
            match ledger.ask(&asking, now, &mut wake) {
                Asked::Granted => ledger.release(asking.need(), Release::Answered, Some(now), now, &mut wake),
                Asked::Queued(waiter) => ledger.give_up(waiter, now, &mut wake),
                Asked::Refused(_) => unreachable!("no deadline was given"),
            }
        }
        take(&mut ledger, Duration::ZERO);
        if random.unit() < 0.2 {
            ledger.was_refused(sets.both, Some(30), SECOND.mul_f64(20.0 * random.unit()), now, now);
        }
        let mut scene = Self { ledger, sets, random, now, waiting: HashMap::new() };
        for _ in 0..waiting {
            let asking = any(&scene.sets, &scene.random);
            if let Asked::Queued(waiter) = scene.ledger.asked(&asking, scene.now) {
                scene.waiting.insert(waiter.number, (waiter, asking));
            } else {
                scene.ledger.release(
                    asking.need(),
                    Release::Answered,
                    Some(scene.now),
                    scene.now,
                    &mut Wakers::default(),
                );
            }
        }
        scene
    }

    /// Plays on until the waiter has started, each attempt taking up to `latency`.
    fn start_of(&mut self, waiter: WaiterId, latency: Duration) -> Instant {
        let mut wake = Wakers::default();
        let mut landing = BTreeMap::new();
        let mut now = self.now;
        loop {
            self.ledger.tick(now, &mut wake);
            let mut numbers: Vec<_> = self.waiting.keys().copied().collect();
            numbers.sort_unstable();
            for number in numbers {
                let (id, asking) = self.waiting[&number];
                if self.ledger.has_turn(id) && self.ledger.looked(id, now).is_granted() {
                    if id == waiter {
                        return now;
                    }
                    self.waiting.remove(&number);
                    let ends = now + latency.mul_f64(self.random.unit());
                    if ends == now {
                        self.ledger.release(asking.need(), Release::Answered, Some(now), now, &mut wake);
                    } else {
                        landing.insert((ends, number), (asking.need(), now));
                    }
                }
            }
            let lands = landing.first_key_value().map(|((at, _), _)| *at);
            let next = self.ledger.next_event(now).into_iter().chain(lands).min().expect("something will happen");
            assert!(next > now, "time stands still");
            now = next;
            while let Some(entry) = landing.first_entry().filter(|entry| entry.key().0 <= now) {
                let (need, sent) = entry.remove();
                self.ledger.release(need, Release::Answered, Some(sent), now, &mut wake);
            }
        }
    }

    /// Lets another join, and says what was foretold and what came of it.
    fn foretold_and_real(&mut self, asking: &Asking, latency: Duration) -> Option<(Duration, Duration, Duration)> {
        let class = self.ledger.queues.class_of(asking.set, asking.priority, asking.repeated);
        let foretold = self.ledger.foretell(*self.ledger.queues.class(class), self.now).unwrap().at;
        let surely = self.ledger.surely_started(asking.need(), self.now);
        let Asked::Queued(waiter) = self.ledger.asked(asking, self.now) else { return None };
        self.waiting.insert(waiter.number, (waiter, *asking));
        let real = self.start_of(waiter, latency);
        Some((foretold - self.now, real - self.now, surely - self.now))
    }
}

fn anything(sets: &Sets, random: &Randomness) -> Asking {
    let set = [sets.wide, sets.wide, sets.both, sets.other][random.bits() as usize % 4];
    let priority = [Priority::High, Priority::Normal, Priority::Low][random.bits() as usize % 3];
    Asking { set, priority, repeated: random.unit() < 0.2, deadline: None, target: TARGET }
}

#[test]
fn the_start_is_exact_over_scopes_classes_and_priorities_when_nothing_is_in_flight() {
    let mut waited = 0;
    for seed in 0..400 {
        let burst = [None, None, Some(1), Some(5)][seed as usize % 4];
        let mut scene = Scene::new(seed, burst, seed as usize % 150, anything);
        let asking = anything(&scene.sets, &scene.random);
        let Some((foretold, real, surely)) = scene.foretold_and_real(&asking, Duration::ZERO) else { continue };
        assert_eq!(foretold, real, "seed {seed}: {asking:?}");
        assert!(real <= surely, "seed {seed}: the bound is {surely:?}, and it took {real:?}");
        waited += 1;
    }
    assert!(waited > 200, "{waited}");
}

#[test]
fn a_call_never_starts_later_than_foretold_if_the_network_is_no_slower_than_it_was() {
    for seed in 0..300 {
        let wide = |sets: &Sets, _: &Randomness| asking(sets.wide);
        let mut scene = Scene::new(seed, None, seed as usize, wide);
        let latency = Duration::from_millis(1_500);
        take(&mut scene.ledger, latency);
        let call = asking(scene.sets.wide);
        let Some((foretold, real, surely)) = scene.foretold_and_real(&call, latency) else { continue };
        assert!(real <= foretold, "seed {seed}: {foretold:?} was foretold, and it took {real:?}");
        assert!(foretold <= surely, "seed {seed}");
    }
}

#[test]
fn a_queue_of_any_length_is_foretold_to_the_round() {
    let (mut ledger, sets, start) = alone();
    (0..30).for_each(|second| ledger.answered_at_once(&asking(sets.wide), start + SECOND * second));
    let now = start + 30 * SECOND;
    for _ in 0..100_000 {
        ledger.queued(&asking(sets.wide), now);
    }
    let deadline = Some(now + HOUR);
    let Asked::Refused(refusal) = ledger.asked(&Asking { deadline, ..asking(sets.wide) }, now) else {
        panic!("not refused")
    };
    // 3 333 rounds of thirty, and the eleventh slot of the next.
    assert_eq!(refusal.retry_at - start, WINDOW * 3_334 + 10 * SECOND);
    assert_eq!(refusal.why, Why::Deadline);
    // Two scopes: the narrow one is the slow one, and nobody else waits for it.
    let narrow = ledger.asked(&Asking { deadline: Some(now), ..asking(sets.both) }, now);
    assert!(matches!(narrow, Asked::Refused(refusal) if refusal.retry_at > now), "{narrow:?}");
}

#[test]
fn who_can_no_longer_be_in_time_is_told_as_soon_as_that_is_known() {
    let (mut ledger, sets, now) = alone();
    (0..4).for_each(|_| ledger.answered_at_once(&asking(sets.both), now));
    let deadline = Some(now + WINDOW + SECOND);
    let waiters: Vec<_> = (0..4).map(|_| ledger.queued(&Asking { deadline, ..asking(sets.both) }, now)).collect();
    let refused = ledger.asked(&Asking { deadline, ..asking(sets.both) }, now);
    assert!(matches!(refused, Asked::Refused(Refusal { why: Why::Deadline, .. })), "{refused:?}");
    // Two who go before them come; the last two are told at once.
    let high = Asking { priority: Priority::High, ..asking(sets.both) };
    let first = [ledger.queued(&high, now), ledger.queued(&high, now)];
    let soon = ledger.next_event(now).unwrap();
    assert!(soon - now < Duration::from_millis(1));
    ledger.tick(soon, &mut Wakers::default());
    for (waiter, stays) in waiters.iter().zip([true, true, false, false]) {
        let turn = ledger.looked(*waiter, soon);
        assert_eq!(turn == Turn::Waiting, stays, "{turn:?}");
    }
    // A pause beyond their deadline dooms the others.
    ledger.was_refused(sets.both, Some(30), WINDOW, soon, soon + 10 * SECOND);
    let told = soon + 11 * SECOND;
    ledger.tick(told, &mut Wakers::default());
    let turn = ledger.looked(waiters[0], told);
    assert!(matches!(turn, Turn::Refused(Refusal { why: Why::Deadline, .. })), "{turn:?}");
    assert_eq!(ledger.looked(first[0], told), Turn::Waiting, "who has no deadline waits on");
}

#[test]
fn who_needs_more_is_told_when_others_take_meanwhile_what_it_needs() {
    for others in [29, 30] {
        let (mut ledger, sets, began) = alone();
        (0..30).for_each(|_| ledger.answered_at_once(&asking(sets.wide), began));
        let now = began + WINDOW / 2;
        ledger.was_refused(sets.both, Some(4), WINDOW, now, now);
        let older = ledger.queued(&Asking { deadline: Some(now + WINDOW), ..asking(sets.both) }, now);
        // They start when the pause of the narrow scope is not over yet, and hold the wide one for a window.
        (0..others).for_each(|_| _ = ledger.queued(&asking(sets.wide), now));
        let soon = ledger.next_event(now).unwrap();
        assert!(soon - now < SECOND);
        ledger.tick(soon, &mut Wakers::default());
        let too_late = Refusal { scope: sets.scope(0), retry_at: began + 2 * WINDOW, why: Why::Deadline };
        let turn = if others < 30 { Turn::Waiting } else { Turn::Refused(too_late) };
        assert_eq!(ledger.looked(older, soon), turn, "{others} others");
    }
}

#[test]
fn the_scope_that_is_named_is_one_that_makes_the_call_wait() {
    let (mut ledger, sets, now) = alone();
    (0..30).for_each(|_| ledger.answered_at_once(&asking(sets.wide), now));
    ledger.queued(&asking(sets.both), now);
    let refused = ledger.asked(&Asking { deadline: Some(now + SECOND), ..asking(sets.both) }, now);
    let full = Refusal { scope: sets.scope(0), retry_at: now + WINDOW, why: Why::Deadline };
    assert_eq!(refused, Asked::Refused(full), "nobody has used the narrow one");
}

#[test]
fn a_full_queue_says_when_there_is_room_in_it() {
    let (mut ledger, sets, now) = alone();
    ledger.rules.max_waiting = 2;
    (0..4).for_each(|_| ledger.answered_at_once(&asking(sets.both), now));
    for _ in 0..2 {
        ledger.queued(&asking(sets.both), now + SECOND);
    }
    let refused = ledger.asked(&asking(sets.both), now + SECOND);
    let full = Refusal { scope: sets.scope(0), retry_at: now + WINDOW, why: Why::QueueFull };
    assert_eq!(refused, Asked::Refused(full));
}

#[test]
fn nobody_waits_longer_than_the_layer_allows() {
    let (mut ledger, sets, now) = alone();
    ledger.rules.max_wait = Some(30 * SECOND);
    (0..4).for_each(|_| ledger.answered_at_once(&asking(sets.both), now));
    let refused = ledger.asked(&asking(sets.both), now);
    let late = Refusal { scope: sets.scope(1), retry_at: now + WINDOW, why: Why::MaxWait };
    assert_eq!(refused, Asked::Refused(late));
    assert!(matches!(ledger.asked(&asking(sets.both), now + 31 * SECOND), Asked::Queued(_)));
}

/// Makes calls that are answered at once for as long as there is room, and queues the others.
fn gather(ledger: &mut Ledger, asking: &Asking, count: usize, now: Instant) {
    for _ in 0..count {
        if ledger.asked(asking, now) == Asked::Granted {
            ledger.release(asking.need(), Release::Answered, Some(now), now, &mut Wakers::default());
        }
    }
}

/// When the waiter starts if all who wait are answered at once.
fn real_start(ledger: &mut Ledger, waiter: WaiterId, mut now: Instant) -> Instant {
    let mut wake = Wakers::default();
    loop {
        ledger.tick(now, &mut wake);
        for Uncollected { waiter: granted, .. } in mem::take(&mut ledger.uncollected) {
            let class = ledger.queues.get(granted).unwrap().class;
            let need = ledger.queues.class(class).need();
            assert!(ledger.looked(granted, now).is_granted());
            ledger.release(need, Release::Answered, Some(now), now, &mut wake);
            if granted == waiter {
                return now;
            }
        }
        now = ledger.next_event(now).unwrap();
    }
}

#[test]
fn a_call_that_would_be_in_time_is_not_refused_behind_a_long_mixed_queue() {
    let (mut ledger, sets, now, foretold) = behind_a_long_mixed_queue();
    let waiter = ledger.queued(&asking(sets.wide), now);
    let real = real_start(&mut ledger, waiter, now);
    assert!(!foretold.exact && foretold.at <= real, "{:?} was foretold, {:?} it took", foretold.at - now, real - now);
    assert!(real - now <= (foretold.at - now).mul_f64(1.2), "{:?}, {:?}", foretold.at - now, real - now);
}

#[test]
fn a_call_that_is_let_in_behind_a_long_mixed_queue_is_told_when_it_would_be_late_after_all() {
    let (mut ledger, sets, now, foretold) = behind_a_long_mixed_queue();
    let call = Asking { deadline: Some(foretold.at), ..asking(sets.wide) };
    let waiter = ledger.queued(&call, now);
    ledger.tick(now + SECOND, &mut Wakers::default());
    let turn = ledger.looked(waiter, now + SECOND);
    assert!(matches!(turn, Turn::Refused(refusal) if refusal.retry_at > foretold.at), "{turn:?}");
}

#[test]
fn calls_of_low_priority_that_go_by_their_age_are_counted_as_ahead() {
    let (sets, now) = (Sets::new(), Instant::now());
    let mut ledger = Ledger::new(&sets.limits, Rules { reserved_share: 0.0, ..rules(Duration::ZERO) }, now);
    take(&mut ledger, Duration::ZERO);
    gather(&mut ledger, &Asking { priority: Priority::Low, ..asking(sets.wide) }, 4_000, now);
    // All of them have waited for long when the next slots become free.
    let class = ledger.queues.class_of(sets.wide, Priority::Normal, false);
    let foretold = ledger.foretell(*ledger.queues.class(class), now).unwrap().at;
    let call = Asking { deadline: Some(now + HOUR), ..asking(sets.wide) };
    assert!(matches!(ledger.asked(&call, now), Asked::Refused(_)));
    let waiter = ledger.queued(&asking(sets.wide), now);
    let real = real_start(&mut ledger, waiter, now);
    assert!(foretold <= real && real <= foretold + WINDOW, "{:?}, {:?}", foretold - now, real - now);
}

/// What is foretold to a call of a wide scope behind 3 000 others, half of which need a narrow one too.
fn behind_a_long_mixed_queue() -> (Ledger, Sets, Instant, Foretold) {
    let (mut ledger, sets, now) = alone();
    take(&mut ledger, Duration::ZERO);
    for _ in 0..1_500 {
        gather(&mut ledger, &asking(sets.wide), 1, now);
        gather(&mut ledger, &asking(sets.both), 1, now);
    }
    let class = ledger.queues.class_of(sets.wide, Priority::Normal, false);
    let foretold = ledger.foretell(*ledger.queues.class(class), now).unwrap();
    (ledger, sets, now, foretold)
}

/// Attempts have taken so long, and nothing else, for a while.
fn take(ledger: &mut Ledger, trip: Duration) {
    for scope in &mut ledger.scopes {
        scope.trips = RoundTrips::default();
        (0..RoundTrips::BLOCK).for_each(|_| _ = scope.trips.saw(trip));
    }
}

#[test]
fn one_answer_that_hangs_says_nothing_about_others() {
    let mut trips = RoundTrips::default();
    assert!(trips.saw(70 * SECOND));
    assert_eq!(trips.typical(), SECOND, "nothing is known of one");
    (0..100).for_each(|_| _ = trips.saw(SECOND / 10));
    trips.saw(70 * SECOND);
    assert_eq!(trips.typical(), SECOND / 10);
    (0..4).for_each(|_| _ = trips.saw(3 * SECOND));
    assert_eq!(trips.typical(), 3 * SECOND, "where several are slow, the next will be");
    (0..2 * RoundTrips::BLOCK).for_each(|_| _ = trips.saw(SECOND / 10));
    assert_eq!(trips.typical(), SECOND / 10);
}

#[test]
fn the_nth_slot_to_become_free_is_found_among_those_in_flight_and_those_that_cool_down() {
    let random = Randomness::seeded(3);
    let start = Instant::now();
    for _ in 0..200 {
        let mut scope =
            Sets::new().limits.scopes().first().map(|scope| Scope::new(scope, &rules(SECOND), start)).unwrap();
        let now = start + 2 * WINDOW;
        let mut taken: Vec<_> = (0..random.bits() % 8).map(|_| start + (2 * WINDOW).mul_f64(random.unit())).collect();
        taken.sort_unstable();
        taken.iter().for_each(|at| scope.take(false, *at));
        (0..random.bits() % 8).for_each(|_| scope.all.cool(now + (2 * WINDOW).mul_f64(random.unit())));
        let landing = scope.landing(now);
        let mut free: Vec<_> =
            scope.all.cooling.iter().copied().chain(taken.into_iter().map(|at| landing.of(at))).collect();
        free.sort_unstable();
        let found: Vec<_> = (0..free.len()).map(|n| scope.all.release(n, landing).unwrap()).collect();
        assert_eq!(found, free);
        assert_eq!(scope.all.release(free.len(), landing), None);
    }
}

/// Calls with deadlines come at random; each attempt takes the same time, and nothing unforeseen happens.
#[test]
fn where_nothing_unforeseen_happens_whoever_is_let_in_is_served_in_time() {
    for trip in [SECOND / 10, 3 * SECOND, 20 * SECOND] {
        let mut told = (0, 0, 0);
        for seed in 0..30 {
            let (sets, random, start) = (Sets::new(), Randomness::seeded(seed), Instant::now());
            let mut ledger = Ledger::new(&sets.limits, rules(SECOND), start);
            take(&mut ledger, trip);
            let mut calls = BTreeMap::new();
            let mut at = start;
            for number in 0..400 {
                at += (3 * SECOND).mul_f64(random.unit());
                let set = [sets.wide, sets.both, sets.other][random.bits() as usize % 3];
                let deadline = Some(at + (200 * SECOND).mul_f64(random.unit()));
                calls.insert((at, number), Asking { deadline, ..asking(set) });
            }
            let (mut waiting, mut answers) = (BTreeMap::new(), VecDeque::new());
            let mut now = start;
            loop {
                let next = if ledger.is_waited_for() { ledger.next_event(now) } else { None };
                let call = calls.first_key_value().map(|((at, _), _)| *at);
                let answer = answers.front().map(|(at, _): &(Instant, Asking)| *at);
                let Some(event) = [next, call, answer].into_iter().flatten().min() else { break };
                now = event.max(now);
                let mut wake = Wakers::default();
                while let Some((_, call)) = answers.pop_front_if(|(at, _)| *at <= now) {
                    ledger.answered(call.set, now, &mut wake);
                    ledger.release(call.need(), Release::Answered, Some(now - trip), now, &mut wake);
                }
                ledger.tick(now, &mut wake);
                while let Some(call) =
                    calls.first_entry().filter(|entry| entry.key().0 <= now).map(OccupiedEntry::remove)
                {
                    match ledger.ask(&call, now, &mut wake) {
                        Asked::Granted => answers.push_back((now + trip, call)),
                        Asked::Queued(id) => _ = waiting.insert(id.number, (id, call)),
                        Asked::Refused(_) => told.0 += 1,
                    }
                }
                waiting.retain(|_, (id, call): &mut (WaiterId, Asking)| match ledger.looked(*id, now) {
                    Turn::Waiting => true,
                    Turn::Granted(_) => {
                        assert!(call.deadline.unwrap() >= now, "sent after its deadline");
                        told.1 += 1;
                        answers.push_back((now + trip, *call));
                        false
                    }
                    Turn::Refused(_) => {
                        told.2 += 1;
                        false
                    }
                });
            }
            assert!(waiting.is_empty());
        }
        let (refused, served, refused_later) = told;
        assert!(refused > 100 && served > 1_000, "{told:?}");
        assert_eq!(refused_later, 0, "of {served}, with {trip:?} each");
    }
}
