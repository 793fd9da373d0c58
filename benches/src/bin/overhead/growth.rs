//! What a call costs when there is more of something: waiters, scopes, headers, body; and what stays behind.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use allocation_counter::{measure, opt_out};
use benches::{Body, create_session};
use bytes::Bytes;
use didit_api::{Limits, Scope};
use governor::{Quota, RateLimiter};
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::Full;
use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, interval},
};
use tower::{Layer, Service};
use tower_didit::pacing::PacingLayer;

use crate::{
    Failure,
    calls::{Echo, requests},
    floor::Floor,
    measure::{Subject, median},
    subjects,
    wire::thread_time,
};

/// Something that grows, and what that does to several things that are measured.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    pub(crate) title: &'static str,
    /// What grows.
    pub(crate) of: &'static str,
    /// What is measured, with its unit.
    pub(crate) what: &'static str,
    pub(crate) series: Vec<Series>,
}

/// One line of a curve.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(usize, f64)>,
}

/// All curves.
pub(crate) fn curves() -> Result<Vec<Curve>, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut curves = waiters()?;
    curves.push(scopes(&runtime)?);
    curves.push(headers(&runtime)?);
    curves.push(bodies(&runtime)?);
    curves.extend(keys(&runtime)?);
    Ok(curves)
}

// ===== Waiters =====

/// Calls that a second has room for.
const RATE: u32 = 1_000;

/// The route that all of them are counted by.
const ROUTE: &str = "session-create";

/// Notes the order in which calls come through.
#[derive(Clone, Default)]
struct Order(Arc<Mutex<Vec<usize>>>);

impl Order {
    fn note(&self, number: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(number);
    }

    /// How many came after one that had joined the queue later, in percent.
    fn overtaken(&self) -> f64 {
        let order = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut latest = 0;
        let late = order.iter().filter(|number| {
            latest = latest.max(**number);
            **number < latest
        });
        late.count() as f64 * 100.0 / order.len().max(1) as f64
    }
}

impl Service<Request<usize>> for Order {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<usize>) -> Self::Future {
        self.note(request.into_body());
        ready(Ok(Response::new(())))
    }
}

fn numbered(number: usize) -> Request<usize> {
    create_session().map(|_| number)
}

fn narrow(limit: u32) -> Result<PacingLayer, Failure> {
    let scope = Scope::endpoints("growth", limit, [ROUTE])?.with_window(Duration::from_secs(1))?;
    let builder = PacingLayer::builder().limits(Limits::none().with(scope)?);
    Ok(builder.epsilon(Duration::ZERO).transit(Duration::ZERO).build()?)
}

/// What one kind of queue comes to.
struct Queue {
    cpu_ns: f64,
    overtaken: f64,
    /// Of the rate that was possible, in percent.
    rate: f64,
}

/// Lets tasks through a queue, in virtual time.
fn drain<F>(
    count: usize,
    order: &Order,
    task: impl Fn(usize) -> F,
    ticker: Option<Arc<Semaphore>>,
) -> Result<Queue, Failure>
where
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(async {
        let (began, before) = (Instant::now(), thread_time());
        if let Some(semaphore) = ticker {
            tokio::spawn(async move {
                let mut second = interval(Duration::from_secs(1));
                loop {
                    second.tick().await;
                    semaphore.add_permits(RATE as usize);
                }
            });
        }
        let tasks: JoinSet<()> = (0..count).map(task).collect();
        tasks.join_all().await;
        // The first second's calls go out at once.
        let least = (count.div_ceil(RATE as usize) - 1) as f64;
        let taken = began.elapsed().as_secs_f64();
        Ok(Queue {
            cpu_ns: (thread_time() - before).as_nanos() as f64 / count as f64,
            overtaken: order.overtaken(),
            rate: if taken > 0.0 { least * 100.0 / taken } else { 100.0 },
        })
    })
}

