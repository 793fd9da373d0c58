//! Didit's ids in bodies that are not in memory.

use super::found::{LARGEST_BODY, is_id};

/// Finds an id of Didit's in JSON that streams by, without keeping what it reads.
///
/// Only what looks like a UUID is taken, and only from the first 16 KiB: everything else may be a person's, or forge a
/// line. Used by [`SessionIdLayer`](super::SessionIdLayer), and there for bodies that it does not see.
///
/// # Example
///
/// ```
/// use tower_didit::telemetry::IdScan;
///
/// let mut scan = IdScan::session();
/// assert_eq!(scan.feed(br#"{"session_id":"11111111-2222-4333-"#), None);
/// assert_eq!(scan.feed(br#"8444-555555555555"}"#), Some("11111111-2222-4333-8444-555555555555"));
/// ```
#[derive(Clone, Debug)]
pub struct IdScan {
    key: &'static [u8],
    place: Place,
    value: [u8; 36],
    read: usize,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// So many bytes of the key have been seen.
    Key(usize),
    /// Behind the key.
    Colon,
    /// Before the value.
    Quote,
    /// So many bytes of the value have been seen.
    Value(usize),
}

// ===== impl IdScan =====

impl IdScan {
    /// Looks for `session_id`, which the answer of a creation has.
    pub fn session() -> Self {
        Self::of(b"\"session_id\"")
    }

    /// Looks for `workflow_id`, which a creation asks for.
    pub fn workflow() -> Self {
        Self::of(b"\"workflow_id\"")
    }

    fn of(key: &'static [u8]) -> Self {
        Self { key, place: Place::Key(0), value: [0; 36], read: 0 }
    }

    /// Whether so much has been read that nothing more is looked at.
    pub fn is_over(&self) -> bool {
        self.read > LARGEST_BODY
    }

    /// Reads on; the id, if it ends here.
    pub fn feed(&mut self, data: &[u8]) -> Option<&str> {
        if self.is_over() {
            return None;
        }
        self.read = self.read.saturating_add(data.len());
        for &byte in data {
            self.place = match (self.place, byte) {
                (Place::Key(seen), _) if byte == self.key[seen] && seen + 1 == self.key.len() => Place::Colon,
                (Place::Key(seen), _) if byte == self.key[seen] => Place::Key(seen + 1),
                (Place::Colon | Place::Quote, b' ' | b'\t' | b'\r' | b'\n') => self.place,
                (Place::Colon, b':') => Place::Quote,
                (Place::Quote, b'"') => Place::Value(0),
                (Place::Value(36), b'"') if std::str::from_utf8(&self.value).is_ok_and(is_id) => {
                    self.place = Place::Key(0);
                    return std::str::from_utf8(&self.value).ok();
                }
                (Place::Value(seen), _) if seen < self.value.len() && byte != b'"' => {
                    self.value[seen] = byte;
                    Place::Value(seen + 1)
                }
                // Something else; a quote may begin the key.
                (_, b'"') => Place::Key(1),
                _ => Place::Key(0),
            };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "11111111-2222-4333-8444-555555555555";

    #[test]
    fn only_the_value_of_the_key_is_taken() {
        let found = |text: &str| IdScan::session().feed(text.as_bytes()).map(str::to_owned);
        assert_eq!(found(&format!(r#"{{"session_id" : "{ID}"}}"#)).as_deref(), Some(ID));
        assert_eq!(found(&format!(r#"{{"note":"session_id","session_id":"{ID}"}}"#)).as_deref(), Some(ID));
        assert_eq!(found(&format!(r#"{{"session_id":null,"session_id":"{ID}"}}"#)).as_deref(), Some(ID));
        assert_eq!(found(&format!(r#"{{"my_session_id":"{ID}"}}"#)), None);
        assert_eq!(found(&format!(r#"{{"session_id":"{ID}0"}}"#)), None);
        assert_eq!(found(r#"{"session_id":"Ada Example, 1815-12-10, London, Eng"}"#), None);
        assert_eq!(found(&format!(r#"{{"session_number":7,"session_token":"{ID}"}}"#)), None);
    }

    #[test]
    fn either_id_is_looked_for_and_not_beyond_the_largest_body() {
        let body = format!(r#"{{"session_id":"x","workflow_id":"{ID}"}}"#);
        assert_eq!(IdScan::workflow().feed(body.as_bytes()), Some(ID));
        assert_eq!(IdScan::session().feed(body.as_bytes()), None);
        let mut scan = IdScan::workflow();
        assert!(!scan.is_over());
        assert_eq!(scan.feed(&[b' '; LARGEST_BODY + 1]), None);
        assert!(scan.is_over());
        assert_eq!(scan.feed(body.as_bytes()), None);
    }

    proptest! {
        #[test]
        fn it_is_found_however_the_body_is_cut(
            before in "[ -~]{0,40}", cuts in prop::collection::vec(0..200_usize, 0..8),
        ) {
            let text = format!(r#"{{"callback":{before:?},"session_id":"{ID}","url":"x"}}"#);
            prop_assume!(!before.contains("session_id"));
            let (mut scan, mut rest, mut found) = (IdScan::session(), text.as_bytes(), None);
            for cut in cuts {
                let (piece, more) = rest.split_at(cut.min(rest.len()));
                found = found.or(scan.feed(piece).map(str::to_owned));
                rest = more;
            }
            found = found.or(scan.feed(rest).map(str::to_owned));
            prop_assert_eq!(found.as_deref(), Some(ID));
        }

        #[test]
        fn no_bytes_panic(data in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut scan = IdScan::session();
            if let Some(id) = scan.feed(&data) {
                prop_assert!(is_id(id));
            }
        }
    }
}
