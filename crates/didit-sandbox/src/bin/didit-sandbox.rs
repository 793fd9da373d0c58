//! `didit-sandbox`: a local Didit on a port.

use std::{error::Error, ffi::OsString, fmt::Write as _, fs, net::SocketAddr, process::ExitCode, time::Duration};

use didit_api::{Limits, SessionStatus, webhook::PayloadVersion};
use didit_sandbox::{
    DEFAULT_API_KEY, DEFAULT_WEBHOOK_SECRET, DEFAULT_WORKFLOW_ID, Destination, Distribution, Faults, Latency,
    Neighbour, ResetForm, RetryAfter, RetryAfterForm, Sandbox, SandboxBuilder, WebhookFault, When,
};
use http::HeaderValue;
use tokio::net::TcpListener;

const HELP: &str = "\
A local Didit that behaves as documented, limits, faults and statistics included.

Usage: didit-sandbox [OPTIONS]

Options:
  --listen ADDRESS     Where to listen; port 0 takes a free one [default: 127.0.0.1:8484]
  --allow-remote       Allow an address that other machines can reach
  --api-key KEY        A key to accept, with windows of its own; may be repeated [default: sandbox-key]
  --workflow UUID      A workflow to know, beside 99999999-2222-4333-8444-555555555555; may be repeated
  --any-workflow       Take every UUID for a known workflow
  --seed N             The seed of ids, latency and faults [default: 0]
  --limits LIMITS      `docs` for the newest documented limits, `none`, a documented version
                       such as `2026-07`, or a JSON file [default: docs]
  --faults FILE        What goes wrong, as a JSON file (below)
  --latency TIME       Time from request to answer (below), or TIME/TIME for the request's way and the answer's
  --count-rejected     Let requests refused with 429 count in the windows
  --whole-seconds      Remember arrivals as whole seconds, up to 1 s longer than the window
  --wrong-key-401      Answer a wrong key with 401 instead of 403
  --abandoned-arrive   Let a request arrive although its client went away before
  --list-delay TIME    List a new session only so long after it was made (below)
  --neighbour N        Somebody else who uses the first key, N times a minute; may be repeated. `60:aml` sends
                       to that route instead of session-create, and `60@600..4200` or `60:aml@600..` comes and
                       goes at these seconds
  --clock-skew SECONDS Set the clock so far ahead, or with a minus behind
  --retry-after FORM   Retry-After of a 429: `seconds`, `http-date`, `none`, or any other text as it is
                       [default: seconds]
  --reset FORM         X-RateLimit-Reset of a 429: `epoch`, `epoch-ms`, `seconds`, `ms`, `none`, or any other
                       text as it is [default: epoch]
  --sandbox-quota N    Refuse session creations beyond so many in 24 hours; 500 at Didit [default: 0, no quota]
  --phone-attempts N   Refuse codes beyond so many per number and hour; 4 at Didit [default: 0, no limit]
  --import-time MS     How long an import takes; another one is refused meanwhile [default: 0]
  --webhook-url URL    Send webhooks there, `http://` only; may be repeated
  --webhook-secret TEXT
                       What webhooks are signed with; a process list shows it, so rather set the environment
                       variable DIDIT_WEBHOOK_SECRET
                       [default: sandbox-webhook-secret-0123456789-abcdefghi]
  --webhook-version V  The form of their payload: `v1`, `v2` or `v3` [default: v3]
  --webhook-drop P     Never send a webhook with this probability, from 0 to 1
  --webhook-duplicate P
                       Send a webhook twice with this probability
  --webhook-shuffle MS Send each webhook up to so much later, so that they overtake one another
  --finish-after MS    Let every session end so long after it was made
  --finish-status STATUS
                       How it ends [default: Approved]
  -h, --help           Print this help
  -V, --version        Print the version

Times, in milliseconds: `50`; `20..120`, drawn uniformly; `exponential:100..5000`, the mean and the longest;
`log-normal:30,1.0..5000`, the median, the sigma and the longest.

