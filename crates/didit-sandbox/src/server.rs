//! The sandbox on a port.

use std::{
    future::pending,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Notify, oneshot},
    task::JoinHandle,
};
use tower::Service;

use crate::{body::SandboxBody, connection::ConnectionLost, service::Sandbox};

/// How long a shutdown waits for requests that are under way.
const GRACE: Duration = Duration::from_secs(5);

/// How long a body waits before it is cut off, for hyper to send what comes before: an error overtakes it.
const LINGER: Duration = Duration::from_millis(20);

/// Serves a sandbox over HTTP/1.1 and HTTP/2 without TLS, on a loopback address.
///
/// A reset before the work closes the TCP connection with RST; every other drop closes it with FIN and no answer, so
/// that a client cannot tell what became of the work. On HTTP/2 either also ends whatever else the connection carries,
/// as a broken connection does. A body that is cut off closes an HTTP/1.1 connection, and on HTTP/2 resets its stream
/// alone. Every answer has a `Date` from the sandbox's clock. Must be called within a tokio runtime.
///
/// # Errors
///
/// [`ServeError::NotLoopback`] if the listener can be reached from other machines: a sandbox accepts anybody who
/// knows its key and tells its statistics to anybody. [`serve_anywhere`] allows it.
///
/// # Example
///
/// ```
/// use didit_sandbox::{Sandbox, serve};
/// use tokio::net::TcpListener;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sandbox = Sandbox::builder().build()?;
/// let server = serve(TcpListener::bind("127.0.0.1:0").await?, sandbox.clone())?;
/// let base_url = format!("http://{}", server.local_addr());
/// # assert!(base_url.starts_with("http://127.0.0.1:"));
/// server.shutdown().await;
/// # Ok(())
/// # }
/// ```
pub fn serve(listener: TcpListener, sandbox: Sandbox) -> Result<Server, ServeError> {
    let address = listener.local_addr()?;
    if !address.ip().to_canonical().is_loopback() {
        return Err(ServeError::NotLoopback { address });
    }
    serve_anywhere(listener, sandbox)
}

/// Serves a sandbox like [`serve`], on any address.
///
/// # Errors
///
/// [`ServeError::Io`] if the listener cannot tell its address.
pub fn serve_anywhere(listener: TcpListener, sandbox: Sandbox) -> Result<Server, ServeError> {
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(accept(listener, sandbox, stopped));
    Ok(Server { address, stop, task })
}

/// A running server. Dropping it stops it without waiting for anything.
#[derive(Debug)]
#[must_use = "a server stops when its handle is dropped"]
pub struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    /// The address it listens on, the port filled in.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, and waits up to five seconds for requests that are under way.
    pub async fn shutdown(self) {
        let Self { address: _, stop, task } = self;
        drop(stop);
        // The task ends by itself, and nothing in it panics; if it did, the server would be down all the same.
        let _ = task.await;
    }
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address can be reached from other machines.
    #[error("{address} is not a loopback address; a sandbox listens on 127.0.0.1 or [::1] unless told otherwise")]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// The listener failed.
    #[error("the listener's address cannot be read")]
    Io(#[from] io::Error),
}

async fn accept(listener: TcpListener, sandbox: Sandbox, mut stopped: oneshot::Receiver<()>) {
    let connections = GracefulShutdown::new();
    loop {
        tokio::select! {
            // Told to stop, or the handle is gone: both end the server.
            _ = &mut stopped => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let watcher = connections.watcher();
                    tokio::spawn(connection(stream, sandbox.clone(), watcher));
                }
                // Out of descriptors, or a peer that left at once: neither is a reason to stop.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
        }
    }
    drop(listener);
    // Whoever is still there after this keeps the connection until the runtime ends.
    let _ = tokio::time::timeout(GRACE, connections.shutdown()).await;
}

async fn connection(stream: TcpStream, sandbox: Sandbox, watcher: hyper_util::server::graceful::Watcher) {
    // Answers are small; waiting for more to send would add up to 40 ms to each.
    let _ = stream.set_nodelay(true);
    let cut = Arc::new(Cut::default());
    let io = TokioIo::new(Socket { stream, cut: Arc::clone(&cut) });
    let service = {
        let cut = Arc::clone(&cut);
        service_fn(move |request| answer(request, sandbox.clone(), Arc::clone(&cut)))
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    let served = watcher.watch(builder.serve_connection(io, service).into_owned());
    tokio::select! {
        // Errors of a connection are the client's to see.
        _ = served => {}
        // Dropping the connection is what the fault asks for; the socket goes with it.
        () = cut.now.notified() => {}
    }
}

async fn answer(
    request: Request<Incoming>,
    mut sandbox: Sandbox,
    cut: Arc<Cut>,
) -> Result<Response<SandboxBody>, ConnectionLost> {
    match sandbox.call(request).await {
        Ok(mut response) => {
            // Hyper would write the system's time, which may not be the sandbox's.
            response.headers_mut().insert(header::DATE, sandbox.date());
            Ok(response.map(|body| body.lingering(LINGER)))
        }
        Err(lost) => {
            cut.with_reset.store(lost.is_reset(), Ordering::Release);
            cut.now.notify_one();
            // An error returned here would still be answered on HTTP/2; the connection ends instead.
            pending().await
        }
    }
}

/// How a connection is to end before its time.
#[derive(Debug, Default)]
struct Cut {
    now: Notify,
    with_reset: AtomicBool,
}

/// A TCP stream that can end in a reset.
struct Socket {
    stream: TcpStream,
    cut: Arc<Cut>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.cut.with_reset.load(Ordering::Acquire) {
            // Without it the close is an orderly one, which a client sees too, only under another name.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
