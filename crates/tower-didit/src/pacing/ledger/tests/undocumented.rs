//! Limits that none of the configured scopes has.

use super::*;

impl Ledger {
    /// A request to a target was refused just now, and is told to come back in so many seconds.
    fn was_refused_at(
        &mut self,
        set: ScopeSet,
        target: Target,
        limit: u32,
        wait: u32,
        now: Instant,
    ) -> Option<ScopeId> {
        let lesson = self.refused(set, Attempt { target, sent: now }, Some(limit), SECOND * wait, now);
        lesson.map(|lesson| lesson.scope)
    }
}

impl Sets {
    /// The first behind the configured ones.
    fn scope_behind(&self) -> ScopeId {
        ScopeId::at(self.limits.scopes().len()).unwrap()
    }
}

fn sent_to(target: Target, set: ScopeSet, ledger: &Ledger) -> Asking {
    Asking { target, ..asking(set) }.completed(ledger)
}

#[test]
fn a_limit_that_all_scopes_have_exceeded_is_kept_to_by_one_endpoint_alone() {
    let (mut ledger, sets, now) = alone();
    were_answered(&mut ledger, sets.wide, 20, now);
    let scope = ledger.was_refused_at(sets.wide, TARGET, 4, 20, now).unwrap();
    assert_eq!(ledger.gauges(scope, now).limit, 4);
    assert_eq!(ledger.gauges(sets.scope(0), now).limit, 30);
    let concerned = sent_to(TARGET, sets.wide, &ledger);
    let waiters: Vec<_> = (0..3).map(|_| ledger.queued(&concerned, now)).collect();
    assert_eq!(ledger.asked(&sent_to(OTHER, sets.wide, &ledger), now), Asked::Granted);
    // Four were let in evenly, as far as is known, which the server forgets from 20 s on, and what gathered meanwhile goes
    // out at the rate of the limit.
    for (waiter, second) in waiters.into_iter().zip([30, 45, 60]) {
        let at = now + SECOND * second;
        assert_eq!(ledger.looked(waiter, at - SECOND), Turn::Waiting);
        assert!(ledger.looked(waiter, at).is_granted());
    }
}

#[test]
fn who_waits_already_waits_for_it_too_in_the_same_order() {
    let (mut ledger, sets, now) = alone();
    (0..30).for_each(|_| ledger.answered_at_once(&asking(sets.wide), now));
    let waiters: Vec<_> = (0..6)
        .map(|number| {
            let target = if number % 2 == 0 { TARGET } else { OTHER };
            ledger.queued(&Asking { target, ..asking(sets.wide) }, now)
        })
        .collect();
    let scope = ledger.was_refused_at(sets.wide, TARGET, 2, 60, now).unwrap();
    assert_eq!(ledger.gauges(scope, now).waiting, [0, 3, 0]);
    assert_eq!(ledger.gauges(sets.scope(0), now).waiting, [0, 6, 0]);
    let later = now + WINDOW;
    ledger.tick(later, &mut Wakers::default());
    let granted = waiters.iter().map(|waiter| ledger.looked(*waiter, later)).map(Turn::is_granted);
    assert_eq!(granted.collect::<Vec<_>>(), [true, true, false, true, false, true], "spread, a tenth of two at a time");
    let left = waiters.iter().filter(|waiter| ledger.queues.get(**waiter).is_some());
    assert_eq!(left.count(), 2, "who was not let in waits yet");
}

#[test]
fn a_limit_that_two_endpoints_exceed_is_that_of_the_scope_that_counts_both() {
    let (mut ledger, sets, now) = alone();
    were_answered(&mut ledger, sets.wide, 20, now);
    let [one, other] = [TARGET, OTHER].map(|target| ledger.was_refused_at(sets.wide, target, 4, 20, now).unwrap());
    assert_ne!(one, other, "more than four were let in just now");
    let later = now + WINDOW;
    assert_eq!(ledger.was_refused_at(sets.wide, TARGET, 4, 1, later), Some(sets.scope(0)));
    assert_eq!(ledger.gauges(sets.scope(0), later).limit, 4);
    assert_eq!(ledger.undocumented().count(), 0, "they are explained");
    assert_eq!(sent_to(OTHER, sets.wide, &ledger).set, sets.wide);
}

