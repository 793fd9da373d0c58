//! Which event it is, so that it happens once.

use std::fmt;

use super::Event;

/// What names an event, the same whenever it is delivered.
///
/// It is `event_id`, which Didit keeps over repeated attempts and when an event is sent again by hand. Where that is
/// missing, as in console tests, it is made of session, type and `timestamp`, and of the status too, so that two changes
/// within a second stay two. An event without an id that is sent again by hand has a new `timestamp`, and so a new key.
///
/// It holds ids and no other personal data, as long as `vendor_data` is an id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey(String);

// ===== impl EventKey =====

impl EventKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<EventKey> for String {
    fn from(key: EventKey) -> Self {
        key.0
    }
}

// ===== impl Event =====

impl Event {
    /// What names the event.
    pub fn key(&self) -> EventKey {
        EventKey(match &self.event_id {
            Some(id) => format!("id:{id}"),
            None => {
                let kind = self.webhook_type.as_ref().map_or("", |kind| kind.as_str());
                let status = self.status.as_deref().unwrap_or_default();
                format!("at:{}/{kind}/{status}/{}", self.timestamp, self.subject().unwrap_or_default())
            }
        })
    }

    /// The id of what the event is about.
    pub(super) fn subject(&self) -> Option<&str> {
        let ids = [
            &self.session_id,
            &self.business_session_id,
            &self.transaction_id,
            &self.vendor_business_id,
            &self.vendor_data,
        ];
        ids.into_iter().find_map(Option::as_deref)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn key(fields: Value) -> EventKey {
        serde_json::from_value::<Event>(fields).unwrap().key()
    }

    #[test]
    fn an_event_sent_again_keeps_its_key() {
        let at = |timestamp: u64| key(json!({ "event_id": "e-1", "timestamp": timestamp, "status": "Approved" }));
        assert_eq!(at(7), at(8));
        assert_ne!(at(7), key(json!({ "event_id": "e-2", "timestamp": 7, "status": "Approved" })));
    }

    #[test]
    fn without_an_id_everything_that_tells_events_apart_counts() {
        let base = json!({ "timestamp": 7, "session_id": "s", "webhook_type": "status.updated", "status": "Approved" });
        let own = key(base.clone());
        assert_eq!(own.as_str(), "at:7/status.updated/Approved/s");
        for (field, other) in [
            ("timestamp", json!(8)),
            ("session_id", json!("t")),
            ("webhook_type", json!("data.updated")),
            ("status", json!("Declined")),
            ("event_id", json!("at:7/status.updated/Approved/s")),
        ] {
            let mut changed = base.clone();
            changed[field] = other;
            assert_ne!(key(changed), own, "{field}");
        }
        assert_eq!(key(json!({ "timestamp": 7, "transaction_id": "t-1" })).as_str(), "at:7///t-1");
    }
}
