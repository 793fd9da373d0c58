//! The ledger against an adversary: a simulated world that delays, reorders, loses and cancels as it likes.

mod forecast;
mod neighbour;
mod undocumented;

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::{Arc, Mutex},
    task::Wake,
};

use didit_api::{Routes, Scope as LimitScope};
use http::Method;

use super::*;
use crate::{pacing::pacer::ColdStart, random::Randomness};

const WINDOW: Duration = Duration::from_secs(60);
const TRANSIT: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(3_600);
const SECOND: Duration = Duration::from_secs(1);
/// What requests are sent to where nothing depends on it.
const TARGET: Target = Target::Path(0);
/// And something else.
const OTHER: Target = Target::Path(1);

fn rules(epsilon: Duration) -> Rules {
    Rules {
        epsilon,
        transit: TRANSIT,
        burst: None,
        reserved_share: 0.2,
        max_waiting: 1_000_000,
        max_wait: None,
        patience: WINDOW,
        raise_limits: false,
    }
}

/// A wide scope that everything counts in, and two narrow ones for some.
struct Sets {
    limits: Limits,
    wide: ScopeSet,
    /// With a narrow one.
    both: ScopeSet,
    /// With the other.
    other: ScopeSet,
}

impl Sets {
    fn new() -> Self {
        let limits = Limits::none()
            .with(LimitScope::methods("wide", 30, ["POST"]).unwrap())
            .and_then(|limits| limits.with(LimitScope::endpoints("narrow", 4, ["session-create"])?))
            .and_then(|limits| limits.with(LimitScope::endpoints("other", 7, ["aml"])?))
            .unwrap();
        let routes = Routes::didit();
        let table = limits.table(&routes);
        let of = |name: &str| table.of(routes.named(name), &Method::POST);
        let wide = table.of(None, &Method::POST);
        Self { both: of("session-create"), other: of("aml"), wide, limits }
    }

    fn scope(&self, index: usize) -> ScopeId {
        self.limits.iter().nth(index).unwrap().0
    }
}

fn asking(set: ScopeSet) -> Asking {
    Asking { set, priority: Priority::Normal, repeated: false, deadline: None, target: TARGET }
}

/// A ledger at an instant, without a world around it.
fn alone() -> (Ledger, Sets, Instant) {
    let (sets, now) = (Sets::new(), Instant::now());
    (Ledger::new(&sets.limits, rules(Duration::ZERO), now), sets, now)
}

impl Turn {
    fn is_granted(self) -> bool {
        matches!(self, Self::Granted(_))
    }
}

impl Ledger {
    fn asked(&mut self, asking: &Asking, now: Instant) -> Asked {
        self.ask(asking, now, &mut Wakers::default())
    }

    fn has_turn(&self, waiter: WaiterId) -> bool {
        self.queues.get(waiter).is_none_or(|waiter| waiter.state == State::Granted)
    }

    fn queued(&mut self, asking: &Asking, now: Instant) -> WaiterId {
        match self.asked(asking, now) {
            Asked::Queued(waiter) => waiter,
            other => panic!("not queued: {other:?}"),
        }
    }

    fn answered_at_once(&mut self, asking: &Asking, now: Instant) {
        assert_eq!(self.asked(asking, now), Asked::Granted);
        self.release(asking.need(), Release::Answered, Some(now), now, &mut Wakers::default());
    }

    fn was_refused(
        &mut self,
        set: ScopeSet,
        limit: Option<u32>,
        wait: Duration,
        sent: Instant,
        now: Instant,
    ) -> Option<learn::Lesson> {
        self.refused(set, Attempt { target: TARGET, sent }, limit, wait, now)
    }

    /// Requests to two endpoints of the set were refused: the limit is that of one of its scopes.
    fn were_refused(&mut self, set: ScopeSet, limit: u32, now: Instant) -> learn::Lesson {
        self.was_refused(set, Some(limit), SECOND, now, now);
        self.refused(set, Attempt { target: OTHER, sent: now }, Some(limit), SECOND, now).unwrap()
    }

    fn looked(&mut self, waiter: WaiterId, now: Instant) -> Turn {
        self.look(waiter, Waker::noop(), now, &mut Wakers::default())
    }
}

struct World {
    ledger: Ledger,
    sets: Sets,
    random: Randomness,
    start: Instant,
    // What happens, in order; the number keeps simultaneous events apart.
    events: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
    // When the timekeeper looks.
    set_for: Option<Instant>,
    waiting: HashMap<u64, Caller>,
    arrivals: Vec<(Instant, ScopeSet)>,
    served: Vec<(ScopeSet, Priority, bool, u64)>,
    longest_latency: Duration,
    // Who was woken.
    rung: Arc<Mutex<Vec<u64>>>,
    // How many were refused, at the door and later.
    refused: [usize; 2],
}

