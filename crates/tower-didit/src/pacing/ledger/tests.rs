//! The ledger against an adversary: a simulated world that delays, reorders, loses and cancels as it likes.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::{Arc, Mutex},
    task::Wake,
};

use didit_api::Scope as LimitScope;

use super::*;
use crate::random::Randomness;

const WINDOW: Duration = Duration::from_secs(60);
const TRANSIT: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(3_600);

/// A wide scope that everything counts in, and a narrow one for some.
struct World {
    ledger: Ledger,
    limits: Limits,
    both: ScopeSet,
    wide: ScopeSet,
    random: Randomness,
    start: Instant,
    // What happens, in order; the number keeps simultaneous events apart.
    events: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
    // Who waits, with the earliest start that was predicted.
    waiting: HashMap<u64, (WaiterId, ScopeSet, Instant)>,
    arrivals: Vec<(Instant, ScopeSet)>,
    served: Vec<(ScopeSet, u64)>,
    longest_latency: Duration,
    // Who was woken.
    rung: Arc<Mutex<Vec<u64>>>,
    // Nobody goes away, and everything granted is sent.
    steady: bool,
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
    Look(u64),
    Release(ScopeSet, Release),
    GiveUp(u64),
}

impl World {
    fn new(seed: u64, epsilon: Duration, longest_latency: Duration) -> Self {
        let limits = Limits::none()
            .with(LimitScope::methods("wide", 30, ["POST"]).unwrap())
            .and_then(|limits| limits.with(LimitScope::endpoints("narrow", 4, ["session-create"])?))
            .unwrap();
        let routes = didit_api::Routes::didit();
        let table = limits.table(&routes);
        let of = |name: &str| table.of(routes.named(name), &http::Method::POST);
        let start = Instant::now();
        Self {
            ledger: Ledger::new(&limits, epsilon, TRANSIT, None, start),
            both: of("session-create"),
            wide: of("aml"),
            limits,
            random: Randomness::seeded(seed),
            start,
            events: BTreeMap::new(),
            next_event: 0,
            waiting: HashMap::new(),
            arrivals: Vec::new(),
            served: Vec::new(),
            longest_latency,
            rung: Arc::default(),
            steady: false,
        }
    }

    fn at(&mut self, time: Instant, event: Event) {
        self.next_event += 1;
        self.events.insert((time, self.next_event), event);
    }

    fn up_to(&self, most: Duration) -> Duration {
        most.mul_f64(self.random.unit())
    }

    /// A granted call meets its fate.
    fn send(&mut self, set: ScopeSet, now: Instant) {
        let latency = self.up_to(self.longest_latency);
        let arrival = now + latency.mul_f64(self.random.unit());
        let fate = if self.steady { 1.0 } else { self.random.unit() };
        match fate {
            // The caller goes away; the bytes arrive all the same, at the latest when the transit bound says.
            fate if fate < 0.1 => {
                let gone = now + self.up_to(latency);
                let lingering = self.up_to(TRANSIT);
                self.arrivals.push((gone + lingering, set));
                self.at(gone, Event::Release(set, Release::Lost));
            }
            fate if fate < 0.15 => self.at(now + latency, Event::Release(set, Release::Unsent)),
            _ => {
                self.arrivals.push((arrival, set));
                self.at(now + latency, Event::Release(set, Release::Answered));
            }
        }
    }

