//! A local Didit that misbehaves.

use std::{error::Error, net::Ipv4Addr, time::Duration};

use didit_api::{Limits, Scope, limits::LimitsError};
use didit_sandbox::{Fault, Faults, JournalEntry, Rule, Sandbox, Server, Stats, When};
use http::StatusCode;
use tokio::net::TcpListener;

/// A sandbox on a free loopback port.
pub(crate) struct Local {
    sandbox: Sandbox,
    server: Server,
    limits: Limits,
}

impl Local {
    /// The window of its rate limits. Didit's are 60 s; this way, pacing shows within seconds.
    const WINDOW: Duration = Duration::from_secs(2);

    /// How many sessions may be created in a window.
    const CREATIONS: u32 = 14;

    /// How many GETs may arrive in a window.
    const READS: u32 = 20;

    /// Starts it. The seed decides which requests fail.
    pub(crate) async fn start(seed: u64) -> Result<Self, Box<dyn Error>> {
        let limits = limits()?;
        let faults = Faults::none()
            .with(Rule::new(Fault::status(StatusCode::SERVICE_UNAVAILABLE)).when(When::Probability(0.10)))
            // The nasty one: the session is made, and the answer never comes.
            .with(Rule::new(Fault::WorkThenDrop).when(When::Probability(0.05)));
        let sandbox = Sandbox::builder()
            .seed(seed)
            .limits(limits.clone())
            .latency(Duration::from_millis(20)..=Duration::from_millis(120))
            .faults(faults)
            .build()?;
        let server = didit_sandbox::serve(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?, sandbox.clone())?;
        Ok(Self { sandbox, server, limits })
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}", self.server.local_addr())
    }

    /// The limits that it enforces: a client has to know them, because Didit tells them only when it refuses.
    pub(crate) fn limits(&self) -> Limits {
        self.limits.clone()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.sandbox.stats()
    }

    pub(crate) fn journal(&self) -> Vec<JournalEntry> {
        self.sandbox.journal()
    }

    pub(crate) async fn stop(self) {
        self.server.shutdown().await;
    }
}

fn limits() -> Result<Limits, LimitsError> {
    let creations = Scope::endpoints("session-v2-create", Local::CREATIONS, ["session-create"])?;
    let reads = Scope::methods("generic-get", Local::READS, ["GET"])?;
    Limits::none().with(creations.with_window(Local::WINDOW)?)?.with(reads.with_window(Local::WINDOW)?)
}
