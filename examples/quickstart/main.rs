//! Creates sessions and reads their decisions through the whole stack, while the server misbehaves.
//!
//! ```text
//! cargo run --example quickstart                  against a local Didit, which it starts itself
//! cargo run --example quickstart -- --json        the same, with one JSON object at the end
//! cargo run --example quickstart -- --live        against Didit; needs DIDIT_API_KEY and DIDIT_WORKFLOW_ID
//! ```
//!
//! How a client is built and called stands in this file, from [`connect`] to [`send`]. The rest is there to show what
//! happened: `local.rs` is the misbehaving server, `report.rs` prints, `arguments.rs` reads the command line.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod arguments;
mod local;
mod report;

use std::{
    error::Error,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use didit_api::{
    ErrorBody,
    shapes::{CreateSession, CreatedSession, Decision, ListSessions, SessionPage},
};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{Client, Error as ClientError},
    rt::TokioExecutor,
};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_didit::{
    DiditLayer,
    call::{CallOptions, CallReport, CorrelationId},
    correlation,
    error::ConfigError,
    retry::ExponentialBackoff,
};

use self::{
    arguments::{Arguments, Command},
    local::Local,
    report::{Progress, Summary},
};

/// How many tasks create sessions at the same time.
const TASKS: usize = 8;

/// The most of an answer that is read, so that a broken server cannot fill the memory.
const LARGEST_ANSWER: usize = 1024 * 1024;

/// The client with all layers around it. The full type can be named too, as `DiditService<Client<…>>`; boxed, it
/// hides which client that is.
type Didit = BoxCloneSyncService<Request<Full<Bytes>>, Response<Incoming>, tower_didit::stack::Error<ClientError>>;

/// Where the calls go.
struct Target {
    base_url: String,
    api_key: String,
    workflow_id: String,
    /// The local Didit, unless the calls go to the real one.
    local: Option<Local>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match arguments::read(std::env::args_os().skip(1)) {
        Ok(Command::Run(arguments)) => arguments,
        Ok(Command::Help) => {
            print!("{}", arguments::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("quickstart: {error}");
            return ExitCode::from(2);
        }
    };
    match run(arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("quickstart: {}", report::with_sources(error.as_ref()));
            ExitCode::from(2)
        }
    }
}

/// Makes all calls and prints what came of them; false if any was lost, done twice or refused with a 429.
async fn run(arguments: Arguments) -> Result<bool, Box<dyn Error>> {
    let target = match arguments.live {
        Some(live) => {
            Target { base_url: live.base_url, api_key: live.api_key, workflow_id: live.workflow_id, local: None }
        }
        None => {
            let local = Local::start(arguments.seed).await?;
            Target {
                base_url: local.base_url(),
                api_key: didit_sandbox::DEFAULT_API_KEY.to_owned(),
                workflow_id: didit_sandbox::DEFAULT_WORKFLOW_ID.to_owned(),
                local: Some(local),
            }
        }
    };
    let layer = stack(&target)?;
    if target.local.is_none() {
        eprintln!("{} real sessions are created at {}", arguments.sessions, target.base_url);
    }
    let throttled = Arc::new(AtomicU64::new(0));
    let didit = connect(&layer, Arc::clone(&throttled));

    let mut progress = Progress::start(2 * arguments.sessions, layer);
    let mut tasks = JoinSet::new();
    let next_user = Arc::new(AtomicUsize::new(1));
    for _ in 0..TASKS {
        let (didit, done, next_user) = (didit.clone(), progress.counter(), Arc::clone(&next_user));
        let (workflow, seed, users) = (target.workflow_id.clone(), arguments.seed, arguments.sessions);
        tasks.spawn(async move {
            let mut journeys = Vec::new();
            loop {
                let user = next_user.fetch_add(1, Ordering::Relaxed);
                if user > users {
                    break journeys;
                }
                journeys.push(journey(&didit, &workflow, seed, user, &done).await);
            }
        });
    }
    let mut journeys = Vec::new();
    loop {
        tokio::select! {
            joined = tasks.join_next() => match joined {
                Some(joined) => journeys.extend(joined?),
                None => break,
            },
            () = progress.tick() => {}
        }
    }
    progress.finish();

    let mut summary = Summary::of(&journeys, throttled.load(Ordering::Relaxed), target.local.as_ref());
    if target.local.is_none() {
        summary.counts.duplicates = duplicates(&didit, &target.workflow_id, &journeys).await?;
    }
    match arguments.json {
        true => println!("{}", serde_json::to_string(&summary.counts)?),
        false => report::print(&summary, &journeys, target.local.as_ref()),
    }
    if let Some(local) = target.local {
        local.stop().await;
    }
    Ok(summary.counts.is_clean())
}