fn waiters() -> Result<Vec<Curve>, Failure> {
    const NAMES: [&str; 2] = ["tower-didit pacing", "FIFO semaphore with one ticker"];
    let mut found: [Vec<(usize, Queue)>; 2] = Default::default();
    let mut memory = Vec::new();
    for count in [1_000, 3_000, 10_000, 30_000, 100_000] {
        let order = Order::default();
        let pacing = narrow(RATE)?.layer(order.clone());
        let pace = |number| {
            let mut service = pacing.clone();
            async move {
                let _ = black_box(service.call(numbered(number)).await);
            }
        };
        let (mut paced, mut ticked) = (None, None);
        opt_out(|| paced = Some(drain(count, &order, pace, None)));
        let order = Order::default();
        let semaphore = Arc::new(Semaphore::new(0));
        let take = |number| {
            let (semaphore, order) = (Arc::clone(&semaphore), order.clone());
            async move {
                // Carries what a paced call carries.
                let request = black_box(numbered(number));
                if let Ok(permit) = semaphore.acquire().await {
                    permit.forget();
                }
                order.note(request.into_body());
            }
        };
        opt_out(|| ticked = Some(drain(count, &order, take, Some(Arc::clone(&semaphore)))));
        for (found, queue) in found.iter_mut().zip([paced, ticked]) {
            found.push((count, queue.ok_or("not measured")??));
        }
        memory.push((count, waiting_bytes(count)?));
    }
    let curve = |title, what, value: fn(&Queue) -> f64| Curve {
        title,
        of: "waiters",
        what,
        series: NAMES
            .iter()
            .zip(&found)
            .map(|(name, found)| Series { name, points: found.iter().map(|(n, queue)| (*n, value(queue))).collect() })
            .collect(),
    };
    Ok(vec![
        curve("Time in a queue", "CPU per call, ns", |queue| queue.cpu_ns),
        curve("Order in a queue", "overtaken, %", |queue| queue.overtaken),
        curve("Rate out of a queue", "of what is possible, %", |queue| queue.rate),
        Curve {
            title: "Memory of a queue",
            of: "waiters",
            what: "heap bytes per waiter, its future aside",
            series: vec![Series { name: NAMES[0], points: memory }],
        },
    ])
}

/// What a waiter takes besides its future and its request, which are its task's.
fn waiting_bytes(count: usize) -> Result<f64, Failure> {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let _entered = runtime.enter();
    let mut service = narrow(1)?.layer(Order::default());
    let requests: Vec<_> = (0..count).map(numbered).collect();
    let (mut calls, mut futures) = (Vec::with_capacity(count), 0);
    let queued = measure(|| {
        for request in requests {
            let mut call = Box::pin(service.call(request));
            futures += size_of_val(&*call);
            let _ = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            calls.push(call);
        }
    });
    // The list of requests was given back meanwhile.
    let requests = count * size_of::<Request<usize>>();
    Ok((queued.bytes_current + i64::try_from(requests)? - i64::try_from(futures)?) as f64 / count as f64)
}

// ===== What a call carries =====

/// Nanoseconds that each service adds to a bare one, on requests that grow.
fn over_bare(
    runtime: &Runtime,
    subjects: &mut [Subject],
    sizes: &[usize],
    grow: impl Fn(&mut Request<Body>, usize),
) -> Result<Vec<Series>, Failure> {
    const TURN: usize = 50;
    const ROUNDS: usize = 101;
    let mut series: Vec<_> =
        subjects.iter().skip(1).map(|subject| Series { name: subject.name, points: Vec::new() }).collect();
    for size in sizes {
        let mut times = vec![Vec::new(); subjects.len()];
        for _ in 0..ROUNDS {
            for (subject, times) in subjects.iter_mut().zip(&mut times) {
                let mut load = requests(TURN);
                load.iter_mut().for_each(|request| grow(request, *size));
                let mut taken = Ok(Duration::ZERO);
                opt_out(|| taken = subject.run(runtime, load));
                times.push(taken?.as_nanos() as f64 / TURN as f64);
            }
        }
        for (series, taken) in series.iter_mut().zip(&times[1..]) {
            let over = taken.iter().zip(&times[0]).map(|(taken, bare)| taken - bare);
            series.points.push((*size, median(over)));
        }
    }
    Ok(series)
}

fn rivals() -> Result<[Subject; 3], Failure> {
    Ok([
        Subject::new(subjects::BARE, Echo),
        Subject::new(subjects::FLOOR, Floor::new(Echo, true)),
        Subject::new(subjects::STACK, subjects::builder().build()?.layer(Echo)),
    ])
}

