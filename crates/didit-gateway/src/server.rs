//! Connections: taken, served, and let go of in good order.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::unconstrained,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tower_didit::call::CorrelationId;

use crate::{
    conversation::{Conversation, Patience, TooLong},
    linger::linger,
    log::{self, Chain},
    proxy::{Phase, Proxy},
    settings::Settings,
    socket::Socket,
};

/// How long connections are still taken, and idle ones kept, once the gateway is told to stop: what is on its way on
/// this machine arrives, and is told to come back instead of finding nobody.
const STILL_TAKEN: Duration = Duration::from_millis(200);

/// How long the last answers of calls that were cut off may take to be written, and a peer to hear that a connection ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How many streams one connection of HTTP/2 may have at once.
const STREAMS: u32 = 256;

/// How many bytes of a request's body one stream of HTTP/2 may have sent that nobody has asked for.
const STREAM_WINDOW: u32 = 64 * 1024;

/// How many bytes all streams of a connection may have sent that nobody has asked for: as many as each of them may, so that
/// calls that wait take nothing from those that are being sent. It is what one connection can make the gateway keep.
const WINDOW: u32 = STREAM_WINDOW * STREAMS;

/// Serves until `phase` says that it is time to stop, and then to the end of the grace period at the most.
pub(crate) async fn serve(listener: TcpListener, proxy: Arc<Proxy>, phase: watch::Sender<Phase>) {
    let Settings { max_connections, grace, .. } = proxy.settings;
    let ((leave, _), places) = (watch::channel(false), Arc::new(Semaphore::new(max_connections)));
    let builder = builder(&proxy.settings);
    let mut stopping = phase.subscribe();
    let take = |stream, place| {
        tokio::spawn(connection(stream, builder.clone(), Arc::clone(&proxy), leave.subscribe(), place));
    };
    let accept = async {
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => take(stream, Some(place)),
                // Out of descriptors, or a peer that left at once: neither is a reason to stop.
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = async {
            // An error means that nobody can say any more, which is the same.
            let _ = stopping.wait_for(|phase| *phase > Phase::Serving).await;
            sleep(STILL_TAKEN).await;
        } => {}
    }
    let end = Instant::now() + grace.0;
    // Whoever waits to be taken would be reset. All of them are told to come back, whether there is a place or not; they
    // are no more than the others.
    let mut waiting = 0;
    while waiting < max_connections {
        tokio::select! {
            biased;
            // The budget of a task is no reason to leave one behind.
            Ok((stream, _)) = unconstrained(listener.accept()) => take(stream, None),
            () = std::future::ready(()) => break,
        }
        waiting += 1;
    }
    drop(listener);
    if leave.receiver_count() > 0 {
        // hyper ends a connection of which it has read nothing without an answer, and the last of them have only just come.
        sleep(STILL_TAKEN).await;
    }
    leave.send_replace(true);
    let mut ended = pin!(leave.closed());
    if timeout_at(end, &mut ended).await.is_err() {
        phase.send_replace(Phase::Over);
        // Whoever is still there after this keeps the connection until the runtime ends.
        let _ = timeout(LAST_WORDS, ended).await;
    }
}

fn builder(settings: &Settings) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).max_headers(settings.max_headers).max_buf_size(settings.max_head);
    // Slow heads are the conversation's business: hyper's own timeout would also end connections that stand idle.
    builder.http1().header_read_timeout(None);
    let most = u32::try_from(settings.max_head).unwrap_or(u32::MAX);
    builder.http2().timer(TokioTimer::new()).max_header_list_size(most).max_concurrent_streams(STREAMS);
    builder.http2().initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(WINDOW);
    builder
}

