//! Didit's reconciliation: session creations are looked up, the rest is decided by the route's class.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use didit_api::{
    Endpoint, RetryClass, Routes,
    shapes::{Decision, ListSessions, SessionKind, SessionPage, SessionRow},
};
use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use super::{Doubt, Found, Lookup, LookupFuture, Reconcile, Undecided, Verdict, created_at};
use crate::{
    error::{ConfigError, check_duration},
    idempotency::store::Timestamp,
};

/// Finds out what became of calls to Didit.
///
/// | class of the route | verdict |
/// |---|---|
/// | `VendorData`: session creation with a `vendor_data` | looked up: see below |
/// | `Safe`, `Idempotent`, `BodyId` | [`Harmless`](Verdict::Harmless) |
/// | `IdempotencyKey` | harmless for [`KEY_KEPT`](Self::KEY_KEPT) after it was first sent, undecided later |
/// | `Unsafe`, session creation without `vendor_data` | [`Undecided`](Verdict::Undecided) |
///
/// # Session creation
///
/// The settle time is waited, because neither Didit's list nor a commit that outlived its connection has to be there at
/// once: Didit does not say how long either takes. Then `GET /v3/sessions/?vendor_data=…&workflow_id=…` is asked, more
/// than once if nothing shows. A session counts if it was made since the call may have been sent for the first time, by
/// Didit's own clock (`Date`).
///
/// - If the request's `metadata` has a string `operation_id`, each is asked for its `metadata`, and only the one with the
///   same id is the one. So are the three before them, because Didit may have answered with an unfinished session and
///   given it the new metadata. If all that were made since have other ids, it is [undecided](Undecided::Renamed): one of
///   them may have been this call's before another call was answered with it.
/// - Otherwise the only one is the one, and several are [undecided](Undecided::Several). Two operations of one person at
///   the same time cannot be told apart like this; give them an `operation_id`, or a `vendor_data` each.
///
/// # What an adopted session looks like
///
/// 201 with a JSON body of `session_id`, `session_number`, `status`, `vendor_data`, `workflow_id`, `created_at`, and
/// what else the look-up shows: `url` (the list's `session_url`) and, if the decision was asked, `metadata`. There is
/// **no** `session_token` and no `callback`: Didit shows the token in the answer to a creation only.
#[derive(Clone, Debug)]
pub struct DiditReconcile {
    routes: Arc<Routes>,
    settle: Duration,
    polls: u32,
    interval: Duration,
}

/// How many sessions are asked for, and compared; Didit's default page.
const PAGE: u32 = 50;

/// How many of those made since are asked for their metadata: each is one request of the global read quota.
const DECISIONS: usize = 10;

/// How many of those made before are asked, newest first: the one that was open when the call was made is among them,
/// unless a person has more than one open session.
const OLDER: usize = 3;

/// `Date` counts whole seconds, and rounds down.
const DATE_GRAIN: Duration = Duration::from_secs(2);

// ===== impl DiditReconcile =====

impl DiditReconcile {
    /// How long Didit is taken to remember an `Idempotency-Key`: a day. It does not say.
    pub const KEY_KEPT: Duration = Duration::from_secs(86_400);

    /// The longest settle time and interval: an hour.
    pub const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

    /// Waits 2 s, then asks up to 3 times, 2 s apart: 6 s until something counts as absent. Reads at Didit are answered
    /// within a second, and a session whose connection broke was made by then or is being made.
    pub fn new() -> Self {
        let wait = Duration::from_secs(2);
        Self { routes: Routes::didit(), settle: wait, polls: 3, interval: wait }
    }

    /// Reads the classes from these routes.
    #[must_use]
    pub fn routes(mut self, routes: Arc<Routes>) -> Self {
        self.routes = routes;
        self
    }

    /// Waits `settle`, then asks up to `polls` times, `interval` apart.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Zero`] for no polls, [`ConfigError::Duration`] for a wait beyond
    /// [`LONGEST_WAIT`](Self::LONGEST_WAIT).
    pub fn timing(mut self, settle: Duration, polls: u32, interval: Duration) -> Result<Self, ConfigError> {
        if polls == 0 {
            return Err(ConfigError::Zero { setting: "polls", least: "1" });
        }
        self.settle = check_duration("settle", settle, Duration::ZERO, Self::LONGEST_WAIT)?;
        self.interval = check_duration("interval", interval, Duration::ZERO, Self::LONGEST_WAIT)?;
        self.polls = polls;
        Ok(self)
    }

    async fn decide(&self, doubt: &Doubt, lookup: &mut dyn Lookup) -> Verdict {
        let endpoint = self.routes.find(&doubt.method, doubt.uri.path()).map(|id| self.routes.get(id));
        match endpoint.map_or_else(|| RetryClass::of_method(&doubt.method), Endpoint::retry_class) {
            RetryClass::Safe | RetryClass::Idempotent | RetryClass::BodyId => Verdict::Harmless,
            RetryClass::IdempotencyKey if doubt.now.since(doubt.since) < Self::KEY_KEPT => Verdict::Harmless,
            RetryClass::IdempotencyKey => Verdict::Undecided(Undecided::TooOld),
            RetryClass::VendorData => self.find_session(doubt, lookup).await,
            // `RetryClass` may grow; what is not understood is not decided.
            _ => Verdict::Undecided(Undecided::NoTrace),
        }
    }

