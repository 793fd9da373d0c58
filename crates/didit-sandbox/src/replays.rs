//! Answers kept for an `Idempotency-Key`.

use std::collections::HashMap;

use bytes::Bytes;

use crate::answer::Answer;

/// The longest `Idempotency-Key` that Didit takes, in bytes (Didit's page on API errors).
pub(crate) const LONGEST_KEY: usize = 255;

/// What is known about a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Replay {
    /// Nothing: do the work.
    New,
    /// The same request was answered before.
    Same(Answer),
    /// The key belongs to another request.
    Conflict,
}

/// Answers by key, kept until the sandbox is reset.
#[derive(Debug, Default)]
pub(crate) struct Replays(HashMap<String, Kept>);

#[derive(Debug)]
struct Kept {
    route: String,
    body: Bytes,
    answer: Answer,
}

impl Replays {
    pub(crate) fn look_up(&self, key: &str, route: &str, body: &Bytes) -> Replay {
        match self.0.get(key) {
            None => Replay::New,
            Some(kept) if kept.route == route && kept.body == body => Replay::Same(kept.answer.clone()),
            Some(_) => Replay::Conflict,
        }
    }

    pub(crate) fn keep(&mut self, key: &str, route: &str, body: Bytes, answer: Answer) {
        self.0.insert(key.to_owned(), Kept { route: route.to_owned(), body, answer });
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn a_key_belongs_to_one_request() {
        let mut replays = Replays::default();
        let answer = Answer::empty(StatusCode::OK);
        let (body, other) = (Bytes::from("a"), Bytes::from("b"));
        assert_eq!(replays.look_up("k", "aml", &body), Replay::New);
        replays.keep("k", "aml", body.clone(), answer.clone());
        assert_eq!(replays.look_up("k", "aml", &body), Replay::Same(answer));
        assert_eq!(replays.look_up("k", "aml", &other), Replay::Conflict);
        assert_eq!(replays.look_up("k", "poa", &body), Replay::Conflict);
    }
}
