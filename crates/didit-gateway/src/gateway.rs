use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize},
};

use serde::Serialize;
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tower::Layer;
use tower_didit::{
    DiditLayer, Randomness,
    config::{Config, Invalid, LoadError, OrOff, Sources},
    retry::Budget,
};

use crate::{
    attempts::CountAttempts,
    operations::{self, Operations, Render},
    proxy::{ATTEMPTS, OPERATION, PRIORITY, Phase, Proxy},
    refuse::{Doorkeeper, TOKEN},
    server,
    settings::Settings,
    upstream::{self, Upstream},
};

/// A gateway that is configured and not yet started.
#[must_use]
pub struct Gateway {
    config: Config,
    settings: Settings,
    client: Upstream,
    layer: DiditLayer,
    budget: Option<Budget>,
    metrics: Option<Arc<Render>>,
}

/// A gateway that takes calls. Dropping it stops it without waiting for anything.
#[derive(Debug)]
#[must_use = "a gateway stops when its handle is dropped"]
pub struct RunningGateway {
    address: SocketAddr,
    operations: Option<SocketAddr>,
    phase: watch::Sender<Phase>,
    server: JoinHandle<()>,
    operator: Option<JoinHandle<()>>,
}

// ===== impl Gateway =====

impl Gateway {
    /// Reads and checks all settings. `sources` has to know the section: [`Sources::with_section`] with [`Settings`].
    ///
    /// # Errors
    ///
    /// [`LoadError`], which says what is wrong and where it was written.
    pub fn new(sources: &Sources) -> Result<Self, LoadError> {
        let config = sources.config()?;
        let settings: Settings = sources.section(Settings::SECTION)?;
        let located = |invalid: Invalid| sources.locate(invalid);
        let wrong = |error: crate::settings::InvalidSetting| {
            located(Invalid::new(&format!("{}.{}", Settings::SECTION, error.key), error.problem))
        };
        let settings = settings.check().map_err(wrong)?;
        let client = upstream::client(&settings).map_err(wrong)?;
        // Its own, so that it can be shown.
        let budget = config.retry.budget.on().map(Budget::new);
        check_header("correlation.header", &config.correlation.header).map_err(located)?;
        check_header("idempotency.header", &config.idempotency.header).map_err(located)?;
        let builder = config.builder().map_err(located)?;
        let layer = builder.retry(|retry| retry.budget(budget.clone())).build();
        let layer = layer.map_err(|error| located(Invalid::new("", error)))?;
        Ok(Self { config, settings, client, layer, budget, metrics: None })
    }

    /// Shows what this writes, Prometheus's text format, under `/metrics`.
    pub fn metrics(mut self, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.metrics = Some(Arc::new(render));
        self
    }

    /// Where calls go.
    pub fn upstream(&self) -> &str {
        &self.config.base_url
    }

    /// The gateway's own settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// All settings as a file that gives the same ones. What is secret is named by the file that it came from; if it came
    /// otherwise, it is `[redacted]`, which no setting takes.
    ///
    /// # Errors
    ///
    /// If a value cannot be written in TOML, such as a path that is not Unicode.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        #[derive(Serialize)]
        struct Whole<'c> {
            #[serde(flatten)]
            stack: &'c Config,
            gateway: &'c Settings,
        }

        toml::to_string_pretty(&Whole { stack: &self.config, gateway: &self.settings })
    }

    /// Listens, and takes calls. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// If an address cannot be listened on.
    pub async fn start(self) -> io::Result<RunningGateway> {
        let Self { config, settings, client, layer, budget, metrics } = self;
        let named = |at: SocketAddr| move |error: io::Error| io::Error::new(error.kind(), format!("{at}: {error}"));
        let (listener, address) = server::listen(settings.listen).await.map_err(named(settings.listen))?;
        let operator = match settings.metrics {
            OrOff::On(at) => Some(server::listen(at).await.map_err(named(at))?),
            OrOff::Off => None,
        };
        let (phase, watched) = watch::channel(Phase::Serving);
        let proxy = Arc::new(Proxy {
            service: layer.layer(CountAttempts::new(client)),
            doorkeeper: Doorkeeper::new(&settings),
            routes: config.routes().map_err(io::Error::other)?,
            correlation: config.correlation.header.parse().map_err(io::Error::other)?,
            random: Randomness::new(),
            settings,
            phase: watched,
            in_flight: Arc::new(AtomicUsize::new(0)),
        });
        let began = Instant::now();
        let operations = operator.as_ref().map(|(_, address)| *address);
        let operator = operator.map(|(listener, _)| {
            let proxy = Arc::clone(&proxy);
            let shown = Operations { proxy, layer, budget, metrics, began };
            tokio::spawn(operations::serve(listener, Arc::new(shown)))
        });
        let server = tokio::spawn(server::serve(listener, proxy, phase.clone()));
        Ok(RunningGateway { address, operations, phase, server, operator })
    }
}

/// What the layers do not know of: the headers between an application and the gateway.
fn check_header(setting: &'static str, name: &str) -> Result<(), Invalid> {
    let own = [ATTEMPTS, OPERATION, PRIORITY, TOKEN];
    if !own.iter().any(|own| own.as_str().eq_ignore_ascii_case(name)) {
        return Ok(());
    }
    let problem =
        format!("{setting} is {name:?}, which the gateway uses for something else; allowed is a header of its own");
    Err(Invalid::new(setting, problem))
}

// ===== impl RunningGateway =====

impl RunningGateway {
    /// Where calls are taken, the port filled in.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Where operators ask, the port filled in; `None` if nowhere.
    pub fn operations_addr(&self) -> Option<SocketAddr> {
        self.operations
    }

    /// Takes no more calls. Those that wait, for their first attempt or another, are told to come back; attempts under way
    /// have the grace period.
    pub async fn shutdown(mut self) {
        self.phase.send_replace(Phase::Stopping);
        // The task ends by itself, and nothing in it panics; if it did, the server would be down all the same.
        let _ = (&mut self.server).await;
    }
}

impl Drop for RunningGateway {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Over);
        self.server.abort();
        if let Some(operator) = &self.operator {
            operator.abort();
        }
    }
}