    async fn find_session(&self, doubt: &Doubt, lookup: &mut dyn Lookup) -> Verdict {
        let Some(body) = &doubt.body else { return Verdict::Undecided(Undecided::NoBody) };
        let Some(wanted) = Wanted::read(body) else { return Verdict::Undecided(Undecided::NoTrace) };
        sleep(self.settle).await;
        let mut waited = self.settle;
        for poll in 0..self.polls {
            if poll > 0 {
                sleep(self.interval).await;
                waited += self.interval;
            }
            let now = doubt.now.plus(waited);
            match wanted.look(doubt.since, now, lookup).await {
                Ok(None) => {}
                Ok(Some(verdict)) => return verdict,
                Err(undecided) => return Verdict::Undecided(undecided),
            }
        }
        Verdict::Absent
    }
}

impl Default for DiditReconcile {
    fn default() -> Self {
        Self::new()
    }
}

impl Reconcile for DiditReconcile {
    fn reconcile<'a>(&'a self, doubt: &'a Doubt, lookup: &'a mut dyn Lookup) -> LookupFuture<'a, Verdict> {
        Box::pin(self.decide(doubt, lookup))
    }
}

/// By what a session would be recognised.
struct Wanted {
    workflow_id: Option<String>,
    vendor_data: String,
    operation_id: Option<String>,
}

impl Wanted {
    /// `None` if the request names nothing that a session can be found by.
    fn read(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Request {
            workflow_id: Option<String>,
            vendor_data: Option<String>,
            metadata: Option<Value>,
        }

        let request: Request = serde_json::from_slice(body).ok()?;
        Some(Self {
            workflow_id: request.workflow_id,
            vendor_data: request.vendor_data.filter(|vendor_data| !vendor_data.is_empty())?,
            operation_id: request.metadata.as_ref().and_then(operation_id),
        })
    }

    /// One look; `None` if nothing shows.
    async fn look(
        &self,
        since: Timestamp,
        now: Timestamp,
        lookup: &mut dyn Lookup,
    ) -> Result<Option<Verdict>, Undecided> {
        let mut list = ListSessions::default();
        list.session_kind = Some(SessionKind::All);
        list.limit = Some(PAGE);
        list.vendor_data = Some(self.vendor_data.clone());
        list.workflow_id.clone_from(&self.workflow_id);
        let response = get(lookup, &format!("/v3/sessions/?{}", list.to_query())).await?;
        let server_now = date(&response).unwrap_or(now);
        let oldest = now.since(since) + DATE_GRAIN;
        let page: SessionPage = serde_json::from_slice(response.body()).map_err(|_| Undecided::LookupFailed)?;
        let is_candidate = |row: &SessionRow| {
            // A session that does not say when it was made may have been made since.
            let made = row.created_at.as_deref().and_then(created_at::parse);
            made.is_none_or(|made| server_now.since(made) <= oldest)
        };
        let (since, older): (Vec<_>, Vec<_>) = page.results.into_iter().partition(is_candidate);
        match (&self.operation_id, since.as_slice()) {
            (Some(operation), _) => self.ask_each(operation, &since, &older, lookup).await,
            (None, []) => Ok(None),
            (None, [row]) => Ok(Some(self.adopt(row, None))),
            (None, rows) => Err(Undecided::Several { candidates: rows.len() }),
        }
    }

    /// Finds the session that carries the operation's id in its metadata.
    async fn ask_each(
        &self,
        operation: &str,
        since: &[SessionRow],
        older: &[SessionRow],
        lookup: &mut dyn Lookup,
    ) -> Result<Option<Verdict>, Undecided> {
        if since.len() > DECISIONS {
            return Err(Undecided::Several { candidates: since.len() });
        }
        for row in since.iter().chain(older.iter().take(OLDER)) {
            // What stands in a path is what was read from an answer: a UUID or nothing.
            let id = Uuid::try_parse(&row.session_id).map_err(|_| Undecided::LookupFailed)?;
            let response = get(lookup, &format!("/v3/session/{id}/decision/")).await?;
            let decision: Decision = serde_json::from_slice(response.body()).map_err(|_| Undecided::LookupFailed)?;
            if decision.metadata.as_ref().and_then(operation_id).as_deref() == Some(operation) {
                return Ok(Some(self.adopt(row, decision.metadata)));
            }
        }
        if since.is_empty() { Ok(None) } else { Err(Undecided::Renamed) }
    }

    fn adopt(&self, row: &SessionRow, metadata: Option<Value>) -> Verdict {
        let mut body = Map::new();
        let known = [
            ("session_id", Some(json!(row.session_id))),
            ("session_number", row.session_number.map(Value::from)),
            ("status", Some(json!(row.status))),
            ("vendor_data", Some(json!(self.vendor_data))),
            ("workflow_id", self.workflow_id.clone().map(Value::from)),
            ("created_at", row.created_at.clone().map(Value::from)),
            ("url", row.session_url.as_ref().map(|url| json!(url.expose()))),
            ("metadata", metadata),
        ];
        body.extend(known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        let id = Uuid::try_parse(&row.session_id).ok();
        Verdict::Found(Found::new(StatusCode::CREATED, id, Value::Object(body).to_string().into()))
    }
}

fn operation_id(metadata: &Value) -> Option<String> {
    metadata.get("operation_id").and_then(Value::as_str).map(str::to_owned)
}

async fn get(lookup: &mut dyn Lookup, target: &str) -> Result<Response<Bytes>, Undecided> {
    match lookup.get(target).await {
        Ok(response) if response.status() == StatusCode::OK => Ok(response),
        Ok(_) | Err(_) => Err(Undecided::LookupFailed),
    }
}

/// When the server says it is.
fn date(response: &Response<Bytes>) -> Option<Timestamp> {
    let date = response.headers().get(http::header::DATE)?.to_str().ok()?;
    let date = httpdate::parse_http_date(date).ok()?;
    let since_epoch = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::default().plus(since_epoch))
}
