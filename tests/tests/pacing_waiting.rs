//! How calls wait for quota: in what order, for how long, at what price, and who is told that it is in vain.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{HeaderValue, Request};
use tests::{Answer, Body, ReadinessProbe, create_session, get, limits};
use tokio::{task::JoinSet, time::Instant};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_didit::{
    call::{CallOptions, Priority},
    deadline::DeadlineLayer,
    pacing::{ColdStart, Pacing, PacingBuilder, PacingLayer, Refused, Why},
    retry::RetryLayer,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn pacing(writes: u32) -> PacingBuilder {
    PacingLayer::builder().limits(limits(writes, MINUTE).unwrap())
}

fn with_priority(priority: Priority) -> Request<Body> {
    let mut request = create_session(None, "call");
    request.extensions_mut().insert(CallOptions::new().priority(priority));
    request
}

fn with_key(key: &'static str) -> Request<Body> {
    let mut request = create_session(None, "call");
    request.headers_mut().insert("x-api-key", HeaderValue::from_static(key));
    request
}

/// Fills a ledger of `count` slots at once.
async fn fill(service: &Pacing<ReadinessProbe>, count: usize) {
    for _ in 0..count {
        service.clone().oneshot(create_session(None, "first")).await.unwrap();
    }
}

fn refusal<T, E>(result: Result<T, tower_didit::pacing::Error<E>>) -> Refused {
    result.err().and_then(|error| error.as_layer().cloned()).unwrap()
}

/// Notes which call is made, and answers it.
#[derive(Clone, Debug, Default)]
struct Noting(Arc<Mutex<Vec<(u32, Instant)>>>);

impl Service<Request<u32>> for Noting {
    type Response = http::Response<()>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<u32>) -> Self::Future {
        self.0.lock().unwrap().push((*request.body(), Instant::now()));
        std::future::ready(Ok(http::Response::new(())))
    }
}

