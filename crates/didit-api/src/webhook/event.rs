//! What an event says.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    SessionStatus,
    open_enum::open_enum,
    shapes::{Decision, Environment, SessionKind, debug_only},
};

/// One event, whatever it is about.
///
/// No field but `timestamp` is sure to be there. One that is of another type than documented stays in
/// [`others`](Self::others), so that an addition of Didit's never loses an event. Numbers are those of [`Value`]: an
/// integer beyond 64 bits is rounded here, and whole in the body.
///
/// `Debug` shows ids, types and statuses only.
///
/// # Example
///
/// ```
/// use didit_api::{SessionStatus, webhook::Event};
///
/// let event: Event = serde_json::from_str(r#"{
///     "event_id": "aaaaaaaa-0000-4000-8000-000000000002", "webhook_type": "status.updated",
///     "timestamp": 1790000060, "session_id": "11111111-2222-4333-8444-555555555555", "status": "Approved",
///     "decision": { "session_id": "11111111-2222-4333-8444-555555555555", "status": "Approved",
///                   "id_verifications": [{ "node_id": "feature_ocr_1", "status": "Approved", "warnings": [] }] }
/// }"#)?;
/// let decision = event.parse_decision().ok_or("Approved is a decision")??;
/// assert_eq!(decision.status, SessionStatus::Approved);
/// assert_eq!(decision.id_verifications.map(|documents| documents.len()), Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
#[non_exhaustive]
pub struct Event {
    /// The event's id, the same on every attempt and when it is sent again by hand. Console tests may lack it.
    pub event_id: Option<String>,
    /// What happened.
    pub webhook_type: Option<WebhookType>,
    /// When it was signed, in seconds since the Unix epoch. An event that is sent again by hand has a new one.
    pub timestamp: u64,
    /// Seconds since the Unix epoch. The documentation does not say whether of the session or of the event.
    pub created_at: Option<u64>,
    /// The application it belongs to.
    pub application_id: Option<String>,
    /// Live or sandbox.
    pub environment: Option<Environment>,
    /// The session it is about, a UUID.
    pub session_id: Option<String>,
    /// A person's session or a company's.
    pub session_kind: Option<SessionKind>,
    /// A company's session.
    pub business_session_id: Option<String>,
    /// The transaction it is about: Didit's UUID, not the caller's id.
    pub transaction_id: Option<String>,
    /// The status now, of whatever the event is about; see [`session_status`](Self::session_status) and its siblings.
    pub status: Option<String>,
    /// The status before, of a person or a company.
    pub previous_status: Option<String>,
    /// The workflow.
    pub workflow_id: Option<String>,
    /// The workflow's version.
    pub workflow_version: Option<u64>,
    /// The caller's own id of the person.
    pub vendor_data: Option<String>,
    /// The caller's own id of the company.
    pub vendor_business_id: Option<String>,
    /// What the latest request that created the session gave.
    pub metadata: Option<Value>,
    /// What came of the session, on statuses that are decisions; [`parse_decision`](Self::parse_decision) reads it.
    pub decision: Option<Map<String, Value>>,
    /// What the person has to repeat, instead of a decision.
    pub resubmit_info: Option<ResubmitInfo>,
    /// Which data of a person or a company changed.
    pub changed_fields: Option<Value>,
    /// Whatever else came.
    pub others: Map<String, Value>,
}

debug_only!(Event: event_id, webhook_type, timestamp, environment, session_id, business_session_id, transaction_id,
    status, previous_status, workflow_id);

/// Why JSON is no event: it has no `timestamp` that is a whole number of seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event has a `timestamp` in seconds, and this has none")]
#[non_exhaustive]
pub struct NotAnEvent;

/// What the person has to repeat.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ResubmitInfo {
    /// The steps.
    #[serde(default)]
    pub nodes_to_resubmit: Value,
    /// Why.
    #[serde(default)]
    pub reasons: Value,
    /// Whatever else came.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

debug_only!(ResubmitInfo: nodes_to_resubmit);