#[derive(Clone, Copy)]
struct Caller {
    id: WaiterId,
    asking: Asking,
    // Its task is not always there when it is woken.
    sleepy: bool,
}

/// Notes which waiter is woken.
struct Bell {
    number: u64,
    rung: Arc<Mutex<Vec<u64>>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.lock().unwrap().push(self.number);
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Ask,
    Tick,
    Look(u64),
    Release(Need, Release, Instant),
    GiveUp(u64),
    Refuse(ScopeSet),
    Count(ScopeSet),
}

impl World {
    fn new(seed: u64, epsilon: Duration, longest_latency: Duration) -> Self {
        let (sets, start) = (Sets::new(), Instant::now());
        Self {
            ledger: Ledger::new(&sets.limits, rules(epsilon), start),
            sets,
            random: Randomness::seeded(seed),
            start,
            events: BTreeMap::new(),
            next_event: 0,
            set_for: None,
            waiting: HashMap::new(),
            arrivals: Vec::new(),
            served: Vec::new(),
            longest_latency,
            rung: Arc::default(),
            refused: [0; 2],
        }
    }

    fn at(&mut self, time: Instant, event: Event) {
        self.next_event += 1;
        self.events.insert((time, self.next_event), event);
    }

    fn chance(&self, probability: f64) -> bool {
        self.random.unit() < probability
    }

    fn up_to(&self, most: Duration) -> Duration {
        most.mul_f64(self.random.unit())
    }

    fn any_set(&self) -> ScopeSet {
        [self.sets.wide, self.sets.wide, self.sets.both, self.sets.other][self.random.bits() as usize % 4]
    }

    fn any_target(&self) -> Target {
        Target::Path(self.random.bits() as u16 % 4)
    }

    /// A granted call meets its fate.
    fn send(&mut self, need: Need, now: Instant) {
        let latency = self.up_to(self.longest_latency);
        let arrival = now + latency.mul_f64(self.random.unit());
        match self.random.unit() {
            // The caller goes away, or a gateway answers first; the bytes arrive all the same, at the latest when the
            // transit bound says.
            fate if fate < 0.1 => {
                let gone = now + self.up_to(latency);
                let lingering = self.up_to(TRANSIT);
                self.arrivals.push((gone + lingering, need.set));
                self.at(gone, Event::Release(need, Release::Lost, now));
            }
            fate if fate < 0.15 => self.at(now + latency, Event::Release(need, Release::Unsent, now)),
            _ => {
                self.arrivals.push((arrival, need.set));
                self.at(now + latency, Event::Release(need, Release::Answered, now));
            }
        }
    }

    fn step(&mut self, now: Instant, event: Event) {
        let mut wake = Wakers::default();
        match event {
            Event::Ask => {
                let priority = [Priority::High, Priority::Normal, Priority::Low][self.random.bits() as usize % 3];
                let deadline = self.chance(0.3).then(|| now + self.up_to(4 * WINDOW));
                let (set, target) = (self.any_set(), self.any_target());
                let asking = Asking { set, priority, repeated: self.chance(0.2), deadline, target };
                let asking = asking.completed(&self.ledger);
                match self.ledger.ask(&asking, now, &mut wake) {
                    Asked::Granted => self.send(asking.need(), now),
                    Asked::Queued(id) => {
                        let sleepy = self.chance(0.05);
                        self.waiting.insert(id.number, Caller { id, asking, sleepy });
                        if self.chance(0.1) {
                            let patience = self.up_to(WINDOW);
                            self.at(now + patience, Event::GiveUp(id.number));
                        }
                        self.at(now, Event::Look(id.number));
                    }
                    Asked::Refused(_) => self.refused[0] += 1,
                }
            }
            Event::Tick => {
                self.set_for = None;
                self.ledger.tick(now, &mut wake);
            }
            Event::Look(number) => {
                let Some(caller) = self.waiting.get(&number).copied() else { return };
                let bell = Waker::from(Arc::new(Bell { number, rung: Arc::clone(&self.rung) }));
                match self.ledger.look(caller.id, &bell, now, &mut wake) {
                    Turn::Granted(need) => {
                        self.waiting.remove(&number);
                        let Asking { priority, repeated, .. } = caller.asking;
                        if !caller.sleepy {
                            self.served.push((need.set, priority, repeated, number));
                        }
                        self.send(need, now);
                    }
                    Turn::Waiting => {}
                    Turn::Refused(_) => {
                        self.waiting.remove(&number);
                        self.refused[1] += 1;
                    }
                }
            }
            Event::Release(need, how, sent) => {
                self.ledger.release(need, how, Some(sent), now, &mut wake);
                if how == Release::Answered {
                    self.ledger.answered(need.set, now, &mut wake);
                }
            }
            Event::GiveUp(number) => {
                if let Some(caller) = self.waiting.remove(&number) {
                    self.ledger.give_up(caller.id, now, &mut wake);
                }
            }
            Event::Refuse(set) => {
                let limit = self.chance(0.5).then(|| [30, 4, 7, 20, 2][self.random.bits() as usize % 5]);
                let (wait, attempt) = (self.up_to(2 * WINDOW), Attempt { target: self.any_target(), sent: now });
                self.ledger.refused(set, attempt, limit, wait, now);
            }
            Event::Count(set) => {
                let left = self.random.bits() as u32 % 30;
                self.ledger.resynchronise(set, Some(30), left, None, now);
            }
        }
        wake.settle();
        let rung = mem::take(&mut *self.rung.lock().unwrap());
        for number in rung {
            let sleepy = self.waiting.get(&number).is_some_and(|caller| caller.sleepy);
            let late = if sleepy { self.up_to(4 * LEASE) } else { Duration::ZERO };
            self.at(now + late, Event::Look(number));
        }
        if self.ledger.is_waited_for()
            && let Some(next) = self.ledger.next_event(now)
        {
            assert!(next > now || !matches!(event, Event::Tick), "a timekeeper would spin");
            if self.set_for.is_none_or(|at| next < at) {
                self.set_for = Some(next);
                self.at(next, Event::Tick);
            }
        }
    }

