//! All interleavings of threads that wait, leave and give slots back, tried by loom:
//! `RUSTFLAGS="--cfg interleavings" cargo test -p tower-didit --features pacing --lib interleavings`.
//!
//! What has to hold in each of them: whoever waits is woken when his turn has come (loom finds it if a thread sleeps for
//! ever), a slot is never taken twice, and none is lost with a waiter that goes away.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use didit_api::{Limits, Routes, Scope, ScopeSet};
use loom::{future::block_on, thread};
use tokio::time::Instant;

use super::{
    keys::KeyId,
    ledger::{Asking, Rules, Target},
    pacer::{ColdStart, Config, Entry, Pacer, Place, Slots, Wait},
};
use crate::{
    call::Priority,
    outcome::{NotSent, Outcome},
};

/// A pacer with one slot, shared by threads, at one instant.
#[derive(Clone)]
struct Shared {
    pacer: Arc<Pacer>,
    set: ScopeSet,
    now: Instant,
}

impl Shared {
    fn new(limits: &Limits, routes: &Arc<Routes>, now: Instant) -> Self {
        let rules = Rules {
            epsilon: Duration::ZERO,
            transit: Duration::ZERO,
            burst: None,
            reserved_share: 0.0,
            max_waiting: 10,
            max_wait: None,
            patience: Duration::from_secs(60),
            raise_limits: false,
        };
        let table = limits.table(routes);
        let set = table.of(None, &http::Method::POST);
        let config = Config {
            limits: limits.clone(),
            routes: Arc::clone(routes),
            table,
            rules,
            default_pause: Duration::ZERO,
            cold_start: ColdStart::Empty,
            since: now,
            shadow: false,
        };
        Self { pacer: Arc::new(Pacer::new(Arc::new(config), KeyId::NONE, now)), set, now }
    }

    fn enter(&self) -> Entry {
        let asking = Asking {
            set: self.set,
            priority: Priority::Normal,
            repeated: false,
            deadline: None,
            target: Target::Path(0),
        };
        Arc::clone(&self.pacer).enter(&asking, self.now).unwrap()
    }

    fn granted(&self) -> Slots {
        match self.enter() {
            Entry::Granted(slots) => slots,
            Entry::Queued(_) | Entry::Uncounted => panic!("there was a slot"),
        }
    }

    fn queued(&self) -> Place {
        match self.enter() {
            Entry::Queued(place) => place,
            Entry::Granted(_) | Entry::Uncounted => panic!("there was no slot"),
        }
    }
}

/// Sleeps until the turn has come.
fn wait(mut place: Place, now: Instant) -> Slots {
    block_on(poll_fn(|cx| match place.look(cx.waker(), now) {
        Wait::Over(slots) => Poll::Ready(slots),
        Wait::Pending => Poll::Pending,
        Wait::Refused(refused) => panic!("{refused}"),
    }))
}

fn give_back(mut slots: Slots) {
    slots.settle(Outcome::NotSent(NotSent::Transport), None);
}

fn model(run: impl Fn(Shared) + Send + Sync + 'static) {
    let now = Instant::now();
    let limits = Limits::none().with(Scope::methods("writes", 1, ["POST"]).unwrap()).unwrap();
    let routes = Routes::didit();
    loom::model(move || run(Shared::new(&limits, &routes, now)));
}

#[test]
fn who_waits_is_woken_when_the_slot_comes_back() {
    model(|shared| {
        let slots = shared.granted();
        let place = shared.queued();
        let thread = thread::spawn(move || give_back(slots));
        give_back(wait(place, shared.now));
        thread.join().unwrap();
        give_back(shared.granted());
    });
}

#[test]
fn of_two_who_wait_each_is_served_whoever_gives_back_first() {
    model(|shared| {
        let slots = shared.granted();
        let (one, other) = (shared.queued(), shared.queued());
        let thread = thread::spawn({
            let now = shared.now;
            move || give_back(wait(one, now))
        });
        give_back(slots);
        give_back(wait(other, shared.now));
        thread.join().unwrap();
        give_back(shared.granted());
    });
}

#[test]
fn who_goes_away_as_his_turn_comes_leaves_it_to_the_next() {
    model(|shared| {
        let slots = shared.granted();
        let (mut gone, next) = (shared.queued(), shared.queued());
        assert!(matches!(gone.look(Waker::noop(), shared.now), Wait::Pending));
        let thread = thread::spawn(move || drop(gone));
        let giver = thread::spawn(move || give_back(slots));
        give_back(wait(next, shared.now));
        thread.join().unwrap();
        giver.join().unwrap();
        give_back(shared.granted());
    });
}
