//! The client that speaks to Didit.

use std::{fs::File, io, path::Path, sync::Arc};

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tower_didit::body::ReplayBody;

use crate::{
    body::Upload,
    settings::{InvalidSetting, Settings},
};

/// The client, with a pool of connections.
pub(crate) type Upstream = Client<HttpsConnector<HttpConnector>, ReplayBody<Upload>>;

/// How often a connection of HTTP/2 is asked whether it is still there, while something is on its way.
const PING_EVERY: std::time::Duration = std::time::Duration::from_secs(20);

pub(crate) fn client(settings: &Settings) -> Result<Upstream, InvalidSetting> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(settings.connect_timeout.0));
    // A peer that is gone without a word is noticed while a connection waits in the pool.
    http.set_keepalive(Some(PING_EVERY));
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(file) = &settings.ca_file {
        let wrong = |error: &dyn std::fmt::Display| InvalidSetting {
            key: "ca_file".into(),
            problem: format!("{file:?}: {error}"),
        };
        let added = certificates(file).map_err(|error| wrong(&error))?;
        if added.is_empty() {
            return Err(wrong(&"no certificate in it"));
        }
        added.into_iter().try_for_each(|certificate| roots.add(certificate)).map_err(|error| wrong(&error))?;
    }
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .map_err(|error| InvalidSetting { key: "ca_file".into(), problem: error.to_string() })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_all_versions();
    let mut client = Client::builder(TokioExecutor::new());
    client
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(settings.pool_idle_timeout.0)
        .http2_only(settings.upstream_h2c)
        .http2_adaptive_window(true)
        .http2_keep_alive_interval(PING_EVERY);
    Ok(client.build(connector.wrap_connector(http)))
}

fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_reader_iter(File::open(file)?).collect::<Result<_, _>>();
    read.map_err(|error| io::Error::other(error.to_string()))
}
