//! `GET /v3/sessions/`: sessions, newest first.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{debug_only, null_as_empty};
use crate::{FeatureStatus, Secret, SessionStatus, open_enum::open_enum};

/// Which sessions to list. What is not set is not sent.
///
/// # Example
///
/// ```
/// use didit_api::{SessionStatus, shapes::ListSessions};
///
/// let list = ListSessions::new()
///     .vendor_data("user 7&8")
///     .status([SessionStatus::InReview, SessionStatus::Approved])
///     .limit(10);
/// assert_eq!(list.to_query(), "limit=10&status=In%20Review%2CApproved&vendor_data=user%207%268");
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListSessions {
    /// Persons' sessions (what Didit lists unless told), companies', or all.
    pub session_kind: Option<SessionKind>,
    /// Rows of a page; 50 unless given. With all kinds, a page may hold twice as many.
    pub limit: Option<u32>,
    /// Rows to skip.
    pub offset: Option<u64>,
    /// Any of these; empty for all. A status unknown to Didit matches nothing.
    pub status: Vec<SessionStatus>,
    /// The caller's own id of the person, exactly.
    pub vendor_data: Option<String>,
    /// Part of a name or id.
    pub search: Option<String>,
    /// The workflow.
    pub workflow_id: Option<String>,
    /// The first day, `YYYY-MM-DD`.
    pub date_from: Option<String>,
    /// The last day, `YYYY-MM-DD`.
    pub date_to: Option<String>,
    /// Any other parameter of the page (`country`, `document_type`, `session_type`, …), by name.
    pub others: Vec<(String, String)>,
}

debug_only!(ListSessions: session_kind, limit, offset, status, workflow_id, date_from, date_to);

// ===== impl ListSessions =====

impl ListSessions {
    /// All persons' sessions, in Didit's own pages.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whose sessions are listed.
    #[must_use]
    pub fn session_kind(mut self, kind: SessionKind) -> Self {
        self.session_kind = Some(kind);
        self
    }

    /// Sets how many rows a page has.
    #[must_use]
    pub fn limit(mut self, rows: u32) -> Self {
        self.limit = Some(rows);
        self
    }

    /// Sets how many rows are skipped.
    #[must_use]
    pub fn offset(mut self, rows: u64) -> Self {
        self.offset = Some(rows);
        self
    }

    /// Sets the statuses, any of which a session may have.
    #[must_use]
    pub fn status(mut self, any_of: impl IntoIterator<Item = SessionStatus>) -> Self {
        self.status = any_of.into_iter().collect();
        self
    }

    /// Sets the caller's own id of the person.
    #[must_use]
    pub fn vendor_data(mut self, id: impl Into<String>) -> Self {
        self.vendor_data = Some(id.into());
        self
    }

    /// Sets the part of a name or id that is looked for.
    #[must_use]
    pub fn search(mut self, part: impl Into<String>) -> Self {
        self.search = Some(part.into());
        self
    }

    /// Sets the workflow.
    #[must_use]
    pub fn workflow_id(mut self, id: impl Into<String>) -> Self {
        self.workflow_id = Some(id.into());
        self
    }

    /// Sets the first day, `YYYY-MM-DD`.
    #[must_use]
    pub fn date_from(mut self, day: impl Into<String>) -> Self {
        self.date_from = Some(day.into());
        self
    }

    /// Sets the last day, `YYYY-MM-DD`.
    #[must_use]
    pub fn date_to(mut self, day: impl Into<String>) -> Self {
        self.date_to = Some(day.into());
        self
    }

    /// The query string, without the question mark; empty if nothing is set.
    pub fn to_query(&self) -> String {
        let statuses = self.status.iter().map(SessionStatus::as_str).collect::<Vec<_>>().join(",");
        let own = [
            ("session_kind", self.session_kind.as_ref().map(ToString::to_string)),
            ("limit", self.limit.map(|limit| limit.to_string())),
            ("offset", self.offset.map(|offset| offset.to_string())),
            ("status", (!statuses.is_empty()).then_some(statuses)),
            ("vendor_data", self.vendor_data.clone()),
            ("search", self.search.clone()),
            ("workflow_id", self.workflow_id.clone()),
            ("date_from", self.date_from.clone()),
            ("date_to", self.date_to.clone()),
        ];
        let own = own.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)));
        let others = self.others.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let pairs = own.chain(others).map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
        pairs.collect::<Vec<_>>().join("&")
    }
}

/// RFC 3986 section 2.1: everything but the unreserved characters as `%XX`.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

open_enum! {
    /// Whose session it is.
    pub enum SessionKind {
        /// A person's.
        User = "user",
        /// A company's.
        Business = "business",
        /// Either; as a filter only.
        All = "all",
    }
}

/// One page of sessions, by descending number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionPage {
    /// How many there are in all; counting companies' stops at 100.
    #[serde(default)]
    pub count: Option<u64>,
    /// The address of the next page; it repeats the filters, so it may name a person.
    #[serde(default)]
    pub next: Option<Secret>,
    /// The address of the page before.
    #[serde(default)]
    pub previous: Option<Secret>,
    /// The rows.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub results: Vec<SessionRow>,
}

/// One session of a list. It has no `metadata`; the decision has.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionRow {
    /// The session's id, a UUID.
    pub session_id: String,
    /// A person's or a company's.
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
    /// The caller's own id of the person.
    #[serde(default)]
    pub vendor_data: Option<String>,
    /// Didit's id of the person.
    #[serde(default)]
    pub didit_internal_id: Option<String>,
    /// When it was made, ISO 8601.
    #[serde(default)]
    pub created_at: Option<String>,
    /// The features of the workflow and where each stands.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub features: Vec<SessionFeature>,
    /// What else the row says about the person: name, portrait, document, country, phone, mail.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

debug_only!(SessionRow: session_id, session_kind, session_number, session_url, status, created_at, features);

/// One feature of a session in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionFeature {
    /// Which.
    pub feature: String,
    /// Where it stands.
    #[serde(default)]
    pub status: Option<FeatureStatus>,
}
