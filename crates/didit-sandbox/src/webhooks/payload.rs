//! What an event says.

use std::time::Duration;

use didit_api::{
    SessionStatus,
    webhook::{PayloadVersion, WebhookType},
};
use serde_json::{Map, Value, json};

use crate::{routes, sessions::Session};

/// `status.updated` about a session as it is now.
pub(super) fn status_updated(
    session: &Session,
    status: &SessionStatus,
    event_id: &str,
    version: &PayloadVersion,
    now: Duration,
) -> Value {
    let mut payload = json!({
        "event_id": event_id,
        "webhook_type": WebhookType::StatusUpdated.as_str(),
        "timestamp": now.as_secs(),
        "created_at": session.created.as_secs(),
        "environment": "sandbox",
        "session_id": session.id.to_string(),
        "status": status.as_str(),
        "workflow_id": session.workflow.to_string(),
        "workflow_version": 1,
        "vendor_data": session.vendor_data,
        "metadata": session.metadata,
    });
    if status.is_decision() {
        let mut decision = routes::decision_body(session, status);
        if version.lists_features() == Some(false) {
            in_the_singular(&mut decision);
        }
        payload["decision"] = Value::Object(decision);
    } else if *status == SessionStatus::Resubmitted {
        payload["resubmit_info"] = json!({ "nodes_to_resubmit": [{ "node_id": "feature_ocr_1" }], "reasons": {} });
    }
    payload
}

/// The document as versions 1 and 2 have it. How they name other features is not known here, and a sandbox's session has
/// no others.
fn in_the_singular(decision: &mut Map<String, Value>) {
    let documents = decision.remove("id_verifications").unwrap_or_default();
    decision.retain(|_, value| !value.is_null());
    let first = documents.get(0).cloned().unwrap_or_default();
    decision.insert("id_verification".to_owned(), first);
}