open_enum! {
    /// What happened.
    pub enum WebhookType {
        /// A session has another status.
        StatusUpdated = "status.updated",
        /// A session's data was corrected.
        DataUpdated = "data.updated",
        /// A person has another status.
        UserStatusUpdated = "user.status.updated",
        /// A person's data changed.
        UserDataUpdated = "user.data.updated",
        /// A company has another status.
        BusinessStatusUpdated = "business.status.updated",
        /// A company's data changed.
        BusinessDataUpdated = "business.data.updated",
        /// Somebody did something.
        ActivityCreated = "activity.created",
        /// A transaction came in.
        TransactionCreated = "transaction.created",
        /// A transaction has another status.
        TransactionStatusUpdated = "transaction.status.updated",
        /// A transfer under the travel rule has another status.
        TravelRuleStatusUpdated = "travel_rule.status.updated",
        /// A search in company registers has ended. It goes to a URL given with the search and is **not signed**.
        RegistrySearchResolved = "kyb.registry_search.resolved",
    }
}

open_enum! {
    /// The form of the payloads, chosen for each destination (`webhook_version`).
    pub enum PayloadVersion {
        /// The first.
        V1 = "v1",
        /// That of the second API.
        V2 = "v2",
        /// The current one.
        V3 = "v3",
    }
}

open_enum! {
    /// The status of a transaction.
    pub enum TransactionStatus {
        /// Passed.
        Approved = "APPROVED",
        /// A reviewer has to decide.
        InReview = "IN_REVIEW",
        /// Refused.
        Declined = "DECLINED",
        /// Waits for the person.
        AwaitingUser = "AWAITING_USER",
    }
}

open_enum! {
    /// The status of a person or a company.
    pub enum ProfileStatus {
        /// In good standing.
        Active = "ACTIVE",
        /// To be looked at.
        Flagged = "FLAGGED",
        /// May create no sessions.
        Blocked = "BLOCKED",
    }
}

// ===== impl WebhookType =====

impl WebhookType {
    /// Whether Didit signs it: all but the callback of a registry search.
    pub fn is_signed(&self) -> bool {
        *self != Self::RegistrySearchResolved
    }

    /// Whether it is about a session.
    pub fn is_about_session(&self) -> bool {
        matches!(self, Self::StatusUpdated | Self::DataUpdated)
    }
}

// ===== impl PayloadVersion =====

impl PayloadVersion {
    /// Whether a decision has a list for each feature, in the plural: `id_verifications`. Versions 1 and 2 have one
    /// object each, in the singular: `id_verification`, which a [`Decision`] keeps in its `others`. `None` if the
    /// version is not known.
    pub fn lists_features(&self) -> Option<bool> {
        match self {
            Self::V1 | Self::V2 => Some(false),
            Self::V3 => Some(true),
            Self::Other(_) => None,
        }
    }
}

// ===== impl Event =====

impl Event {
    /// An event of nothing but its time.
    pub(super) fn at(timestamp: u64) -> Self {
        Self {
            event_id: None,
            webhook_type: None,
            timestamp,
            created_at: None,
            application_id: None,
            environment: None,
            session_id: None,
            session_kind: None,
            business_session_id: None,
            transaction_id: None,
            status: None,
            previous_status: None,
            workflow_id: None,
            workflow_version: None,
            vendor_data: None,
            vendor_business_id: None,
            metadata: None,
            decision: None,
            resubmit_info: None,
            changed_fields: None,
            others: Map::new(),
        }
    }

    /// Reads a body without verifying it: one that was verified before it was stored. `None` if it is no event.
    pub fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// The status of the session, if it is about one.
    pub fn session_status(&self) -> Option<SessionStatus> {
        let about = self.webhook_type.as_ref().is_some_and(WebhookType::is_about_session);
        self.status.as_deref().filter(|_| about).map(Into::into)
    }

