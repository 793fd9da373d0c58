//! `GET /v3/session/{id}/decision/`: what came of a session so far.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{SessionKind, debug_only, null_as_empty};
use crate::{FeatureStatus, Secret, SessionStatus, open_enum::open_enum};

/// What came of a session so far. It can be read at any time.
///
/// Version 3 has one **plural** list per feature, which is `None` until that feature has run; the singular names of
/// version 2 do not occur.
///
/// # Example
///
/// ```
/// use didit_api::{FeatureStatus, SessionStatus, shapes::Decision};
///
/// let decision: Decision = serde_json::from_str(r#"{
///     "session_id": "11111111-2222-4333-8444-555555555555", "status": "Approved",
///     "id_verifications": [{ "node_id": "feature_ocr_1", "status": "Approved", "warnings": [], "first_name": "Ada" }],
///     "liveness_checks": null
/// }"#)?;
/// assert_eq!(decision.status, SessionStatus::Approved);
/// let document = &decision.id_verifications.as_deref().unwrap_or_default()[0];
/// assert_eq!(document.status, Some(FeatureStatus::Approved));
/// assert_eq!(document.details["first_name"], "Ada");
/// assert!(!format!("{decision:?}").contains("Ada"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The session's id, a UUID.
    pub session_id: String,
    /// A person's session or a company's.
    #[serde(default)]
    pub session_kind: Option<SessionKind>,
    /// Counts up per application.
    #[serde(default)]
    pub session_number: Option<u64>,
    /// Where the person is sent; it carries the session's token.
    #[serde(default)]
    pub session_url: Option<Secret>,
    /// Where the session stands.
    pub status: SessionStatus,
    /// Live or sandbox.
    #[serde(default)]
    pub environment: Option<Environment>,
    /// The workflow it runs.
    #[serde(default)]
    pub workflow_id: Option<String>,
    /// The features of the workflow.
    #[serde(default)]
    pub features: Option<Value>,
    /// The caller's own id of the person.
    #[serde(default)]
    pub vendor_data: Option<String>,
    /// What the latest creating request gave.
    #[serde(default)]
    pub metadata: Option<Value>,
    /// What the documents should say.
    #[serde(default)]
    pub expected_details: Option<Value>,
    /// How the person is reached.
    #[serde(default)]
    pub contact_details: Option<Value>,
    /// Where the person is sent afterwards.
    #[serde(default)]
    pub callback: Option<String>,
    /// Documents.
    #[serde(default)]
    pub id_verifications: Option<Vec<FeatureResult>>,
    /// Chips of documents.
    #[serde(default)]
    pub nfc_verifications: Option<Vec<FeatureResult>>,
    /// Liveness.
    #[serde(default)]
    pub liveness_checks: Option<Vec<FeatureResult>>,
    /// Face against document.
    #[serde(default)]
    pub face_matches: Option<Vec<FeatureResult>>,
    /// Proofs of address.
    #[serde(default)]
    pub poa_verifications: Option<Vec<FeatureResult>>,
    /// Documents read by rule.
    #[serde(default)]
    pub document_ai_documents: Option<Vec<FeatureResult>>,
    /// Phone numbers.
    #[serde(default)]
    pub phone_verifications: Option<Vec<FeatureResult>>,
    /// E-mail addresses.
    #[serde(default)]
    pub email_verifications: Option<Vec<FeatureResult>>,
    /// Sanctions and adverse media.
    #[serde(default)]
    pub aml_screenings: Option<Vec<FeatureResult>>,
    /// Network addresses.
    #[serde(default)]
    pub ip_analyses: Option<Vec<FeatureResult>>,
    /// Government and credit databases.
    #[serde(default)]
    pub database_validations: Option<Vec<FeatureResult>>,
    /// Answers to questionnaires.
    #[serde(default)]
    pub questionnaire_responses: Option<Vec<FeatureResult>>,
    /// What reviewers did.
    #[serde(default)]
    pub reviews: Option<Vec<Value>>,
    /// A company in its registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_checks: Option<Vec<FeatureResult>>,
    /// A company's documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_verifications: Option<Vec<FeatureResult>>,
    /// A company's people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_people_checks: Option<Vec<FeatureResult>>,
    /// Whatever else came: events if asked for, features added since.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

debug_only!(Decision: session_id, session_kind, session_number, session_url, status, environment, workflow_id);

open_enum! {
    /// Where a session lives.
    pub enum Environment {
        /// For real, and billed.
        Live = "live",
        /// Played; never billed.
        Sandbox = "sandbox",
    }
}

/// What came of one feature.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct FeatureResult {
    /// The feature's place in the workflow.
    pub node_id: Option<String>,
    /// Where the feature stands.
    pub status: Option<FeatureStatus>,
    /// What was noticed.
    #[serde(deserialize_with = "null_as_empty")]
    pub warnings: Vec<Warning>,
    /// What the feature found: personal data, and links to images that work for about an hour.
    #[serde(flatten)]
    pub details: Map<String, Value>,
}

debug_only!(FeatureResult: node_id, status);

/// Something noticed about a feature.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Warning {
    /// What it is, in capital letters: `POSSIBLE_MATCH_FOUND`. An open set.
    pub risk: Option<String>,
    /// The feature it belongs to.
    pub feature: Option<String>,
    /// Anything.
    pub additional_data: Option<Value>,
    /// How bad it is.
    pub log_type: Option<WarningLevel>,
    /// A few words.
    pub short_description: Option<String>,
    /// A sentence.
    pub long_description: Option<String>,
}

debug_only!(Warning: risk, feature, log_type);

open_enum! {
    /// How bad a warning is.
    pub enum WarningLevel {
        /// Led to a refusal.
        Error = "error",
        /// Worth a look.
        Warning = "warning",
        /// For the record.
        Information = "information",
    }
}
