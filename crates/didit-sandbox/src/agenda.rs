//! What is still to happen, by time.

use std::{collections::BTreeMap, time::Duration};

/// Things due at a time. Nothing runs in the background: whoever looks at the sandbox first lets what is due happen,
/// in the order and at the times at which it was.
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    due: BTreeMap<(Duration, u64), T>,
    noted: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { due: BTreeMap::new(), noted: 0 }
    }
}

impl<T> Agenda<T> {
    /// Notes what is to happen at `at`; of two things due at once, the first one noted happens first.
    pub(crate) fn note(&mut self, at: Duration, what: T) {
        self.due.insert((at, self.noted), what);
        self.noted += 1;
    }

    /// Takes the next thing that is due at `now` or was before.
    pub(crate) fn next(&mut self, now: Duration) -> Option<(Duration, T)> {
        let first = self.due.first_entry().filter(|first| first.key().0 <= now)?;
        let ((at, _), what) = first.remove_entry();
        Some((at, what))
    }

    pub(crate) fn pending(&self) -> impl Iterator<Item = &T> {
        self.due.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_comes_in_order_and_nothing_else_does() {
        let at = Duration::from_secs;
        let mut agenda = Agenda::default();
        for (when, what) in [(3, "c"), (1, "a"), (3, "d"), (2, "b"), (9, "z")] {
            agenda.note(at(when), what);
        }
        let due: Vec<_> = std::iter::from_fn(|| agenda.next(at(3))).collect();
        assert_eq!(due, [(at(1), "a"), (at(2), "b"), (at(3), "c"), (at(3), "d")]);
        assert_eq!(agenda.pending().collect::<Vec<_>>(), [&"z"]);
    }
}
