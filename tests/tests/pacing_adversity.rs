//! Pacing where something goes wrong around it: callers that do not come, answers that hang, limits that change, a runtime
//! without a timer.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Future, poll_fn},
    mem,
    sync::{Arc, Mutex},
    time::Duration,
};

use didit_api::{Limits, Routes, Scope};
use http::{Method, Request, Response, StatusCode};
use tests::{Answer, Body, ReadinessProbe, create_session, limits, to};
use tokio::{
    runtime::{Builder, Handle},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_didit::{
    deadline::DeadlineLayer,
    pacing::{PacingBuilder, PacingLayer, Why},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn pacing(writes: u32) -> PacingBuilder {
    PacingLayer::builder().limits(limits(writes, MINUTE).unwrap())
}

/// Answers the first calls in these times, and all others in a tenth of a second.
fn answering_in(
    times: impl IntoIterator<Item = Duration>,
) -> impl Service<Request<Body>, Response = Response<()>, Error = Infallible, Future: Send> + Clone + Send {
    let times: Arc<Mutex<VecDeque<_>>> = Arc::new(Mutex::new(times.into_iter().collect()));
    service_fn(move |_: Request<Body>| {
        let takes = times.lock().unwrap().pop_front().unwrap_or(SECOND / 10);
        async move {
            sleep(takes).await;
            Ok(Response::new(()))
        }
    })
}

/// How many of so many calls at once are served.
async fn served<S>(service: &S, calls: usize) -> usize
where
    S: Service<Request<Body>, Future: Send> + Clone + Send + 'static,
{
    let calls = (0..calls).map(|_| {
        let call = service.clone().oneshot(create_session(None, "call"));
        async move { call.await.is_ok() }
    });
    let calls: JoinSet<_> = calls.collect();
    calls.join_all().await.into_iter().filter(|served| *served).count()
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_made_and_never_polled_shuts_nobody_out() {
    let layer = pacing(1).build().unwrap();
    let mut service = layer.layer(ReadinessProbe::new([]));
    service.clone().oneshot(create_session(None, "first")).await.unwrap();
    poll_fn(|cx| Service::<Request<Body>>::poll_ready(&mut service, cx)).await.unwrap();
    let unpolled = service.call(create_session(None, "unpolled"));
    sleep(61 * SECOND).await;
    let door = ServiceBuilder::new().layer(DeadlineLayer::new(30 * SECOND)).layer(layer);
    let door = door.service(ReadinessProbe::new([]));
    let mut refused = 0;
    while door.clone().oneshot(create_session(None, "call")).await.is_err() {
        refused += 1;
        sleep(10 * SECOND).await;
    }
    assert!(refused <= 2, "{refused}");
    drop(unpolled);
}

/// A call's turn hangs on attempts in flight alone when it goes away: nobody has an end to wait for.
#[tokio::test(start_paused = true)]
async fn a_credential_is_forgotten_although_a_call_gave_up_while_its_slots_hung() {
    let with_key = |key: usize| {
        let mut request = create_session(None, "call");
        request.headers_mut().insert("x-api-key", key.to_string().parse().unwrap());
        request
    };
    for max_wait in [None, Some(SECOND), Some(20 * 60 * MINUTE)] {
        let builder = pacing(1).max_keys(50);
        let layer = match max_wait {
            Some(wait) => builder.max_wait(wait),
            None => builder,
        };
        let layer = layer.build().unwrap();
        let alive = || Handle::current().metrics().num_alive_tasks();
        let before = alive();
        for key in 0..50 {
            let service = layer.layer(ReadinessProbe::new([Answer::After(30 * SECOND)]));
            let hangs = tokio::spawn(service.clone().oneshot(with_key(key)));
            sleep(SECOND).await;
            let gave_up = timeout(5 * SECOND, service.oneshot(with_key(key))).await;
            assert_eq!(gave_up.is_err(), max_wait != Some(SECOND));
            hangs.await.unwrap().unwrap();
        }
        assert_eq!(alive(), before, "whoever kept time for them is gone");
        sleep(60 * MINUTE).await;
        let another = layer.layer(ReadinessProbe::new([])).oneshot(with_key(50));
        assert!(another.await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn the_longest_wait_is_kept_while_slots_hang() {
    let layer = pacing(1).max_wait(90 * SECOND).build().unwrap();
    let service = layer.layer(ReadinessProbe::new([Answer::After(30 * MINUTE)]));
    let hangs = tokio::spawn(service.clone().oneshot(create_session(None, "hangs")));
    sleep(SECOND).await;
    let start = Instant::now();
    let error = service.oneshot(create_session(None, "waits")).await.unwrap_err();
    assert_eq!((error.as_layer().unwrap().why(), start.elapsed()), (Why::MaxWait, 90 * SECOND));
    hangs.abort();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_others_overtake_for_ever_is_told_before_its_longest_wait_is_over() {
    let update = "/v3/session/11111111-2222-4333-8444-555555555555/update-data/";
    let overlapping = Limits::none()
        .with(Scope::endpoints("one", 2, ["session-create", "aml"]).unwrap())
        .and_then(|limits| limits.with(Scope::endpoints("other", 2, ["session-create", "session-update-data"])?))
        .unwrap();
    let layer = PacingLayer::builder().limits(overlapping).max_wait(200 * SECOND).build().unwrap();
    let service = layer.layer(ReadinessProbe::new([]));
    let mut busy = JoinSet::new();
    for (method, path, offset) in [(Method::POST, "/v3/aml/", 0), (Method::PATCH, update, 31)] {
        for _ in 0..3 {
            let (service, method) = (service.clone(), method.clone());
            busy.spawn(async move {
                sleep(SECOND * offset).await;
                loop {
                    _ = service.clone().oneshot(to(method.clone(), path)).await;
                }
            });
        }
    }
    sleep(100 * SECOND).await;
    let start = Instant::now();
    let error = service.oneshot(create_session(None, "both")).await.unwrap_err();
    // At 183 s two of the three take the one scope's slots again and all ask once more: it is theirs until 305 s.
    assert_eq!((error.as_layer().unwrap().why(), start.elapsed()), (Why::MaxWait, 83 * SECOND));
}

#[test]
fn without_a_timer_every_call_that_has_to_wait_says_so() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let service = pacing(1).build().unwrap().layer(ReadinessProbe::new([]));
    runtime.block_on(async {
        service.clone().oneshot(create_session(None, "first")).await.unwrap();
        for _ in 0..2 {
            let waits = tokio::spawn(service.clone().oneshot(create_session(None, "waits")));
            assert!(waits.await.unwrap_err().is_panic(), "and does not hang");
        }
    });
}

#[tokio::test(start_paused = true)]
async fn one_answer_that_hangs_refuses_nobody_who_would_be_in_time() {
    let hangs = [SECOND / 10; 5].into_iter().chain([40 * SECOND]);
    let layers = ServiceBuilder::new().layer(DeadlineLayer::new(300 * SECOND)).layer(pacing(30).build().unwrap());
    assert_eq!(served(&layers.service(answering_in(hangs)), 150).await, 150);
    // The same at the door: a long upload, and then more than there are slots.
    let layers = ServiceBuilder::new().layer(DeadlineLayer::new(120 * SECOND)).layer(pacing(30).build().unwrap());
    let service = layers.service(answering_in([70 * SECOND]));
    assert_eq!(served(&service, 1).await, 1);
    sleep(70 * SECOND).await;
    assert_eq!(served(&service, 40).await, 40);
}

/// How many writes a server lets in within a minute, and how many session creations and screenings among them.
type Allowed = Arc<Mutex<[usize; 3]>>;

fn allowed(writes: usize, creations: usize, screenings: usize) -> Allowed {
    Arc::new(Mutex::new([writes, creations, screenings]))
}

/// A server that names the limit that was exceeded.
fn server(
    allowed: Allowed,
) -> impl Service<Request<Body>, Response = Response<()>, Error = Infallible, Future: Future + Send> + Clone + Send {
    let logs: Arc<Mutex<[VecDeque<Instant>; 3]>> = Arc::default();
    service_fn(move |request: Request<Body>| {
        let (logs, allowed) = (Arc::clone(&logs), Arc::clone(&allowed));
        async move {
            sleep(SECOND / 20).await;
            let (path, now) = (request.uri().path(), Instant::now());
            let scopes: Vec<_> = match path {
                "/v3/session/" => vec![0, 1],
                "/v3/aml/" => vec![0, 2],
                _ => vec![0],
            };
            let exceeded = {
                let (mut logs, allowed) = (logs.lock().unwrap(), *allowed.lock().unwrap());
                for log in logs.iter_mut() {
                    while log.pop_front_if(|at| now - *at >= MINUTE).is_some() {}
                }
                let full = scopes.iter().copied().find(|scope| logs[*scope].len() >= allowed[*scope]);
                if full.is_none() {
                    scopes.iter().for_each(|scope| logs[*scope].push_back(now));
                }
                let wait = |scope: usize| MINUTE - (now - logs[scope][logs[scope].len() - allowed[scope]]);
                full.map(|scope| (allowed[scope], wait(scope).as_secs() + 1))
            };
            sleep(SECOND / 20).await;
            let Some((limit, wait)) = exceeded else { return Ok(Response::new(())) };
            let response = Response::builder().status(StatusCode::TOO_MANY_REQUESTS).header("x-ratelimit-limit", limit);
            Ok(response.header("x-ratelimit-remaining", 0).header("retry-after", wait).body(()).unwrap())
        }
    })
}

/// So many workers make other writes all the time; how many were let in and refused in each minute.
async fn each_minute<S>(service: S, workers: usize, minutes: usize) -> Vec<[u32; 2]>
where
    S: Service<Request<Body>, Response = Response<()>, Error: Send, Future: Send> + Clone + Send + 'static,
{
    let counts = Arc::new(Mutex::new([0_u32; 2]));
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        let (service, counts) = (service.clone(), Arc::clone(&counts));
        tasks.spawn(async move {
            loop {
                let Ok(response) = service.clone().oneshot(to(Method::POST, "/v3/whatever-else/")).await else {
                    continue;
                };
                counts.lock().unwrap()[usize::from(!response.status().is_success())] += 1;
            }
        });
    }
    let mut all = Vec::new();
    for _ in 0..minutes {
        sleep(MINUTE).await;
        all.push(mem::take(&mut *counts.lock().unwrap()));
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_the_server_lowered_costs_its_own_scope_alone() {
    let service = PacingLayer::didit().layer(server(allowed(300, 20, usize::MAX)));
    // Of creations and other writes: served and refused.
    let counts = Arc::new(Mutex::new([[0_u32; 2]; 2]));
    let mut workers = JoinSet::new();
    for number in 0..40 {
        let (service, counts, creates) = (service.clone(), Arc::clone(&counts), number < 30);
        workers.spawn(async move {
            loop {
                let other = || to(Method::POST, "/v3/whatever-else/");
                let request = if creates { create_session(None, "call") } else { other() };
                let Ok(response) = service.clone().oneshot(request).await else { continue };
                counts.lock().unwrap()[usize::from(!creates)][usize::from(!response.status().is_success())] += 1;
            }
        });
    }
    sleep(10 * MINUTE).await;
    *counts.lock().unwrap() = [[0; 2]; 2];
    sleep(30 * MINUTE).await;
    let [[created, refused], [others, refused_others]] = *counts.lock().unwrap();
    println!("in 30 min: {created} created, {refused} refused; {others} others, {refused_others} refused");
    assert!(created >= 30 * 18 && others >= 30 * 275, "{created}, {others}");
    assert!(refused + refused_others <= 10, "{refused}, {refused_others}");
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_nobody_told_us_of_is_kept_to_and_shuts_out_nobody_else() {
    // Screenings come now and then beside many workers, or all the time beside few, under routes that have them or not;
    // five a minute are let in, and no scope that is known here says so.
    let unknown = Arc::new(Routes::empty());
    for (workers, every, routes) in
        [(40, 6 * SECOND, None), (4, SECOND, None), (40, 6 * SECOND, Some(Arc::clone(&unknown)))]
    {
        let limits = Limits::none().with(Scope::methods("writes", 300, ["POST"]).unwrap()).unwrap();
        let builder = PacingLayer::builder().limits(limits);
        let layer = routes.into_iter().fold(builder, PacingBuilder::routes).build().unwrap();
        let service = layer.layer(server(allowed(300, usize::MAX, 5)));
        let screened = Arc::new(Mutex::new([0_u32; 2]));
        let (screenings, counts) = (service.clone(), Arc::clone(&screened));
        let screening = tokio::spawn(async move {
            sleep(5 * MINUTE).await;
            loop {
                let (screenings, counts) = (screenings.clone(), Arc::clone(&counts));
                tokio::spawn(async move {
                    let Ok(response) = screenings.oneshot(to(Method::POST, "/v3/aml/")).await else { return };
                    counts.lock().unwrap()[usize::from(!response.status().is_success())] += 1;
                });
                sleep(every).await;
            }
        });
        let minutes = each_minute(service, workers, 30).await;
        screening.abort();
        println!("let in and refused in each minute: {minutes:?}; of screenings in all: {screened:?}");
        assert!(minutes.iter().all(|[let_in, refused]| *let_in >= 280 && *refused == 0), "{minutes:?}");
        let [let_in, refused] = *screened.lock().unwrap();
        assert!(let_in >= 25 * 4 && refused <= 12, "{let_in} let in, {refused} refused");
        let usage = layer.usage();
        let undocumented = usage.iter().find(|usage| usage.scope.ends_with("(undocumented)")).unwrap();
        assert!(undocumented.limit == 5 || undocumented.effective <= 6, "{undocumented:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_nobody_told_us_of_is_known_to_the_next_process() {
    let server = server(allowed(300, usize::MAX, 5));
    let (mut snapshot, mut refused) = (None, Vec::new());
    for _ in 0..4 {
        let layer = snapshot.into_iter().fold(PacingLayer::builder(), PacingBuilder::restore).build().unwrap();
        let service = layer.layer(server.clone());
        let calls: JoinSet<_> = (0..10)
            .map(|_| {
                let call = service.clone().oneshot(to(Method::POST, "/v3/aml/"));
                async move { timeout(4 * MINUTE, call).await.is_ok_and(|answer| !answer.unwrap().status().is_success()) }
            })
            .collect();
        refused.push(calls.join_all().await.into_iter().filter(|refused| *refused).count());
        snapshot = Some(layer.handle().snapshot());
    }
    assert_eq!(refused, [5, 0, 0, 0], "all ten were sent at once before the first was refused");
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_was_lowered_far_below_what_was_let_in_is_taken_over() {
    let allowed = allowed(300, usize::MAX, usize::MAX);
    let service = PacingLayer::didit().layer(server(Arc::clone(&allowed)));
    let lowering = async {
        sleep(5 * MINUTE + SECOND / 2).await;
        allowed.lock().unwrap()[0] = 20;
    };
    let (minutes, ()) = tokio::join!(each_minute(service, 40, 30), lowering);
    println!("let in and refused in each minute: {minutes:?}");
    // Those of all workers were on their way.
    let refused: u32 = minutes.iter().map(|[_, refused]| refused).sum();
    assert!(refused <= 45, "{minutes:?}");
    assert!(minutes[8..].iter().all(|[let_in, refused]| (18..=20).contains(let_in) && *refused <= 1), "{minutes:?}");
}
