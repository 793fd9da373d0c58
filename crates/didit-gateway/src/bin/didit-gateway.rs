//! `didit-gateway`: the side-car as a program.

use std::{error::Error, ffi::OsString, io::Write, process::ExitCode, time::Duration};

use didit_gateway::{Gateway, LogFormat, Settings};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::signal::unix::{SignalKind, signal};
use tower_didit::{config::Sources, telemetry};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

const HELP: &str = "\
The side-car: dependable calls to Didit for services in any language.

Usage: didit-gateway [OPTIONS]

Options:
  --config FILE     Settings, as TOML, or as JSON if the name ends in .json
  --listen ADDRESS  Where applications connect to; port 0 takes a free one [default: 127.0.0.1:8080]
  --upstream URL    Where Didit's API lives [default: https://verification.didit.me]
  --metrics ADDRESS Where /metrics, /healthz, /readyz and /status are, or `off` [default: 127.0.0.1:9090]
  --allow-remote    Allow addresses that other machines can reach; takes an access token
  --no-jitter       Wait as long as jitter would have let it be at most
  --seed N          Make jitter and keys reproducible
  --log FORMAT      How the log is written to standard error: `json` or `pretty` [default: json]
  --print-config    Print all settings as they would be used, secrets redacted or by their file, and stop
  --check-config    Check all settings, and stop
  -h, --help        Print this help
  -V, --version     Print the version

A flag goes before the environment, the environment before the file, and the file before its preset.

Environment:
  DIDIT_API_KEY, DIDIT_API_KEY_FILE      The key that is added to requests without one
  DIDIT_GATEWAY__ACCESS_TOKEN            What applications send as x-gateway-token
  DIDIT_GATEWAY__ACCESS_TOKEN_FILE       A file that holds it
  DIDIT_PRESET                           `didit`, `seed` or `off`
  DIDIT_SECTION__KEY                     Every other setting, such as DIDIT_RETRY__MAX_ATTEMPTS=4
  RUST_LOG                               What is logged [default: info]

SIGTERM and SIGINT end it: calls under way finish, calls that were not sent yet are told to come back.
";

/// What the command line asks for.
enum Command {
    Print(String),
    Run { sources: Sources, then: Then },
}

/// What becomes of settings that can be used.
#[derive(Clone, Copy)]
enum Then {
    Serve,
    Check,
    Show,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&mut std::io::stderr().lock(), &format!("didit-gateway: {error}\n"));
            ExitCode::from(2)
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let (sources, then) = match parse(std::env::args_os().skip(1))? {
        Command::Print(text) => {
            say(&mut std::io::stdout().lock(), &text);
            return Ok(());
        }
        Command::Run { sources, then } => (sources, then),
    };
    let gateway = Gateway::new(&sources)?;
    match then {
        Then::Check => say(&mut std::io::stdout().lock(), "the settings can be used\n"),
        Then::Show => say(&mut std::io::stdout().lock(), &gateway.to_toml()?),
        Then::Serve => serve(gateway).await?,
    }
    Ok(())
}

async fn serve(gateway: Gateway) -> Result<(), Box<dyn Error>> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    match gateway.settings().log {
        LogFormat::Pretty => registry.with(log.with_ansi(false)).init(),
        _ => registry.with(log.json().flatten_event(true).with_current_span(false)).init(),
    }
    let metrics = record_metrics()?;
    let gateway = gateway.metrics(move || metrics.render());
    // Before anybody can be told to stop, somebody listens.
    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let upstream = gateway.upstream().to_owned();
    let gateway = gateway.start().await.map_err(|error| format!("cannot listen on {error}"))?;
    say(&mut std::io::stdout().lock(), &greeting(&gateway, &upstream));
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    tracing::info!("told to stop");
    gateway.shutdown().await;
    tracing::info!("stopped");
    Ok(())
}

/// Records what the layers count. What nobody scrapes is put together now and then, or it would pile up.
fn record_metrics() -> Result<PrometheusHandle, BuildError> {
    const EVERY: Duration = Duration::from_secs(5);

    let durations = Matcher::Suffix("_duration_seconds".to_owned());
    let recorder = PrometheusBuilder::new().set_buckets_for_metric(durations, telemetry::names::DURATION_BUCKETS)?;
    let metrics = recorder.install_recorder()?;
    telemetry::describe();
    let upkeep = metrics.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(EVERY).await;
            upkeep.run_upkeep();
        }
    });
    Ok(metrics)
}

fn greeting(gateway: &didit_gateway::RunningGateway, upstream: &str) -> String {
    let operations =
        gateway.operations_addr().map(|at| format!("; operators ask http://{at}/status")).unwrap_or_default();
    format!("listening on http://{} for {upstream} (Ctrl-C stops){operations}\n", gateway.local_addr())
}

fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, Box<dyn Error>> {
    use lexopt::prelude::{Long, Short};

    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut file, mut given, mut then) = (None, Vec::new(), Then::Serve);
    while let Some(argument) = parser.next().map_err(text)? {
        let (flag, key) = match argument {
            Short('h') | Long("help") => return Ok(Command::Print(HELP.to_owned())),
            Short('V') | Long("version") => {
                return Ok(Command::Print(format!("didit-gateway {}\n", env!("CARGO_PKG_VERSION"))));
            }
            Long("config") => {
                file = Some(parser.value().map_err(text)?);
                continue;
            }
            Long("allow-remote") => {
                given.push(("--allow-remote", "gateway.allow_remote", "true".to_owned()));
                continue;
            }
            Long("no-jitter") => {
                given.push(("--no-jitter", "jitter", "false".to_owned()));
                continue;
            }
            Long("print-config") => {
                then = Then::Show;
                continue;
            }
            Long("check-config") => {
                then = Then::Check;
                continue;
            }
            Long("listen") => ("--listen", "gateway.listen"),
            Long("metrics") => ("--metrics", "gateway.metrics"),
            Long("upstream") => ("--upstream", "base_url"),
            Long("seed") => ("--seed", "seed"),
            Long("log") => ("--log", "gateway.log"),
            other => return Err(format!("{}; --help lists what there is", other.unexpected()).into()),
        };
        given.push((flag, key, parser.value().and_then(lexopt::ValueExt::string).map_err(text)?));
    }
    let mut sources = Sources::new().with_section::<Settings>(Settings::SECTION);
    if let Some(file) = file {
        sources = sources.file(file)?;
    }
    // One that is not Unicode is no setting.
    let unicode = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    sources = sources.environment(std::env::vars_os().filter_map(unicode));
    for (flag, key, value) in given {
        sources = sources.given(flag, key, value);
    }
    Ok(Command::Run { sources, then })
}

/// lexopt's text has its source in it.
fn text(error: lexopt::Error) -> String {
    error.to_string()
}

/// Writes to a stream that may be gone: there is nobody left to tell.
fn say(stream: &mut impl Write, text: &str) {
    let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
}
