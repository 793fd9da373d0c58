//! A server whose every connection is counted.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

/// What an upstream answers with.
pub type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

/// A server on loopback, on a thread of its own, so that what a test measures on its thread is the client alone.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    // Dropped first, which ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Speaks HTTP/1.1: calls `answer` with the number of each request, counted from 1, and the request.
    ///
    /// # Errors
    ///
    /// If no port can be listened on.
    pub fn http<F, A>(answer: F) -> io::Result<Self>
    where
        F: Fn(usize, Request<Incoming>) -> A + Clone + Send + 'static,
        A: Future<Output = Response<AnyBody>> + 'static,
    {
        let requests = Arc::new(AtomicUsize::new(0));
        Self::raw(move |_, stream| {
            let (answer, requests) = (answer.clone(), Arc::clone(&requests));
            async move {
                let service = service_fn(move |request| {
                    let answered = answer(requests.fetch_add(1, Ordering::SeqCst) + 1, request);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                // A connection that the client ends is none of a test's business.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            }
        })
    }

    /// Hands each connection to `serve`, with its number, counted from 1.
    ///
    /// # Errors
    ///
    /// If no port can be listened on.
    pub fn raw<F, A>(serve: F) -> io::Result<Self>
    where
        F: Fn(usize, TcpStream) -> A + Send + 'static,
        A: Future<Output = ()> + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let accepted = Arc::new(AtomicUsize::new(0));
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn({
            let accepted = Arc::clone(&accepted);
            move || {
                let local = tokio::task::LocalSet::new();
                local.block_on(&runtime, async move {
                    let Ok(listener) = TcpListener::from_std(listener) else { return };
                    let accept = async {
                        while let Ok((stream, _)) = listener.accept().await {
                            let _ = stream.set_nodelay(true);
                            tokio::task::spawn_local(serve(accepted.fetch_add(1, Ordering::SeqCst) + 1, stream));
                        }
                    };
                    tokio::select! {
                        () = accept => {}
                        _ = stopped => {}
                    }
                });
            }
        });
        Ok(Self { address, accepted, stop: Some(stop), thread: Some(thread) })
    }

    /// The URI of a path on it.
    pub fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many connections it has accepted.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