    /// Asks at random for a while, then waits until everything has settled.
    fn run(&mut self, length: Duration, per_minute: f64) {
        let mut time = self.start;
        while time < self.start + length {
            self.at(time, Event::Ask);
            // Bursts: every now and then thirty ask at once.
            if self.chance(0.005) {
                (0..30).for_each(|_| self.at(time, Event::Ask));
            }
            if self.chance(0.002) {
                let set = self.any_set();
                self.at(time, Event::Refuse(set));
            }
            if self.chance(0.002) {
                let set = self.any_set();
                self.at(time, Event::Count(set));
            }
            time += self.up_to(Duration::from_secs_f64(120.0 / per_minute));
        }
        let mut steps = 0;
        while let Some(((now, _), event)) = self.events.pop_first() {
            self.step(now, event);
            steps += 1;
            if steps % 41 == 0 {
                self.check_books();
            }
        }
        assert!(self.waiting.is_empty(), "a wake-up was lost: {} wait for ever", self.waiting.len());
    }

    /// What the ledger has on its books is what has happened.
    fn check_books(&self) {
        let queues = &self.ledger.queues;
        let known = || {
            // Which scopes it needs may have changed since it asked.
            self.waiting.values().filter_map(|caller| {
                let waiter = queues.get(caller.id)?;
                Some((waiter.state, Asking { set: queues.class(waiter.class).set, ..caller.asking }))
            })
        };
        for (index, scope) in self.ledger.scopes.iter().enumerate() {
            let id = ScopeId::at(index).unwrap();
            let of = |state| known().filter(move |(known, asking)| *known == state && asking.set.contains(id));
            assert_eq!(scope.waiting, of(State::Queued).count());
            for (held, all) in [(&scope.all, true), (&scope.low, false)] {
                let takes = |need: &Need| need.set.contains(id) && (all || need.low);
                let sent =
                    self.events.values().filter(|event| matches!(event, Event::Release(need, ..) if takes(need)));
                let granted = of(State::Granted).filter(|(_, asking)| takes(&asking.need()));
                assert_eq!(held.in_flight.len(), sent.count() + granted.count());
                assert!(held.in_flight.iter().is_sorted() && held.cooling.iter().is_sorted());
            }
        }
        assert_eq!(queues.waiting, known().filter(|(state, _)| *state == State::Queued).count());
        for class in &queues.classes {
            let chain = std::iter::successors(Some(class.first()), |at| Some(queues.behind(*at)));
            let chain: Vec<_> = chain.map_while(|at| queues.at(at)).collect();
            assert!(chain.is_sorted_by_key(|waiter| waiter.number) && chain.len() == class.waiting);
            assert!(chain.iter().all(|waiter| waiter.state == State::Queued));
        }
        assert!(self.ledger.uncollected.iter().is_sorted_by_key(|turn| turn.until));
        assert!(self.ledger.patient_until.iter().is_sorted_by_key(|(until, _)| *until));
    }

    /// The most arrivals of a scope in any window, as a server counts that holds an entry for `window`.
    fn peak(&self, scope: usize, window: Duration) -> usize {
        let in_scope = |set: &ScopeSet| set.iter().any(|id| id.index() == scope);
        let mut times: Vec<_> = self.arrivals.iter().filter(|(_, set)| in_scope(set)).map(|(time, _)| *time).collect();
        times.sort_unstable();
        let (mut oldest, mut peak) = (0, 0);
        for (latest, time) in times.iter().enumerate() {
            while time.duration_since(times[oldest]) >= window {
                oldest += 1;
            }
            peak = peak.max(latest + 1 - oldest);
        }
        peak
    }

