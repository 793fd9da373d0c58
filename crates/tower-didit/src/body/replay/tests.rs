use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
};

use http::{HeaderMap, HeaderValue};
use http_body_util::{Empty, Full};

use super::*;
use crate::{Randomness, body::ReplayError};

const CAP: usize = 1024;

/// What a scripted body does when it is polled.
enum Step {
    Pend,
    Data(Bytes),
    Trailers(HeaderMap),
    Fail,
    Panic,
}

/// A body that yields what it is told, with or without a known length.
struct Script {
    steps: VecDeque<Step>,
    length: Option<u64>,
    polls: Arc<AtomicUsize>,
}

impl Script {
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { steps: steps.into_iter().collect(), length: None, polls: Arc::default() }
    }

    fn of(pieces: &[&'static str]) -> Self {
        Self::new(pieces.iter().map(|piece| data(piece)))
    }

    /// Announces the length of what it has.
    fn sized(mut self) -> Self {
        let length = |step: &Step| if let Step::Data(data) = step { length_of(data) } else { 0 };
        self.length = Some(self.steps.iter().map(length).sum());
        self
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        match self.steps.pop_front() {
            None => Poll::Ready(None),
            Some(Step::Pend) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Step::Data(data)) => {
                self.length = self.length.map(|left| left - length_of(&data));
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Step::Trailers(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Some(Step::Fail) => Poll::Ready(Some(Err(io::Error::other("torn")))),
            Some(Step::Panic) => panic!("the body panics"),
        }
    }

    fn is_end_stream(&self) -> bool {
        // Without a length it does not know, as a stream does not.
        self.length.is_some() && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

fn data(text: &'static str) -> Step {
    Step::Data(Bytes::from_static(text.as_bytes()))
}

/// The first attempt's body, and what is kept of it.
fn recorded<B: Body + Unpin>(body: B, cap: usize) -> (ReplayBody<B>, Kept<B>) {
    let mut body = ReplayBody::new(body);
    let kept = body.keep(cap).unwrap();
    (body, kept)
}

/// The next attempt's body; `None` if there can be none.
fn next<B: Body>(kept: &Kept<B>) -> Option<ReplayBody<B>> {
    kept.claim().then(|| kept.again())
}

/// One frame's data, polling through `Pending`; `None` at the end.
fn read<B>(body: &mut ReplayBody<B>) -> Option<Result<Frame<Bytes>, BoxError>>
where
    B: Body<Error: Into<BoxError>> + Unpin,
{
    loop {
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            return frame;
        }
    }
}

/// Everything that is left in a body.
fn rest<B>(body: &mut ReplayBody<B>) -> Result<String, BoxError>
where
    B: Body<Error: Into<BoxError>> + Unpin,
{
    let mut text = String::new();
    while let Some(frame) = read(body) {
        if let Ok(data) = frame?.into_data() {
            text.push_str(std::str::from_utf8(&data).unwrap());
        }
    }
    Ok(text)
}

fn error_of<B>(body: &mut ReplayBody<B>) -> ReplayError
where
    B: Body<Error: Into<BoxError>> + Unpin,
{
    *read(body).unwrap().unwrap_err().downcast().unwrap()
}

// ===== In memory =====

#[test]
fn a_body_in_memory_is_sent_as_often_as_needed() {
    let (mut body, kept) = recorded(Full::new(Bytes::from_static(b"hello")), CAP);
    assert_eq!(kept.joined(), "hello");
    assert_eq!(body.size_hint().exact(), Some(5));
    assert_eq!(rest(&mut body.try_clone().unwrap()).unwrap(), "hello");
    assert_eq!(rest(&mut body).unwrap(), "hello");
    for _ in 0..3 {
        assert_eq!(rest(&mut next(&kept).unwrap()).unwrap(), "hello");
    }
}

#[test]
fn an_empty_body_ends_at_once_and_can_be_sent_again() {
    let (body, kept) = recorded(Empty::<Bytes>::new(), CAP);
    assert!(body.is_end_stream());
    assert_eq!(rest(&mut next(&kept).unwrap()).unwrap(), "");
}

#[test]
fn a_body_in_memory_is_not_counted_against_the_cap() {
    let (mut body, kept) = recorded(Full::<Bytes>::from("x".repeat(10)), 1);
    assert_eq!(rest(&mut body).unwrap().len(), 10);
    assert_eq!(rest(&mut next(&kept).unwrap()).unwrap().len(), 10);
    assert!(ReplayBody::new(Full::<Bytes>::from("x")).keep(0).is_some());
}

#[test]
fn attempts_of_a_body_in_memory_may_overlap() {
    let (mut first, kept) = recorded(Full::<Bytes>::from("hello"), CAP);
    let mut second = next(&kept).unwrap();
    assert_eq!(rest(&mut first).unwrap(), "hello");
    assert_eq!(rest(&mut second).unwrap(), "hello");
}

// ===== Once =====

#[test]
fn a_stream_that_nobody_records_goes_out_once_and_whole() {
    let bodies = [
        Script::of(&["ab", "cd"]),
        Script::of(&["ab", "cd"]).sized(),
        Script::new([Step::Pend, data("ab"), Step::Pend, data("cd")]).sized(),
        Script::new([data("ab"), Step::Pend, data("cd")]).sized(),
    ];
    for body in bodies {
        let mut body = ReplayBody::new(body);
        assert!(body.try_clone().is_none());
        assert!(body.keep(0).is_none(), "a cap of zero records nothing");
        assert_eq!(rest(&mut body).unwrap(), "abcd");
    }
}

#[test]
fn an_error_found_by_the_first_look_is_not_swallowed() {
    let mut body = ReplayBody::new(Script { length: Some(4), ..Script::new([Step::Fail]) });
    assert_eq!(rest(&mut body).unwrap_err().to_string(), "torn");
}

#[test]
fn debug_shows_no_byte_of_the_body() {
    for mut body in [ReplayBody::new(Script::of(&["secret"]).sized()), ReplayBody::new(Script::of(&["secret"]))] {
        assert!(!format!("{body:?}").contains("secret"));
        let _kept = body.keep(CAP);
        assert_eq!(rest(&mut body).unwrap(), "secret");
        assert!(!format!("{body:?}").contains("secret"));
    }
}

// ===== Recorded =====

#[test]
fn a_stream_is_read_no_faster_than_its_attempt_reads() {
    let script = Script::of(&["a", "b", "c"]);
    let polls = Arc::clone(&script.polls);
    let (mut body, _kept) = recorded(script, CAP);
    assert_eq!(polls.load(Ordering::Relaxed), 0);
    read(&mut body).unwrap().unwrap();
    assert_eq!(polls.load(Ordering::Relaxed), 1);
}

#[test]
fn a_repetition_sends_what_was_recorded_and_then_the_rest() {
    for read_before in 0..=3 {
        let (mut first, kept) = recorded(Script::of(&["ab", "cd", "ef"]), CAP);
        for _ in 0..read_before {
            read(&mut first).unwrap().unwrap();
        }
        drop(first);
        assert_eq!(rest(&mut next(&kept).unwrap()).unwrap(), "abcdef", "{read_before} frames read before");
        assert_eq!(rest(&mut next(&kept).unwrap()).unwrap(), "abcdef", "and once more");
    }
}

#[test]
fn what_the_first_look_took_and_nobody_read_is_sent_once() {
    // The first attempt is dropped without a poll; the frame that was looked at must be neither lost nor doubled.
    let (first, kept) = recorded(Script::of(&["ab", "cd"]).sized(), CAP);
    drop(first);
    let second = next(&kept).unwrap();
    assert_eq!(second.size_hint().exact(), Some(4));
    drop(second);
    assert_eq!(rest(&mut next(&kept).unwrap()).unwrap(), "abcd");
}

#[test]
fn an_attempt_dropped_between_pending_and_data_loses_nothing() {
    let (mut first, kept) = recorded(Script::new([data("ab"), Step::Pend, data("cd")]), CAP);
    read(&mut first).unwrap().unwrap();
    assert!(Pin::new(&mut first).poll_frame(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(first);
    assert_eq!(rest(&mut next(&kept).unwrap()).unwrap(), "abcd");
}

#[test]
fn frames_are_shared_and_not_copied() {
    let frames = [Bytes::from(vec![1; 100]), Bytes::from(vec![2; 200])];
    let (mut body, kept) = recorded(Script::new(frames.iter().cloned().map(Step::Data)), CAP);
    for _ in 0..3 {
        for frame in &frames {
            let sent = read(&mut body).unwrap().unwrap().into_data().unwrap();
            assert_eq!(sent.as_ptr(), frame.as_ptr());
        }
        body = next(&kept).unwrap();
    }
}

#[test]
fn trailers_are_sent_every_time() {
    let trailers = HeaderMap::from_iter([("checksum".parse().unwrap(), HeaderValue::from_static("7"))]);
    let (mut body, kept) = recorded(Script::new([data("ab"), Step::Trailers(trailers.clone())]), CAP);
    for _ in 0..3 {
        assert_eq!(read(&mut body).unwrap().unwrap().into_data().unwrap(), "ab");
        assert!(!body.is_end_stream());
        assert_eq!(read(&mut body).unwrap().unwrap().into_trailers().unwrap(), trailers);
        assert!(read(&mut body).is_none());
        assert!(body.is_end_stream());
        body = next(&kept).unwrap();
    }
}

#[test]
fn every_attempt_announces_the_same_size() {
    let (mut body, kept) = recorded(Script::of(&["abc", "de", "f"]).sized(), CAP);
    for _ in 0..3 {
        for left in [6, 3, 1, 0] {
            assert_eq!(body.size_hint().exact(), Some(left));
            assert_eq!(body.is_end_stream(), left == 0, "a known length ends with its last byte");
            if left > 0 {
                read(&mut body).unwrap().unwrap();
            }
        }
        body = next(&kept).unwrap();
    }
    // Without a length, none appears later: the message stays chunked, and its trailers can be sent.
    let (mut body, kept) = recorded(Script::of(&["abc", "de"]), CAP);
    for _ in 0..3 {
        assert_eq!((body.size_hint().lower(), body.size_hint().upper()), (0, None));
        rest(&mut body).unwrap();
        body = next(&kept).unwrap();
    }
}

#[test]
fn a_small_body_can_be_looked_at_once_all_of_it_was_sent() {
    let (mut body, kept) = recorded(Script::of(&["ab", "cd"]), CAP);
    assert_eq!(kept.joined(), "");
    read(&mut body).unwrap().unwrap();
    assert_eq!(kept.joined(), "");
    rest(&mut body).unwrap();
    assert_eq!(kept.joined(), "abcd");
    let pieces = ["x".repeat(40 * 1024), "y".repeat(40 * 1024)].map(|text| Step::Data(text.into()));
    let (mut body, kept) = recorded(Script::new(pieces), 1 << 20);
    rest(&mut body).unwrap();
    assert_eq!(kept.joined(), "", "a large one is not copied together");
}

// ===== Two attempts at once =====

#[test]
fn an_attempt_that_is_still_alive_loses_the_body_and_ends_in_an_error() {
    let (mut first, kept) = recorded(Script::of(&["ab", "cd", "ef"]), CAP);
    read(&mut first).unwrap().unwrap();
    assert!(kept.claim());
    assert!(!first.is_end_stream(), "it must not look complete");
    let mut second = kept.again();
    assert_eq!(read(&mut second).unwrap().unwrap().into_data().unwrap(), "ab");
    assert_eq!(error_of(&mut first), ReplayError::Superseded);
    assert_eq!(read(&mut second).unwrap().unwrap().into_data().unwrap(), "cd");
    drop(first);
    assert_eq!(rest(&mut second).unwrap(), "ef");
}

#[test]
fn a_claim_alone_stops_the_attempt_before() {
    let (mut first, kept) = recorded(Script::of(&["ab", "cd"]), CAP);
    assert!(kept.claim());
    assert_eq!(error_of(&mut first), ReplayError::Superseded);
    assert!(read(&mut first).is_none(), "told once");
}

#[test]
fn an_attempt_that_was_waiting_is_woken_when_it_loses_the_body() {
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Silent;

    impl Body for Silent {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
            Poll::Pending
        }
    }

    let (mut first, kept) = recorded(Silent, CAP);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    assert!(Pin::new(&mut first).poll_frame(&mut Context::from_waker(&waker)).is_pending());
    assert!(kept.claim());
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
}

#[test]
fn an_attempt_that_had_all_of_it_stays_complete() {
    let (mut first, kept) = recorded(Script::of(&["ab"]), CAP);
    assert_eq!(rest(&mut first).unwrap(), "ab");
    assert!(kept.claim());
    assert!(first.is_end_stream());
    assert!(read(&mut first).is_none());
}

// ===== Errors =====

#[test]
fn an_error_goes_to_the_attempt_that_meets_it_and_nothing_is_repeated() {
    let (mut body, kept) = recorded(Script::new([data("ab"), Step::Fail, data("cd")]), CAP);
    read(&mut body).unwrap().unwrap();
    assert!(kept.can_start_over());
    let error = read(&mut body).unwrap().unwrap_err();
    assert!(error.is::<io::Error>(), "it keeps its type");
    assert!(!kept.can_start_over() && !kept.claim());
    assert!(read(&mut body).is_none(), "told once");
    let mut again = kept.again();
    assert!(!again.is_end_stream());
    assert_eq!(error_of(&mut again), ReplayError::Broken, "never a truncated body");
}

#[test]
fn an_error_met_by_the_second_attempt_is_the_second_attempts() {
    let (mut first, kept) = recorded(Script::new([data("ab"), Step::Fail]), CAP);
    read(&mut first).unwrap().unwrap();
    let mut second = next(&kept).unwrap();
    assert_eq!(rest(&mut second).unwrap_err().to_string(), "torn");
    assert!(!kept.claim());
}

#[test]
fn a_body_that_panics_is_not_read_on() {
    let (mut first, kept) = recorded(Script::new([data("ab"), Step::Panic, data("cd")]), CAP);
    read(&mut first).unwrap().unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(&mut first)));
    assert!(panicked.is_err());
    assert!(!kept.claim());
    assert_eq!(error_of(&mut first), ReplayError::Broken);
    assert_eq!(kept.joined(), "");
}

// ===== The cap =====

/// Bytes that say when they are gone.
fn tracked(length: usize, alive: &Arc<AtomicUsize>) -> Bytes {
    struct Tracked(Vec<u8>, Arc<AtomicUsize>);

    impl AsRef<[u8]> for Tracked {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl Drop for Tracked {
        fn drop(&mut self) {
            self.1.fetch_sub(1, Ordering::Relaxed);
        }
    }

    alive.fetch_add(1, Ordering::Relaxed);
    Bytes::from_owner(Tracked(vec![b'x'; length], Arc::clone(alive)))
}

/// A body of so many frames of 100 bytes, and how many of them are in memory.
fn hundreds(frames: usize) -> (Script, Arc<AtomicUsize>) {
    let alive = Arc::new(AtomicUsize::new(0));
    let script = Script::new((0..frames).map(|_| Step::Data(tracked(100, &alive))));
    (script, alive)
}

#[test]
fn the_cap_itself_is_recorded_and_one_frame_more_is_not() {
    let (script, _) = hundreds(10);
    let (mut body, kept) = recorded(script, 1_000);
    rest(&mut body).unwrap();
    assert_eq!(rest(&mut next(&kept).unwrap()).unwrap().len(), 1_000);

    let (script, alive) = hundreds(11);
    let (mut body, kept) = recorded(script, 1_000);
    for _ in 0..10 {
        read(&mut body).unwrap().unwrap();
    }
    assert_eq!(alive.load(Ordering::Relaxed), 11);
    let last = read(&mut body).unwrap().unwrap();
    assert_eq!(alive.load(Ordering::Relaxed), 1, "freed at once, but for what is being sent");
    drop(last);
    assert!(!kept.claim());
    assert!(read(&mut body).is_none(), "the attempt under way is whole all the same");
}

#[test]
fn a_body_known_to_be_too_large_is_never_recorded() {
    let (script, alive) = hundreds(11);
    let (mut body, kept) = recorded(script.sized(), 1_000);
    read(&mut body).unwrap().unwrap();
    assert_eq!(alive.load(Ordering::Relaxed), 10);
    assert!(!kept.claim());
    assert_eq!(rest(&mut body).unwrap().len(), 1_000);
}

#[test]
fn a_body_too_large_that_nobody_read_can_still_be_sent() {
    let (script, _) = hundreds(11);
    let (first, kept) = recorded(script.sized(), 1_000);
    drop(first);
    assert_eq!(rest(&mut next(&kept).unwrap()).unwrap().len(), 1_100);
    assert!(!kept.claim());
}

#[test]
fn a_flood_of_tiny_frames_is_bounded_too() {
    let tiny = || Script::new((0..1_000).map(|_| data("x")));
    let (mut body, kept) = recorded(tiny(), 1_000);
    rest(&mut body).unwrap();
    assert!(!kept.claim(), "a thousand entries cost far more than a thousand bytes");
    let (mut body, kept) = recorded(tiny(), 16 * 1024 * 1024);
    rest(&mut body).unwrap();
    assert!(kept.claim());
}

#[test]
fn a_recording_is_freed_when_no_attempt_can_follow() {
    // The keeper goes while the attempt reads: what was read is freed, the rest comes.
    let (script, alive) = hundreds(5);
    let (mut body, kept) = recorded(script, CAP);
    for _ in 0..3 {
        read(&mut body).unwrap().unwrap();
    }
    assert_eq!(alive.load(Ordering::Relaxed), 5);
    drop(kept);
    assert_eq!(alive.load(Ordering::Relaxed), 2);
    assert_eq!(rest(&mut body).unwrap().len(), 200);

    // The last attempt frees frame by frame.
    let (script, alive) = hundreds(5);
    let (mut first, kept) = recorded(script, CAP);
    rest(&mut first).unwrap();
    let mut last = next(&kept).unwrap();
    kept.release();
    assert!(!kept.can_start_over());
    for left in (0..5).rev() {
        assert_eq!(last.size_hint().upper(), None);
        read(&mut last).unwrap().unwrap();
        assert_eq!(alive.load(Ordering::Relaxed), left);
    }

    // An attempt that lost the body keeps nothing alive.
    for claimed_only in [true, false] {
        let (script, alive) = hundreds(5);
        let (mut zombie, kept) = recorded(script, CAP);
        read(&mut zombie).unwrap().unwrap();
        assert!(kept.claim());
        if !claimed_only {
            read(&mut kept.again()).unwrap().unwrap();
        }
        drop(kept);
        assert_eq!(alive.load(Ordering::Relaxed), 0);
        assert_eq!(error_of(&mut zombie), ReplayError::Superseded);
    }
}

// ===== Against a reference =====

/// A number below `bound`.
fn below(random: &Randomness, bound: usize) -> usize {
    usize::try_from(random.bits() % u64::try_from(bound).unwrap()).unwrap()
}

/// A body of random bytes in random pieces, with pauses and perhaps trailers; and its bytes.
fn random_body(random: &Randomness) -> (Script, Vec<u8>, bool) {
    let whole: Vec<u8> = (0..below(random, 2_000)).map(|_| b'a' + random.bits().to_le_bytes()[0] % 26).collect();
    let (mut steps, mut left) = (Vec::new(), Bytes::from(whole.clone()));
    while !left.is_empty() {
        match below(random, 4) {
            0 => steps.push(Step::Pend),
            1 if below(random, 4) == 0 => steps.push(Step::Data(Bytes::new())),
            _ => steps.push(Step::Data(left.split_to(below(random, left.len().min(400)) + 1))),
        }
    }
    let trailers = below(random, 3) == 0;
    if trailers {
        steps.push(Step::Trailers(HeaderMap::from_iter([("t".parse().unwrap(), HeaderValue::from_static("1"))])));
    }
    let script = Script::new(steps);
    (if below(random, 2) == 0 { script.sized() } else { script }, whole, trailers)
}

#[test]
fn whatever_happens_an_attempt_sends_the_body_from_its_beginning_or_fails() {
    for seed in 0..3_000 {
        let random = Randomness::seeded(seed);
        let (script, whole, trailers) = random_body(&random);
        let cap = 1 + below(&random, 3_000);
        let (first, kept) = recorded(script, cap);
        let size = first.size_hint();
        // Attempts that are alive, with what each has sent. The last is the one that holds the body.
        let mut attempts = vec![(first, Vec::new(), false)];
        for _ in 0..below(&random, 200) {
            let newest = attempts.len() - 1;
            match below(&random, 20) {
                // A new attempt, as a retry layer begins it.
                0 => {
                    if let Some(body) = next(&kept) {
                        assert_eq!((body.size_hint().lower(), body.size_hint().upper()), (size.lower(), size.upper()));
                        attempts.push((body, Vec::new(), false));
                    }
                }
                // An older attempt goes away.
                1 if newest > 0 => drop(attempts.remove(below(&random, newest))),
                // Anybody reads.
                _ => {
                    let index = if below(&random, 3) == 0 { below(&random, newest + 1) } else { newest };
                    let (body, sent, ended) = &mut attempts[index];
                    let says_ended = body.is_end_stream();
                    match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
                        Poll::Pending => assert!(!says_ended),
                        Poll::Ready(None) => {
                            // Complete, unless it was told that it is not.
                            assert!(*ended || *sent == whole, "seed {seed}: truncated");
                            *ended = true;
                        }
                        Poll::Ready(Some(Ok(frame))) => {
                            assert!(!says_ended && !*ended, "seed {seed}: more after the end");
                            assert_eq!(index, newest, "seed {seed}: an attempt that lost the body sends");
                            match frame.into_data() {
                                Ok(data) => sent.extend_from_slice(&data),
                                Err(_) => assert!(trailers),
                            }
                            assert!(whole.starts_with(sent), "seed {seed}: bytes doubled, lost or out of order");
                        }
                        Poll::Ready(Some(Err(error))) => {
                            assert!(!says_ended, "seed {seed}: a cut-off body looked complete");
                            assert!(index < newest, "seed {seed}: {error}");
                            assert_eq!(*error.downcast::<ReplayError>().unwrap(), ReplayError::Superseded);
                            *ended = true;
                        }
                    }
                }
            }
        }
        // What is left of the newest attempt is the rest of the body, whole.
        let (mut body, mut sent, _) = attempts.pop().unwrap();
        sent.extend_from_slice(rest(&mut body).unwrap().as_bytes());
        assert_eq!(sent, whole, "seed {seed}");
        assert_eq!(kept.can_start_over(), next(&kept).is_some());
        if whole.len() <= cap && cap >= 2_000 {
            let mut again = next(&kept).unwrap_or_else(|| panic!("seed {seed}: {} of {cap}", whole.len()));
            assert_eq!(rest(&mut again).unwrap().as_bytes(), whole);
        }
    }
}

#[test]
fn attempts_on_several_threads_never_mix_their_bytes() {
    for seed in 0..200 {
        let random = Randomness::seeded(seed);
        let (script, whole, _) = random_body(&random);
        let (mut body, kept) = recorded(script, 1 << 20);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let whole = &whole;
                scope.spawn(move || {
                    let mut sent = Vec::new();
                    while let Some(frame) = read(&mut body) {
                        match frame {
                            Ok(frame) => sent.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
                            Err(error) => {
                                assert!(whole.starts_with(&sent));
                                assert!(error.is::<ReplayError>());
                                return;
                            }
                        }
                    }
                    assert_eq!(&sent, whole, "seed {seed}");
                });
                for _ in 0..below(&random, 20) {
                    std::thread::yield_now();
                }
                body = next(&kept).unwrap();
            }
            assert_eq!(rest(&mut body).unwrap().as_bytes(), whole, "seed {seed}");
        });
    }
}
