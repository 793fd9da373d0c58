//! `GET /v3/session/{id}/decision/`.

use std::time::Duration;

use didit_api::SessionStatus;
use serde_json::{Map, Value, json};

use super::NO_CREDENTIALS;
use crate::{
    answer::{self, Answer},
    call::Call,
    resolve::Params,
    sessions::Session,
    world::World,
};

/// The plural arrays of version 3: each is null until its check has run.
const CHECKS: [&str; 13] = [
    "id_verifications",
    "nfc_verifications",
    "liveness_checks",
    "face_matches",
    "poa_verifications",
    "document_ai_documents",
    "phone_verifications",
    "email_verifications",
    "aml_screenings",
    "ip_analyses",
    "database_validations",
    "questionnaire_responses",
    "reviews",
];

/// Shows what is known about a session. An unknown session is 404 before the key is looked at, as at Didit.
pub(super) fn decision(world: &World, now: Duration, call: &Call, params: Params) -> Answer {
    let Some(session) = params.session.and_then(|id| world.sessions.get(id)) else {
        return answer::not_found();
    };
    if let Some(refusal) = world.refuse_stranger(call, NO_CREDENTIALS) {
        return refusal;
    }
    Answer::ok(&Value::Object(body(session, &session.status(now))))
}

/// What is known about a session.
pub(crate) fn body(session: &Session, status: &SessionStatus) -> Map<String, Value> {
    let mut body: Map<_, _> = CHECKS.into_iter().map(|check| (check.to_owned(), Value::Null)).collect();
    let known = [
        ("session_id", json!(session.id.to_string())),
        ("session_kind", json!("user")),
        ("session_number", json!(session.number)),
        ("session_url", json!(session.url)),
        ("status", json!(status.as_str())),
        ("environment", json!("sandbox")),
        ("workflow_id", json!(session.workflow.to_string())),
        ("features", json!([{ "feature": "ID_VERIFICATION", "node_id": "feature_ocr_1" }])),
        ("vendor_data", json!(session.vendor_data)),
        ("metadata", session.metadata.clone()),
        ("expected_details", session.expected_details.clone()),
        ("contact_details", session.contact_details.clone()),
        ("callback", json!(session.callback)),
    ];
    body.extend(known.into_iter().map(|(name, value)| (name.to_owned(), value)));
    if has_results(status) {
        // A feature knows fewer states than a session: what expired later was approved when it ran.
        let feature = if *status == SessionStatus::KycExpired { &SessionStatus::Approved } else { status };
        let item = json!({ "node_id": "feature_ocr_1", "status": feature.as_str(), "warnings": [] });
        body.insert("id_verifications".to_owned(), json!([item]));
    }
    body
}

/// Whether the checks have run, so that there is something to show.
pub(super) fn has_results(status: &SessionStatus) -> bool {
    matches!(
        status,
        SessionStatus::Approved | SessionStatus::Declined | SessionStatus::InReview | SessionStatus::KycExpired
    )
}
