//! Somebody else under the same credential, of whom nothing is known.

use std::collections::VecDeque;

use super::*;

const MINUTE: Duration = WINDOW;

/// A server that counts requests in an exact window, rejected ones too if it is strict.
struct Server {
    log: VecDeque<Instant>,
    counts_rejected: bool,
}

impl Server {
    const LIMIT: usize = 300;

    /// How long to wait if it refuses.
    fn take(&mut self, now: Instant) -> Option<Duration> {
        while self.log.pop_front_if(|at| now.duration_since(*at) >= WINDOW).is_some() {}
        let refused = self.log.len() >= Self::LIMIT;
        if !refused || self.counts_rejected {
            self.log.push_back(now);
        }
        refused.then(|| WINDOW - now.duration_since(self.log[self.log.len() - Self::LIMIT]))
    }
}

/// When an attempt was sent, and on its way back what it comes with: how long to wait, if it was refused.
type Flight = (Instant, Option<Option<Duration>>);

/// What came of saturating the server for a while beside a neighbour.
#[derive(Debug, Default)]
struct Minute {
    answered: usize,
    refused: usize,
}

/// Fifty callers that never pause, and a neighbour who sends evenly until `leaves`; minute by minute.
fn beside_a_neighbour(counts_rejected: bool, per_minute: u32, leaves: Duration, length: Duration) -> Vec<Minute> {
    let scope = LimitScope::methods("wide", 300, ["POST"]).unwrap();
    let limits = Limits::none().with(scope).unwrap();
    let set = limits.table(&Routes::didit()).of(None, &Method::POST);
    let (start, random) = (Instant::now(), Randomness::seeded(11));
    let mut ledger = Ledger::new(&limits, rules(SECOND), start);
    let mut server = Server { log: VecDeque::new(), counts_rejected };
    let mut minutes: Vec<Minute> = Vec::new();
    let call = asking(set);
    // Callers that wait, and attempts by when they arrive and return.
    let (mut waiters, mut idle) = (VecDeque::new(), 50);
    let mut flights: BTreeMap<(Instant, u64), Flight> = BTreeMap::new();
    let (mut next_flight, mut neighbour, mut now) = (0, start, start);
    while now < start + length {
        let mut wake = Wakers::default();
        ledger.tick(now, &mut wake);
        let mut sent = 0;
        while idle > 0 {
            idle -= 1;
            match ledger.ask(&call, now, &mut wake) {
                Asked::Granted => sent += 1,
                Asked::Queued(waiter) => waiters.push_back(waiter),
                Asked::Refused(refusal) => panic!("{refusal:?}"),
            }
        }
        while let Some(first) = waiters.front() {
            if !ledger.looked(*first, now).is_granted() {
                break;
            }
            waiters.pop_front();
            sent += 1;
        }
        for _ in 0..sent {
            next_flight += 1;
            let arrives = now + Duration::from_millis(10) + Duration::from_millis(50).mul_f64(random.unit());
            flights.insert((arrives, next_flight), (now, None));
        }
        let due = flights.first_key_value().map(|((at, _), _)| *at);
        let next =
            ledger.next_event(now).into_iter().chain(due).chain((neighbour < start + leaves).then_some(neighbour));
        now = next.min().unwrap().max(now);
        if neighbour <= now && neighbour < start + leaves {
            server.take(now);
            neighbour += MINUTE / per_minute;
        }
        while let Some(entry) = flights.first_entry().filter(|entry| entry.key().0 <= now) {
            let (sent, verdict) = entry.remove();
            let Some(refused) = verdict else {
                let verdict = server.take(now);
                next_flight += 1;
                let back = now + Duration::from_millis(10) + Duration::from_millis(50).mul_f64(random.unit());
                flights.insert((back, next_flight), (sent, Some(verdict)));
                continue;
            };
            idle += 1;
            let minute = (now - start).as_secs() as usize / 60;
            minutes.resize_with(minutes.len().max(minute + 1), Minute::default);
            match refused {
                Some(wait) => {
                    minutes[minute].refused += 1;
                    // Whole seconds, rounded up, as the header has them.
                    ledger.was_refused(set, Some(300), Duration::from_secs(wait.as_secs() + 1), sent, now);
                }
                None => {
                    minutes[minute].answered += 1;
                    ledger.answered(set, now, &mut wake);
                }
            }
            ledger.release(call.need(), Release::Answered, Some(sent), now, &mut wake);
        }
    }
    minutes
}

fn mean(minutes: &[Minute], of: impl Fn(&Minute) -> usize) -> f64 {
    minutes.iter().map(of).sum::<usize>() as f64 / minutes.len() as f64
}

#[test]
fn beside_an_unknown_neighbour_most_of_what_is_left_is_had_and_all_of_it_once_he_is_gone() {
    for counts_rejected in [true, false] {
        let minutes = beside_a_neighbour(counts_rejected, 60, 60 * MINUTE, 80 * MINUTE);
        let (beside, gone) = (&minutes[5..60], &minutes[70..80]);
        let (answered, refused) = (mean(beside, |minute| minute.answered), mean(beside, |minute| minute.refused));
        println!("rejected counted: {counts_rejected}: {answered:.1} answered and {refused:.1} refused a minute");
        assert!(answered >= 225.0, "{answered} of 240 a minute");
        assert!(refused <= 10.0, "{refused} refused a minute");
        let (back, refused) = (mean(gone, |minute| minute.answered), mean(gone, |minute| minute.refused));
        assert!(back >= 290.0, "{back} a minute ten minutes after he left");
        assert_eq!(refused, 0.0);
    }
}
