//! `POST /v3/aml/`: a screening without a session.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Warning, debug_only, null_as_empty};
use crate::FeatureStatus;

/// Whom to screen. Each 200 is billed; with an `Idempotency-Key` a repetition is not.
///
/// # Example
///
/// ```
/// use didit_api::shapes::ScreenAml;
///
/// let request = ScreenAml::new("Ada Example");
/// assert_eq!(serde_json::to_string(&request)?, r#"{"full_name":"Ada Example"}"#);
/// assert!(!format!("{request:?}").contains("Ada"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ScreenAml {
    /// The name. The one required field.
    pub full_name: String,
    /// `person`, what Didit assumes unless told, or `company`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity_type: Option<String>,
    /// `YYYY-MM-DD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date_of_birth: Option<String>,
    /// A country code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nationality: Option<String>,
    /// The same number settles a match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document_number: Option<String>,
    /// Waits for news as well, up to 30 s longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_adverse_media: Option<bool>,
    /// Whether a session is made of it, what Didit does unless told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save_api_request: Option<bool>,
    /// The caller's own id of the person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor_data: Option<String>,
    /// Any JSON; comes back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// Thresholds (`aml_score_approve_threshold` 80, `aml_score_review_threshold` 100, `aml_match_score_threshold` 93),
    /// weights that add up to 100 (`aml_name_weight` 60, `aml_dob_weight` 25, `aml_country_weight` 15), and whatever
    /// follows them.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

debug_only!(ScreenAml: entity_type, include_adverse_media, save_api_request);

// ===== impl ScreenAml =====

impl ScreenAml {
    /// A screening of this name, with Didit's thresholds and weights.
    pub fn new(full_name: impl Into<String>) -> Self {
        Self { full_name: full_name.into(), ..Self::default() }
    }

    /// Sets the caller's own id of the person.
    #[must_use]
    pub fn vendor_data(mut self, id: impl Into<String>) -> Self {
        self.vendor_data = Some(id.into());
        self
    }
}

/// What the screening found.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct AmlScreening {
    /// The session's id if the request was saved, else an id of its own.
    pub request_id: String,
    /// The report.
    pub aml: AmlReport,
    /// What the request gave.
    #[serde(default)]
    pub vendor_data: Option<String>,
    /// What the request gave.
    #[serde(default)]
    pub metadata: Option<Value>,
    /// ISO 8601 with offset.
    #[serde(default)]
    pub created_at: Option<String>,
}

debug_only!(AmlScreening: request_id, aml, created_at);

/// A screening's report. `Declined` comes with status 200, as an answer.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct AmlReport {
    /// The verdict by the thresholds.
    pub status: Option<FeatureStatus>,
    /// The highest risk among the hits that are no false positives, 0 to 100.
    pub score: Option<f64>,
    /// How many entries matched.
    pub total_hits: Option<u64>,
    /// The matching entries.
    #[serde(deserialize_with = "null_as_empty")]
    pub hits: Vec<Value>,
    /// What was noticed.
    #[serde(deserialize_with = "null_as_empty")]
    pub warnings: Vec<Warning>,
    /// The rest of the report: what was screened, and whatever follows.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

debug_only!(AmlReport: status, total_hits);