    /// The status of the transaction, if it is about one.
    pub fn transaction_status(&self) -> Option<TransactionStatus> {
        let about =
            matches!(self.webhook_type, Some(WebhookType::TransactionCreated | WebhookType::TransactionStatusUpdated));
        self.status.as_deref().filter(|_| about).map(Into::into)
    }

    /// The status of the person or the company, if it is about one.
    pub fn profile_status(&self) -> Option<ProfileStatus> {
        use WebhookType::{BusinessDataUpdated, BusinessStatusUpdated, UserDataUpdated, UserStatusUpdated};
        let about = matches!(
            self.webhook_type,
            Some(UserStatusUpdated | UserDataUpdated | BusinessStatusUpdated | BusinessDataUpdated)
        );
        self.status.as_deref().filter(|_| about).map(Into::into)
    }

    /// The decision, if there is one, as the shape that the API gives it in.
    ///
    /// # Errors
    ///
    /// That of serde, if it is not of that shape. The event is one all the same; the decision can be fetched.
    pub fn parse_decision(&self) -> Option<Result<Decision, serde_json::Error>> {
        self.decision.clone().map(|decision| serde_json::from_value(Value::Object(decision)))
    }
}

impl TryFrom<Map<String, Value>> for Event {
    type Error = NotAnEvent;

    fn try_from(fields: Map<String, Value>) -> Result<Self, NotAnEvent> {
        let mut rest = Fields(fields);
        let timestamp = rest.take("timestamp", whole).ok_or(NotAnEvent)?;
        Ok(Self {
            event_id: rest.text("event_id"),
            webhook_type: rest.text("webhook_type").map(|text| text.as_str().into()),
            created_at: rest.take("created_at", whole),
            application_id: rest.text("application_id"),
            environment: rest.text("environment").map(|text| text.as_str().into()),
            session_id: rest.text("session_id"),
            session_kind: rest.text("session_kind").map(|text| text.as_str().into()),
            business_session_id: rest.text("business_session_id"),
            transaction_id: rest.text("transaction_id"),
            status: rest.text("status"),
            previous_status: rest.text("previous_status"),
            workflow_id: rest.text("workflow_id"),
            workflow_version: rest.take("workflow_version", whole),
            vendor_data: rest.text("vendor_data"),
            vendor_business_id: rest.text("vendor_business_id"),
            metadata: rest.owned("metadata", |value| Some(value).filter(|value| !value.is_null()).ok_or(Value::Null)),
            decision: rest.owned("decision", |value| match value {
                Value::Object(decision) => Ok(decision),
                other => Err(other),
            }),
            resubmit_info: rest.take("resubmit_info", |value| ResubmitInfo::deserialize(value).ok()),
            changed_fields: rest.0.remove("changed_fields"),
            others: rest.0,
            ..Self::at(timestamp)
        })
    }
}

/// Fields that are taken out one by one; null counts as missing.
struct Fields(Map<String, Value>);

impl Fields {
    fn text(&mut self, name: &str) -> Option<String> {
        self.owned(name, |value| match value {
            Value::String(text) => Ok(text),
            other => Err(other),
        })
    }

    fn take<T>(&mut self, name: &str, read: impl Fn(&Value) -> Option<T>) -> Option<T> {
        self.owned(name, |value| read(&value).ok_or(value))
    }

    /// Takes a field that is what it should be, and leaves it where it is otherwise.
    fn owned<T>(&mut self, name: &str, read: impl Fn(Value) -> Result<T, Value>) -> Option<T> {
        match read(self.0.remove(name)?) {
            Ok(value) => Some(value),
            Err(Value::Null) => None,
            Err(other) => {
                self.0.insert(name.to_owned(), other);
                None
            }
        }
    }
}

/// A whole number, which may have been written as a float.
fn whole(value: &Value) -> Option<u64> {
    let float = |float: f64| ((0.0..=LARGEST_WHOLE).contains(&float) && float.fract() == 0.0).then_some(float as u64);
    value.as_u64().or_else(|| float(value.as_f64()?))
}

