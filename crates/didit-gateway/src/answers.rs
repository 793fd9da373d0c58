//! The answers that a connection of HTTP/2 is given, each judged by itself.
//!
//! # Why
//!
//! hyper asks a body for more only while its stream's window has room, and h2 keeps what it was handed until then. So an
//! answer whose window never opens is kept for ever, at no cost to the peer, and nobody is told. What goes out is therefore
//! followed frame by frame: an answer that has begun, has not ended, and did not move for too long is given up.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::frames::{Frame, Frames};

/// The answers that have begun and not ended.
#[derive(Debug)]
pub(crate) struct Answers {
    /// Their streams, and when the last frame of each went out.
    begun: Vec<(u32, Instant)>,
    patience: Duration,
    // Ends when the first of them may be overdue, or before.
    timer: Option<Pin<Box<Sleep>>>,
}

// ===== impl Answers =====

impl Answers {
    /// `patience` is how long an answer may stand still.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { begun: Vec::new(), patience, timer: None }
    }

    /// A frame went out.
    pub(crate) fn wrote(&mut self, frame: &Frame, now: Instant) {
        let known = self.begun.iter().position(|(stream, _)| *stream == frame.stream);
        let is_piece = matches!(frame.kind, Frames::HEADERS | Frames::DATA);
        let is_last = frame.kind == Frames::RST_STREAM || is_piece && frame.flags & Frames::END_STREAM != 0;
        match known {
            Some(at) if is_last => drop(self.begun.swap_remove(at)),
            Some(at) if is_piece => self.begun[at].1 = now,
            None if is_piece && !is_last => self.begun.push((frame.stream, now)),
            _ => {}
        }
    }

    /// The streams of answers that stood still for too long, which are forgotten.
    pub(crate) fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Vec<u32>> {
        let Self { begun, patience, timer } = self;
        loop {
            // The timer never ends too late: whatever moves, or begins, has more time than what was there before.
            let Some(moved) = begun.iter().map(|(_, moved)| *moved).min() else { return Poll::Pending };
            let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(moved + *patience)));
            ready!(timer.as_mut().poll(cx));
            let now = Instant::now();
            let overdue = begun.extract_if(.., |(_, moved)| *moved + *patience <= now);
            let overdue: Vec<_> = overdue.map(|(stream, _)| stream).collect();
            let first = begun.iter().map(|(_, moved)| *moved).min().unwrap_or(now);
            timer.as_mut().reset(first + *patience);
            if !overdue.is_empty() {
                return Poll::Ready(overdue);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn frame(kind: u8, flags: u8, stream: u32) -> Frame {
        Frame { kind, flags, stream, begin: [0; 4] }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_stands_still_is_overdue_whatever_the_others_do() {
        let (mut answers, began) = (Answers::new(PATIENCE), Instant::now());
        for stream in [1, 3, 5, 7] {
            answers.wrote(&frame(Frames::HEADERS, 0, stream), began);
        }
        // One has ended, one was reset, and one moves all the time.
        answers.wrote(&frame(Frames::DATA, Frames::END_STREAM, 3), began);
        answers.wrote(&frame(Frames::RST_STREAM, 0, 5), began);
        answers.wrote(&frame(Frames::HEADERS, Frames::END_STREAM, 9), began);
        let moving = async {
            let mut answers = answers;
            for _ in 0..29 {
                tokio::time::advance(Duration::from_secs(1)).await;
                answers.wrote(&frame(Frames::DATA, 0, 7), Instant::now());
                // Neither of these is a piece of an answer.
                answers.wrote(&frame(3 + Frames::RST_STREAM, 0, 1), Instant::now());
            }
            answers
        };
        let mut answers = moving.await;
        assert_eq!(poll_fn(|cx| answers.poll_overdue(cx)).await, [1]);
        assert_eq!(began.elapsed(), PATIENCE);
        assert_eq!(poll_fn(|cx| answers.poll_overdue(cx)).await, [7]);
        assert_eq!(began.elapsed(), PATIENCE + Duration::from_secs(29));
        let nothing = tokio::time::timeout(PATIENCE * 2, poll_fn(|cx| answers.poll_overdue(cx)));
        assert!(nothing.await.is_err());
    }
}
