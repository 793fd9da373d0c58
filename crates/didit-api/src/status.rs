//! What a session, or one of its features, can be.
//!
//! Source: Didit's verification-statuses page. Older pages list fewer; more may follow, so both enums are open.

use crate::open_enum::open_enum;

open_enum! {
    /// The status of a session: exact, case-sensitive, with spaces.
    ///
    /// No status but [`Expired`](Self::Expired) is documented as the last: an approved session may be declined by
    /// ongoing monitoring, sent back for resubmission, or expire by policy.
    ///
    /// # Example
    ///
    /// ```
    /// use didit_api::{Phase, SessionStatus};
    ///
    /// let status: SessionStatus = serde_json::from_str(r#""Kyc Expired""#)?;
    /// assert_eq!(status, SessionStatus::KycExpired);
    /// assert_eq!(status.phase(), Phase::Settled);
    ///
    /// let later = SessionStatus::from("Under Appeal");
    /// assert_eq!((later.as_str(), later.phase()), ("Under Appeal", Phase::Unknown));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub enum SessionStatus {
        /// Made, and nobody has opened it.
        NotStarted = "Not Started",
        /// The person is at it.
        InProgress = "In Progress",
        /// A company's session that waits for its people.
        AwaitingUser = "Awaiting User",
        /// A reviewer has to decide.
        InReview = "In Review",
        /// Verified.
        Approved = "Approved",
        /// Refused.
        Declined = "Declined",
        /// Sent back: the person has to repeat some steps.
        Resubmitted = "Resubmitted",
        /// Never opened in time.
        Expired = "Expired",
        /// Opened and left.
        Abandoned = "Abandoned",
        /// Approved once, and too long ago by the application's policy.
        KycExpired = "Kyc Expired",
    }
}

/// What a session's status means to a caller that waits for an outcome.
///
/// The split is this crate's reading of the documented transitions, not a term of Didit's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Waits for the person.
    Open,
    /// Waits for a reviewer.
    PendingReview,
    /// Has an outcome, which a reviewer, monitoring or a policy may still change.
    Settled,
    /// Nothing further is documented to happen.
    Closed,
    /// The status is not known to this version of the crate.
    Unknown,
}

// ===== impl SessionStatus =====

impl SessionStatus {
    /// What the status means to a caller that waits for an outcome.
    pub fn phase(&self) -> Phase {
        match self {
            Self::NotStarted | Self::InProgress | Self::AwaitingUser | Self::Resubmitted => Phase::Open,
            Self::InReview => Phase::PendingReview,
            Self::Approved | Self::Declined | Self::KycExpired | Self::Abandoned => Phase::Settled,
            Self::Expired => Phase::Closed,
            Self::Other(_) => Phase::Unknown,
        }
    }

    /// Whether a webhook with this status carries a `decision` (Didit's webhooks page).
    pub fn is_decision(&self) -> bool {
        matches!(self, Self::Approved | Self::Declined | Self::InReview | Self::Abandoned)
    }

    /// Whether creating a session with the same `vendor_data` returns this one again (Didit's create-session page).
    ///
    /// It also has to belong to the latest published version of the workflow and to have its link already.
    pub fn is_reusable(&self) -> bool {
        matches!(self, Self::NotStarted | Self::InProgress | Self::Resubmitted | Self::AwaitingUser)
    }

    /// Whether a reviewer may set another status from this one (Didit's update-status page).
    pub fn is_overridable(&self) -> bool {
        matches!(
            self,
            Self::Approved | Self::Declined | Self::InReview | Self::KycExpired | Self::Abandoned | Self::Resubmitted
        )
    }
}

open_enum! {
    /// The status of one feature of a session: a document, a face, a screening.
    ///
    /// Companies' features have further values in capital letters; they come as [`Other`](Self::Other).
    pub enum FeatureStatus {
        /// Has not run to its end.
        NotFinished = "Not Finished",
        /// Passed.
        Approved = "Approved",
        /// Failed.
        Declined = "Declined",
        /// A reviewer has to decide.
        InReview = "In Review",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Status, phase, carries a decision, is reused, may be overridden.
    #[test]
    fn documented_statuses_mean_what_the_pages_say() {
        use Phase::{Closed, Open, PendingReview, Settled};
        let table = [
            ("Not Started", Open, false, true, false),
            ("In Progress", Open, false, true, false),
            ("Awaiting User", Open, false, true, false),
            ("In Review", PendingReview, true, false, true),
            ("Approved", Settled, true, false, true),
            ("Declined", Settled, true, false, true),
            ("Resubmitted", Open, false, true, true),
            ("Expired", Closed, false, false, false),
            ("Abandoned", Settled, true, false, true),
            ("Kyc Expired", Settled, false, false, true),
        ];
        assert_eq!(table.map(|(text, ..)| text).as_slice(), texts(SessionStatus::DOCUMENTED));
        for (text, phase, decision, reusable, overridable) in table {
            let status = SessionStatus::from(text);
            assert!(!matches!(status, SessionStatus::Other(_)), "{text}");
            assert_eq!(status.phase(), phase, "{text}");
            assert_eq!((status.is_decision(), status.is_reusable()), (decision, reusable), "{text}");
            assert_eq!(status.is_overridable(), overridable, "{text}");
        }
    }

    fn texts(statuses: &[SessionStatus]) -> Vec<&str> {
        statuses.iter().map(SessionStatus::as_str).collect()
    }

    #[test]
    fn spelling_is_exact() {
        for text in ["approved", "APPROVED", "In  Review", "KYC Expired", "NotStarted", "", " Approved"] {
            let status = SessionStatus::from(text);
            assert!(matches!(status, SessionStatus::Other(_)), "{text}");
            assert_eq!(status.phase(), Phase::Unknown);
            assert!(!status.is_decision() && !status.is_reusable() && !status.is_overridable());
        }
    }

    #[test]
    fn any_status_survives_serde() {
        let own = ["Under Appeal", "quote \" and \u{e9}"].map(SessionStatus::from);
        for status in SessionStatus::DOCUMENTED.iter().chain(&own) {
            let json = serde_json::to_string(status).unwrap();
            assert_eq!(serde_json::from_str::<SessionStatus>(&json).unwrap(), *status);
            assert_eq!(serde_json::from_slice::<SessionStatus>(json.as_bytes()).unwrap().to_string(), status.as_str());
        }
        for status in FeatureStatus::DOCUMENTED {
            let value = serde_json::to_value(status).unwrap();
            assert_eq!(serde_json::from_value::<FeatureStatus>(value).unwrap(), *status);
        }
        assert!(serde_json::from_str::<SessionStatus>("7").is_err());
    }
}
