//! When a peer has taken too long.

use std::time::Duration;

use tokio::time::Instant;

use super::Conversation;

/// How long a peer may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Over the head of a request, counted from its first byte.
    pub(crate) head: Duration,
    /// Without a request, a head that has begun, or an answer that is being written, whatever else it sends.
    pub(crate) idle: Duration,
    /// Instead of `idle`, once it was told that its connection ends; it has `body` for what it may have to read.
    pub(crate) last_words: Option<Duration>,
    /// Over taking some of any of its answers, in HTTP/2, where nothing can be written without its leave.
    pub(crate) body: Duration,
}

/// What a peer has taken too long over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooLong {
    Head,
    Idle,
    Answers,
}

impl Conversation {
    /// Ends when the peer has taken too long.
    pub(crate) async fn too_long(&self, patience: Patience) -> TooLong {
        let Patience { head, last_words, body, .. } = patience;
        loop {
            let now = Instant::now();
            let idle = last_words.unwrap_or(patience.idle);
            let first = {
                let followed = self.followed();
                let reads = last_words.and_then(|_| followed.reads_until(body));
                let idle_until = Some(followed.active + idle).max(reads);
                let is_http2 = followed.framing.is_http2();
                let is_idle = followed.is_idle();
                // One that waits for the upstream has time.
                let untaken = is_http2 && followed.unwritten > 0 && followed.answered == followed.in_flight;
                // Behind a request of HTTP/1 that is being answered nothing is read, so the peer could not end its head.
                let began = followed.head.and_then(|(_, since)| match is_http2 {
                    true => Some(since),
                    false => is_idle.then(|| since.max(followed.active)),
                });
                let ends = [
                    began.map(|began| (began + head, TooLong::Head)),
                    idle_until.filter(|_| is_idle && began.is_none()).map(|end| (end, TooLong::Idle)),
                    untaken.then(|| (followed.active + body, TooLong::Answers)),
                ];
                ends.into_iter().flatten().min_by_key(|(end, _)| *end)
            };
            if let Some((_, too_long)) = first.filter(|(end, _)| *end <= now) {
                let mut followed = self.followed();
                followed.is_late = too_long == TooLong::Head && !followed.framing.is_http2();
                return too_long;
            }
            // Something may begin meanwhile, so no sleep is longer than what ends first may take.
            let soon = now + head.min(idle).min(body);
            tokio::time::sleep_until(first.map_or(soon, |(end, _)| end.min(soon))).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::sleep;

    use super::{super::ARRIVED, *};

    const HEAD: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(120);
    const BODY: Duration = Duration::from_secs(30);
    const PATIENCE: Patience = Patience { head: HEAD, idle: IDLE, last_words: None, body: BODY };

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
            _ = conversation.too_long(PATIENCE) => {}
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
            let piece = request.piece();
            drop(request);
            // Its answer is not written yet.
            sleep(IDLE * 5).await;
            drop(piece);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = answered => {}
            _ = conversation.too_long(PATIENCE) => {}
        }
        assert_eq!(began.elapsed(), IDLE * 10 + HEAD);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_of_http2_that_nobody_takes_are_not_kept() {
        let (conversation, total, began) = (Conversation::new(), Arc::default(), Instant::now());
        conversation.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let (mut one, mut other) = (conversation.begin(&total), conversation.begin(&total));
        one.answered();
        let _piece = one.piece();
        let upstream = async {
            // As long as the other waits for the upstream, the one does not count.
            sleep(BODY * 3).await;
            other.answered();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = upstream => {}
            too_long = conversation.too_long(PATIENCE) => assert_eq!(too_long, TooLong::Answers),
        }
        assert_eq!(began.elapsed(), BODY * 4);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_told_to_leave_has_time_for_what_was_written_since() {
        let second = Duration::from_secs(1);
        let told = Patience { last_words: Some(second), ..PATIENCE };
        // The last asks for something small before it has read what is much.
        for (sent, again, patience) in [(ARRIVED, false, second), (ARRIVED + 1, false, BODY), (ARRIVED + 1, true, BODY)]
        {
            let (conversation, total, began) = (Conversation::new(), Arc::default(), Instant::now());
            let request = conversation.begin(&total);
            let upstream = async {
                sleep(Duration::from_secs(5)).await;
                conversation.sent(sent);
                drop(request);
                if again {
                    drop(conversation.begin(&total));
                    conversation.sent(1);
                }
                // What hyper says of itself is no answer.
                sleep(second / 2).await;
                conversation.sent(17);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = upstream => {}
                too_long = conversation.too_long(told) => assert_eq!(too_long, TooLong::Idle),
            }
            assert_eq!(began.elapsed(), Duration::from_secs(5) + patience);
            assert_eq!(conversation.reads_until(BODY), None, "it has had its time");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_answer_that_is_held_up_is_a_reason_to_wait() {
        for asks in [false, true] {
            let (conversation, total, began) = (Conversation::new(), Arc::default(), Instant::now());
            drop(asks.then(|| conversation.begin(&total)));
            let held_up = async {
                for blocked in [true, false] {
                    conversation.blocked(blocked);
                    sleep(IDLE * 2).await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = held_up => {}
                too_long = conversation.too_long(PATIENCE) => assert_eq!(too_long, TooLong::Idle),
            }
            assert_eq!(began.elapsed(), if asks { IDLE * 3 } else { IDLE });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_again_has_read_what_was_before_though_another_call_waits() {
        let (conversation, total) = (Conversation::new(), Arc::default());
        let waiting = conversation.begin(&total);
        for _ in 0..100 {
            let mut request = conversation.begin(&total);
            request.answered();
            conversation.sent(ARRIVED / 10);
        }
        assert_eq!(conversation.reads_until(BODY), None);
        drop(waiting);
    }

    #[tokio::test(start_paused = true)]
    async fn what_counts_is_what_was_written_and_not_what_was_handed_out() {
        let idle = Duration::from_secs(5);
        for has_ended in [false, true] {
            let (conversation, total, began) = (Conversation::new(), Arc::default(), Instant::now());
            conversation.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            let mut request = conversation.begin(&total);
            request.answered();
            let piece = request.piece();
            let request = (!has_ended).then_some(request);
            let reading = async {
                for _ in 0..5 {
                    sleep(Duration::from_secs(20)).await;
                    piece.moved();
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = reading => {}
                too_long = conversation.too_long(Patience { idle, ..PATIENCE }) => assert_eq!(too_long, TooLong::Answers),
            }
            assert_eq!(began.elapsed(), Duration::from_secs(100) + BODY);
            drop(piece);
            // Without it the peer owes nothing, whether the upstream has more or not.
            let waiting = tokio::time::timeout(BODY * 2, conversation.too_long(Patience { idle, ..PATIENCE })).await;
            assert_eq!(waiting.ok(), has_ended.then_some(TooLong::Idle));
            drop(request);
            assert_eq!(conversation.too_long(PATIENCE).await, TooLong::Idle);
        }
    }
}