#[test]
fn a_limit_that_comes_back_holds_those_who_have_gathered_since() {
    let (mut ledger, sets, now) = alone();
    were_answered(&mut ledger, sets.wide, 20, now);
    ledger.was_refused_at(sets.wide, TARGET, 4, 60, now).unwrap();
    // One that waits for it is sent when it is over, and is refused.
    let first = ledger.queued(&sent_to(TARGET, sets.wide, &ledger), now);
    ledger.explain_by(sets.scope(0), 4);
    ledger.tick(now, &mut Wakers::default());
    let Turn::Granted(need) = ledger.looked(first, now) else { panic!("it is set free") };
    (0..9).for_each(|_| ledger.answered_at_once(&asking(sets.wide), now));
    (0..3).for_each(|_| _ = ledger.queued(&sent_to(TARGET, sets.wide, &ledger), now));
    let scope = ledger.was_refused_at(need.set, TARGET, 4, 60, now).unwrap();
    assert_eq!(ledger.gauges(scope, now).waiting, [0, 3, 0]);
}

#[test]
fn several_endpoints_may_have_the_same_limit_each() {
    let (mut ledger, sets, now) = alone();
    for minute in 0..20 {
        let now = now + WINDOW * minute;
        were_answered(&mut ledger, sets.wide, 20, now);
        for target in [TARGET, OTHER, Target::Path(2)] {
            let scope = ledger.was_refused_at(sets.wide, target, 4, 1, now).unwrap();
            assert!(scope.index() > 2, "twenty others were let in");
        }
    }
    assert_eq!(ledger.gauges(sets.scope(0), now).limit, 30);
}

#[test]
fn a_lower_limit_of_its_own_outlasts_a_higher_one_of_all() {
    let (mut ledger, sets, now) = alone();
    were_answered(&mut ledger, sets.wide, 20, now);
    let scope = ledger.was_refused_at(sets.wide, TARGET, 4, 1, now).unwrap();
    assert_eq!(ledger.was_refused_at(sets.wide, TARGET, 10, 1, now), Some(scope));
    assert_eq!(ledger.gauges(scope, now).limit, 4);
}

#[test]
fn what_was_on_its_way_is_refused_on_the_same_account() {
    let (mut ledger, sets, now) = alone();
    were_answered(&mut ledger, sets.both, 4, now);
    let scope = ledger.was_refused_at(sets.both, TARGET, 2, 1, now).unwrap();
    let effective = ledger.gauges(scope, now).effective;
    // By then nobody else was let in for long, so that it could be that of the narrow scope.
    let late = Attempt { target: TARGET, sent: now };
    let lesson = ledger.refused(sets.both, late, Some(2), SECOND, now + WINDOW).unwrap();
    assert_eq!((lesson.scope, lesson.effective), (scope, effective), "and that says nothing new");
}

#[test]
fn what_was_refused_was_not_let_in() {
    let (mut ledger, sets, now) = alone();
    were_answered(&mut ledger, sets.wide, 4, now);
    // A limit that the wide scope may have: it is taken for that of one endpoint until the other is refused by it too.
    for (target, is_common) in [(TARGET, false), (TARGET, false), (OTHER, true)] {
        let call = sent_to(target, sets.wide, &ledger);
        ledger.overdraw(&call, now);
        let scope = ledger.was_refused_at(call.set, target, 4, 1, now).unwrap();
        ledger.release(call.need(), Release::Answered, Some(now), now, &mut Wakers::default());
        assert_eq!(scope == sets.scope(0), is_common);
    }
}

#[test]
fn an_absurd_limit_takes_no_memory() {
    let (mut ledger, sets, now) = alone();
    were_answered(&mut ledger, sets.wide, 20, now);
    let scope = ledger.was_refused_at(sets.wide, TARGET, 4, 1, now).unwrap();
    let call = sent_to(TARGET, sets.wide, &ledger);
    ledger.overdraw(&call, now);
    ledger.explain_by(sets.scope(0), 4);
    assert_eq!(ledger.was_refused_at(call.set, TARGET, u32::MAX, 1, now), Some(scope));
    assert!(ledger.gauges(scope, now).used <= 30);
}

#[test]
fn a_limit_of_nothing_is_its_endpoints() {
    let (mut ledger, sets, now) = alone();
    were_answered(&mut ledger, sets.wide, 4, now);
    let scope = ledger.was_refused_at(sets.wide, TARGET, 0, 1, now).unwrap();
    assert_eq!(ledger.gauges(scope, now).limit, 1, "whoever sends nothing does not learn when that is over");
    assert_eq!(ledger.gauges(sets.scope(0), now).limit, 30);
    // Another one that is switched off as well says nothing about the rest of the API, though little was let in of it.
    let later = now + WINDOW;
    assert_ne!(ledger.was_refused_at(sets.wide, OTHER, 0, 1, later), Some(sets.scope(0)));
    assert_eq!(ledger.gauges(sets.scope(0), later).limit, 30);
}

