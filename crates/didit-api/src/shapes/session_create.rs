//! `POST /v3/session/`: the session a person is sent to.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::debug_only;
use crate::{Secret, SessionStatus, open_enum::open_enum};

/// What a session is made from.
///
/// # Example
///
/// ```
/// use didit_api::shapes::CreateSession;
///
/// let request = CreateSession::new("99999999-2222-4333-8444-555555555555")
///     .vendor_data("user-7")
///     .callback("https://shop.example/back")
///     .metadata(serde_json::json!({ "corr": "c-1" }));
/// let json = serde_json::to_value(&request)?;
/// assert_eq!(json["vendor_data"], "user-7");
/// assert!(json.get("language").is_none());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct CreateSession {
    /// The workflow to run, a UUID. The one required field.
    pub workflow_id: String,
    /// The caller's own id of the person. With it, an unfinished session is returned again instead of a second one
    /// being made; without it, a session whose response was lost cannot be found again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor_data: Option<String>,
    /// Where the person is sent afterwards; Didit appends `verificationSessionId` and `status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callback: Option<String>,
    /// Which device is sent there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callback_method: Option<CallbackMethod>,
    /// Any JSON; comes back in responses and webhooks. Overwritten when an unfinished session is returned again.
    /// Nothing personal belongs here: it is shown in webhook logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// The language of the flow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// How the person is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact_details: Option<ContactDetails>,
    /// What the documents should say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_details: Option<ExpectedDetails>,
    /// A face to compare with, base64, at most 2 MB (1 MB in older documentation).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub portrait_image: Option<String>,
    /// The outcome to play, in a sandbox; 400 on a live application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_scenario: Option<String>,
    /// Fields of newer pages (`biometric_consent`, `tags`, `user_state`) and whatever follows them.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

debug_only!(CreateSession: workflow_id, callback_method, language, sandbox_scenario);

// ===== impl CreateSession =====

impl CreateSession {
    /// A session of this workflow, and nothing else said.
    pub fn new(workflow_id: impl Into<String>) -> Self {
        Self { workflow_id: workflow_id.into(), ..Self::default() }
    }

    /// Sets the caller's own id of the person.
    #[must_use]
    pub fn vendor_data(mut self, id: impl Into<String>) -> Self {
        self.vendor_data = Some(id.into());
        self
    }

    /// Sets where the person is sent afterwards.
    #[must_use]
    pub fn callback(mut self, url: impl Into<String>) -> Self {
        self.callback = Some(url.into());
        self
    }

    /// Sets what comes back in responses and webhooks.
    #[must_use]
    pub fn metadata(mut self, metadata: impl Into<Value>) -> Self {
        self.metadata = Some(metadata.into());
        self
    }

    /// Sets the outcome to play in a sandbox.
    #[must_use]
    pub fn sandbox_scenario(mut self, scenario: impl Into<String>) -> Self {
        self.sandbox_scenario = Some(scenario.into());
        self
    }
}

open_enum! {
    /// Which device is sent to the callback when the flow ends.
    pub enum CallbackMethod {
        /// The one that opened the flow: what Didit does unless told.
        Initiator = "initiator",
        /// The one that finished it.
        Completer = "completer",
        /// Both.
        Both = "both",
    }
}

/// How the person is reached.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ContactDetails {
    /// E-mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Whether Didit sends mail about the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_notification_emails: Option<bool>,
    /// The language of that mail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email_lang: Option<String>,
    /// Phone number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
}

debug_only!(ContactDetails: send_notification_emails, email_lang);

/// What the documents should say; a difference is a warning in the decision.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are Didit's and say what they are")]
pub struct ExpectedDetails {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date_of_birth: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gender: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nationality: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_country: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poa_country: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identification_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_document_types: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub company_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_country: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registration_number: Option<String>,
}

debug_only!(ExpectedDetails:);

/// The session that came of it: a new one, or an unfinished one returned again. The status is 201 for both.
///
/// # Example
///
/// ```
/// use didit_api::{SessionStatus, shapes::CreatedSession};
///
/// let session: CreatedSession = serde_json::from_str(r#"{
///     "session_id": "11111111-2222-4333-8444-555555555555", "session_number": 1042,
///     "session_token": "aB3dE5fG7hJ9", "url": "https://verify.didit.me/en/session/aB3dE5fG7hJ9",
///     "vendor_data": "user-7", "metadata": { "corr": "c-1" }, "status": "Not Started",
///     "workflow_id": "99999999-2222-4333-8444-555555555555", "workflow_version": 3,
///     "callback": "https://shop.example/back", "a_field_of_next_year": true
/// }"#)?;
/// assert_eq!(session.status, SessionStatus::NotStarted);
/// assert_eq!(session.url.expose(), "https://verify.didit.me/en/session/aB3dE5fG7hJ9");
/// assert!(!format!("{session:?}").contains("aB3dE5fG7hJ9"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct CreatedSession {
    /// The session's id, a UUID.
    pub session_id: String,
    /// Counts up per application; a higher number than before tells a new session from one returned again.
    #[serde(default)]
    pub session_number: Option<u64>,
    /// Whoever holds it can open the flow.
    pub session_token: Secret,
    /// Where to send the person; it carries the token. To be used as it is.
    pub url: Secret,
    /// The caller's own id of the person.
    #[serde(default)]
    pub vendor_data: Option<String>,
    /// What the latest request gave.
    #[serde(default)]
    pub metadata: Option<Value>,
    /// Where the session stands.
    pub status: SessionStatus,
    /// The workflow it runs.
    #[serde(default)]
    pub workflow_id: Option<String>,
    /// Which published state of that workflow.
    #[serde(default)]
    pub workflow_version: Option<u64>,
    /// What the latest request gave.
    #[serde(default)]
    pub callback: Option<String>,
}

debug_only!(CreatedSession: session_id, session_number, session_token, url, status, workflow_id, workflow_version);
