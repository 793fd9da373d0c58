//! backon, which repeats a closure.

use std::time::Duration;

use ::backon::{ExponentialBuilder, Retryable};
use ::tower::{Service, ServiceExt, service_fn};
use didit_sandbox::{ConnectionLost, SandboxBody};
use http::{Request, Response};

use super::{AnyError, Client, Quota, Strategy, boxed, is_transient};
use crate::{
    Body,
    outcomes::{Problem, world::Wire},
};

/// Exponential backoff with jitter from a second to 40, four repetitions at the most.
#[derive(Clone, Copy, Debug)]
pub struct Backon;

/// What is repeated: it looks at errors alone, so a status that is to be repeated has to be one.
#[derive(Debug, thiserror::Error)]
enum Transient {
    #[error("status {}", .0.status())]
    Status(Response<SandboxBody>),
    #[error(transparent)]
    Connection(#[from] ConnectionLost),
}

async fn send(mut wire: Wire, request: Request<Body>) -> Result<Response<SandboxBody>, Transient> {
    let response = ServiceExt::<Request<Body>>::ready(&mut wire).await?.call(request).await?;
    if is_transient(response.status()) { Err(Transient::Status(response)) } else { Ok(response) }
}

impl Strategy for Backon {
    fn name(&self) -> String {
        "backon".to_owned()
    }

    fn client(&self, wire: Wire, quota: &Quota) -> Result<Client, Problem> {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(Duration::from_secs(1))
            .with_max_delay(Duration::from_secs(40))
            .with_max_times(4)
            .with_jitter()
            .with_jitter_seed(quota.seed);
        Ok(boxed(service_fn(move |request: Request<Body>| {
            let wire = wire.clone();
            async move {
                let result = (|| send(wire.clone(), request.clone())).retry(backoff).await;
                match result {
                    Ok(response) | Err(Transient::Status(response)) => Ok(response),
                    Err(Transient::Connection(lost)) => Err(AnyError::from(lost)),
                }
            }
        })))
    }
}