fn numbered(number: u32) -> Request<u32> {
    Request::post("/v3/session/").body(number).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_who_wait_are_served_in_order_and_a_fifth_that_goes_away_is_not_missed() {
    const CALLS: u32 = 100_000;

    let noting = Noting::default();
    let layer = pacing(1_000).build().unwrap();
    let service = layer.layer(noting.clone());
    let mut calls: Vec<_> = (0..CALLS).map(|number| tokio::spawn(service.clone().oneshot(numbered(number)))).collect();
    tokio::time::sleep(SECOND).await;
    assert_eq!(layer.usage()[0].waiting, CALLS as usize - 1_000);
    for call in calls.iter_mut().skip(1_000).step_by(5) {
        call.abort();
    }
    let mut done = 0;
    for call in calls {
        done += u32::from(call.await.is_ok());
    }
    let served = noting.0.lock().unwrap();
    assert_eq!(served.len(), done as usize);
    assert_eq!(done, CALLS - (CALLS - 1_000) / 5);
    assert!(served.is_sorted_by_key(|(number, _)| *number), "overtaken");
    // Strictly as many as there are slots, and not one fewer.
    let rounds = (done / 1_000 - 1) as usize;
    let (first, last) = (served[0].1, served[served.len() - 1].1);
    assert_eq!((last - first).as_secs(), (61 * rounds) as u64 + u64::from(done % 1_000 > 0) * 61);
    assert_eq!(layer.usage()[0].waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_takes_no_more_than_400_bytes_beyond_its_request() {
    let service = pacing(1).build().unwrap().layer(Noting::default());
    let future = service.clone().oneshot(numbered(0));
    let own = size_of_val(&service.clone().call(numbered(0)));
    let (request, client) = (size_of::<Request<u32>>(), size_of::<Noting>());
    drop(future);
    let in_ledger = allocation_counter::measure(|| {
        let mut service = service.clone();
        for number in 0..10_000 {
            std::mem::forget(service.call(numbered(number)));
        }
    });
    let each = own - request - client + usize::try_from(in_ledger.bytes_max / 10_000).unwrap();
    println!("{each} bytes for each call that waits, beyond its request of {request} bytes");
    assert!(each <= 400, "{each}");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_batch_work_does_not_hold_up_who_is_watching() {
    let service = pacing(300).build().unwrap().layer(ReadinessProbe::new([]));
    let start = Instant::now();
    let mut batch = JoinSet::new();
    for _ in 0..3_000 {
        batch.spawn(service.clone().oneshot(with_priority(Priority::Low)));
    }
    let mut longest = Duration::ZERO;
    for _ in 0..200 {
        tokio::time::sleep(2 * SECOND).await;
        let asked = Instant::now();
        service.clone().oneshot(with_priority(Priority::High)).await.unwrap();
        longest = longest.max(asked.elapsed());
    }
    assert!(longest < SECOND, "{longest:?}");
    while batch.join_next().await.is_some() {}
    // 3 000 at 240 a round, which is all that they may have.
    assert_eq!(start.elapsed().as_secs(), 61 * 12);
}

#[tokio::test(start_paused = true)]
async fn repetitions_go_before_first_attempts() {
    let probe = ReadinessProbe::new([Answer::Status(503, Some(1))]);
    let layer = pacing(2).build().unwrap();
    let service = ServiceBuilder::new().layer(RetryLayer::didit()).layer(layer.clone()).service(probe.clone());
    let start = Instant::now();
    let repeated = tokio::spawn(service.clone().oneshot(create_session(Some("user"), "repeated")));
    tokio::task::yield_now().await;
    service.clone().oneshot(create_session(None, "second")).await.unwrap();
    // One slot becomes free at a time; a first attempt waits already when the repetition comes.
    tokio::time::sleep(SECOND / 2).await;
    service.clone().oneshot(get("/v3/sessions/")).await.unwrap();
    let first: Vec<_> = (0..4).map(|_| tokio::spawn(service.clone().oneshot(create_session(None, "first")))).collect();
    let response = repeated.await.unwrap().unwrap();
    assert_eq!((response.status(), start.elapsed().as_secs()), (http::StatusCode::OK, 61));
    assert_eq!(layer.usage().iter().map(|scope| scope.waiting).sum::<usize>(), 3, "one of the first went with it");
    drop(first);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_refused_as_soon_as_a_pause_makes_it_vain() {
    let probe =
        ReadinessProbe::new([Answer::Status(200, None), Answer::After(30 * SECOND), Answer::Status(429, Some(50))]);
    let layer = pacing(3).build().unwrap();
    let service = ServiceBuilder::new().layer(DeadlineLayer::new(70 * SECOND)).layer(layer).service(probe);
    let start = Instant::now();
    service.clone().oneshot(create_session(None, "one")).await.unwrap();
    let slow = tokio::spawn(service.clone().oneshot(create_session(None, "slow")));
    tokio::time::sleep(20 * SECOND).await;
    let mut patient = create_session(None, "three");
    patient.extensions_mut().insert(CallOptions::new().deadline(100 * SECOND));
    let waits = {
        // The third slot, whose answer pauses the scope until 70 s.
        let third = service.clone().oneshot(create_session(None, "refused"));
        let waits = service.clone().oneshot({
            let mut request = create_session(None, "waits");
            request.extensions_mut().insert(CallOptions::new().deadline(45 * SECOND));
            request
        });
        let third = tokio::spawn(third);
        let waits = tokio::spawn(waits);
        assert_eq!(third.await.unwrap().unwrap().status(), 429);
        waits
    };
    let error = waits.await.unwrap().unwrap_err();
    let refused = error.as_inner().and_then(|error| error.as_layer()).expect("refused by pacing");
    assert_eq!(refused.why(), Why::Deadline);
    assert!(start.elapsed() < 21 * SECOND, "told at {:?}, its deadline was at 65 s", start.elapsed());
    assert!((refused.retry_at() - start).as_secs() >= 70);
    slow.abort();
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_no_longer_than_allowed_and_a_wait_neither() {
    let service = pacing(1).max_waiting(1).build().unwrap().layer(ReadinessProbe::new([]));
    fill(&service, 1).await;
    let start = Instant::now();
    let waits = tokio::spawn(service.clone().oneshot(create_session(None, "waits")));
    tokio::task::yield_now().await;
    let refused = refusal(service.oneshot(create_session(None, "too many")).await);
    assert_eq!((refused.why(), (refused.retry_at() - start).as_secs()), (Why::QueueFull, 61));
    waits.await.unwrap().unwrap();

    let service = pacing(1).max_wait(MINUTE).build().unwrap().layer(ReadinessProbe::new([]));
    fill(&service, 1).await;
    let start = Instant::now();
    let refused = refusal(service.oneshot(create_session(None, "too long")).await);
    assert_eq!((refused.why(), (refused.retry_at() - start).as_secs()), (Why::MaxWait, 61));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn two_credentials_never_slow_one_another() {
    let layer = pacing(2).build().unwrap();
    let service = layer.layer(ReadinessProbe::new([]));
    let start = Instant::now();
    for key in ["one", "one", "other", "other"] {
        service.clone().oneshot(with_key(key)).await.unwrap();
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    service.oneshot(with_key("one")).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 61);
    let keys = layer.handle().keys();
    assert_eq!(keys.len(), 2);
    assert!(!format!("{keys:?}{layer:?}").contains("\"one\""));
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_of_a_credential_is_not_forgotten_for_another() {
    let layer = pacing(1).max_keys(3).build().unwrap();
    let service = layer.layer(ReadinessProbe::new([]));
    let start = Instant::now();
    for (second, key) in ["one", "two", "three"].into_iter().enumerate() {
        tokio::time::sleep_until(start + SECOND * u32::try_from(second).unwrap()).await;
        service.clone().oneshot(with_key(key)).await.unwrap();
    }
    let refused = refusal(service.clone().oneshot(with_key("four")).await);
    // The first of them stays for good; the second is idle 61 s after its call.
    assert_eq!((refused.why(), (refused.retry_at() - start).as_secs()), (Why::TooManyKeys, 62));
    tokio::time::sleep_until(refused.retry_at()).await;
    service.clone().oneshot(with_key("four")).await.unwrap();
    assert_eq!(layer.handle().keys().len(), 3);
    let before = Instant::now();
    service.oneshot(with_key("three")).await.unwrap();
    assert!(before.elapsed() > Duration::ZERO || before >= start + 63 * SECOND, "three was remembered");
}

#[tokio::test(start_paused = true)]
async fn credentials_that_come_and_go_do_not_pile_up() {
    let layer = pacing(1).build().unwrap();
    let service = layer.layer(ReadinessProbe::new([]));
    for number in 0..2_000 {
        let mut request = create_session(None, "call");
        request.headers_mut().insert("x-api-key", number.to_string().parse().unwrap());
        service.clone().oneshot(request).await.unwrap();
        tokio::time::sleep(10 * SECOND).await;
    }
    // Seven of them are in use at a time.
    assert!(layer.handle().keys().len() <= 17, "{}", layer.handle().keys().len());
}

#[tokio::test(start_paused = true)]
async fn a_restarted_process_goes_on_where_the_one_before_it_ended() {
    let first = pacing(2).build().unwrap();
    let service = first.layer(ReadinessProbe::new([]));
    service.clone().oneshot(with_key("key")).await.unwrap();
    let in_flight = tokio::spawn(first.layer(ReadinessProbe::new([Answer::After(MINUTE)])).oneshot(with_key("key")));
    tokio::task::yield_now().await;
    let snapshot = first.handle().snapshot();
    in_flight.abort();
    assert_eq!(snapshot.keys().len(), 1);
    assert!(!format!("{snapshot:?}").contains("\"key\""));
    // The wall clock does not move with the paused one: to the new process hardly any time has passed.
    let second = pacing(2).restore(snapshot).build().unwrap();
    let service = second.layer(ReadinessProbe::new([]));
    let start = Instant::now();
    service.clone().oneshot(with_key("other")).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO, "of another credential nothing is known");
    service.clone().oneshot(with_key("key")).await.unwrap();
    assert_eq!((start.elapsed() + SECOND / 2).as_secs(), 61, "the answered one, a moment ago");
    service.oneshot(with_key("key")).await.unwrap();
    assert_eq!((start.elapsed() + SECOND / 2).as_secs(), 66, "the one in flight, as if it were lost");
}

#[tokio::test(start_paused = true)]
async fn a_cold_start_is_as_careful_as_it_is_told_to_be() {
    for (assume, first, second) in [
        (ColdStart::Empty, 0, 0),
        (ColdStart::Share(1.0), 35, 66),
        (ColdStart::Share(0.5), 0, 61),
        (ColdStart::Full, 66, 66),
    ] {
        let service = pacing(2).cold_start(assume).build().unwrap().layer(ReadinessProbe::new([]));
        let start = Instant::now();
        let mut started = Vec::new();
        for _ in 0..2 {
            service.clone().oneshot(create_session(None, "call")).await.unwrap();
            started.push(start.elapsed().as_secs());
        }
        assert_eq!(started, [first, second], "{assume:?}");
    }
}

#[tokio::test]
async fn a_cold_start_of_more_slots_than_fit_in_memory_is_refused() {
    for assumed in [ColdStart::Full, ColdStart::Share(0.1)] {
        let error = pacing(u32::MAX).cold_start(assumed).build().unwrap_err().to_string();
        assert_eq!(error, "cold_start assumes slots of a limit of 4294967295; allowed are limits of at most 1000000");
    }
    assert!(pacing(u32::MAX).build().is_ok());
}

#[tokio::test(start_paused = true)]
async fn shadow_mode_holds_nobody_up_and_says_whom_it_would_have() {
    let layer = pacing(2).shadow(true).build().unwrap();
    let service =
        ServiceBuilder::new().layer(DeadlineLayer::new(30 * SECOND)).layer(&layer).service(ReadinessProbe::new([]));
    let start = Instant::now();
    for _ in 0..5 {
        service.clone().oneshot(create_session(None, "call")).await.unwrap();
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    let overdrafts = layer.handle().keys()[0].overdrafts;
    assert_eq!((overdrafts.calls, overdrafts.refused), (3, 3));
    assert_eq!(overdrafts.longest_wait.as_secs(), 61);
    assert_eq!(layer.usage()[0].used, 5);
}

#[tokio::test(start_paused = true)]
async fn shadow_mode_refuses_no_credential_either() {
    let layer = pacing(1).shadow(true).max_keys(2).build().unwrap();
    let service = layer.layer(ReadinessProbe::new([]));
    for key in ["one", "two", "three"] {
        assert_eq!(service.clone().oneshot(with_key(key)).await.unwrap().status(), 200);
    }
    assert_eq!(layer.handle().keys().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_key_can_be_rotated_where_one_alone_is_allowed() {
    let service = pacing(1).max_keys(1).build().unwrap().layer(ReadinessProbe::new([]));
    for key in ["old", "rotated", "rotated"] {
        service.clone().oneshot(with_key(key)).await.unwrap();
    }
    let refused = refusal(service.oneshot(with_key("third")).await);
    assert_eq!(refused.why(), Why::TooManyKeys);
}

#[tokio::test(start_paused = true)]
async fn there_is_room_for_a_credential_as_soon_as_another_has_nothing_to_remember() {
    let layer = pacing(5).max_keys(2).build().unwrap();
    let service = layer.layer(ReadinessProbe::new([]));
    service.clone().oneshot(with_key("a")).await.unwrap();
    let unreachable = tower::service_fn(|_: Request<Body>| async {
        tokio::time::sleep(SECOND).await;
        Err::<http::Response<()>, _>(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))
    });
    let never_sent = tokio::spawn(layer.layer(unreachable).oneshot(with_key("b")));
    tokio::task::yield_now().await;
    let refused = refusal(service.clone().oneshot(with_key("c")).await);
    assert_eq!(refused.why(), Why::TooManyKeys);
    assert!(never_sent.await.unwrap().is_err());
    assert_eq!(service.oneshot(with_key("c")).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_survives_a_restore_with_room_for_fewer() {
    let first = pacing(1).build().unwrap();
    let service = first.layer(ReadinessProbe::new([]));
    service.clone().oneshot(with_key("idle")).await.unwrap();
    tokio::time::sleep(2 * MINUTE).await;
    let live = ["a", "b", "c"];
    for key in live {
        service.clone().oneshot(with_key(key)).await.unwrap();
    }
    let second = pacing(1).max_keys(2).restore(first.handle().snapshot()).build().unwrap();
    assert_eq!(second.handle().keys().len(), live.len(), "all but the idle one");
    let service = second.layer(ReadinessProbe::new([]));
    for key in live {
        let early = tokio::time::timeout(SECOND, service.clone().oneshot(with_key(key))).await;
        assert!(early.is_err(), "{key} went out while its slot was taken");
    }
}

#[tokio::test(start_paused = true)]
async fn the_configured_limit_holds_after_a_restore() {
    for (before, after, raise) in [(2, 5, false), (5, 2, true)] {
        let first = pacing(before).build().unwrap();
        first.layer(ReadinessProbe::new([])).oneshot(with_key("key")).await.unwrap();
        let second = pacing(after).raise_limits(raise).restore(first.handle().snapshot()).build().unwrap();
        assert_eq!(second.usage()[0].limit, after);
    }
}

#[tokio::test(start_paused = true)]
async fn the_handle_shows_who_waits_and_for_how_long() {
    let layer = pacing(2).burst(NonZeroU32::new(2).unwrap()).build().unwrap();
    assert_eq!(layer.usage()[0].used, 0, "before anything was sent");
    let probe = ReadinessProbe::new([Answer::Status(200, None), Answer::Status(429, Some(40))]);
    let service = layer.layer(probe);
    for _ in 0..2 {
        service.clone().oneshot(create_session(None, "call")).await.unwrap();
    }
    let start = Instant::now();
    let mut waiting = JoinSet::new();
    for priority in [Priority::Low, Priority::High, Priority::High, Priority::Normal] {
        waiting.spawn(service.clone().oneshot(with_priority(priority)));
    }
    tokio::time::sleep(10 * SECOND).await;
    let usage = &layer.usage()[0];
    assert_eq!((usage.limit, usage.effective, usage.used, usage.waiting), (2, 1, 2, 4));
    let by = [Priority::High, Priority::Normal, Priority::Low].map(|priority| usage.waiting_of(priority));
    assert_eq!(by, [2, 1, 1]);
    assert_eq!(usage.oldest_wait.map(|wait| wait.as_secs()), Some(10));
    assert_eq!(usage.paused_until.map(|until| (until - start).as_secs()), Some(40));
    // One slot a round is left, and all four go before: the one of low priority will have waited for a window by then.
    assert_eq!(usage.predicted_wait.as_secs(), 61 * 5 - 10);
}

#[tokio::test(start_paused = true)]
async fn what_a_success_says_about_the_quota_is_believed() {
    let answer = tower::service_fn(|_: Request<Body>| async {
        let headers = [("ratelimit-policy", "\"burst\";q=10;w=60"), ("ratelimit", "\"burst\";r=2;t=30")];
        let response =
            headers.into_iter().fold(http::Response::builder(), |response, (name, value)| response.header(name, value));
        response.body(()).map_err(std::io::Error::other)
    });
    let layer = pacing(10).build().unwrap();
    let service = layer.layer(answer);
    let start = Instant::now();
    service.clone().oneshot(create_session(None, "call")).await.unwrap();
    assert_eq!(layer.usage()[0].used, 8, "seven of them are somebody else's");
    for _ in 0..2 {
        service.clone().oneshot(create_session(None, "call")).await.unwrap();
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    service.oneshot(create_session(None, "call")).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 30, "when the server's window frees up");
}

#[test]
fn a_layer_shared_by_runtimes_hangs_with_none_of_them() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let limits = limits(1, Duration::from_millis(150)).unwrap();
    let layer = PacingLayer::builder().limits(limits).epsilon(Duration::ZERO).transit(Duration::ZERO).build().unwrap();
    let service = layer.layer(ReadinessProbe::new([]));
    let (stopped, parked, alive) = (runtime(), runtime(), runtime());
    alive.block_on(service.clone().oneshot(create_session(None, "first"))).unwrap();
    // On each of two runtimes a call waits; then one runtime is never driven again, and the other is shut down. Real time,
    // because a paused clock belongs to one runtime.
    for runtime in [&parked, &stopped] {
        runtime.spawn(service.clone().oneshot(create_session(None, "waits")));
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(5)).await });
    }
    drop(stopped);
    let answered = alive
        .block_on(async { tokio::time::timeout(MINUTE, service.clone().oneshot(create_session(None, "last"))).await });
    assert!(answered.is_ok_and(|answer| answer.is_ok()), "it hung");
    drop(parked);
    assert_eq!(layer.usage()[0].waiting, 0);
}
