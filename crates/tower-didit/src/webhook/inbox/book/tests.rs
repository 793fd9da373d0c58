use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::webhook::inbox::InboxError;

const TERMS: Terms = Terms { lease: Duration::from_secs(60), max_attempts: 3 };

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

fn book() -> Book {
    Book::new(Capacity::DEFAULT, at(0))
}

/// An event of session `s`, named after when it was signed and what it says.
fn event(signed: u64, status: &str) -> Arrival {
    Arrival {
        key: format!("id:{signed}/{status}"),
        stream: Some("status.updated/s".to_owned()),
        signed,
        status: Some(status.to_owned()),
        session_id: Some("s".to_owned()),
        correlation_id: "stamped".to_owned(),
        origin: Origin::Delivered,
        test: false,
        payload: Bytes::from_static(b"body"),
    }
}

fn swept(signed: u64, status: &str) -> Arrival {
    Arrival { key: format!("at:{signed}"), origin: Origin::Swept, ..event(signed, status) }
}

fn alone(key: &str) -> Arrival {
    Arrival { key: key.to_owned(), stream: None, ..event(1, "") }
}

fn accept(book: &mut Book, arrival: Arrival, now: u64) -> Accepted {
    book.accept(arrival, at(now)).unwrap().accepted
}

fn claim(book: &mut Book, now: u64) -> Option<Claimed> {
    match book.claim(TERMS, at(now)) {
        Claim::Event(claimed) => Some(claimed),
        Claim::Idle { .. } => None,
    }
}

fn keys(book: &mut Book, now: u64) -> Vec<String> {
    std::iter::from_fn(|| {
        let ticket = claim(book, now)?.ticket;
        let key = ticket.key.clone();
        book.settle(ticket, Settlement::Done, at(now)).unwrap();
        Some(key)
    })
    .collect()
}

#[test]
fn an_event_is_handed_out_once_however_often_it_comes() {
    let mut book = book();
    assert_eq!(accept(&mut book, event(5, "Approved"), 1), Accepted::New);
    assert_eq!(accept(&mut book, event(5, "Approved"), 1), Accepted::Repeated);
    let claimed = claim(&mut book, 1).unwrap();
    assert_eq!(accept(&mut book, event(5, "Approved"), 2), Accepted::Repeated);
    assert!(claim(&mut book, 2).is_none());
    book.settle(claimed.ticket, Settlement::Done, at(3)).unwrap();
    assert_eq!(accept(&mut book, event(5, "Approved"), 4), Accepted::Repeated);
    assert!(claim(&mut book, 4).is_none());
    assert_eq!((book.counts().done, book.counts().bytes), (1, 0));
}

#[test]
fn the_dead_lose_their_claim_and_cannot_settle_it_any_more() {
    let mut book = book();
    accept(&mut book, event(5, "Approved"), 0);
    let dead = claim(&mut book, 0).unwrap().ticket;
    assert!(matches!(book.claim(TERMS, at(59)), Claim::Idle { next: Some(next) } if next == at(60)));
    let second = claim(&mut book, 60).unwrap();
    assert_eq!(second.attempt, 2);
    assert!(matches!(book.settle(dead.clone(), Settlement::Done, at(61)), Err(InboxError::Fenced)));
    assert!(matches!(book.renew(&dead, at(200), at(61)), Err(InboxError::Fenced)));
    book.renew(&second.ticket, at(200), at(61)).unwrap();
    assert!(claim(&mut book, 199).is_none());
    book.settle(second.ticket, Settlement::Done, at(199)).unwrap();
    assert!(claim(&mut book, 10_000).is_none());
}

#[test]
fn an_event_that_kills_whoever_handles_it_is_parked() {
    let mut book = book();
    accept(&mut book, event(5, "Approved"), 0);
    for attempt in 0..3 {
        assert_eq!(claim(&mut book, attempt * 60).map(|claimed| claimed.attempt), u32::try_from(attempt + 1).ok());
    }
    assert!(claim(&mut book, 180).is_none());
    let parked = book.parked(10);
    assert_eq!((parked.len(), parked[0].attempts), (1, 3));
    assert!(book.redrive(&parked[0].key, at(181)) && !book.redrive(&parked[0].key, at(181)));
    assert_eq!(claim(&mut book, 181).map(|claimed| claimed.attempt), Some(1));
}

#[test]
fn a_stream_goes_in_the_order_of_signing_one_at_a_time_and_others_do_not_wait() {
    let mut book = book();
    accept(&mut book, event(7, "Approved"), 0);
    accept(&mut book, event(6, "In Review"), 0);
    accept(&mut book, alone("id:alone"), 0);
    let first = claim(&mut book, 0).unwrap();
    assert_eq!(first.ticket.key, "id:6/In Review");
    // Earlier still, and the claimed one has it all the same.
    accept(&mut book, event(5, "In Progress"), 0);
    assert_eq!(claim(&mut book, 0).unwrap().ticket.key, "id:alone");
    assert!(claim(&mut book, 0).is_none());
    book.settle(first.ticket.clone(), Settlement::Again { at: at(9) }, at(1)).unwrap();
    assert_eq!(keys(&mut book, 1), ["id:5/In Progress"], "and the failed one holds up what follows it");
    assert_eq!(keys(&mut book, 9), ["id:6/In Review", "id:7/Approved"]);
}