// ===== the client =====

/// The layers, in the right order. Towards Didit itself nothing but the key is needed.
fn stack(target: &Target) -> Result<DiditLayer, ConfigError> {
    let builder = DiditLayer::builder()
        .api_key(target.api_key.as_str())
        .base_url(target.base_url.as_str())
        // Every call ends after this long, waits for quota and repetitions included.
        .deadline(Duration::from_secs(120));
    let Some(local) = &target.local else { return builder.build() };
    let backoff = ExponentialBackoff::new(Duration::from_millis(100), Duration::from_secs(2))?;
    builder
        .limits(local.limits())
        .pacing(|pacing| {
            pacing
                // A slot is held this much longer than the window, for servers that keep arrivals as whole seconds.
                // The local one is exact, so that next to nothing will do where Didit needs the default of 1 s.
                .epsilon(Duration::from_millis(50))
                // After a failure that leaves open whether the request will still arrive, the slot is held for this
                // long on top. On loopback nothing is under way for longer; on a network the default of 5 s is right.
                .transit(Duration::from_millis(250))
        })
        // At 15 % failures, five attempts (the default, and right for Didit) would lose one of 80 calls in 0.6 % of
        // all runs. With ten it is one run in two million. The backoff is as much shorter than the default (1 s
        // doubling to 40 s) as the local window is shorter than Didit's, or the last attempts would take minutes.
        .retry(|retry| retry.max_attempts(10).backoff(backoff))
        .build()
}

/// A hyper client with a pool of HTTP/1.1 connections, and the layers around it.
fn connect(layer: &DiditLayer, throttled: Arc<AtomicU64>) -> Didit {
    let connector = HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().build();
    let client = Client::builder(TokioExecutor::new()).build(connector);
    // Under the stack is where single attempts can be watched. This counts the 429s, of which there should be none.
    let watched = ServiceBuilder::new()
        .map_response(move |response: Response<Incoming>| {
            if response.status() == StatusCode::TOO_MANY_REQUESTS {
                throttled.fetch_add(1, Ordering::Relaxed);
            }
            response
        })
        .service(client);
    BoxCloneSyncService::new(layer.layer(watched))
}

// ===== the calls =====

/// What one user came to: a session is created, then its decision is read.
struct Journey {
    id: CorrelationId,
    vendor_data: String,
    session_id: Option<String>,
    calls: Vec<Call>,
}

/// How one call went.
struct Call {
    name: &'static str,
    report: CallReport,
    failure: Option<Failure>,
}