    fn check(&mut self, window: Duration) {
        for (index, scope) in self.sets.limits.scopes().iter().enumerate() {
            let (peak, limit) = (self.peak(index, window), scope.limit().get() as usize);
            assert!(peak <= limit, "{} of {limit} in one window of {}", peak, scope.name());
        }
        // First come, first served, queue by queue.
        let mut last = HashMap::new();
        for (set, priority, repeated, number) in &self.served {
            let before = last.insert((*set, *priority, *repeated), *number);
            assert!(before.is_none_or(|before| before < *number), "overtaken");
        }
        let end = self.start + 48 * HOUR;
        for index in 0..self.ledger.scopes.len() {
            let gauges = self.ledger.gauges(ScopeId::at(index).unwrap(), end);
            assert_eq!((gauges.used, gauges.waiting), (0, [0; 3]), "something was left behind");
        }
        assert_eq!(self.ledger.idle_at(end), Some(end), "something is remembered for ever");
    }
}

#[test]
fn no_window_ever_holds_more_than_its_limit_whatever_the_network_does() {
    let mut refused = [0; 2];
    for seed in 0..3 {
        for latency in [Duration::from_millis(100), Duration::from_secs(5), Duration::from_secs(90)] {
            let mut world = World::new(seed, Duration::ZERO, latency);
            world.run(HOUR / 6, 50.0);
            world.check(WINDOW);
            refused[0] += world.refused[0];
            refused[1] += world.refused[1];
        }
    }
    assert!(refused[0] > 30 && refused[1] > 30, "{refused:?}: the test asks for nothing impossible");
}

#[test]
fn whoever_waits_no_longer_than_allowed_is_told_so_in_time_though_turns_lapse() {
    for seed in 0..6 {
        let mut world = World::new(seed, Duration::ZERO, 3 * WINDOW / 2);
        world.ledger.rules.max_wait = Some(3 * WINDOW / 2);
        world.run(HOUR / 6, 50.0);
        world.check(WINDOW);
    }
}

#[test]
fn a_server_that_keeps_whole_seconds_is_satisfied_by_an_epsilon_of_one() {
    for seed in 100..103 {
        let mut world = World::new(seed, SECOND, Duration::from_millis(500));
        world.run(HOUR / 6, 50.0);
        // Such a server may hold an entry for up to a second more than the window.
        world.check(WINDOW + Duration::from_millis(999));
    }
}

#[test]
fn the_check_would_notice_a_ledger_that_forgets_too_early() {
    let mut world = World::new(1, Duration::ZERO, Duration::from_secs(5));
    for scope in &mut world.ledger.scopes {
        scope.hold -= Duration::from_secs(10);
    }
    world.run(HOUR / 6, 50.0);
    assert!(world.peak(0, WINDOW) > 30);
}

#[test]
fn an_idle_ledger_takes_a_full_window_at_once() {
    let (mut ledger, sets, now) = alone();
    let granted = (0..40).filter(|_| ledger.asked(&asking(sets.wide), now) == Asked::Granted).count();
    assert_eq!(granted, 30);
}

#[test]
fn calls_of_low_priority_leave_the_reserved_share_to_the_others() {
    let (mut ledger, sets, now) = alone();
    let low = Asking { priority: Priority::Low, ..asking(sets.wide) };
    let granted = (0..40).filter(|_| ledger.asked(&low, now) == Asked::Granted).count();
    assert_eq!(granted, 24, "80 % of 30");
    let granted = (0..40).filter(|_| ledger.asked(&asking(sets.wide), now) == Asked::Granted).count();
    assert_eq!(granted, 6, "and the others have what is left");
}

#[test]
fn who_goes_first_is_a_matter_of_priority_then_of_repetition_then_of_age() {
    let (mut ledger, sets, now) = alone();
    (0..4).for_each(|_| ledger.answered_at_once(&asking(sets.both), now));
    let kinds = [
        (Priority::Low, false),
        (Priority::Low, true),
        (Priority::Normal, false),
        (Priority::Normal, true),
        (Priority::High, false),
        (Priority::High, true),
        (Priority::High, false),
    ];
    let waiters = kinds
        .map(|(priority, repeated)| ledger.queued(&Asking { priority, repeated, ..asking(sets.both) }, now + SECOND));
    let mut order = Vec::new();
    let mut wake = Wakers::default();
    for round in 1..9 {
        // Four slots a window; each call takes no time.
        let at = now + WINDOW * round;
        ledger.tick(at, &mut wake);
        for (index, waiter) in waiters.iter().enumerate() {
            if !order.contains(&index) && ledger.looked(*waiter, at).is_granted() {
                order.push(index);
                let (priority, _) = kinds[index];
                let need = Asking { priority, ..asking(sets.both) }.need();
                ledger.release(need, Release::Answered, Some(at), at, &mut wake);
            }
        }
    }
    // The first four, then three: within a tick they are looked at in the order they asked.
    assert_eq!(order, [3, 4, 5, 6, 0, 1, 2]);
}