#[test]
fn what_is_out_of_date_is_passed_over_and_what_is_of_the_same_second_is_not() {
    let mut book = book();
    accept(&mut book, event(7, "Approved"), 0);
    assert_eq!(keys(&mut book, 0).len(), 1);
    assert_eq!(accept(&mut book, event(6, "In Review"), 1), Accepted::New);
    assert_eq!(accept(&mut book, event(7, "Declined"), 1), Accepted::New);
    assert_eq!(keys(&mut book, 1), ["id:7/Declined"]);
    assert_eq!(book.counts().passed_over, 1);
    assert_eq!(accept(&mut book, event(6, "In Review"), 2), Accepted::Repeated);
}

#[test]
fn a_parked_event_lets_its_stream_go_on_and_is_passed_over_if_that_overtook_it() {
    let mut book = book();
    accept(&mut book, event(5, "In Review"), 0);
    accept(&mut book, event(6, "Approved"), 0);
    let poison = claim(&mut book, 0).unwrap().ticket;
    book.settle(poison.clone(), Settlement::Park, at(1)).unwrap();
    assert_eq!(keys(&mut book, 1), ["id:6/Approved"]);
    assert!(book.redrive(&poison.key, at(2)));
    assert!(keys(&mut book, 2).is_empty());
    assert_eq!((book.counts().parked, book.counts().done, book.counts().bytes), (0, 2, 0));
}

#[test]
fn what_a_sweep_found_is_handled_once_whenever_the_real_event_comes() {
    // After it, with the old time or signed anew.
    for late in [4, 20] {
        let mut book = book();
        assert_eq!(accept(&mut book, swept(10, "Approved"), 10), Accepted::New);
        assert_eq!(keys(&mut book, 10).len(), 1);
        assert_eq!(accept(&mut book, event(late, "Approved"), 21), Accepted::New);
        assert!(keys(&mut book, 21).is_empty(), "{late}");
        // What happens next is news, and so is coming back from there.
        accept(&mut book, event(30, "Declined"), 30);
        accept(&mut book, event(31, "Approved"), 31);
        assert_eq!(keys(&mut book, 31).len(), 2);
    }
    // Between finding and handling.
    for late in [4, 20] {
        let mut book = book();
        accept(&mut book, swept(10, "Approved"), 10);
        accept(&mut book, event(late, "Approved"), 10);
        assert_eq!(keys(&mut book, 10).len(), 1, "{late}");
    }
}

#[test]
fn a_sweep_finds_nothing_where_the_event_waits_or_came_last() {
    let mut book = book();
    accept(&mut book, event(5, "In Review"), 0);
    assert_eq!(accept(&mut book, swept(10, "Approved"), 10), Accepted::NotMissing);
    keys(&mut book, 10);
    assert_eq!(accept(&mut book, swept(10, "In Review"), 10), Accepted::NotMissing);
    assert_eq!(accept(&mut book, swept(10, "Approved"), 10), Accepted::New);
    assert_eq!(accept(&mut book, swept(11, "Approved"), 11), Accepted::NotMissing);
}

#[test]
fn what_a_sweep_found_and_its_handler_refused_leaves_the_real_event_a_chance() {
    let mut book = book();
    accept(&mut book, swept(10, "Approved"), 10);
    let ticket = claim(&mut book, 10).unwrap().ticket;
    book.settle(ticket, Settlement::Park, at(11)).unwrap();
    assert!(!book.is_missing(Some("status.updated/s"), Some("Approved")));
    accept(&mut book, event(4, "Approved"), 12);
    assert_eq!(keys(&mut book, 12).len(), 1);
}

#[test]
fn the_journey_that_began_a_session_names_its_events() {
    let mut book = book();
    let named = |book: &mut Book, arrival: Arrival| book.accept(arrival, at(1)).unwrap().correlation_id;
    assert_eq!(named(&mut book, event(1, "In Progress")), "stamped");
    assert_eq!(book.remember("s".to_owned(), "first".to_owned(), at(1)), "first");
    assert_eq!(book.remember("s".to_owned(), "second".to_owned(), at(1)), "first");
    assert_eq!(named(&mut book, event(2, "Approved")), "first");
    // Known by the time it is handled, though it was not when it came.
    assert_eq!(claim(&mut book, 1).unwrap().correlation_id, "first");
}

