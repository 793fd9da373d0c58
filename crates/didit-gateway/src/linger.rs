//! How a connection ends on which the peer may still be sending.
//!
//! A connection that is closed with bytes unread, or to which something comes when it is closed, is reset (RFC 9112 section
//! 9.6). That destroys what the kernel still has to send, and a peer that is told that it cannot write any more may not read
//! the rest of what it got either. So what was written is sent first; then the peer is told that nothing more comes; and what
//! it says meanwhile is read, until it is done as well, or has had the time for it.

use std::{net::Shutdown, time::Duration};

use socket2::SockRef;
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};

use crate::conversation::Conversation;

/// How long a peer may go on sending what is not read, once all that it is answered was sent.
const LINGER: Duration = Duration::from_millis(500);

/// Waits until a connection can be closed. `patience` is how long the peer may leave what was written unread.
pub(crate) async fn linger(stream: TcpStream, conversation: &Conversation, patience: Duration) {
    // From here on there is room for more when everything is sent. Other kernels do not say, and there it is taken for sent.
    #[cfg(target_os = "linux")]
    let _ = SockRef::from(&stream).set_tcp_notsent_lowat(1);
    // tokio remembers that there was room before, so it is made to ask anew. It fails only where the runtime is gone.
    let Ok(mut stream) = stream.into_std().and_then(TcpStream::from_std) else { return };
    let (mut reading, writing) = stream.split();
    let has_time = async {
        let _ = timeout(patience, writing.writable()).await;
        let _ = SockRef::from(writing.as_ref()).shutdown(Shutdown::Write);
        let end = Instant::now() + LINGER;
        // Whoever has much to read says meanwhile that it can take more.
        sleep_until(conversation.reads_until(patience).unwrap_or(end).max(end)).await;
    };
    let is_done = async {
        // Not within the future, which is part of every connection's.
        let mut scrap = vec![0; 4096];
        while let Ok(1..) = reading.read(&mut scrap).await {}
    };
    tokio::select! {
        () = has_time => {}
        () = is_done => {}
    }
}