#[test]
fn a_call_of_low_priority_that_has_waited_for_a_window_goes_by_its_age() {
    let (mut ledger, sets, now) = alone();
    (0..4).for_each(|_| ledger.answered_at_once(&asking(sets.both), now));
    let low = ledger.queued(&Asking { priority: Priority::Low, ..asking(sets.both) }, now);
    let others: Vec<_> = (0..4).map(|_| ledger.queued(&asking(sets.both), now)).collect();
    let later = now + WINDOW;
    assert!(ledger.looked(low, later).is_granted(), "it was the first");
    assert!(ledger.looked(others[2], later).is_granted());
    assert_eq!(ledger.looked(others[3], later), Turn::Waiting);
}

#[test]
fn a_pause_holds_the_scope_whose_limit_the_server_named() {
    let wait = Duration::from_secs(20);
    let (mut ledger, sets, now) = alone();
    let lesson = ledger.was_refused(sets.both, Some(30), wait, now, now).unwrap();
    assert_eq!((lesson.scope.index(), lesson.wait), (0, wait), "30 is the wide scope's limit");
    assert!(matches!(ledger.asked(&asking(sets.wide), now), Asked::Queued(_)));
    let (mut ledger, sets, now) = alone();
    let lesson = ledger.was_refused(sets.both, None, Duration::MAX, now, now).unwrap();
    assert_eq!((lesson.scope.index(), lesson.wait), (1, WINDOW), "nothing named: the narrowest, for a window at most");
    assert_eq!(ledger.asked(&asking(sets.wide), now), Asked::Granted);
}

/// So many requests of a kind were answered in this window.
fn were_answered(ledger: &mut Ledger, set: ScopeSet, count: usize, now: Instant) {
    (0..count).for_each(|_| ledger.answered_at_once(&asking(set), now));
}

#[test]
fn a_limit_that_others_exceed_unpunished_is_the_one_of_the_scope_that_is_left() {
    let (mut ledger, sets, now) = alone();
    were_answered(&mut ledger, sets.both, 2, now);
    were_answered(&mut ledger, sets.wide, 3, now);
    let lesson = ledger.was_refused(sets.both, Some(2), SECOND, now, now).unwrap();
    assert_eq!((lesson.scope.index(), lesson.adopted), (1, Some(2)), "the wide scope has let five in");
}

#[test]
fn a_limit_that_was_taken_over_and_is_not_full_is_another_scopes() {
    let (mut ledger, sets, now) = alone();
    let lesson = ledger.was_refused(sets.both, Some(2), SECOND, now, now).unwrap();
    assert_eq!((lesson.scope.index(), lesson.adopted), (1, Some(2)), "nothing is known: the more specific one");
    were_answered(&mut ledger, sets.wide, 2, now);
    let again = now + SECOND;
    let lesson = ledger.was_refused(sets.both, Some(2), SECOND, again, again).unwrap();
    assert!(lesson.scope.index() > 2, "one endpoint says nothing about others");
    let other = Attempt { target: OTHER, sent: again };
    let lesson = ledger.refused(sets.wide, other, Some(2), SECOND, again).unwrap();
    assert_eq!((lesson.scope.index(), lesson.adopted), (0, Some(2)));
}

#[test]
fn what_a_cold_start_assumes_is_no_evidence() {
    let (mut ledger, sets, now) = alone();
    ledger.assume(ColdStart::Full, &sets.limits, &[], now, now);
    let lesson = ledger.was_refused(sets.wide, Some(2), SECOND, now, now).unwrap();
    assert_eq!(lesson.adopted, Some(2));
}

#[test]
fn turns_that_came_while_the_runtime_stood_still_are_not_lost() {
    let (mut ledger, sets, now) = alone();
    were_answered(&mut ledger, sets.wide, 30, now);
    let waiters: Vec<_> = (0..40).map(|_| ledger.queued(&asking(sets.wide), now)).collect();
    ledger.tick(now + WINDOW, &mut Wakers::default());
    let late = now + WINDOW + LEASE * 2;
    // Whoever comes first, a newcomer, a tick or one whose turn has not come, costs nobody his place.
    assert!(matches!(ledger.asked(&asking(sets.wide), late), Asked::Queued(_)));
    ledger.tick(late, &mut Wakers::default());
    assert_eq!(ledger.looked(waiters[35], late), Turn::Waiting);
    for waiter in &waiters[..30] {
        assert!(ledger.looked(*waiter, late + LEASE / 2).is_granted());
    }
}

