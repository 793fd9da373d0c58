//! Budgets for repetitions, at every probability of failure.

use std::{
    convert::Infallible,
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use ::tower::{
    Layer, ServiceExt,
    retry::{
        Policy, Retry,
        budget::{Budget as _, TpsBudget},
    },
    service_fn,
};
use http::{Request, Response, header};
use tokio::time::sleep;
use tower_didit::{
    Randomness,
    retry::{Budget, RetryLayer},
};

use crate::{
    Body,
    outcomes::{
        Job, Problem, Table, in_parallel,
        scenarios::Settings,
        strategies::{Client, boxed},
        world::{Trace, read, simulate},
    },
};

/// How many calls a cell is made of, and how far apart they are.
const CALLS: (u32, Duration) = (20_000, Duration::from_millis(10));

/// The most repetitions of one call.
const REPETITIONS: u32 = 3;

const PROBABILITIES: [f64; 6] = [0.05, 0.10, 0.20, 0.50, 0.90, 1.00];

/// A rule for how many repetitions there may be; four attempts at the most with each.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// None at all.
    None,
    /// As many as the attempts allow.
    Plain,
    /// Ours after a refusal.
    Cheap,
    /// Ours after an ambiguous failure.
    Dear,
    /// tower's, which successes fund.
    Tower(f32),
    /// tower's store, filled by every request.
    Requests(f32),
    /// gRPC's throttle (gRFC A6): 10 tokens, a failure takes one, a success puts a tenth in, and above half there may be
    /// repetitions.
    Grpc,
}

/// A store of tokens with no backoff, under tower's retry.
#[derive(Clone, Debug)]
struct Budgeted {
    store: Store,
    left: u32,
}

#[derive(Clone, Debug)]
enum Store {
    Successes(Arc<TpsBudget>),
    Requests(Arc<TpsBudget>),
    /// In tenths of a token.
    Grpc(Arc<AtomicU32>),
}

/// gRPC's store when it is full, in tenths of a token.
const GRPC_FULL: u32 = 100;

impl Store {
    fn first_attempt(&self) {
        if let Self::Requests(budget) = self {
            budget.deposit();
        }
    }

    fn success(&self) {
        match self {
            Self::Successes(budget) => budget.deposit(),
            Self::Requests(_) => {}
            Self::Grpc(tenths) => {
                let _full = tenths
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| (held < GRPC_FULL).then_some(held + 1));
            }
        }
    }

    fn may_repeat(&self) -> bool {
        match self {
            Self::Successes(budget) | Self::Requests(budget) => budget.withdraw(),
            Self::Grpc(tenths) => tenths.load(Ordering::Relaxed) > GRPC_FULL / 2,
        }
    }

    fn failure(&self) {
        if let Self::Grpc(tenths) = self {
            let taken = |held: u32| Some(held.saturating_sub(10));
            let _held = tenths.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken);
        }
    }
}

impl<E> Policy<Request<Body>, Response<()>, E> for Budgeted {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut Request<Body>, result: &mut Result<Response<()>, E>) -> Option<std::future::Ready<()>> {
        if self.left == REPETITIONS {
            self.store.first_attempt();
        }
        if result.as_ref().is_ok_and(|response| response.status().is_success()) {
            self.store.success();
            return None;
        }
        self.store.failure();
        self.left = self.left.checked_sub(1)?;
        self.store.may_repeat().then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        Some(request.clone())
    }
}

impl Rule {
    const ALL: [Self; 9] = [
        Self::None,
        Self::Plain,
        Self::Cheap,
        Self::Dear,
        Self::Tower(0.2),
        Self::Tower(0.1),
        Self::Requests(0.2),
        Self::Requests(0.1),
        Self::Grpc,
    ];

    fn name(self) -> String {
        match self {
            Self::None => "no repetition".to_owned(),
            Self::Plain => "three repetitions".to_owned(),
            Self::Cheap => "tower-didit, refused (cost 5)".to_owned(),
            Self::Dear => "tower-didit, ambiguous (cost 14)".to_owned(),
            Self::Tower(share) => format!("tower TpsBudget, {:.0} % of successes", 100.0 * share),
            Self::Requests(share) => format!("{:.0} % of requests", 100.0 * share),
            Self::Grpc => "gRPC 10/0.1".to_owned(),
        }
    }

