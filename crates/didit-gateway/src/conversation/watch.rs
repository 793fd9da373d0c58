//! When a peer has taken too long.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;

use super::Conversation;

/// How long a peer may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Over the head of a request, counted from its first byte.
    pub(crate) head: Duration,
    /// Without a request, whatever else it sends.
    pub(crate) idle: Duration,
    /// Over taking another piece of an answer, in HTTP/2: what nothing can be written of is nowhere waited for.
    pub(crate) body: Duration,
}

/// What a peer has taken too long over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooLong {
    Head,
    Idle,
    /// So many answers. `alone` if nothing else is left to be answered.
    Answers {
        count: usize,
        alone: bool,
    },
}

impl Conversation {
    /// Ends when the peer has taken too long; of one that was told to leave, answers count only when they are `alone`.
    pub(crate) async fn too_long(&self, patience: Patience, leaving: bool) -> TooLong {
        let Patience { head, idle, body } = patience;
        loop {
            let now = Instant::now();
            let (end, head_end, taken) = {
                let followed = self.followed();
                let busy = self.in_flight.load(Ordering::Relaxed) > 0;
                let head_end = followed.head.and_then(|(_, since)| match followed.framing.is_http2() {
                    true => Some(since + head),
                    // Behind a request that is being answered nothing is read, so the peer could not end it.
                    false => (!busy).then(|| since.max(followed.active) + head),
                });
                let idle_end = (!busy).then(|| followed.active + idle);
                let taken = followed.answers.taken(body, now);
                (head_end.into_iter().chain(idle_end).min(), head_end, taken)
            };
            let alone = taken.moving == 0 && self.unanswered.load(Ordering::Relaxed) == 0;
            if taken.stalled > 0 && (alone || !leaving) {
                return TooLong::Answers { count: taken.stalled, alone };
            }
            if end.is_some_and(|end| end <= now) {
                let is_head = head_end.is_some_and(|end| end <= now);
                let mut followed = self.followed();
                followed.is_late = is_head && !followed.framing.is_http2();
                return if is_head { TooLong::Head } else { TooLong::Idle };
            }
            // Something may begin meanwhile, so no sleep is longer than what ends first may take.
            let soon = now + head.min(idle).min(body);
            let next = end.into_iter().chain(taken.until).fold(soon, Instant::min);
            tokio::time::sleep_until(next).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::sleep;

    use super::*;
    use crate::frames::{Frame, Frames};

    const HEAD: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(120);
    const BODY: Duration = Duration::from_secs(30);
    const PATIENCE: Patience = Patience { head: HEAD, idle: IDLE, body: BODY };

    /// After how many seconds a client is let go of that sends a piece each second, all over again.
    async fn held(before: &[u8], pieces: impl Iterator<Item = Vec<u8>>) -> u64 {
        let (conversation, began) = (Conversation::new(), Instant::now());
        conversation.read(before);
        let drip = async {
            for piece in pieces {
                sleep(Duration::from_secs(1)).await;
                conversation.read(&piece);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = drip => {}
            _ = conversation.too_long(PATIENCE, false) => {}
        }
        began.elapsed().as_secs()
    }

    fn bytes(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        text.iter().map(|byte| vec![*byte]).collect::<Vec<_>>().into_iter()
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_comes_byte_by_byte_is_not_waited_for() {
        let head = format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(1_000));
        assert_eq!(held(b"", bytes(head.as_bytes())).await, 11, "10 s from its first byte, which came after one");
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        assert_eq!(held(b"", bytes(preface)).await, 11);
        let headers = [&[0, 3, 232, 1, 4, 0, 0, 0, 1][..], &[b'x'; 1_000]].concat();
        assert_eq!(held(preface, bytes(&headers)).await, 14, "its fourth byte says that it is a head");
        let continued = (0..1_000).map(|number| vec![0, 0, 0, if number == 0 { 1 } else { 9 }, 0, 0, 0, 0, 1]);
        assert_eq!(held(preface, continued).await, 11);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_request_no_byte_is_a_sign_of_life() {
        assert_eq!(held(b"", std::iter::repeat_with(|| b"\r\n".to_vec()).take(1_000)).await, 12);
        let ping = std::iter::repeat_with(|| [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[0; 8]].concat());
        assert_eq!(held(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ping.take(1_000)).await, 120);
        // Behind what was refused nothing is a head.
        let after = b"GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n";
        assert_eq!(held(after, bytes(&[b'x'; 1_000])).await, 120);
        assert_eq!(held(b"", std::iter::empty()).await, 120);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_without_a_request_begins_with_the_end_of_the_last() {
        let (conversation, total, began) = (Conversation::new(), Arc::default(), Instant::now());
        // The next head has begun, and waits behind the request.
        conversation.read(b"GET / HTTP/1.1\r\n\r\nGET");
        let request = conversation.begin(&total);
        let answered = async {
            sleep(IDLE * 5).await;
            drop(request);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = answered => {}
            _ = conversation.too_long(PATIENCE, false) => {}
        }
        assert_eq!(began.elapsed(), IDLE * 5 + HEAD);
    }

    /// A frame of an answer to a stream: its head, or its end.
    fn frame(stream: u32, is_last: bool) -> Frame {
        let (kind, flags) =
            if is_last { (Frames::DATA, Frames::END_STREAM) } else { (Frames::HEADERS, Frames::END_HEADERS) };
        Frame { kind, flags, stream, begin: [0; 4] }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_ends_the_connection_when_nothing_else_is_left() {
        let (conversation, total, began) = (Conversation::new(), Arc::default(), Instant::now());
        conversation.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let (mut stalled, mut other) = (conversation.begin(&total), conversation.begin(&total));
        stalled.answered();
        conversation.wrote(&frame(1, false));
        let too_long = conversation.too_long(PATIENCE, false).await;
        assert_eq!((too_long, began.elapsed()), (TooLong::Answers { count: 1, alone: false }, BODY));
        // The other waits for the upstream, and takes its time over its answer.
        let upstream = async {
            sleep(BODY * 3).await;
            other.answered();
            for _ in 0..5 {
                conversation.wrote(&frame(3, false));
                sleep(BODY / 2).await;
            }
            conversation.wrote(&frame(3, true));
            drop(other);
            std::future::pending::<()>().await;
        };
        let too_long = tokio::select! {
            () = upstream => TooLong::Idle,
            too_long = conversation.too_long(PATIENCE, true) => too_long,
        };
        assert_eq!(too_long, TooLong::Answers { count: 1, alone: true });
        let ended = BODY * 4 + BODY * 5 / 2;
        assert!(began.elapsed() >= ended && began.elapsed() <= ended + HEAD, "{:?}", began.elapsed());
    }
}