#[test]
fn a_turn_that_nobody_takes_lapses_though_nobody_ticks() {
    let (mut ledger, sets, now) = alone();
    were_answered(&mut ledger, sets.both, 4, now);
    let absent = ledger.queued(&asking(sets.both), now);
    let mut at = now + WINDOW;
    were_answered(&mut ledger, sets.both, 3, at);
    // Its turn has come; it is made and never polled.
    for _ in 0..2 {
        let call = Asking { deadline: Some(at + SECOND), ..asking(sets.both) };
        assert!(matches!(ledger.asked(&call, at), Asked::Refused(_)));
        at += 10 * SECOND;
    }
    assert_eq!(ledger.asked(&asking(sets.both), at), Asked::Granted);
    assert_eq!(ledger.looked(absent, at), Turn::Waiting);
}

#[test]
fn whoever_waits_for_as_long_as_the_layer_allows_is_told_so() {
    let (sets, now) = (Sets::new(), Instant::now());
    let mut ledger = Ledger::new(&sets.limits, Rules { max_wait: Some(3 * WINDOW), ..rules(Duration::ZERO) }, now);
    // They hang, so that no slot becomes free.
    (0..30).for_each(|_| assert_eq!(ledger.asked(&asking(sets.wide), now), Asked::Granted));
    let waiter = ledger.queued(&asking(sets.wide), now);
    let mut at = now;
    while ledger.looked(waiter, at) == Turn::Waiting {
        at = ledger.next_event(at).expect("it would wait for ever");
        ledger.tick(at, &mut Wakers::default());
    }
    assert_eq!(at, now + 3 * WINDOW);
}

#[test]
fn a_limit_that_the_server_changed_is_taken_over_when_it_cannot_be_another_scopes() {
    let (mut ledger, sets, now) = alone();
    let named =
        |ledger: &mut Ledger, set, limit| ledger.was_refused(set, Some(limit), SECOND, now, now).unwrap().adopted;
    assert_eq!(named(&mut ledger, sets.both, 20), None, "which of the two was changed?");
    assert_eq!(ledger.were_refused(sets.wide, 20, now).adopted, Some(20));
    assert_eq!(ledger.gauges(sets.scope(0), now).limit, 20);
    assert_eq!(named(&mut ledger, sets.wide, 500), Some(30), "never above the configured one");
    ledger.rules.raise_limits = true;
    assert_eq!(named(&mut ledger, sets.wide, 500), Some(300), "unless that is asked for, and not without bound");
}

#[test]
fn a_refusal_lowers_the_limit_once_and_answers_raise_it_again() {
    let (mut ledger, sets, now) = alone();
    let wide = sets.scope(0);
    (0..20).for_each(|_| assert_eq!(ledger.asked(&asking(sets.wide), now), Asked::Granted));
    let later = now + SECOND;
    for _ in 0..5 {
        // All of them were on their way when the first was refused.
        ledger.was_refused(sets.wide, Some(30), SECOND, now, later);
    }
    assert_eq!(ledger.gauges(wide, later).effective, 19, "98 % of 20");
    let mut wake = Wakers::default();
    for _ in 0..75 {
        ledger.answered(sets.wide, later, &mut wake);
    }
    assert_eq!(ledger.gauges(wide, later).effective, 21, "0.02 each");
    ledger.was_refused(sets.wide, Some(30), SECOND, later + SECOND, later + SECOND);
    for _ in 0..2_000 {
        ledger.answered(sets.wide, later + SECOND, &mut wake);
    }
    assert_eq!(ledger.gauges(wide, later).effective, 30, "never above the limit");
}

#[test]
fn one_refusal_takes_no_more_than_half_of_a_limit() {
    let (mut ledger, sets, now) = alone();
    assert_eq!(ledger.was_refused(sets.wide, Some(30), SECOND, now, now).unwrap().effective, 15);
    let (mut ledger, sets, now) = alone();
    for second in 0..10 {
        let at = now + SECOND * second;
        ledger.was_refused(sets.both, Some(4), SECOND, at, at);
    }
    assert_eq!(ledger.gauges(sets.scope(1), now).effective, 1, "and one is left to learn from");
}

#[test]
fn what_gathers_during_a_pause_is_let_out_a_tenth_of_the_limit_at_a_time() {
    let (mut ledger, sets, now) = alone();
    ledger.was_refused(sets.wide, Some(30), 20 * SECOND, now, now);
    let after = now + 20 * SECOND;
    let granted = (0..10).filter(|_| ledger.asked(&asking(sets.wide), after) == Asked::Granted).count();
    assert_eq!(granted, 3);
    let next = ledger.next_event(after).unwrap();
    assert_eq!(next - after, 2 * SECOND, "and then 30 a minute");
}