    /// A client of a server that fails with this probability.
    fn client(self, probability: f64, random: &Randomness) -> Result<Client, Problem> {
        let server = {
            let (random, refuses) = (random.clone(), matches!(self, Self::Cheap));
            boxed(service_fn(move |request: Request<Body>| {
                if let Some(trace) = request.extensions().get::<Trace>() {
                    trace.note(tokio::time::Instant::now());
                }
                let mut response = Response::new(());
                if random.unit() < probability {
                    *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
                    if refuses {
                        // A 503 with a hint is a refusal: nothing was done.
                        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
                        response.headers_mut().insert(header::RETRY_AFTER, http::HeaderValue::from_static("0"));
                    }
                }
                ready(Ok::<_, Infallible>(response))
            }))
        };
        let ours = |attempts, budget| -> Result<Client, Problem> {
            let builder = RetryLayer::builder().randomness(random.clone()).max_attempts(attempts).budget(budget);
            let classifier = tower_didit::outcome::classify_fn(
                tower_didit::outcome::of_response,
                |error: &super::super::strategies::AnyError| tower_didit::outcome::of_error(&**error),
            );
            let layer = builder.backoff(|_, _: &Randomness| Duration::ZERO).classifier(classifier).build()?;
            // The layer sends a body that can be sent again, and reads those of answers; the server knows neither.
            let server = server.clone().map_request(|request: Request<_>| request.map(|_| Body::default()));
            Ok(boxed(layer.layer(server.map_response(|response: Response<()>| response.map(|()| Body::default())))))
        };
        match self {
            Self::None => ours(1, None),
            Self::Plain => ours(1 + REPETITIONS, None),
            Self::Cheap | Self::Dear => ours(1 + REPETITIONS, Some(Budget::default())),
            Self::Tower(share) => Ok(budgeted(Store::Successes(tps(share)), server)),
            Self::Requests(share) => Ok(budgeted(Store::Requests(tps(share)), server)),
            Self::Grpc => Ok(budgeted(Store::Grpc(Arc::new(AtomicU32::new(GRPC_FULL))), server)),
        }
    }
}

/// tower's store over ten seconds, without what it allows on top.
fn tps(share: f32) -> Arc<TpsBudget> {
    Arc::new(TpsBudget::new(Duration::from_secs(10), 0, share))
}

fn budgeted(store: Store, server: Client) -> Client {
    boxed(Retry::new(Budgeted { store, left: REPETITIONS }, server))
}

/// Attempts for each call, and the share of calls that succeed.
///
/// # Errors
///
/// If the world cannot be set up.
pub fn world(rule: Rule, probability: f64, seed: u64) -> Result<(f64, f64), Problem> {
    simulate(async || {
        let client = rule.client(probability, &Randomness::seeded(seed))?;
        let tally = crate::outcomes::tally::Tally::start();
        for _ in 0..CALLS.0 {
            tally.call(&client, read()).await;
            sleep(CALLS.1).await;
        }
        let counts = tally.counts();
        Ok((counts.attempts_per_call(), counts.served.len() as f64 / f64::from(CALLS.0)))
    })
}

/// By rule and probability.
pub(super) fn table(settings: Settings) -> Result<Table, Problem> {
    let jobs = PROBABILITIES.iter().flat_map(|probability| {
        Rule::ALL.map(|rule| -> Job<(f64, f64)> { Box::new(move || world(rule, *probability, settings.seed)) })
    });
    let results = in_parallel(jobs.collect())?;
    let title =
        format!("Budgets for repetitions, {} calls each: attempts for each call / share that succeeds", CALLS.0);
    let mut table = Table::new(title, std::iter::once("failures".to_owned()).chain(Rule::ALL.map(Rule::name)));
    for (probability, results) in PROBABILITIES.iter().zip(results.chunks(Rule::ALL.len())) {
        let cells = results.iter().map(|(attempts, share)| format!("{attempts:.2} / {share:.3}"));
        table.rows.push(std::iter::once(format!("{probability:.2}")).chain(cells).collect());
    }
    Ok(table)
}