Faults, as JSON; `routes`, `methods` and `when` may be left out:
  { \"rules\": [
    { \"fault\": { \"status\": { \"code\": 503, \"retry_after\": 1 } }, \"when\": { \"probability\": 0.1 } },
    { \"fault\": { \"delay\": { \"ms\": 3000 } }, \"methods\": [\"GET\"], \"when\": { \"nth\": [5, 9] } },
    { \"fault\": \"work-then-drop\", \"routes\": [\"session-create\"], \"when\": { \"first\": 2 } },
    { \"fault\": \"reset-before-work\", \"when\": \"always\" },
    { \"fault\": { \"late-commit\": { \"ms\": 5000 } }, \"when\": { \"probability\": 0.05 } },
    { \"fault\": { \"never-commit\": { \"ms\": 2000, \"ending\": { \"status\": 504 } } } },
    { \"fault\": { \"truncated-body\": { \"at_percent\": 50, \"chunked\": true } } },
    { \"fault\": { \"slow-body\": { \"bytes\": 16, \"every_ms\": 100 } } },
    { \"fault\": { \"status\": { \"code\": 429, \"retry_after\": { \"date_in_s\": 30 },
                            \"headers\": [[\"x-ratelimit-reset\", \"-1\"]] } } },
    { \"fault\": { \"status\": { \"code\": 503 } }, \"when\": { \"between_ms\": [60000, 360000] } },
    { \"fault\": \"absurd-429\" },
    { \"fault\": { \"odd-429\": \"sandbox-quota\" } } ] }
  An `ending` is \"drop\", \"silence\" or a status; `retry_after` a number, a text, or an object with
  `date_in_s` or `date_ago_s`; a body is cut off `at_byte` or `at_percent`; an odd 429 is
  \"sandbox-quota\", \"phone-attempts\" or \"import-job\".

For tests, without a key and not counted:
  GET  /_sandbox/stats                  counts of arrivals, refusals, faults, sessions, duplicates
  GET  /_sandbox/journal                the last arrivals
  GET  /_sandbox/effects                effects by operation id and route
  POST /_sandbox/session/ID/status      {\"status\": \"Approved\"}, or later with \"after_ms\"
  GET  /_sandbox/webhooks               every webhook and what became of it
  POST /_sandbox/webhooks/ID/resend     an event again, by its event_id
  POST /_sandbox/reset                  back to the beginning
";

/// The address listened on without `--listen`.
const DEFAULT_LISTEN: &str = "127.0.0.1:8484";

/// What the command line asks for.
enum Command {
    Print(String),
    Run { listen: SocketAddr, allow_remote: bool, builder: Box<SandboxBuilder>, own_keys: bool },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&mut std::io::stderr().lock(), &format!("didit-sandbox: {}\n", with_sources(error.as_ref())));
            ExitCode::from(2)
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    // Texts about the command line are complete by themselves; lexopt's has its source in it.
    let command = parse(std::env::args_os().skip(1)).map_err(|error| error.to_string())?;
    let (listen, allow_remote, builder, own_keys) = match command {
        Command::Print(text) => {
            say(&mut std::io::stdout().lock(), &text);
            return Ok(());
        }
        Command::Run { listen, allow_remote, builder, own_keys } => (listen, allow_remote, builder, own_keys),
    };
    let sandbox = builder.build()?;
    let listener = TcpListener::bind(listen).await.map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    let server = if allow_remote {
        didit_sandbox::serve_anywhere(listener, sandbox)?
    } else {
        didit_sandbox::serve(listener, sandbox).map_err(|error| format!("{error}; --allow-remote does"))?
    };
    say(&mut std::io::stdout().lock(), &greeting(server.local_addr(), own_keys));
    tokio::signal::ctrl_c().await?;
    server.shutdown().await;
    Ok(())
}

fn greeting(address: SocketAddr, own_keys: bool) -> String {
    // A key from the command line is not repeated: this text ends up in logs.
    let key = if own_keys { "$DIDIT_API_KEY" } else { DEFAULT_API_KEY };
    format!(
        "listening on http://{address} (Ctrl-C stops)\n\
         try: curl -X POST http://{address}/v3/session/ -H \"x-api-key: {key}\" -H \"content-type: application/json\" \
         -d '{{\"workflow_id\":\"{DEFAULT_WORKFLOW_ID}\",\"vendor_data\":\"user-7\"}}'\n"
    )
}

fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, Box<dyn Error>> {
    use lexopt::prelude::{Long, Short, ValueExt as _};

    let mut parser = lexopt::Parser::from_args(arguments);
    let mut builder = Sandbox::builder();
    let mut listen = DEFAULT_LISTEN.to_owned();
    let mut webhooks = Webhooks::default();
    let (mut allow_remote, mut own_keys) = (false, false);
    while let Some(argument) = parser.next()? {
        builder = match argument {
            Short('h') | Long("help") => return Ok(Command::Print(HELP.to_owned())),
            Short('V') | Long("version") => {
                return Ok(Command::Print(format!("didit-sandbox {}\n", env!("CARGO_PKG_VERSION"))));
            }
            Long("listen") => {
                listen = parser.value()?.string()?;
                builder
            }
            Long("allow-remote") => {
                allow_remote = true;
                builder
            }
            Long("api-key") => {
                own_keys = true;
                builder.api_key(parser.value()?.string()?)
            }
            Long("workflow") => builder.workflow(parser.value()?.string()?),
            Long("any-workflow") => builder.any_workflow(true),
            Long("seed") => builder.seed(parser.value()?.parse()?),
            Long("limits") => builder.limits(limits(&parser.value()?.string()?)?),
            Long("faults") => builder.faults(faults(&parser.value()?.string()?)?),
            Long("latency") => builder.latency(latency(&parser.value()?.string()?)?),
            Long("count-rejected") => builder.count_rejected(true),
            Long("whole-seconds") => builder.whole_second_stamps(true),
            Long("wrong-key-401") => builder.wrong_key_is_401(true),
            Long("abandoned-arrive") => builder.abandoned_requests_arrive(true),
            Long("list-delay") => builder.list_delay(time("--list-delay", &parser.value()?.string()?)?),
            Long("neighbour") => builder.neighbour(neighbour(&parser.value()?.string()?)?),
            Long("clock-skew") => skewed(builder, parser.value()?.parse()?),
            Long("retry-after") => builder.throttle_retry_after(retry_after(&parser.value()?.string()?)?),
            Long("reset") => builder.throttle_reset(reset(&parser.value()?.string()?)?),
            Long("sandbox-quota") => builder.sandbox_quota(parser.value()?.parse()?),
            Long("phone-attempts") => builder.phone_attempts(parser.value()?.parse()?),
            Long("import-time") => builder.import_time(Duration::from_millis(parser.value()?.parse()?)),
            Long("webhook-url") => {
                webhooks.urls.push(parser.value()?.string()?);
                builder
            }
            Long("webhook-secret") => {
                webhooks.secret = Some(parser.value()?.string()?);
                builder
            }
            Long("webhook-version") => {
                webhooks.version = version(&parser.value()?.string()?)?;
                builder
            }
            Long("webhook-drop") => builder.webhook_fault(WebhookFault::Drop, probability(&parser.value()?)?),
            Long("webhook-duplicate") => {
                builder.webhook_fault(WebhookFault::Duplicate(1), probability(&parser.value()?)?)
            }
            Long("webhook-shuffle") => {
                let most = Duration::from_millis(parser.value()?.parse()?);
                builder.webhook_fault(WebhookFault::Shuffle(most), When::Always)
            }
            Long("finish-after") => {
                webhooks.finish_after = Some(Duration::from_millis(parser.value()?.parse()?));
                builder
            }
            Long("finish-status") => {
                webhooks.finish_status = status(&parser.value()?.string()?)?;
                builder
            }
            other => return Err(format!("{}; --help lists what there is", other.unexpected()).into()),
        };
    }
    let builder = webhooks.onto(builder);
    let listen = listen
        .parse()
        .map_err(|_| format!("--listen {listen:?} is not an address with a port, such as {DEFAULT_LISTEN}"))?;
    Ok(Command::Run { listen, allow_remote, builder: Box::new(builder), own_keys })
}

/// What the command line says about webhooks; its parts belong together in any order.
struct Webhooks {
    urls: Vec<String>,
    secret: Option<String>,
    version: PayloadVersion,
    finish_after: Option<Duration>,
    finish_status: SessionStatus,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            secret: None,
            version: PayloadVersion::V3,
            finish_after: None,
            finish_status: SessionStatus::Approved,
        }
    }
}

impl Webhooks {
    fn onto(self, mut builder: SandboxBuilder) -> SandboxBuilder {
        let from_environment = || std::env::var("DIDIT_WEBHOOK_SECRET").ok();
        let secret = self.secret.or_else(from_environment).unwrap_or_else(|| DEFAULT_WEBHOOK_SECRET.to_owned());
        for url in self.urls {
            builder = builder.webhook(Destination::url(url, &secret).version(self.version.clone()));
        }
        match self.finish_after {
            Some(after) => builder.finish_sessions(after, self.finish_status),
            None => builder,
        }
    }
}

fn version(value: &str) -> Result<PayloadVersion, Box<dyn Error>> {
    match PayloadVersion::from(value) {
        PayloadVersion::Other(_) => Err(format!("--webhook-version {value:?} is not v1, v2 or v3").into()),
        known => Ok(known),
    }
}

fn status(value: &str) -> Result<SessionStatus, Box<dyn Error>> {
    match SessionStatus::from(value) {
        SessionStatus::Other(_) => {
            Err(format!("--finish-status {value:?} is not a status such as \"In Review\"").into())
        }
        known => Ok(known),
    }
}

fn probability(value: &OsString) -> Result<When, Box<dyn Error>> {
    use lexopt::prelude::ValueExt as _;

    Ok(When::Probability(value.parse()?))
}

fn limits(value: &str) -> Result<Limits, Box<dyn Error>> {
    match value {
        "docs" => Ok(Limits::didit()),
        "none" => Ok(Limits::none()),
        version if Limits::VERSIONS.contains(&version) => {
            Limits::version_named(version).ok_or_else(|| format!("limits {version:?} are not known").into())
        }
        file => {
            let text = read("--limits", file)?;
            serde_json::from_str(&text).map_err(|error| format!("{file}: {error}").into())
        }
    }
}

fn faults(file: &str) -> Result<Faults, Box<dyn Error>> {
    Faults::from_json(&read("--faults", file)?).map_err(|error| format!("{file}: {error}").into())
}

fn read(option: &str, file: &str) -> Result<String, Box<dyn Error>> {
    fs::read_to_string(file).map_err(|error| format!("{option} {file}: {error}").into())
}

/// A time for there and back, or `REQUEST/ANSWER`.
fn latency(value: &str) -> Result<Latency, Box<dyn Error>> {
    match value.split_once('/') {
        None => time("--latency", value).map(Latency::from),
        Some((request, answer)) => Ok(Latency::legs(time("--latency", request)?, time("--latency", answer)?)),
    }
}

/// `50`, `20..120`, `exponential:100..5000` or `log-normal:30,1.0..5000`, in milliseconds.
fn time(option: &str, value: &str) -> Result<Distribution, Box<dyn Error>> {
    let millis = |text: &str| text.trim().trim_start_matches('=').parse().ok().map(Duration::from_millis);
    let (kind, numbers) = value.split_once(':').unwrap_or(("uniform", value));
    let (first, most) = numbers.split_once("..").unwrap_or((numbers, numbers));
    let read = || match kind {
        "uniform" => Some(Distribution::Uniform { least: millis(first)?, most: millis(most)? }),
        "exponential" => Some(Distribution::Exponential { mean: millis(first)?, most: millis(most)? }),
        "log-normal" => {
            let (median, sigma) = first.split_once(',')?;
            let sigma = sigma.trim().parse().ok()?;
            Some(Distribution::LogNormal { median: millis(median)?, sigma, most: millis(most)? })
        }
        _ => None,
    };
    let examples = "20..120, 50, exponential:100..5000 or log-normal:30,1.0..5000";
    read().ok_or_else(|| format!("{option} {value:?} is not milliseconds such as {examples}").into())
}

/// `60`, `60:aml`, `60@600..4200` or `60:aml@600..`, the times in seconds.
fn neighbour(value: &str) -> Result<Neighbour, Box<dyn Error>> {
    let seconds = |text: &str| text.trim().parse().ok().map(Duration::from_secs);
    let (who, times) = value.split_once('@').map_or((value, None), |(who, times)| (who, Some(times)));
    let (rate, route) = who.split_once(':').unwrap_or((who, Neighbour::DEFAULT_ROUTE));
    let read = || {
        let neighbour = Neighbour::new(rate.trim().parse().ok()?).on_route(route);
        let Some(times) = times else { return Some(neighbour) };
        let (from, until) = times.split_once("..")?;
        let neighbour = neighbour.from(seconds(from)?);
        Some(if until.is_empty() { neighbour } else { neighbour.until(seconds(until)?) })
    };
    read().ok_or_else(|| format!("--neighbour {value:?} is not a rate such as 60, 60:aml or 60:aml@600..4200").into())
}

fn skewed(builder: SandboxBuilder, seconds: i64) -> SandboxBuilder {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { builder.clock_behind(by) } else { builder.clock_ahead(by) }
}

fn retry_after(form: &str) -> Result<RetryAfterForm, Box<dyn Error>> {
    Ok(match form {
        "seconds" => RetryAfterForm::Seconds,
        "http-date" => RetryAfterForm::HttpDate,
        "none" => RetryAfterForm::Omitted,
        text => RetryAfterForm::Instead(RetryAfter::Text(header("--retry-after", text)?)),
    })
}

fn reset(form: &str) -> Result<ResetForm, Box<dyn Error>> {
    Ok(match form {
        "epoch" => ResetForm::EpochSeconds,
        "epoch-ms" => ResetForm::EpochMillis,
        "seconds" => ResetForm::SecondsLeft,
        "ms" => ResetForm::MillisLeft,
        "none" => ResetForm::Omitted,
        text => ResetForm::Instead(header("--reset", text)?),
    })
}

fn header(option: &str, text: &str) -> Result<HeaderValue, Box<dyn Error>> {
    text.parse().map_err(|_| format!("{option} {text:?} cannot stand in a header").into())
}

/// Writes to a stream that may be gone: there is nobody left to tell.
fn say(stream: &mut impl std::io::Write, text: &str) {
    let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
}

fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
