//! Clients that wait only after they were refused.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use ::tower::{Service, ServiceExt, service_fn};
use didit_sandbox::{ConnectionLost, SandboxBody};
use http::{Request, Response, StatusCode, header};
use tokio::time::{Instant, sleep, sleep_until};
use tower_didit::Randomness;

use super::{Client, Quota, Strategy, boxed};
use crate::{
    Body,
    outcomes::{
        Problem,
        world::{Wire, locked},
    },
};

/// Each request waits as long as its 429 says, and comes again.
#[derive(Clone, Copy, Debug)]
pub struct RetryAfter;

/// Each request waits a random part of 5 s·2ⁿ, at the most 40 s, whatever its 429 says.
#[derive(Clone, Copy, Debug)]
pub struct RetryJittered;

/// A 429 lets nobody send for as long as it says.
#[derive(Clone, Copy, Debug)]
pub struct ScopePause;

/// Sends until it is not refused, and does between what `wait` says.
fn insistent<W, F>(wire: Wire, wait: W) -> Client
where
    W: Fn(u32, Duration) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send,
{
    boxed(service_fn(move |request: Request<Body>| {
        let (mut wire, wait) = (wire.clone(), wait.clone());
        async move {
            let mut refusals = 0;
            loop {
                let response = send(&mut wire, request.clone()).await?;
                if response.status() != StatusCode::TOO_MANY_REQUESTS {
                    return Ok::<_, ConnectionLost>(response);
                }
                wait(refusals, hint(&response)).await;
                refusals += 1;
            }
        }
    }))
}

async fn send(wire: &mut Wire, request: Request<Body>) -> Result<Response<SandboxBody>, ConnectionLost> {
    ServiceExt::<Request<Body>>::ready(wire).await?.call(request).await
}

fn hint(response: &Response<SandboxBody>) -> Duration {
    let seconds = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1))
}

impl Strategy for RetryAfter {
    fn name(&self) -> String {
        "each waits Retry-After".to_owned()
    }

    fn client(&self, wire: Wire, _: &Quota) -> Result<Client, Problem> {
        Ok(insistent(wire, |_, hint| sleep(hint)))
    }
}

impl Strategy for RetryJittered {
    fn name(&self) -> String {
        "each waits 5 s·2ⁿ, full jitter".to_owned()
    }

    fn client(&self, wire: Wire, quota: &Quota) -> Result<Client, Problem> {
        let random = Randomness::seeded(quota.seed);
        Ok(insistent(wire, move |refusals, _| {
            let longest = Duration::from_secs(5).saturating_mul(1 << refusals.min(3)).min(Duration::from_secs(40));
            sleep(longest.mul_f64(random.unit()))
        }))
    }
}

impl Strategy for ScopePause {
    fn name(&self) -> String {
        "all wait Retry-After".to_owned()
    }

    fn client(&self, wire: Wire, _: &Quota) -> Result<Client, Problem> {
        let paused = Arc::new(Mutex::new(Instant::now()));
        let service = service_fn(move |request: Request<Body>| {
            let (mut wire, paused) = (wire.clone(), Arc::clone(&paused));
            async move {
                loop {
                    let until = *locked(&paused);
                    sleep_until(until).await;
                    let response = send(&mut wire, request.clone()).await?;
                    if response.status() != StatusCode::TOO_MANY_REQUESTS {
                        return Ok::<_, ConnectionLost>(response);
                    }
                    let mut paused = locked(&paused);
                    *paused = (*paused).max(Instant::now() + hint(&response));
                }
            }
        });
        Ok(boxed(service))
    }
}