/// The last whole number that a double tells apart from the next one, 2^53.
const LARGEST_WHOLE: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(value: Value) -> Event {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_not_as_documented_is_kept_and_loses_nothing() {
        let read = event(json!({
            "timestamp": 7, "event_id": 9, "vendor_data": ["a"], "workflow_version": "3", "decision": "yes",
            "metadata": null, "status": null, "new_field": {"a": 1}
        }));
        assert_eq!((read.timestamp, &read.event_id, &read.vendor_data, &read.decision), (7, &None, &None, &None));
        assert_eq!((&read.metadata, &read.status), (&None, &None));
        let kept: Vec<_> = read.others.keys().map(String::as_str).collect();
        assert_eq!(kept, ["decision", "event_id", "new_field", "vendor_data", "workflow_version"]);
    }

    #[test]
    fn an_event_has_a_time_in_whole_seconds() {
        for (timestamp, read) in [
            (json!(1_790_000_000), Some(1_790_000_000)),
            (json!(1_790_000_000.0), Some(1_790_000_000)),
            (json!(0), Some(0)),
            (json!(-1), None),
            (json!(0.5), None),
            (json!(1e300), None),
            (json!("7"), None),
            (json!(null), None),
        ] {
            let parsed = serde_json::from_value::<Event>(json!({ "timestamp": timestamp }));
            assert_eq!(parsed.ok().map(|event| event.timestamp), read, "{timestamp}");
        }
    }

    #[test]
    fn a_status_is_that_of_what_the_event_is_about() {
        let of = |kind: &str, status: &str| event(json!({ "timestamp": 7, "webhook_type": kind, "status": status }));
        let session = of("status.updated", "In Review");
        assert_eq!(session.session_status(), Some(SessionStatus::InReview));
        assert_eq!((session.transaction_status(), session.profile_status()), (None, None));
        let transaction = of("transaction.status.updated", "AWAITING_USER");
        assert_eq!(transaction.transaction_status(), Some(TransactionStatus::AwaitingUser));
        assert_eq!((transaction.session_status(), transaction.profile_status()), (None, None));
        assert_eq!(of("business.status.updated", "BLOCKED").profile_status(), Some(ProfileStatus::Blocked));
        assert_eq!(of("session.renamed", "Approved").session_status(), None);
    }

    #[test]
    fn nothing_personal_is_printed() {
        let read = event(json!({
            "timestamp": 7, "session_id": "s-1", "status": "Resubmitted", "vendor_data": "ada@example.org",
            "vendor_business_id": "canary-1", "metadata": {"a": "canary-2"}, "decision": {"first_name": "canary-3"},
            "changed_fields": ["canary-4"], "others": "canary-5", "resubmit_info": {"nodes_to_resubmit": ["n"], "reasons": ["canary-6"]}
        }));
        let shown = format!("{read:?} {:?}", read.resubmit_info);
        assert!(shown.contains("s-1") && !shown.contains("canary") && !shown.contains("ada"), "{shown}");
    }

    #[test]
    fn only_the_callback_of_a_registry_search_is_not_signed() {
        let unsigned: Vec<_> = WebhookType::DOCUMENTED.iter().filter(|kind| !kind.is_signed()).collect();
        assert_eq!(unsigned, [&WebhookType::RegistrySearchResolved]);
    }

    #[test]
    fn singular_features_of_the_older_versions_are_kept() {
        let read = event(json!({ "timestamp": 7, "decision":
            { "session_id": "s", "status": "Approved", "id_verification": { "status": "Approved" } } }));
        let decision = read.parse_decision().unwrap().unwrap();
        assert_eq!(
            (&decision.id_verifications, &decision.others["id_verification"]["status"]),
            (&None, &json!("Approved"))
        );
        let lists = PayloadVersion::DOCUMENTED.iter().map(PayloadVersion::lists_features).collect::<Vec<_>>();
        assert_eq!(lists, [Some(false), Some(false), Some(true)]);
    }
}