/// Why a call came to no usable answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The stack gave up: which layer, why, and when to come back stand in the error.
    #[error(transparent)]
    Stack(#[from] tower_didit::stack::Error<ClientError>),
    /// Didit said no. What its many error bodies say is read by [`ErrorBody`].
    #[error("Didit answered {status}: {body}")]
    Refused { status: StatusCode, body: ErrorBody },
    /// The answer broke off, or is too long.
    #[error("the answer could not be read")]
    Unreadable(#[source] BoxError),
    /// The answer is not what was expected. Where, not what: the parser's own text may quote what stands there.
    #[error("the answer could not be understood from line {line}, column {column} on")]
    NotUnderstood { line: usize, column: usize },
}

/// Verifies one user.
async fn journey(didit: &Didit, workflow: &str, seed: u64, user: usize, done: &AtomicU64) -> Journey {
    let name = format!("run-{seed}.user-{user}");
    // Made of letters, digits, dots and dashes: always a correlation id.
    let id: CorrelationId = name.parse().unwrap_or_else(|_| unreachable!("{name} is a valid id"));
    // Under this scope every call goes out as part of the same journey. Behind a server, `InboundCorrelationLayer` does
    // that with the id that came in.
    correlation::scope(id.clone(), async {
        let vendor_data = format!("quickstart-user-{user}");
        let mut journey = Journey { id, vendor_data: vendor_data.clone(), session_id: None, calls: Vec::new() };
        let session = CreateSession::new(workflow)
            // By its `vendor_data` Didit recognises a repeated creation and returns the unfinished session again. That
            // is why the retry layer may repeat this POST without knowing whether the first one was carried out.
            .vendor_data(vendor_data)
            .metadata(serde_json::json!({ "operation_id": name }));
        let (created, call) = create(didit, &session).await;
        journey.calls.push(call);
        done.fetch_add(1, Ordering::Relaxed);
        if let Some(created) = created {
            let (_decision, call) = decide(didit, &created.session_id).await;
            journey.calls.push(call);
            journey.session_id = Some(created.session_id);
        }
        done.fetch_add(1, Ordering::Relaxed);
        journey
    })
    .await
}

async fn create(didit: &Didit, session: &CreateSession) -> (Option<CreatedSession>, Call) {
    let body = serde_json::to_vec(session).unwrap_or_default();
    call(didit, "create", Method::POST, "/v3/session/", body).await
}

async fn decide(didit: &Didit, session_id: &str) -> (Option<Decision>, Call) {
    call(didit, "decision", Method::GET, &format!("/v3/session/{session_id}/decision/"), Vec::new()).await
}

/// Asks Didit how many unfinished sessions there are beyond the first of each user. The local one counts by itself.
async fn duplicates(didit: &Didit, workflow: &str, journeys: &[Journey]) -> Result<u64, Failure> {
    let mut duplicates = 0;
    for journey in journeys.iter().filter(|journey| journey.session_id.is_some()) {
        let wanted = ListSessions::new().vendor_data(&journey.vendor_data).workflow_id(workflow);
        let path = format!("/v3/sessions/?{}", wanted.to_query());
        let (page, call) = call::<SessionPage>(didit, "list", Method::GET, &path, Vec::new()).await;
        match call.failure {
            Some(failure) => return Err(failure),
            None => {
                let rows = page.map(|page| page.results).unwrap_or_default();
                let unfinished = rows.iter().filter(|row| row.status.is_reusable()).count();
                duplicates += u64::try_from(unfinished.saturating_sub(1)).unwrap_or(u64::MAX);
            }
        }
    }
    Ok(duplicates)
}

async fn call<T: DeserializeOwned>(
    didit: &Didit,
    name: &'static str,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> (Option<T>, Call) {
    // Host, API key, correlation id and idempotency key are added by the stack. A body in memory can be sent again.
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        // Asks for a report even if the first attempt succeeds at once.
        .extension(CallOptions::new().report())
        .body(Full::from(body));
    let mut report = CallReport::default();
    let result = match request {
        Ok(request) => send(didit, request, &mut report).await,
        Err(error) => Err(Failure::Unreadable(error.into())),
    };
    match result {
        Ok(answer) => (Some(answer), Call { name, report, failure: None }),
        Err(failure) => (None, Call { name, report, failure: Some(failure) }),
    }
}

/// Makes one call, however many attempts that takes.
async fn send<T: DeserializeOwned>(
    didit: &Didit,
    request: Request<Full<Bytes>>,
    report: &mut CallReport,
) -> Result<T, Failure> {
    // A clone per call shares everything that has to be shared: connections, quota, circuits, budget.
    let response = match didit.clone().oneshot(request).await {
        Ok(response) => response,
        Err(error) => {
            *report = error.report().cloned().unwrap_or_default();
            return Err(error.into());
        }
    };
    *report = response.extensions().get().cloned().unwrap_or_default();
    let status = response.status();
    let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await.map_err(Failure::Unreadable)?;
    let body = body.to_bytes();
    if !status.is_success() {
        return Err(Failure::Refused { status, body: ErrorBody::parse(&body) });
    }
    serde_json::from_slice(&body).map_err(|error| Failure::NotUnderstood { line: error.line(), column: error.column() })
}
