//! failsafe's circuit breaker under tower's retry, the glue that its users write.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use ::failsafe::{Config, backoff, failure_policy, futures::CircuitBreaker as _};
use ::tower::{Service, ServiceExt, service_fn};
use didit_sandbox::{ConnectionLost, SandboxBody};
use http::{Request, Response};
use tower_didit::Randomness;

use super::{AnyError, Client, Quota, Strategy, boxed, is_transient};
use crate::{
    Body,
    outcomes::{Problem, world::Wire},
};

/// One breaker for the whole API, which opens after five failures in a row for 10 to 30 s, under five attempts with full
/// jitter. Its clock is failsafe's own for tests, which a simulation moves along with tokio's.
#[derive(Clone, Copy, Debug)]
pub struct Failsafe;

/// Not an answer: a status that counts as a failure, or no answer.
#[derive(Debug)]
enum Failure {
    Status(Response<SandboxBody>),
    Connection(ConnectionLost),
    Open,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(response) => write!(f, "status {}", response.status()),
            Self::Connection(lost) => lost.fmt(f),
            Self::Open => f.write_str("the circuit is open"),
        }
    }
}

impl Error for Failure {}

/// Runs a simulation in which failsafe's clock goes with tokio's, a tenth of a second at a time.
///
/// # Errors
///
/// Those of the simulation.
pub(in crate::outcomes) fn keep_time<T>(
    run: impl FnOnce(&mut dyn FnMut(Duration)) -> Result<T, Problem>,
) -> Result<T, Problem> {
    ::failsafe::clock::freeze(|clock| run(&mut |step| clock.advance(step)))
}

async fn send(mut wire: Wire, request: Request<Body>) -> Result<Response<SandboxBody>, Failure> {
    let response = ServiceExt::<Request<Body>>::ready(&mut wire).await.map_err(Failure::Connection)?;
    let response = response.call(request).await.map_err(Failure::Connection)?;
    if is_transient(response.status()) { Err(Failure::Status(response)) } else { Ok(response) }
}

impl Strategy for Failsafe {
    fn name(&self) -> String {
        "failsafe + full jitter".to_owned()
    }

    fn has_own_clock(&self) -> bool {
        true
    }

    fn client(&self, wire: Wire, quota: &Quota) -> Result<Client, Problem> {
        let open = backoff::equal_jittered(Duration::from_secs(10), Duration::from_secs(30));
        let breaker = Arc::new(Config::new().failure_policy(failure_policy::consecutive_failures(5, open)).build());
        let random = Randomness::seeded(quota.seed);
        Ok(boxed(service_fn(move |request: Request<Body>| {
            let (wire, breaker, random) = (wire.clone(), Arc::clone(&breaker), random.clone());
            async move {
                let mut repetitions = 0;
                loop {
                    let failure = match breaker.call(send(wire.clone(), request.clone())).await {
                        Ok(response) => return Ok(response),
                        Err(::failsafe::Error::Rejected) => Failure::Open,
                        Err(::failsafe::Error::Inner(failure)) => failure,
                    };
                    if repetitions == 4 {
                        return match failure {
                            Failure::Status(response) => Ok(response),
                            failure => Err(AnyError::from(failure)),
                        };
                    }
                    tokio::time::sleep(Duration::from_secs(1 << repetitions).mul_f64(random.unit())).await;
                    repetitions += 1;
                }
            }
        })))
    }
}
