//! Requests and responses go through serde unharmed, take additions calmly and print nothing personal.

use didit_api::{
    FeatureStatus, SessionStatus,
    shapes::{
        AmlScreening, CreateSession, CreatedSession, Decision, Environment, ListSessions, ScreenAml, SessionKind,
        SessionPage,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// Parses, writes and parses again; nothing that came in may be lost.
#[expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]
fn survives<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &Value) -> T {
    let parsed: T = serde_json::from_value(value.clone()).unwrap();
    let written = serde_json::to_value(&parsed).unwrap();
    for (name, field) in value.as_object().unwrap() {
        assert_eq!(&written[name], field, "{name}");
    }
    assert_eq!(serde_json::from_value::<T>(written).unwrap(), parsed);
    parsed
}

fn assert_prints_none_of(printed: &str, words: &[&str]) {
    for word in words {
        assert!(!printed.contains(word), "{word} in {printed}");
    }
}

#[test]
fn session_request_survives_with_fields_of_newer_pages() {
    let request: CreateSession = survives(&json!({
        "workflow_id": "w1", "vendor_data": "user-7", "callback": "https://shop.example/back", "callback_method": "both",
        "metadata": {"corr": "c-1"}, "language": "en",
        "contact_details": {"email": "ada@example.com", "send_notification_emails": true, "phone": "+34600111222"},
        "expected_details": {"first_name": "Ada", "expected_document_types": ["P"]},
        "portrait_image": "aW1hZ2U=", "sandbox_scenario": "approve",
        "tags": ["new"], "biometric_consent": {"given": true},
    }));
    assert_eq!(request.others["tags"], json!(["new"]));
    let printed = format!("{request:?} {:?} {:?}", request.contact_details, request.expected_details);
    assert_prints_none_of(&printed, &["Ada", "ada@", "+34", "aW1h", "user-7", "c-1"]);
}

#[test]
fn session_request_says_only_what_is_set() {
    assert_eq!(serde_json::to_value(CreateSession::new("w1")).unwrap(), json!({"workflow_id": "w1"}));
}

#[test]
fn created_session_survives_and_hides_its_token() {
    let session: CreatedSession = survives(&json!({
        "session_id": "11111111-2222-4333-8444-555555555555", "session_number": 1042, "session_token": "aB3dE5fG7hJ9",
        "url": "https://verify.didit.me/en/session/aB3dE5fG7hJ9", "vendor_data": "user-7", "metadata": {"corr": "c-1"},
        "status": "Not Started", "workflow_id": "w1", "workflow_version": 3, "callback": "https://shop.example/back",
    }));
    assert_eq!(session.session_token.expose(), "aB3dE5fG7hJ9");
    let printed = format!("{session:?} {session:#?}");
    assert!(printed.contains("11111111") && printed.contains("[redacted]"));
    assert_prints_none_of(&printed, &["aB3dE5fG7hJ9", "user-7", "c-1"]);
}

#[test]
fn optional_fields_may_be_missing_or_null() {
    let least = json!({"session_id": "s1", "session_token": "t", "url": "u", "status": "Not Started"});
    assert!(serde_json::from_value::<CreatedSession>(least).is_ok());
    let nulls = json!({
        "session_id": "s1", "session_token": "t", "url": "u", "status": "Not Started",
        "vendor_data": null, "metadata": null, "callback": null, "workflow_version": null, "session_number": null,
    });
    assert!(serde_json::from_value::<CreatedSession>(nulls).is_ok());
    assert!(serde_json::from_value::<Decision>(json!({"session_id": "s1", "status": "Expired"})).is_ok());
    let empty: SessionPage = serde_json::from_value(json!({"results": null})).unwrap();
    assert!(empty.results.is_empty());
    assert!(serde_json::from_value::<AmlScreening>(json!({"request_id": "r1", "aml": {"hits": null}})).is_ok());
}

#[test]
fn decision_survives_with_plural_lists_and_features_added_since() {
    let decision: Decision = survives(&json!({
        "session_id": "s1", "session_kind": "user", "session_number": 7, "session_url": "https://verify.didit.me/session/aB3dE5fG7hJ9",
        "status": "In Review", "environment": "sandbox", "workflow_id": "w1", "features": ["ID_VERIFICATION"],
        "vendor_data": "user-7", "metadata": {"corr": "c-1"}, "contact_details": {"email": "ada@example.com"},
        "id_verifications": [{
            "node_id": "feature_ocr_1", "status": "In Review", "first_name": "Ada",
            "warnings": [{"risk": "DOCUMENT_EXPIRED", "feature": "ID_VERIFICATION", "log_type": "warning",
                          "additional_data": {"any": ["thing"]}, "short_description": "Expired", "long_description": "Of Ada"}],
        }],
        "liveness_checks": null, "reviews": [{"user": "reviewer"}],
        "palm_readings": [{"node_id": "n", "status": "Approved"}],
    }));
    assert_eq!(
        (&decision.environment, &decision.session_kind),
        (&Some(Environment::Sandbox), &Some(SessionKind::User))
    );
    let document = &decision.id_verifications.as_deref().unwrap()[0];
    assert_eq!(document.status, Some(FeatureStatus::InReview));
    assert!(decision.liveness_checks.is_none());
    assert!(decision.others.contains_key("palm_readings"));
    let printed = format!("{decision:?} {:?}", decision.id_verifications);
    assert!(printed.contains("s1") && printed.contains("InReview"));
    assert_prints_none_of(&printed, &["Ada", "ada@", "aB3dE5fG7hJ9", "user-7", "c-1", "reviewer"]);
}

#[test]
fn decision_writes_null_for_features_that_have_not_run() {
    let decision: Decision = serde_json::from_value(json!({"session_id": "s1", "status": "Not Started"})).unwrap();
    let written = serde_json::to_value(decision).unwrap();
    assert!(written.as_object().unwrap().contains_key("aml_screenings") && written["aml_screenings"].is_null());
    assert!(written.get("registry_checks").is_none(), "companies only");
}

#[test]
fn page_of_sessions_survives() {
    let page: SessionPage = survives(&json!({
        "count": 1, "next": "https://verification.didit.me/v3/sessions/?search=Ada", "previous": null,
        "results": [{
            "session_id": "s1", "session_kind": "user", "session_number": 7, "session_url": "https://v/aB3dE5fG7hJ9",
            "portrait_image": null, "document_type": "P", "full_name": "Ada Example", "country": "ESP", "status": "Approved",
            "vendor_data": "user-7", "didit_internal_id": "d1", "created_at": "2026-01-01T00:00:00Z",
            "features": [{"feature": "ID_VERIFICATION", "status": "Approved"}], "phone_number": "+34600111222",
        }],
    }));
    assert_eq!(page.results[0].status, SessionStatus::Approved);
    assert_eq!(page.results[0].others["full_name"], "Ada Example");
    assert_prints_none_of(&format!("{page:?}"), &["Ada", "+34", "aB3dE5fG7hJ9", "user-7"]);
}

#[test]
fn query_holds_what_is_set_and_is_encoded() {
    assert_eq!(ListSessions::default().to_query(), "");
    let every = ListSessions::new()
        .session_kind(SessionKind::User)
        .limit(10)
        .offset(20)
        .status([SessionStatus::Approved])
        .vendor_data("user-7")
        .search("s")
        .workflow_id("w1")
        .date_from("2026-01-01")
        .date_to("2026-01-31");
    assert_eq!(
        every.to_query(),
        "session_kind=user&limit=10&offset=20&status=Approved&vendor_data=user-7&search=s&workflow_id=w1\
         &date_from=2026-01-01&date_to=2026-01-31"
    );
    let mut list = ListSessions::new()
        .session_kind(SessionKind::All)
        .offset(50)
        .status([SessionStatus::KycExpired])
        .search("\u{e9} a+b=c&d");
    list.others.push(("document_type".to_owned(), "P".to_owned()));
    assert_eq!(
        list.to_query(),
        "session_kind=all&offset=50&status=Kyc%20Expired&search=%C3%A9%20a%2Bb%3Dc%26d&document_type=P"
    );
}

#[test]
fn screening_survives_and_names_nobody() {
    let mut request = ScreenAml::new("Ada Example").vendor_data("user-7");
    request.others.insert("aml_name_weight".to_owned(), json!(60));
    assert_eq!(
        serde_json::to_value(&request).unwrap(),
        json!({"full_name": "Ada Example", "vendor_data": "user-7", "aml_name_weight": 60})
    );
    let screening: AmlScreening = survives(&json!({
        "request_id": "r1", "vendor_data": "user-7", "metadata": null, "created_at": "2026-01-01T00:00:00+00:00",
        "aml": {"status": "In Review", "score": 92.5, "total_hits": 1, "hits": [{"caption": "Ada"}], "warnings": [],
                "screened_data": {"full_name": "Ada Example"}},
    }));
    assert_eq!(screening.aml.status, Some(FeatureStatus::InReview));
    assert_prints_none_of(&format!("{request:?} {screening:?}"), &["Ada", "user-7"]);
}
