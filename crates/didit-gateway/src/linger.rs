//! How a connection ends on which the peer may still be sending.
//!
//! A connection that is closed with bytes unread, or to which something comes when it is closed, is reset (RFC 9112 section
//! 9.6). That destroys what the kernel still has to send, and a peer that is told that it cannot write any more may not read
//! the rest of what it got either. So what was written is sent first; then the peer is told that nothing more comes; and what
//! it says meanwhile is read, until it is done as well, or has had the time for it.

use std::{io, net::Shutdown, time::Duration};

use socket2::SockRef;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};

use crate::conversation::Conversation;

/// How long a peer may go on sending what is not read, once all that it is answered was sent.
const LINGER: Duration = Duration::from_millis(500);

/// Waits until a connection can be closed. `patience` is how long the peer may leave what was written unread.
pub(crate) async fn linger(stream: &TcpStream, conversation: &Conversation, patience: Duration) {
    let have_time = async {
        // If nobody can say, it is taken for sent, as it nearly always is.
        let _ = timeout(patience, sent(stream)).await;
        let _ = SockRef::from(stream).shutdown(Shutdown::Write);
        let end = Instant::now() + LINGER;
        // Whoever has much to read says meanwhile that it can take more.
        sleep_until(conversation.reads_until(patience).unwrap_or(end).max(end)).await;
    };
    tokio::select! {
        () = have_time => {}
        () = done(stream) => {}
    }
}

/// Ends when the peer sends nothing more.
async fn done(stream: &TcpStream) {
    let mut scrap = [0; 4096];
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut scrap) {
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
        }
    }
}

/// Ends when the kernel has sent all that was written: the peer's had room for it.
#[cfg(target_os = "linux")]
async fn sent(stream: &TcpStream) -> io::Result<()> {
    use std::os::fd::AsFd as _;

    // From here on there is room for more when nothing is left.
    SockRef::from(stream).set_tcp_notsent_lowat(1)?;
    // The stream itself remembers that there was room before; another one of the same connection asks anew.
    let other = stream.as_fd().try_clone_to_owned()?;
    TcpStream::from_std(other.into())?.writable().await
}

/// Other kernels do not say.
#[cfg(not(target_os = "linux"))]
async fn sent(_: &TcpStream) -> io::Result<()> {
    Ok(())
}