#[test]
fn what_the_process_before_let_in_is_evidence() {
    let (mut before, sets, now) = alone();
    were_answered(&mut before, sets.wide, 20, now);
    let records = before.records(&sets.limits, now);
    let mut ledger = Ledger::new(&sets.limits, rules(Duration::ZERO), now);
    ledger.take_up(&sets.limits, &records, Duration::ZERO, now);
    for target in [TARGET, OTHER] {
        let scope = ledger.was_refused_at(sets.wide, target, 4, 1, now).unwrap();
        assert_ne!(scope, sets.scope(0), "twenty were let in");
    }
}

#[test]
fn what_is_known_twice_of_an_endpoint_is_taken_up_once() {
    let (mut before, sets, now) = alone();
    were_answered(&mut before, sets.wide, 20, now);
    let scope = before.was_refused_at(sets.wide, TARGET, 4, 1, now).unwrap();
    let record = before.record(scope, "endpoint".to_owned(), now);
    let mut ledger = Ledger::new(&sets.limits, rules(Duration::ZERO), now);
    for _ in 0..2 {
        ledger.take_up_undocumented(TARGET, sets.wide, &record, Duration::ZERO, now);
    }
    assert_eq!(ledger.undocumented().map(|(id, _)| id).collect::<Vec<_>>(), [sets.scope_behind()]);
    assert_eq!(ledger.gauges(sets.scope_behind(), now).limit, 4);
    // One that the server has not named for long does not count anew.
    assert_eq!(before.record(scope, "endpoint".to_owned(), now + 11 * WINDOW).limit, None);
}

#[test]
fn who_comes_back_late_waits_for_what_his_endpoint_has_by_then() {
    let (mut ledger, sets, now) = alone();
    were_answered(&mut ledger, sets.wide, 30, now);
    let late = ledger.queued(&Asking { target: TARGET, ..asking(sets.wide) }, now);
    let turn = now + WINDOW;
    ledger.tick(turn, &mut Wakers::default());
    assert!(ledger.has_turn(late));
    were_answered(&mut ledger, sets.wide, 20, turn);
    let scope = ledger.was_refused_at(sets.wide, TARGET, 2, 60, turn).unwrap();
    // It did not come for its turn.
    ledger.tick(turn + LEASE, &mut Wakers::default());
    assert_eq!(ledger.looked(late, turn + 2 * LEASE), Turn::Waiting);
    assert_eq!(ledger.gauges(scope, turn + 2 * LEASE).waiting, [0, 1, 0]);
    assert!(matches!(ledger.looked(late, turn + WINDOW), Turn::Granted(need) if need.set.contains(scope)));
}

#[test]
fn there_are_only_so_many_and_those_that_are_forgotten_make_room() {
    let (mut ledger, sets, now) = alone();
    were_answered(&mut ledger, sets.wide, 20, now);
    let refused = |ledger: &mut Ledger, paths: std::ops::Range<u16>, now| {
        let known = |path: &u16| ledger.was_refused_at(sets.wide, Target::Path(*path), 1, 1, now).is_some();
        paths.filter(known).count()
    };
    assert_eq!(refused(&mut ledger, 0..18, now), 16);
    assert_eq!(ledger.scopes.len(), 3 + 16);
    let later = now + 11 * WINDOW;
    were_answered(&mut ledger, sets.wide, 20, later);
    assert_eq!(refused(&mut ledger, 20..38, later), 16);
    assert_eq!(ledger.scopes.len(), 3 + 16);
    let end = now + HOUR;
    assert_eq!(ledger.idle_at(end), Some(end));
}

#[test]
fn paths_that_the_routes_do_not_have_are_told_apart() {
    assert_eq!(Target::new(None, "/v3/new/"), Target::new(None, "/v3/new/"));
    assert_ne!(Target::new(None, "/v3/new/"), Target::new(None, "/v3/newer/"));
    let known = Routes::didit().named("aml");
    assert_eq!(Target::new(known, "/v3/aml/"), Target::Endpoint(known.unwrap()));
}