#[test]
fn what_the_server_counts_beyond_ours_takes_slots() {
    let (mut ledger, sets, now) = alone();
    ledger.answered_at_once(&asking(sets.wide), now);
    let counted = ledger.resynchronise(sets.wide, Some(30), 9, None, now);
    assert_eq!(counted, Some((sets.scope(0), 20)), "21 of 30, and one of them is ours");
    assert_eq!(ledger.gauges(sets.scope(0), now).used, 21);
    assert_eq!(ledger.resynchronise(sets.wide, Some(30), 9, None, now), Some((sets.scope(0), 0)), "once");
    assert_eq!(ledger.resynchronise(sets.wide, Some(30), 29, None, now), Some((sets.scope(0), 0)), "never less");
    assert_eq!(ledger.resynchronise(sets.both, None, 0, None, now), None, "of which scope is not said");
    assert_eq!(ledger.gauges(sets.scope(0), now + WINDOW).used, 0);
}

#[test]
fn given_up_places_do_not_pile_up() {
    let (mut ledger, sets, now) = alone();
    let (set, mut wake) = (asking(sets.wide), Wakers::default());
    (0..30).for_each(|_| assert_eq!(ledger.asked(&set, now), Asked::Granted));
    ledger.queued(&set, now);
    for _ in 0..100_000 {
        let waiter = ledger.queued(&set, now);
        ledger.give_up(waiter, now, &mut wake);
    }
    assert!(ledger.queues.places() < 100, "{} places for one waiter", ledger.queues.places());
    assert_eq!(ledger.queues.waiting, 1);
}

#[test]
fn a_turn_that_nobody_takes_goes_to_the_next_and_comes_again() {
    let (mut ledger, sets, now) = alone();
    (0..4).for_each(|_| ledger.answered_at_once(&asking(sets.both), now));
    let waiters: Vec<_> = (0..6).map(|_| ledger.queued(&asking(sets.both), now)).collect();
    let mut wake = Wakers::default();
    let free = now + WINDOW;
    ledger.tick(free, &mut wake);
    // The first four have a turn; one of them comes.
    assert!(ledger.looked(waiters[3], free).is_granted());
    assert_eq!(ledger.looked(waiters[4], free), Turn::Waiting);
    assert_eq!(ledger.next_event(free), Some(free + LEASE));
    ledger.tick(free + LEASE, &mut wake);
    assert!(ledger.looked(waiters[4], free + LEASE).is_granted());
    assert!(ledger.looked(waiters[2], free + LEASE).is_granted(), "there is room for one who comes late");
    assert!(ledger.looked(waiters[5], free + LEASE).is_granted());
    assert_eq!(ledger.looked(waiters[1], free + LEASE), Turn::Waiting, "and not for the next");
}

#[test]
fn what_was_known_is_taken_up_and_nothing_is_free_before_its_time() {
    let (mut ledger, sets, now) = alone();
    ledger.answered_at_once(&asking(sets.wide), now);
    assert_eq!(ledger.asked(&Asking { priority: Priority::Low, ..asking(sets.wide) }, now), Asked::Granted);
    ledger.was_refused(sets.wide, Some(30), 10 * SECOND, now, now);
    let later = now + 5 * SECOND;
    let records = ledger.records(&sets.limits, later);
    assert_eq!(records[0].free_in, [55 * SECOND, WINDOW + TRANSIT], "one answered, one in flight");
    assert_eq!(records[0].low_free_in, [WINDOW + TRANSIT]);
    let restored = |elapsed| {
        let mut ledger = Ledger::new(&sets.limits, rules(Duration::ZERO), later);
        ledger.take_up(&sets.limits, &records, elapsed, later);
        let gauges = ledger.gauges(sets.scope(0), later);
        (gauges.used, gauges.effective, gauges.paused_until.map(|until| until - later))
    };
    assert_eq!(restored(Duration::ZERO), (2, 15, Some(5 * SECOND)));
    assert_eq!(restored(2 * SECOND), (2, 15, Some(3 * SECOND)));
    assert_eq!(restored(56 * SECOND), (1, 15, None));
    assert_eq!(restored(HOUR), (0, 15, None));
}

#[test]
fn a_cold_start_assumes_what_it_is_told() {
    let free_at = |cold_start| {
        let (mut ledger, sets, now) = alone();
        ledger.assume(cold_start, &sets.limits, &[], now, now);
        let used = ledger.gauges(sets.scope(0), now).used;
        // What was sent at the very end may still be on its way.
        let half = ledger.gauges(sets.scope(0), now + TRANSIT + WINDOW / 2).used;
        (used, half, ledger.gauges(sets.scope(0), now + TRANSIT + WINDOW).used)
    };
    assert_eq!(free_at(ColdStart::Empty), (0, 0, 0));
    assert_eq!(free_at(ColdStart::Full), (30, 30, 0));
    assert_eq!(free_at(ColdStart::Share(1.0)), (30, 15, 0));
    assert_eq!(free_at(ColdStart::Share(0.5)), (15, 8, 0));
}

