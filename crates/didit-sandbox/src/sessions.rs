//! The sessions there are.

use std::{collections::HashMap, time::Duration};

use didit_api::SessionStatus;
use serde_json::Value;
use uuid::Uuid;

/// One verification session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) id: Uuid,
    pub(crate) number: u64,
    pub(crate) token: String,
    pub(crate) url: String,
    pub(crate) workflow: Uuid,
    pub(crate) vendor_data: Option<String>,
    pub(crate) callback: Option<String>,
    pub(crate) metadata: Value,
    pub(crate) expected_details: Value,
    pub(crate) contact_details: Value,
    pub(crate) created: Duration,
    /// When lists begin to show it.
    pub(crate) listed: Duration,
    pub(crate) expires: Duration,
    status: SessionStatus,
}

/// When a session is made, when lists begin to show it, and when it expires if nobody opens it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dates {
    pub(crate) created: Duration,
    pub(crate) listed: Duration,
    pub(crate) expires: Duration,
}

/// What a new session is made of.
#[derive(Clone, Debug)]
pub(crate) struct NewSession {
    pub(crate) workflow: Uuid,
    pub(crate) vendor_data: Option<String>,
    pub(crate) callback: Option<String>,
    pub(crate) metadata: Value,
    pub(crate) expected_details: Value,
    pub(crate) contact_details: Value,
    pub(crate) language: Option<String>,
}

impl Session {
    /// The status at `now`: a session nobody opened expires.
    pub(crate) fn status(&self, now: Duration) -> SessionStatus {
        if self.status == SessionStatus::NotStarted && self.expires <= now {
            SessionStatus::Expired
        } else {
            self.status.clone()
        }
    }

    pub(crate) fn set_status(&mut self, status: SessionStatus) {
        self.status = status;
    }
}

/// All sessions, in the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    by_id: HashMap<Uuid, usize>,
    by_vendor: HashMap<String, Vec<usize>>,
    /// A deleted session leaves its place empty.
    all: Vec<Option<Session>>,
}

impl Sessions {
    pub(crate) fn make(&mut self, (id, token): (Uuid, String), new: NewSession, dates: Dates) -> &Session {
        let index = self.all.len();
        let language = new.language.as_deref().unwrap_or("en");
        let session = Session {
            id,
            number: u64::try_from(index).unwrap_or(u64::MAX).saturating_add(1),
            url: format!("https://verify.didit.me/{language}/session/{token}"),
            token,
            workflow: new.workflow,
            vendor_data: new.vendor_data,
            callback: new.callback,
            metadata: new.metadata,
            expected_details: new.expected_details,
            contact_details: new.contact_details,
            created: dates.created,
            listed: dates.listed,
            expires: dates.expires,
            status: SessionStatus::NotStarted,
        };
        if let Some(vendor_data) = &session.vendor_data {
            self.by_vendor.entry(vendor_data.clone()).or_default().push(index);
        }
        self.by_id.insert(id, index);
        self.all.push(None);
        self.all[index].insert(session)
    }

    /// The session that a creation with this `vendor_data` would get again: the newest unfinished one.
    pub(crate) fn reusable(&mut self, vendor_data: &str, workflow: Uuid, now: Duration) -> Option<&mut Session> {
        let all = &self.all;
        let index = self.by_vendor.get(vendor_data)?.iter().rev().copied().find(|index| {
            let session = all.get(*index).and_then(Option::as_ref);
            session.is_some_and(|session| session.workflow == workflow && session.status(now).is_reusable())
        })?;
        self.all.get_mut(index)?.as_mut()
    }

    pub(crate) fn get(&self, id: Uuid) -> Option<&Session> {
        self.all.get(*self.by_id.get(&id)?)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: Uuid) -> Option<&mut Session> {
        self.all.get_mut(*self.by_id.get(&id)?)?.as_mut()
    }

    pub(crate) fn delete(&mut self, id: Uuid) -> bool {
        self.by_id.remove(&id).and_then(|index| self.all.get_mut(index)?.take()).is_some()
    }

    /// Newest first; of one `vendor_data` alone if it is given.
    pub(crate) fn newest_first(&self, vendor_data: Option<&str>) -> Box<dyn Iterator<Item = &Session> + '_> {
        match vendor_data {
            None => Box::new(self.all.iter().rev().flatten()),
            Some(vendor_data) => {
                let indices = self.by_vendor.get(vendor_data).map(Vec::as_slice).unwrap_or_default();
                Box::new(indices.iter().rev().filter_map(|index| self.all.get(*index)?.as_ref()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(100);

    fn new(vendor_data: Option<&str>) -> NewSession {
        NewSession {
            workflow: Uuid::nil(),
            vendor_data: vendor_data.map(str::to_owned),
            callback: None,
            metadata: Value::Null,
            expected_details: Value::Null,
            contact_details: Value::Null,
            language: None,
        }
    }

    fn store(vendors: &[Option<&str>]) -> Sessions {
        let mut sessions = Sessions::default();
        let dates = Dates { created: Duration::ZERO, listed: Duration::ZERO, expires: LIFE };
        for (index, vendor) in (0u128..).zip(vendors) {
            sessions.make((Uuid::from_u128(index), String::new()), new(*vendor), dates);
        }
        sessions
    }

    #[test]
    fn every_unfinished_status_is_reused_and_no_other() {
        let mut sessions = store(&[Some("a")]);
        let reused = SessionStatus::DOCUMENTED.iter().filter(|status| {
            sessions.get_mut(Uuid::nil()).unwrap().set_status((*status).clone());
            sessions.reusable("a", Uuid::nil(), Duration::ZERO).is_some()
        });
        let names: Vec<_> = reused.map(SessionStatus::as_str).collect();
        assert_eq!(names, ["Not Started", "In Progress", "Awaiting User", "Resubmitted"]);
    }

    #[test]
    fn another_workflow_or_an_expired_session_is_not_reused() {
        let mut sessions = store(&[Some("a")]);
        assert!(sessions.reusable("a", Uuid::max(), Duration::ZERO).is_none());
        assert!(sessions.reusable("a", Uuid::nil(), LIFE).is_none());
    }

    #[test]
    fn a_deleted_session_is_gone_everywhere() {
        let mut sessions = store(&[Some("a"), None, Some("a")]);
        assert!(sessions.delete(Uuid::from_u128(2)));
        assert!(!sessions.delete(Uuid::from_u128(2)));
        let ids = |sessions: &Sessions, of| sessions.newest_first(of).map(|s| s.number).collect::<Vec<_>>();
        assert_eq!(ids(&sessions, None), [2, 1]);
        assert_eq!(ids(&sessions, Some("a")), [1]);
    }
}
