//! Whether an event is out of date.

use std::fmt;

use super::{Event, WebhookType};

/// Events that follow one another: those of one type about one session, transaction, person or company.
///
/// Types are kept apart, so that a correction of data does not hide a change of status that came late.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stream(String);

/// How an event stands to the last one of its [`Stream`] that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventOrder {
    /// Later, or the first one.
    Newer,
    /// Of the same second, so that nothing tells which was later. The decision endpoint does.
    Tied,
    /// Earlier: what it says has been overtaken.
    Stale,
}

// ===== impl Stream =====

impl Stream {
    /// The stream as text: the type, a slash, and the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Stream> for String {
    fn from(stream: Stream) -> Self {
        stream.0
    }
}

// ===== impl Event =====

impl Event {
    /// The events that this one follows; `None` if it stands alone, as everything newly created does, or if it does not
    /// say what it is about.
    pub fn stream(&self) -> Option<Stream> {
        let kind = self.webhook_type.as_ref()?;
        let alone = matches!(kind, WebhookType::ActivityCreated | WebhookType::TransactionCreated);
        let subject = self.subject().filter(|_| !alone)?;
        Some(Stream(format!("{kind}/{subject}")))
    }

    /// How it stands to the last event of its [`stream`](Self::stream) that was applied, by that one's `timestamp`.
    ///
    /// `timestamp` is all that tells the order, and it is the time of signing: an event that was missed and is sent again
    /// by hand has a new one, and looks newer than what happened since. Whoever must not be misled takes an event for a
    /// hint and fetches the decision.
    ///
    /// # Example
    ///
    /// ```
    /// use didit_api::webhook::{Event, EventOrder};
    ///
    /// let event: Event = serde_json::from_str(r#"{"timestamp":60,"session_id":"s","webhook_type":"status.updated"}"#)?;
    /// assert_eq!(event.order(None), EventOrder::Newer);
    /// assert_eq!(event.order(Some(59)), EventOrder::Newer);
    /// assert_eq!(event.order(Some(60)), EventOrder::Tied);
    /// assert_eq!(event.order(Some(61)), EventOrder::Stale);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn order(&self, last_applied: Option<u64>) -> EventOrder {
        match last_applied {
            Some(last) if last > self.timestamp => EventOrder::Stale,
            Some(last) if last == self.timestamp => EventOrder::Tied,
            _ => EventOrder::Newer,
        }
    }

    /// Whether it overtakes another event: it is of the same stream, and later.
    pub fn supersedes(&self, other: &Self) -> bool {
        let stream = self.stream();
        stream.is_some() && stream == other.stream() && self.order(Some(other.timestamp)) == EventOrder::Newer
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn event(kind: &str, timestamp: u64, id: (&str, &str)) -> Event {
        let mut fields = json!({ "webhook_type": kind, "timestamp": timestamp });
        fields[id.0] = Value::from(id.1);
        serde_json::from_value(fields).unwrap()
    }

    #[test]
    fn a_later_event_of_the_same_session_supersedes_and_no_other_does() {
        let session = ("session_id", "s");
        let first = event("status.updated", 60, session);
        let later = event("status.updated", 61, session);
        assert!(later.supersedes(&first) && !first.supersedes(&later) && !first.supersedes(&first));
        assert!(!event("status.updated", 61, ("session_id", "t")).supersedes(&first));
        assert!(!event("data.updated", 61, session).supersedes(&first));
    }

    #[test]
    fn every_subject_has_a_stream_and_what_is_created_has_none() {
        for (kind, id, stream) in [
            ("status.updated", "session_id", Some("status.updated/x")),
            ("status.updated", "business_session_id", Some("status.updated/x")),
            ("transaction.status.updated", "transaction_id", Some("transaction.status.updated/x")),
            ("travel_rule.status.updated", "transaction_id", Some("travel_rule.status.updated/x")),
            ("user.status.updated", "vendor_data", Some("user.status.updated/x")),
            ("business.data.updated", "vendor_business_id", Some("business.data.updated/x")),
            ("added.later", "session_id", Some("added.later/x")),
            ("transaction.created", "transaction_id", None),
            ("activity.created", "vendor_data", None),
            ("status.updated", "something_else", None),
        ] {
            let read = event(kind, 60, (id, "x")).stream();
            assert_eq!(read.as_ref().map(Stream::as_str), stream, "{kind} {id}");
        }
    }
}
