//! Servers that do what no server should: each connection goes through the same steps.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
        server::WebPkiClientVerifier,
    },
};

/// One thing that a server does with a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// Reads a byte.
    ReadSome,
    /// Reads up to the end of a JSON body.
    ReadRequest,
    /// Reads HTTP/2 frames up to the end of a request.
    ReadStream,
    Write(&'static [u8]),
    /// Ends the connection in order, with FIN if all was read.
    Close,
    /// Breaks the connection with RST.
    Reset,
    /// Never does anything again.
    Hang,
}

/// Starts a server and tells its address.
pub(super) async fn serve(steps: &'static [Step]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = stream;
                for step in steps {
                    if !take(&mut stream, *step).await {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// A port that nobody listens at.
pub(super) async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Whether the connection goes on.
async fn take(stream: &mut TcpStream, step: Step) -> bool {
    match step {
        Step::ReadSome => stream.read_u8().await.is_ok(),
        Step::ReadRequest => read_request(stream).await,
        Step::ReadStream => read_stream(stream).await,
        Step::Write(bytes) => stream.write_all(bytes).await.is_ok(),
        Step::Close => false,
        Step::Reset => {
            stream.set_zero_linger().unwrap();
            false
        }
        Step::Hang => std::future::pending().await,
    }
}

async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> bool {
    let mut byte = 0;
    while byte != b'}' {
        match stream.read_u8().await {
            Ok(read) => byte = read,
            Err(_) => return false,
        }
    }
    true
}

async fn read_stream(stream: &mut TcpStream) -> bool {
    const PREFACE: usize = 24;
    const HEADERS_OR_DATA: std::ops::RangeInclusive<u8> = 0..=1;
    const END_STREAM: u8 = 1;

    let mut skipped = vec![0; PREFACE];
    if stream.read_exact(&mut skipped).await.is_err() {
        return false;
    }
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return false;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        skipped.resize(length, 0);
        if stream.read_exact(&mut skipped).await.is_err() {
            return false;
        }
        if HEADERS_OR_DATA.contains(&head[3]) && head[4] & END_STREAM != 0 {
            return true;
        }
    }
}

/// A TLS server with a certificate of its own, which asks clients for theirs or not.
pub(super) async fn serve_tls(asks_for_a_certificate: bool) -> (SocketAddr, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder();
    let config = if asks_for_a_certificate {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        config.with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap())
    } else {
        config.with_no_client_auth()
    };
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate.clone()], key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    read_request(&mut stream).await;
                    answer(&mut stream).await;
                }
            });
        }
    });
    (address, certificate)
}

async fn answer<S: AsyncWrite + Unpin>(stream: &mut S) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let _ = stream.flush().await;
}

/// Whatever a server read, over all its connections.
pub(super) type Seen = Arc<Mutex<Vec<u8>>>;

/// A server that answers, closes and resets as `fate` says, and remembers every byte that reached it.
pub(super) async fn serve_capriciously(fate: impl Fn() -> u32 + Send + Sync + 'static) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (fate, seen) = (Arc::new(fate), Seen::default());
    let memory = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (fate, memory) = (Arc::clone(&fate), Arc::clone(&memory));
            tokio::spawn(live(stream, fate, memory));
        }
    });
    (address, seen)
}

async fn live(mut stream: TcpStream, fate: Arc<impl Fn() -> u32>, memory: Seen) {
    let mut buffer = [0; 4096];
    loop {
        match fate() % 6 {
            0 => return,
            1 => return stream.set_zero_linger().unwrap(),
            // Half of the connections that live get to answer.
            _ => {}
        }
        let Ok(read @ 1..) = stream.read(&mut buffer).await else { return };
        memory.lock().unwrap().extend(&buffer[..read]);
        match fate() % 4 {
            0 => return,
            1 => return stream.set_zero_linger().unwrap(),
            _ => answer(&mut stream).await,
        }
    }
}