const NAMES: [&str; 16] =
    ["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "s12", "s13", "s14", "s15", "s16"];

fn scopes(runtime: &Runtime) -> Result<Curve, Failure> {
    let mut points = Vec::new();
    for count in [1, 2, 4, 8, 16] {
        let limits = NAMES[..count].iter().try_fold(Limits::none(), |limits, name| {
            let scope = Scope::endpoints(*name, 100_000_000, [ROUTE])?.with_window(Duration::from_millis(1))?;
            Ok::<_, Failure>(limits.with(scope)?)
        })?;
        let builder = PacingLayer::builder().limits(limits).epsilon(Duration::ZERO).transit(Duration::ZERO);
        let paced = Subject::new(subjects::PACING, builder.build()?.layer(Echo));
        let series = over_bare(runtime, &mut [Subject::new(subjects::BARE, Echo), paced], &[count], |_, _| ())?;
        points.extend(series.into_iter().flat_map(|series| series.points));
    }
    let series = vec![Series { name: subjects::PACING, points }];
    Ok(Curve { title: "Scopes of a call", of: "scopes", what: "over bare, ns", series })
}

fn headers(runtime: &Runtime) -> Result<Curve, Failure> {
    let series = over_bare(runtime, &mut rivals()?, &[6, 12, 24, 48, 96], |request, count| {
        for number in request.headers().len()..count {
            if let Ok(name) = HeaderName::try_from(format!("x-header-{number}")) {
                request.headers_mut().insert(name, HeaderValue::from_static("value"));
            }
        }
    })?;
    Ok(Curve { title: "Headers of a call", of: "request headers", what: "over bare, ns", series })
}

fn bodies(runtime: &Runtime) -> Result<Curve, Failure> {
    const KIB: usize = 1024;
    let body = Bytes::from(vec![b'x'; 4096 * KIB]);
    let sizes = [256, KIB, 16 * KIB, 256 * KIB, 4096 * KIB];
    let series = over_bare(runtime, &mut rivals()?, &sizes, |request, size| {
        *request.body_mut() = Full::new(body.slice(..size));
    })?;
    Ok(Curve { title: "Body of a call", of: "bytes in memory", what: "over bare, ns", series })
}

// ===== Keys =====

/// A call under one of many credentials.
fn keyed(key: usize) -> Request<Body> {
    let mut request = create_session();
    if let Ok(value) = HeaderValue::try_from(format!("key-{key:08}")) {
        request.headers_mut().insert(HeaderName::from_static("x-api-key"), value);
    }
    request
}

/// What a call costs and what stays behind of it, with this many credentials.
fn keys(runtime: &Runtime) -> Result<[Curve; 2], Failure> {
    let counts = [1, 100, 1_000, 10_000, 100_000];
    let (mut times, mut bytes, mut governors) = (Vec::new(), Vec::new(), Vec::new());
    for count in counts {
        // A window that does not end meanwhile, so that no key is idle long enough to be forgotten.
        let scope = Scope::endpoints("growth", u32::MAX, [ROUTE])?.with_window(Duration::from_secs(600))?;
        let layer = PacingLayer::builder().limits(Limits::none().with(scope)?).max_keys(usize::MAX).build()?;
        let mut service = layer.layer(Echo);
        let mut call = |key| runtime.block_on(service.call(keyed(key)));
        let held = measure(|| {
            for key in 0..count {
                let _ = black_box(call(key));
            }
        });
        bytes.push((count, held.bytes_current as f64 / count as f64));
        // Each key in turn, so that none is at hand.
        let subject = &mut Subject::new(subjects::PACING, service);
        let mut rounds = Vec::new();
        for round in 0..101 {
            let load = (0..100).map(|number| keyed((round * 100 + number) * 7_919 % count)).collect();
            let mut taken = Ok(Duration::ZERO);
            opt_out(|| taken = subject.run(runtime, load));
            rounds.push(taken?.as_nanos() as f64 / 100.0);
        }
        times.push((count, median(rounds.into_iter())));
        let keyed = RateLimiter::keyed(Quota::per_second(NonZeroU32::MIN));
        let held = measure(|| {
            for key in 0..count {
                let _ = black_box(keyed.check_key(&key));
            }
        });
        governors.push((count, held.bytes_current as f64 / count as f64));
    }
    Ok([
        Curve {
            title: "Calls under many keys",
            of: "keys",
            what: "ns per call",
            series: vec![Series { name: subjects::PACING, points: times }],
        },
        Curve {
            title: "Memory of a key",
            of: "keys",
            what: "heap bytes per key, after one call of each",
            series: vec![
                Series { name: subjects::PACING, points: bytes },
                Series { name: "governor, keyed", points: governors },
            ],
        },
    ])
}
