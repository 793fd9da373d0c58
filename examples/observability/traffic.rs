//! The application: the stack, the server behind it, and users.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use didit_api::{
    ServiceGroup,
    shapes::{CreateSession, CreatedSession},
};
use didit_sandbox::{ConnectionLost, DEFAULT_API_KEY, DEFAULT_WORKFLOW_ID, Sandbox, SandboxBody};
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use tokio::task::JoinSet;
use tower::{BoxError, Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_didit::{
    DiditLayer, Randomness,
    body::ReplayBody,
    call::CallOptions,
    circuit_breaker::{CircuitBreakerHandle, CircuitState},
    correlation::InboundCorrelationLayer,
    error::ConfigError,
    telemetry::Gauges,
};

use crate::outages::{Act, DEADLINE};

/// When it is at the server as an act begins, after 1970; any time will do.
const EPOCH: Duration = Duration::from_secs(1_800_000_000);

type Body = Full<Bytes>;

/// The stack, with the layer of a server around it that takes in the ids of requests.
type Didit = BoxCloneSyncService<Request<Body>, Response<SandboxBody>, tower_didit::stack::Error<ConnectionLost>>;

/// An application that calls Didit, and the Didit that it calls.
pub(crate) struct Application {
    didit: Didit,
    gauges: Gauges,
    breaker: CircuitBreakerHandle,
    server: Arc<Mutex<Sandbox>>,
    seed: u64,
}

impl Application {
    pub(crate) fn new(seed: u64) -> Result<Self, BoxError> {
        let server = Arc::new(Mutex::new(Sandbox::builder().seed(seed).build()?));
        let (didit, gauges, breaker) = connect(&server, seed)?;
        Ok(Self { didit, gauges, breaker, server, seed })
    }

    /// What is read when somebody looks.
    pub(crate) fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// Plays one act to its end. Calls that are still under way go on into the next.
    pub(crate) async fn play(&self, act: &Act, under_way: &mut JoinSet<()>) -> Result<(), BoxError> {
        let sandbox = Sandbox::builder()
            .seed(self.seed)
            // The same whole second in every run, and so the same `Retry-After`.
            .epoch(UNIX_EPOCH + EPOCH)
            .api_key(act.key)
            .latency(act.latency.clone())
            .faults(act.faults.clone())
            .build()?;
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = sandbox.clone();
        let state = self.breaker.status(ServiceGroup::Core).map(|status| status.state);
        match state {
            _ if act.forced => drop(self.breaker.force_open(ServiceGroup::Core)),
            Some(CircuitState::ForcedOpen) => drop(self.breaker.reset(ServiceGroup::Core)),
            _ => {}
        }
        let mut users = every(act.users);
        let mut neighbour = every(act.neighbour);
        let end = tokio::time::sleep(act.length);
        tokio::pin!(end);
        let mut number = 0_u64;
        loop {
            tokio::select! {
                biased;
                () = &mut end => return Ok(()),
                _ = users.tick() => {
                    number += 1;
                    let (didit, act) = (self.didit.clone(), act.clone());
                    // What became of it is what the metrics are there to say.
                    under_way.spawn(async move { drop(user(didit, act, number).await) });
                }
                _ = neighbour.tick() => {
                    let request = create(&format!("neighbour-{number}"))?;
                    let sandbox = sandbox.clone();
                    under_way.spawn(async move { drop(with_key(sandbox, request).await) });
                }
                Some(_) = under_way.join_next() => {}
            }
        }
    }
}

/// The stack as an application builds it. The client is the server itself, called without a socket, so that a paused
/// clock drives both.
fn connect(server: &Arc<Mutex<Sandbox>>, seed: u64) -> Result<(Didit, Gauges, CircuitBreakerHandle), ConfigError> {
    let server = Arc::clone(server);
    let client = service_fn(move |request: Request<ReplayBody<Body>>| {
        let sandbox = server.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sandbox.oneshot(request)
    });
    let layer = DiditLayer::builder().api_key(DEFAULT_API_KEY).randomness(Randomness::seeded(seed)).build()?;
    let inbound = InboundCorrelationLayer::new().layer(layer.layer(client));
    Ok((BoxCloneSyncService::new(inbound), layer.gauges(), layer.circuit_breaker().handle()))
}

/// Ticks so many times a second; for none, so rarely that it does not matter.
fn every(per_second: f64) -> tokio::time::Interval {
    const NEVER: Duration = Duration::from_secs(86_400);

    let period = if per_second > 0.0 { Duration::from_secs_f64(1.0 / per_second) } else { NEVER };
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}

/// What one user does.
async fn user(didit: Didit, act: Act, number: u64) -> Result<(), BoxError> {
    let send = async |mut request: Request<Body>| {
        request.extensions_mut().insert(CallOptions::new().deadline(DEADLINE));
        if act.forged {
            request.headers_mut().insert("x-correlation-id", header::HeaderValue::from_static("<script>"));
        }
        let response = tokio::time::timeout(act.patience, didit.clone().oneshot(request)).await??;
        Ok::<_, BoxError>(response.into_body().collect().await?.to_bytes())
    };
    let made = send(create(&format!("user-{number}"))?).await?;
    let session: CreatedSession = serde_json::from_slice(&made)?;
    send(Request::get(format!("/v3/session/{}/decision/", session.session_id)).body(Body::default())?).await?;
    if number.is_multiple_of(5) {
        let screened = Request::post("/v3/aml/").header(header::CONTENT_TYPE, "application/json");
        send(screened.body(r#"{"full_name":"Ada Lovelace"}"#.into())?).await?;
    }
    Ok(())
}

fn create(user: &str) -> Result<Request<Body>, BoxError> {
    let session = serde_json::to_vec(&CreateSession::new(DEFAULT_WORKFLOW_ID).vendor_data(user))?;
    Ok(Request::post("/v3/session/").header(header::CONTENT_TYPE, "application/json").body(session.into())?)
}

/// What somebody sends who knows nothing of this process.
async fn with_key(sandbox: Sandbox, mut request: Request<Body>) -> Result<(), BoxError> {
    request.headers_mut().insert("x-api-key", header::HeaderValue::from_static(DEFAULT_API_KEY));
    sandbox.oneshot(request).await?;
    Ok(())
}