    fn step(&mut self, now: Instant, event: Event) {
        let mut wake = Wakers::default();
        match event {
            Event::Ask => {
                let set = if self.random.unit() < 0.2 { self.both } else { self.wide };
                match self.ledger.ask(set, None, now, &mut wake) {
                    Asked::Granted => self.send(set, now),
                    Asked::Queued { waiter, earliest } => {
                        self.waiting.insert(waiter.number, (waiter, set, earliest));
                        if !self.steady && self.random.unit() < 0.1 {
                            let patience = self.up_to(WINDOW);
                            self.at(now + patience, Event::GiveUp(waiter.number));
                        }
                        self.at(now, Event::Look(waiter.number));
                    }
                    Asked::TooLate { .. } => unreachable!("no deadline was given"),
                }
            }
            Event::Look(number) => {
                let Some((waiter, set, earliest)) = self.waiting.get(&number).copied() else { return };
                let bell = Waker::from(Arc::new(Bell { number, rung: Arc::clone(&self.rung) }));
                match self.ledger.look(waiter, &bell, now, &mut wake) {
                    Turn::Granted => {
                        assert!(!self.steady || now >= earliest, "served before the earliest start that was predicted");
                        self.waiting.remove(&number);
                        self.served.push((set, number));
                        self.send(set, now);
                    }
                    Turn::Waiting { look_again } => {
                        assert!(look_again > now, "a waiter would spin");
                        self.at(look_again, Event::Look(number));
                    }
                }
            }
            Event::Release(set, how) => self.ledger.release(set, how, now, &mut wake),
            Event::GiveUp(number) => {
                if let Some((waiter, set, _)) = self.waiting.remove(&number)
                    && self.ledger.give_up(waiter, now, &mut wake)
                {
                    self.ledger.release(set, Release::Unsent, now, &mut wake);
                }
            }
        }
        wake.settle();
        let rung = mem::take(&mut *self.rung.lock().unwrap());
        for number in rung {
            self.at(now, Event::Look(number));
        }
    }

    /// Asks at random for a while, then waits until everything has settled.
    fn run(&mut self, length: Duration, per_minute: f64) {
        let mut time = self.start;
        while time < self.start + length {
            self.at(time, Event::Ask);
            // Bursts: every now and then thirty ask at once.
            if self.random.unit() < 0.005 {
                for _ in 0..30 {
                    self.at(time, Event::Ask);
                }
            }
            time += self.up_to(Duration::from_secs_f64(120.0 / per_minute));
        }
        while let Some(((now, _), event)) = self.events.pop_first() {
            self.step(now, event);
        }
        assert!(self.waiting.is_empty(), "a wake-up was lost: {} wait for ever", self.waiting.len());
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
        for (index, scope) in self.limits.clone().scopes().iter().enumerate() {
            let (peak, limit) = (self.peak(index, window), scope.limit().get() as usize);
            assert!(peak <= limit, "{} of {limit} in one window of {}", peak, scope.name());
        }
        // First come, first served, queue by queue.
        for set in [self.wide, self.both] {
            let numbers: Vec<_> = self.served.iter().filter(|(of, _)| *of == set).map(|(_, number)| *number).collect();
            assert!(numbers.is_sorted(), "overtaken");
        }
        let end = self.start + 48 * HOUR;
        for (id, _) in self.limits.clone().iter() {
            assert_eq!((self.ledger.used(id, end), self.ledger.waiting(id)), (0, 0), "something was left behind");
        }
    }
}

#[test]
fn no_window_ever_holds_more_than_its_limit_whatever_the_network_does() {
    for seed in 0..40 {
        for latency in [Duration::from_millis(100), Duration::from_secs(5), Duration::from_secs(90)] {
            let mut world = World::new(seed, Duration::ZERO, latency);
            world.run(HOUR / 2, 60.0);
            world.check(WINDOW);
        }
    }
}

#[test]
fn a_server_that_keeps_whole_seconds_is_satisfied_by_an_epsilon_of_one() {
    for seed in 100..120 {
        let mut world = World::new(seed, Duration::from_secs(1), Duration::from_millis(500));
        world.run(HOUR / 2, 60.0);
        // Such a server may hold an entry for up to a second more than the window.
        world.check(WINDOW + Duration::from_millis(999));
    }
}

#[test]
fn nobody_is_served_before_the_start_that_was_predicted_unless_somebody_goes_away() {
    for seed in 200..220 {
        let mut world = World::new(seed, Duration::ZERO, Duration::from_secs(5));
        world.steady = true;
        world.run(HOUR / 2, 60.0);
        world.check(WINDOW);
    }
}