async fn connection(
    stream: TcpStream,
    builder: auto::Builder<TokioExecutor>,
    proxy: Arc<Proxy>,
    mut leave: watch::Receiver<bool>,
    _place: Option<OwnedSemaphorePermit>,
) {
    // Answers are small; waiting for more to send would add up to 40 ms to each.
    let _ = stream.set_nodelay(true);
    let conversation = Conversation::new();
    let Settings { header_timeout: head, idle_timeout: idle, body_timeout: body, .. } = proxy.settings;
    let patience = Patience { head: head.0, idle: idle.0, last_words: None, body: body.0 };
    let correlation = proxy.correlation.clone();
    let (socket, mut left) = Socket::new(stream, Arc::clone(&conversation), patience.body, correlation);
    let service = {
        let conversation = Arc::clone(&conversation);
        service_fn(move |request| {
            let (proxy, conversation) = (Arc::clone(&proxy), Arc::clone(&conversation));
            // At once: what is written from here on is this request's.
            let in_flight = conversation.begin(&proxy.in_flight);
            async move { Ok::<_, Infallible>(proxy.answer(request, &conversation, in_flight).await) }
        })
    };
    let ended = {
        let mut served = pin!(builder.serve_connection(TokioIo::new(socket), service));
        let mut told = None;
        loop {
            let too_long = async {
                let Some(told) = told else { return conversation.too_long(patience).await };
                // A peer has a moment to hear that its connection ends. One of HTTP/2 hears it behind all that was written,
                // says so by answering hyper's PING, and has the time that it has for an answer if that was much.
                sleep_until(told + LAST_WORDS).await;
                conversation.too_long(Patience { last_words: Some(LAST_WORDS), ..patience }).await
            };
            tokio::select! {
                biased;
                result = served.as_mut() => break Err(result),
                // Both are looked at even if the peer keeps the task so busy that its budget is used up.
                () = unconstrained(async {
                    // An error means that the server is gone, which is the same.
                    let _ = leave.wait_for(|leave| *leave).await;
                    conversation.can_be_told().await;
                }), if told.is_none() => {}
                too_long = unconstrained(too_long) => {
                    if told.is_some() || too_long == TooLong::Head {
                        break Ok(too_long);
                    }
                }
            }
            // What is under way goes on.
            served.as_mut().graceful_shutdown();
            told = Some(Instant::now());
        }
    };
    // By now the socket is gone, and has written its last words.
    let reason = match &ended {
        // Errors of a connection are the application's to see; what was refused unread is the operator's too.
        Err(served) => served.as_ref().err().and_then(|error| unreadable(&**error)),
        Ok(TooLong::Head) => Some(format!("its head had not ended after {:?}", patience.head)),
        Ok(_) => None,
    };
    if let Some(reason) = reason {
        let (id, status) = conversation.refusal().unzip();
        log::refused(&id.unwrap_or_else(CorrelationId::random), status, &reason);
    }
    // Whoever does not take its answers has had its time.
    if !matches!(ended, Ok(TooLong::Answers))
        && conversation.is_lingering()
        && let Ok(stream) = left.try_recv()
    {
        linger(stream, &conversation, patience.body).await;
    }
}

/// Why hyper refused what came in, if that is what ended a connection.
fn unreadable(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let hyper: &hyper::Error = error.downcast_ref()?;
    // A version of HTTP that the connection did not begin with is one of these.
    let http1 = hyper.is_parse() || hyper.is_parse_too_large() || hyper.is_parse_version_h2();
    let http2 = || error.source()?.downcast_ref::<h2::Error>().filter(|error| error.is_library());
    (http1 || http2().is_some()).then(|| Chain(error).to_string())
}

/// How many bytes the kernel keeps that a peer has not read. It asks for more when a third of that is free, so the more it
/// keeps, the longer a peer that reads slowly looks as if it did not read at all.
const UNREAD: u32 = 256 * 1024;

/// How many connections may wait to be taken.
const BACKLOG: u32 = 1024;

/// Listens, and says where.
pub(crate) async fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As `TcpListener::bind` does: a port is free as soon as its last owner is gone.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    // The connections have it from the listener.
    socket.set_send_buffer_size(UNREAD)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