#[test]
fn room_is_made_of_what_is_done_and_never_of_what_is_not() {
    let mut book = Book::new(Capacity::DEFAULT.size(2, 9).unwrap().journeys(1, Capacity::SHORTEST).unwrap(), at(0));
    accept(&mut book, alone("id:1"), 0);
    assert!(matches!(
        book.accept(Arrival { payload: Bytes::from_static(&[0; 6]), ..alone("id:2") }, at(0)),
        Err(InboxError::Full)
    ));
    accept(&mut book, alone("id:2"), 0);
    assert!(matches!(book.accept(alone("id:3"), at(0)), Err(InboxError::Full)));
    assert_eq!(accept(&mut book, alone("id:1"), 0), Accepted::Repeated);
    assert_eq!(keys(&mut book, 0).len(), 2);
    assert_eq!(accept(&mut book, alone("id:3"), 1), Accepted::New);
    assert_eq!(accept(&mut book, alone("id:2"), 1), Accepted::Repeated);
    book.remember("s".to_owned(), "first".to_owned(), at(1));
    book.remember("t".to_owned(), "other".to_owned(), at(2));
    assert_eq!(book.remember("s".to_owned(), "second".to_owned(), at(3)), "second");
    assert_eq!((book.journeys.len(), book.begun.len()), (1, 1));
}

#[test]
fn what_is_old_is_forgotten_and_the_book_says_since_when_it_knows() {
    let mut book = book();
    let (month, day) = (35 * 86_400, 86_400);
    accept(&mut book, event(5, "Approved"), day);
    keys(&mut book, day);
    book.remember("s".to_owned(), "first".to_owned(), at(day));
    assert_eq!(book.known_since(), at(0));
    assert!(claim(&mut book, day + month).is_none());
    assert!(book.entries.is_empty() && book.streams.is_empty() && book.journeys.is_empty() && book.done.is_empty());
    assert_eq!(book.known_since(), at(day));
}

#[test]
fn a_stream_that_makes_room_is_no_longer_known() {
    let mut book = Book::new(Capacity::DEFAULT.size(1, 100).unwrap(), at(0));
    accept(&mut book, event(5, "Approved"), 3);
    keys(&mut book, 4);
    accept(&mut book, Arrival { stream: Some("status.updated/t".to_owned()), ..event(6, "Approved") }, 5);
    assert_eq!((book.known_since(), book.idle.len()), (at(4), 0));
}

/// Whatever happens in whatever order: nothing is lost, nothing is handled twice, no index disagrees with another.
#[test]
fn a_long_random_life_loses_nothing() {
    for seed in 0..200 {
        let random = crate::Randomness::seeded(seed);
        let draw = |below: u64| random.bits() % below;
        let mut book = book();
        let (mut held, mut handled) = (Vec::<Ticket>::new(), BTreeMap::<String, u32>::new());
        let mut accepted = BTreeSet::new();
        for now in 0..300 {
            match draw(5) {
                0 | 1 => {
                    let stream = Some(draw(3)).filter(|stream| *stream < 2);
                    let mut arrival = event(draw(20), "s");
                    arrival.key = format!("id:{}/{stream:?}", arrival.signed);
                    arrival.stream = stream.map(|stream| format!("kind/{stream}"));
                    accepted.insert(arrival.key.clone());
                    accept(&mut book, arrival, now);
                }
                2 => held.extend(book_claim(&mut book, now)),
                _ if held.is_empty() => {}
                3 => {
                    let index = usize::try_from(draw(u64::try_from(held.len()).unwrap())).unwrap();
                    let ticket = held.swap_remove(index);
                    let key = ticket.key.clone();
                    if book.settle(ticket, Settlement::Done, at(now)).is_ok() {
                        *handled.entry(key).or_default() += 1;
                    }
                }
                _ => {
                    let ticket = held.swap_remove(0);
                    let _ = book.settle(ticket, Settlement::Again { at: at(now + draw(9)) }, at(now));
                }
            }
        }
        let mut late = 1_000;
        while book.counts().pending > 0 {
            late += 100;
            while let Some(ticket) = book_claim(&mut book, late) {
                let key = ticket.key.clone();
                book.settle(ticket, Settlement::Done, at(late)).unwrap();
                *handled.entry(key).or_default() += 1;
            }
            assert!(late < 100_000, "stuck");
        }
        assert!(handled.values().all(|times| *times == 1), "{handled:?}");
        let done: BTreeSet<_> = book.done.iter().map(|(_, key)| key.clone()).collect();
        assert_eq!(done, accepted);
        let passed_over = u64::try_from(accepted.len() - handled.len()).unwrap();
        assert_eq!((book.counts().passed_over, book.counts().bytes, book.stage.len()), (passed_over, 0, 0));
    }
}

fn book_claim(book: &mut Book, now: u64) -> Option<Ticket> {
    // Without a last attempt, so that nothing is parked.
    match book.claim(Terms { max_attempts: u32::MAX, ..TERMS }, at(now)) {
        Claim::Event(claimed) => Some(claimed.ticket),
        Claim::Idle { .. } => None,
    }
}