#[test]
fn the_check_would_notice_a_ledger_that_forgets_too_early() {
    let mut world = World::new(1, Duration::ZERO, Duration::from_secs(5));
    for scope in &mut world.ledger.scopes {
        scope.hold -= Duration::from_secs(10);
    }
    world.run(HOUR / 2, 60.0);
    assert!(world.peak(0, WINDOW) > 30);
}

#[test]
fn an_idle_ledger_takes_a_full_window_at_once() {
    let mut world = World::new(1, Duration::ZERO, Duration::ZERO);
    let (now, wide) = (world.start, world.wide);
    let granted =
        (0..40).filter(|_| world.ledger.ask(wide, None, now, &mut Wakers::default()) == Asked::Granted).count();
    assert_eq!(granted, 30);
}

#[test]
fn the_predicted_start_is_exact_when_nothing_else_happens() {
    let mut world = World::new(1, Duration::ZERO, Duration::ZERO);
    let (start, set, mut wake) = (world.start, world.both, Wakers::default());
    for second in 0..4 {
        assert_eq!(world.ledger.ask(set, None, start + Duration::from_secs(second), &mut wake), Asked::Granted);
        world.ledger.release(set, Release::Answered, start + Duration::from_secs(second), &mut wake);
    }
    let now = start + Duration::from_secs(10);
    let mut starts = Vec::new();
    for _ in 0..6 {
        let Asked::Queued { earliest, .. } = world.ledger.ask(set, None, now, &mut wake) else { panic!("not queued") };
        starts.push((earliest - start).as_secs());
    }
    // The slots of seconds 0 to 3, and then a window after `now` for those that are not there yet.
    assert_eq!(starts, [60, 61, 62, 63, 70, 70]);
    let deadline = Some(start + Duration::from_secs(65));
    let refused = world.ledger.ask(set, deadline, now, &mut wake);
    assert!(matches!(refused, Asked::TooLate { earliest, .. } if earliest == now + WINDOW), "{refused:?}");
}

#[test]
fn a_pause_holds_the_scope_whose_limit_the_server_named() {
    let mut world = World::new(1, Duration::ZERO, Duration::ZERO);
    let (now, mut wake) = (world.start, Wakers::default());
    let wait = Duration::from_secs(20);
    let paused = world.ledger.pause(world.both, Some(30), wait, now).map(|(scope, wait)| (scope.index(), wait));
    assert_eq!(paused, Some((0, wait)), "30 is the wide scope's limit");
    assert!(matches!(world.ledger.ask(world.wide, None, now, &mut wake), Asked::Queued { .. }));
    let mut world = World::new(1, Duration::ZERO, Duration::ZERO);
    let paused = world.ledger.pause(world.both, None, Duration::MAX, now).map(|(scope, wait)| (scope.index(), wait));
    assert_eq!(paused, Some((1, WINDOW)), "nothing named: the narrowest, for a window at the most");
    assert_eq!(world.ledger.ask(world.wide, None, world.start, &mut wake), Asked::Granted);
}

#[test]
fn given_up_places_do_not_pile_up() {
    let mut world = World::new(1, Duration::ZERO, Duration::ZERO);
    let (now, set, mut wake) = (world.start, world.wide, Wakers::default());
    for _ in 0..30 {
        assert_eq!(world.ledger.ask(set, None, now, &mut wake), Asked::Granted);
    }
    let Asked::Queued { .. } = world.ledger.ask(set, None, now, &mut wake) else { panic!("not queued") };
    for _ in 0..100_000 {
        let Asked::Queued { waiter, .. } = world.ledger.ask(set, None, now, &mut wake) else { panic!("not queued") };
        assert!(!world.ledger.give_up(waiter, now, &mut wake));
    }
    let length: usize = world.ledger.classes.iter().map(|class| class.queue.len()).sum();
    assert!(length < 100, "{length} entries for one waiter");
}
