//! Makes session creations happen once over a store in a file; meant to be killed at any moment and started again.
//!
//! `durable_run <base url> <store> <first operation> <end>` ends with 0 when every operation from the first to before the
//! end is done. It says on its standard output how many it found in flight.

use std::{error::Error, io::Write, process::ExitCode, time::Duration};

use bytes::Bytes;
use didit_api::Limits;
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tests::{Body, create_session};
use tokio::{task::JoinSet, time::sleep};
use tower::{Layer, ServiceExt};
use tower_didit::{
    DiditLayer, StoredDiditService,
    body::ReplayBody,
    call::CallOptions,
    idempotency::{Refused, reconcile::DiditReconcile, store::RedbStore},
    stack::ErrorKind,
};

type Didit = StoredDiditService<Client<HttpConnector, ReplayBody<Body>>>;

type Failure = Box<dyn Error + Send + Sync>;

/// How many operations are under way at once.
const AT_ONCE: usize = 4;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "{failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &[String]) -> Result<(), Failure> {
    let [base_url, path, first, end] = arguments else {
        return Err("four arguments: base url, store, first operation, end".into());
    };
    let (first, end): (usize, usize) = (first.parse()?, end.parse()?);
    let store = RedbStore::open(path).await?;
    writeln!(std::io::stdout(), "{}", store.orphans())?;
    // Short waits, because this server is near; the time of a look-up bounds how many kills fit into a minute.
    let reconcile = DiditReconcile::new().absent_after(Duration::from_millis(150))?;
    let didit = DiditLayer::builder()
        .api_key("key")
        .base_url(base_url)
        .limits(Limits::none())
        .idempotency_store(store)
        .idempotency(|idempotency| idempotency.reconcile(reconcile))
        .build()?
        .layer(Client::builder(TokioExecutor::new()).build_http());
    let mut lanes = JoinSet::new();
    for lane in 0..AT_ONCE {
        let didit = didit.clone();
        lanes.spawn(async move {
            for number in (first..end).filter(|number| number % AT_ONCE == lane) {
                perform(&didit, number).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(lane) = lanes.join_next().await {
        lane??;
    }
    Ok(())
}

/// Asks until the operation is done.
async fn perform(didit: &Didit, number: usize) -> Result<(), Failure> {
    loop {
        let operation = format!("operation-{number}");
        let mut request = create_session(Some(&format!("user-{number}")), &operation);
        request.extensions_mut().insert(CallOptions::new().operation_id(operation.parse()?));
        match didit.clone().oneshot(request).await {
            Ok(response) if response.status().is_success() => {
                let _answer: Bytes = response.into_body().collect().await?.to_bytes();
                return Ok(());
            }
            Ok(response) => return Err(format!("{operation}: {}", response.status()).into()),
            Err(error) => match error.kind() {
                ErrorKind::Idempotency(Refused::AlreadyDone { .. }) => return Ok(()),
                ErrorKind::Client(_) => sleep(Duration::from_millis(5)).await,
                _ => return Err(format!("{operation}: {error:?}").into()),
            },
        }
    }
}
