//! The answers that a connection of HTTP/2 is given, each judged by itself.
//!
//! # Why
//!
//! What is handed to hyper is kept until the window of its stream has room, small answers whole. So one whose window never
//! opens is kept for ever, at no cost to the peer, and nobody is told. What goes out is therefore followed frame by frame:
//! an answer that has begun, has not ended, and has not moved for too long is not being taken.

use tokio::time::{Duration, Instant};

use crate::frames::{Frame, Frames};

/// The answers that have begun and not ended.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// Their streams, and when the last frame of each went out.
    begun: Vec<(u32, Instant)>,
}

/// How answers are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// How many have stood still for too long.
    pub(crate) stalled: usize,
    /// How many others have begun.
    pub(crate) moving: usize,
    /// When the next of these will have stood still for too long.
    pub(crate) until: Option<Instant>,
}

// ===== impl Answers =====

impl Answers {
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

    /// How they are taken, if each may stand still for `patience`.
    pub(crate) fn taken(&self, patience: Duration, now: Instant) -> Taken {
        let ends = self.begun.iter().map(|(_, moved)| *moved + patience);
        let stalled = ends.clone().filter(|end| *end <= now).count();
        Taken { stalled, moving: self.begun.len() - stalled, until: ends.filter(|end| *end > now).min() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn frame(kind: u8, flags: u8, stream: u32) -> Frame {
        Frame { kind, flags, stream, begin: [0; 4] }
    }

    #[test]
    fn an_answer_that_stands_still_is_stalled_whatever_the_others_do() {
        let (mut answers, began) = (Answers::default(), Instant::now());
        for stream in [1, 3, 5, 7] {
            answers.wrote(&frame(Frames::HEADERS, 0, stream), began);
        }
        // One has ended, one was reset, one had no body, and one moves.
        answers.wrote(&frame(Frames::DATA, Frames::END_STREAM, 3), began);
        answers.wrote(&frame(Frames::RST_STREAM, 0, 5), began);
        answers.wrote(&frame(Frames::HEADERS, Frames::END_STREAM, 9), began);
        let later = began + PATIENCE - Duration::from_secs(1);
        answers.wrote(&frame(Frames::DATA, 0, 7), later);
        // No piece of an answer.
        answers.wrote(&frame(Frames::CONTINUATION, 0, 1), later);
        let taken = |now| answers.taken(PATIENCE, now);
        assert_eq!(taken(later), Taken { stalled: 0, moving: 2, until: Some(began + PATIENCE) });
        assert_eq!(taken(began + PATIENCE), Taken { stalled: 1, moving: 1, until: Some(later + PATIENCE) });
        assert_eq!(taken(later + PATIENCE), Taken { stalled: 2, moving: 0, until: None });
    }
}
