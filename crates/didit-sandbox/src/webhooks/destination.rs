//! Where webhooks are sent.

use std::{fmt, future::poll_fn, pin::Pin, sync::Arc};

use bytes::Bytes;
use didit_api::webhook::{PayloadVersion, Secrets, SecretsError, WebhookType};
use http::{Request, Response, StatusCode, Uri, header, uri::Scheme};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::Service;

/// The secret of a destination that the command line gives none: 43 characters, as Didit's have.
pub const DEFAULT_WEBHOOK_SECRET: &str = "sandbox-webhook-secret-0123456789-abcdefghi";

/// The port of a URL without one.
const HTTP_PORT: u16 = 80;

/// Somewhere that webhooks are sent to: a URL, or a tower service in this process, which needs no socket.
///
/// # Example
///
/// ```
/// use didit_api::webhook::{PayloadVersion, WebhookType};
/// use didit_sandbox::{DEFAULT_WEBHOOK_SECRET, Destination, Sandbox};
///
/// let destination = Destination::url("http://127.0.0.1:3000/webhooks/didit", DEFAULT_WEBHOOK_SECRET)
///     .version(PayloadVersion::V3)
///     .subscribe(WebhookType::StatusUpdated);
/// let sandbox = Sandbox::builder().webhook(destination).build()?;
/// assert!(sandbox.webhooks().is_empty());
/// # Ok::<(), didit_sandbox::BuildError>(())
/// ```
#[derive(Clone)]
pub struct Destination {
    target: Target,
    secret: String,
    pub(super) version: PayloadVersion,
    /// All, if it is empty.
    types: Vec<WebhookType>,
}

#[derive(Clone)]
enum Target {
    Url(String),
    Service(Sender),
}

/// Sends one request; `Err` if no answer came.
pub(super) type Sender = Arc<dyn Fn(Request<Full<Bytes>>) -> Sending + Send + Sync>;

pub(super) type Sending = Pin<Box<dyn Future<Output = Result<StatusCode, NoAnswer>> + Send>>;

/// The connection was refused, or broke.
#[derive(Debug)]
pub(super) struct NoAnswer;

/// Why a destination cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DestinationError {
    /// Not a URL that the sandbox can send to. It speaks HTTP/1.1 without TLS.
    #[error("{value:?} is not a URL such as http://127.0.0.1:3000/webhooks")]
    Url {
        /// The offending value.
        value: String,
    },
    /// A secret that cannot be used. The secret itself is not shown.
    #[error(transparent)]
    Secret(#[from] SecretsError),
}

impl Destination {
    /// A URL, `http://` with any host. Redirects are not followed.
    pub fn url(url: impl Into<String>, secret: impl Into<String>) -> Self {
        Self::new(Target::Url(url.into()), secret.into())
    }

    /// A service in this process. It is cloned for each attempt; an error of it counts as a broken connection.
    pub fn service<S, B>(service: S, secret: impl Into<String>) -> Self
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        B: Send,
    {
        let send = move |request| -> Sending {
            let mut service = service.clone();
            Box::pin(async move {
                poll_fn(|cx| service.poll_ready(cx)).await.map_err(|_| NoAnswer)?;
                service.call(request).await.map(|response| response.status()).map_err(|_| NoAnswer)
            })
        };
        Self::new(Target::Service(Arc::new(send)), secret.into())
    }

    fn new(target: Target, secret: String) -> Self {
        Self { target, secret, version: PayloadVersion::V3, types: Vec::new() }
    }

    /// Sets the form of the payload. [`PayloadVersion::V3`] by default.
    #[must_use]
    pub fn version(mut self, version: PayloadVersion) -> Self {
        self.version = version;
        self
    }

    /// Subscribes to this type, and to those already given. Without any, to all.
    #[must_use]
    pub fn subscribe(mut self, kind: WebhookType) -> Self {
        self.types.push(kind);
        self
    }

    pub(super) fn subscribes(&self, kind: &WebhookType) -> bool {
        self.types.is_empty() || self.types.contains(kind)
    }

    pub(super) fn secrets(&self) -> Result<Secrets, SecretsError> {
        Secrets::new([&self.secret])
    }

    /// What sends to it.
    pub(super) fn sender(&self) -> Result<Sender, DestinationError> {
        match &self.target {
            Target::Service(sender) => Ok(Arc::clone(sender)),
            Target::Url(value) => {
                let error = || DestinationError::Url { value: value.clone() };
                let url: Uri = value.parse().map_err(|_| error())?;
                if url.scheme() != Some(&Scheme::HTTP) || url.host().is_none() {
                    return Err(error());
                }
                Ok(Arc::new(move |request| -> Sending { Box::pin(over_tcp(url.clone(), request)) }))
            }
        }
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = match &self.target {
            Target::Url(url) => url,
            Target::Service(_) => "a service",
        };
        f.debug_struct("Destination")
            .field("target", &target)
            .field("version", &self.version)
            .field("types", &self.types)
            .finish_non_exhaustive()
    }
}

/// Sends a request over a connection of its own.
async fn over_tcp(url: Uri, mut request: Request<Full<Bytes>>) -> Result<StatusCode, NoAnswer> {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, url.port_u16().unwrap_or(HTTP_PORT))).await.map_err(|_| NoAnswer)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| NoAnswer)?;
    if let Some(authority) = url.authority().and_then(|authority| authority.as_str().parse().ok()) {
        request.headers_mut().insert(header::HOST, authority);
    }
    *request.uri_mut() = url.path_and_query().and_then(|path| path.as_str().parse().ok()).unwrap_or_default();
    let answer = async { sender.send_request(request).await.map(|response| response.status()) };
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    // The connection is driven here and not in a task of its own, so that it ends with the attempt.
    tokio::select! {
        biased;
        answer = &mut answer => answer.map_err(|_| NoAnswer),
        _ = &mut connection => answer.await.map_err(|_| NoAnswer),
    }
}