#[test]
fn a_scope_of_which_there_is_no_record_starts_cold() {
    let (mut ledger, sets, now) = alone();
    let mut records = ledger.records(&sets.limits, now);
    records.remove(1);
    ledger.assume(ColdStart::Full, &sets.limits, &records, now, now);
    let used = [0, 1, 2].map(|index| ledger.gauges(sets.scope(index), now).used);
    assert_eq!(used, [0, 4, 0]);
}

#[test]
fn a_limit_is_recorded_only_if_the_server_named_it() {
    let (mut ledger, sets, now) = alone();
    assert_eq!(ledger.records(&sets.limits, now)[0].limit, None, "whoever goes on has a configuration of its own");
    ledger.were_refused(sets.wide, 20, now);
    let records = ledger.records(&sets.limits, now);
    assert_eq!(records[0].limit, Some(20));
    let mut next = Ledger::new(&sets.limits, rules(Duration::ZERO), now);
    next.take_up(&sets.limits, &records, Duration::ZERO, now);
    assert_eq!(next.gauges(sets.scope(0), now).limit, 20);
}

#[test]
fn a_limit_that_the_server_no_longer_names_is_relaxed_towards_the_configured_one() {
    let (mut ledger, sets, now) = alone();
    let (wide, mut wake) = (sets.scope(0), Wakers::default());
    ledger.were_refused(sets.wide, 1, now);
    let limits = |ledger: &mut Ledger, now| {
        let gauges = ledger.gauges(wide, now);
        (gauges.limit, gauges.effective)
    };
    ledger.answered(sets.wide, now + 9 * WINDOW, &mut wake);
    assert_eq!(limits(&mut ledger, now + 9 * WINDOW), (1, 1));
    assert!(ledger.idle_at(now + 9 * WINDOW).is_some_and(|at| at >= now + 10 * WINDOW), "and not forgotten until then");
    // Whoever names it again means it.
    let again = now + 9 * WINDOW;
    ledger.was_refused(sets.wide, Some(1), SECOND, again, again);
    ledger.answered(sets.wide, now + 18 * WINDOW, &mut wake);
    assert_eq!(limits(&mut ledger, now + 18 * WINDOW), (1, 1));
    let later = again + 10 * WINDOW;
    ledger.answered(sets.wide, later, &mut wake);
    assert_eq!(limits(&mut ledger, later), (30, 1), "if the server does mean it, one request too many tells");
    let quiet = later + 8 * WINDOW;
    ledger.answered(sets.wide, quiet, &mut wake);
    assert_eq!(limits(&mut ledger, quiet), (30, 6), "1, and 0.02 doubled eight times");
    (0..10).for_each(|_| ledger.answered(sets.wide, quiet, &mut wake));
    assert_eq!(limits(&mut ledger, quiet), (30, 30));
}

#[test]
fn a_limit_that_was_raised_is_used_with_a_burst_too() {
    let (sets, now) = (Sets::new(), Instant::now());
    let rules = Rules { raise_limits: true, burst: NonZeroU32::new(10), ..rules(Duration::ZERO) };
    let mut ledger = Ledger::new(&sets.limits, rules, now);
    ledger.resynchronise(sets.wide, Some(300), 300, None, now);
    (0..10).for_each(|_| ledger.answered_at_once(&asking(sets.wide), now));
    assert_eq!(ledger.gauges(sets.scope(0), now).predicted_wait, WINDOW / 300);
}

#[test]
fn a_flood_of_low_priority_leaves_room_in_the_queue_to_the_others() {
    let (sets, now) = (Sets::new(), Instant::now());
    let mut ledger = Ledger::new(&sets.limits, Rules { max_waiting: 5, ..rules(Duration::ZERO) }, now);
    let of = |priority| Asking { priority, ..asking(sets.wide) };
    (0..30).for_each(|_| ledger.answered_at_once(&asking(sets.wide), now));
    for priority in [Priority::Low, Priority::Normal, Priority::High] {
        for _ in 0..5 {
            ledger.queued(&of(priority), now);
        }
        let asked = ledger.asked(&of(priority), now);
        assert!(matches!(asked, Asked::Refused(Refusal { why: Why::QueueFull, .. })), "{asked:?}");
    }
}

#[test]
fn a_waker_that_panics_costs_nobody_else_his_turn() {
    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("somebody's waker");
        }
    }

    let rung = Arc::default();
    let mut wake = Wakers::default();
    wake.wake(Some(Arc::new(Panics).into()));
    wake.wake(Some(Arc::new(Bell { number: 7, rung: Arc::clone(&rung) }).into()));
    wake.settle();
    assert_eq!(*rung.lock().unwrap(), [7]);
}
