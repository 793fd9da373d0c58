//! Shows what can be seen of calls to Didit: metrics, the dashboard, and the alerts in their outages.
//!
//! ```text
//! cargo run --example observability                              runs, with metrics at 127.0.0.1:9464
//! cargo run --example observability -- --simulate tour --picture examples/observability/dashboard.svg
//! ```
//!
//! The application stands in `traffic.rs`, what happens to it in `outages.rs`. In virtual time, `recording.rs` keeps what
//! a Prometheus would have scraped; `picture.rs` draws it, and `promtool.rs` writes it as a test for the alerts. The
//! README beside this file says how to use rules and dashboard.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod arguments;
mod outages;
mod picture;
mod promtool;
mod recording;
mod traffic;

use std::{
    fs,
    io::{self, Write},
    net::Ipv4Addr,
    path::absolute,
    process::ExitCode,
    time::Duration,
};

use axum::{Router, routing::get};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use serde_json::json;
use tokio::{net::TcpListener, runtime, task::JoinSet};
use tower::BoxError;
use tower_didit::telemetry;

use self::{
    arguments::{Command, Live, Simulate},
    outages::{Act, End, Outage},
    recording::Recording,
    traffic::Application,
};

/// How often Prometheus scrapes: `scrape_interval` in `prometheus.yml`.
const SCRAPE: Duration = Duration::from_secs(15);

/// How often the picture does, so that short pauses can be seen in it.
const FINE_SCRAPE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let command = match arguments::read(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("observability: {error}");
            return ExitCode::from(2);
        }
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("observability: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), BoxError> {
    match command {
        Command::Help => say(arguments::HELP)?,
        Command::List => {
            let stories = outages::all().into_iter();
            let lines = stories.map(|outage| format!("{}\n", json!({ "story": outage.name, "fires": outage.fires })));
            say(&lines.collect::<String>())?;
        }
        Command::Live(how) => runtime::Runtime::new()?.block_on(live(how))?,
        Command::Simulate(what) => {
            let paused = runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
            paused.block_on(simulate(what))?;
        }
    }
    Ok(())
}

/// Writes to the standard output. Whoever reads it may have seen enough before its end, as `head` has.
fn say(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        said => said,
    }
}

/// Before the first call, so that nothing goes uncounted.
fn install() -> Result<PrometheusHandle, BuildError> {
    let durations = Matcher::Suffix("_duration_seconds".to_owned());
    let recorder = PrometheusBuilder::new().set_buckets_for_metric(durations, telemetry::names::DURATION_BUCKETS)?;
    let handle = recorder.install_recorder()?;
    telemetry::describe();
    Ok(handle)
}

// ===== In real time =====

async fn live(Live { port, length, seed }: Live) -> Result<(), BoxError> {
    tracing_subscriber::fmt().json().flatten_event(true).with_current_span(false).init();
    let metrics = install()?;
    let application = Application::new(seed)?;
    let gauges = application.gauges().clone();
    let scrape = move || {
        gauges.record();
        std::future::ready(metrics.render())
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let address = format!("http://{}/metrics", listener.local_addr()?);
    tracing::info!(address, "metrics are served");
    let server = tokio::spawn(axum::serve(listener, Router::new().route("/metrics", get(scrape))).into_future());
    let play = async {
        let mut under_way = JoinSet::new();
        loop {
            for act in outages::tour() {
                tracing::info!(title = act.title, "an act begins");
                application.play(&act, &mut under_way).await?;
            }
        }
    };
    let over = async {
        match length {
            Some(length) => tokio::time::sleep(length).await,
            // Without a handler the only way left is to stop at once.
            None => drop(tokio::signal::ctrl_c().await),
        }
    };
    let played: Result<(), BoxError> = tokio::select! {
        played = play => played,
        () = over => Ok(()),
    };
    server.abort();
    played
}

// ===== In virtual time =====

async fn simulate(Simulate { story, seed, picture, test }: Simulate) -> Result<(), BoxError> {
    let (outage, step) = match story.as_str() {
        "tour" => (Outage { name: "tour", acts: outages::tour(), fires: &[], end: End::LivesOn }, FINE_SCRAPE),
        name => (
            outages::all().into_iter().find(|outage| outage.name == name).ok_or("no such story; --list has them")?,
            SCRAPE,
        ),
    };
    let recording = record(&outage.acts, seed, step).await?;
    println!("{}", json!({ "story": outage.name, "scrapes": recording.scrapes, "series": recording.all().count() }));
    if let Some(file) = picture {
        picture::draw(&file, &recording, &outage.acts)?;
    }
    if let Some((file, rules)) = test {
        fs::write(file, promtool::test(&outage, &recording, &absolute(rules)?).to_string())?;
    }
    Ok(())
}

/// Plays acts to their end, and scrapes the process in regular intervals as Prometheus would.
async fn record(acts: &[Act], seed: u64, step: Duration) -> Result<Recording, BoxError> {
    let metrics = install()?;
    let application = Application::new(seed)?;
    let mut recording = Recording::new(step);
    let play = async {
        let mut under_way = JoinSet::new();
        for act in acts {
            println!("{}", json!({ "act": act.title, "seconds": act.length.as_secs() }));
            application.play(act, &mut under_way).await?;
        }
        Ok(())
    };
    let scrape = async {
        let mut ticks = tokio::time::interval(step);
        loop {
            ticks.tick().await;
            application.gauges().record();
            recording.add(&metrics.render());
        }
    };
    let played: Result<(), BoxError> = tokio::select! {
        // In this order, so that every run is the same.
        biased;
        () = scrape => Ok(()),
        played = play => played,
    };
    played?;
    Ok(recording)
}
